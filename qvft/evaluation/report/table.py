"""Tables of scores, for the terminal and for notebooks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

from rich.table import Table

from qvft.evaluation.metric_table import known_scores

if TYPE_CHECKING:
    from qvft.evaluation.report.report import Report

PERCENT = "percent"


def score_table(report: Mapping[str, Any]) -> Table:
    """Headline scores of a report with intervals, and its baselines beside."""
    table = Table(
        title=f"{report['data']['name']}: {report['n']} texts of {report['data']['images']} images",
        title_justify="left",
    )
    table.add_column("metric")
    table.add_column(report["model"]["kind"], justify="right")
    table.add_column("95 % interval", justify="right")
    for name in report["baselines"]:
        table.add_column(name.replace("_", " "), justify="right")
    for metric in headline(report["metrics"]):
        table.add_row(*_score_cells(report, metric))
    return table


def _score_cells(report: Mapping[str, Any], metric: str) -> list[str]:
    """Name, value and interval of a metric, and its baselines."""
    unit = report["units"].get(metric, "")
    return [
        metric,
        figure(report["metrics"].get(metric), unit),
        " to ".join(figure(end, unit) for end in report["intervals"].get(metric) or ()),
        *(figure(values.get(metric), unit) for values in report["baselines"].values()),
    ]


def difference_table(report: Mapping[str, Any]) -> Table:
    """Every metric of a report beside the other evaluation's, with the paired difference."""
    against = report["against"]
    names = column_names(report["model"]["name"] or "a", against["name"])
    counts = against["counts"]
    left_out = against["only_in_a"] + against["only_in_b"]
    settings = "; ".join(
        f"{item['setting']}: {item['a']} and {item['b']}" for item in against["settings"]
    )
    table = Table(
        title=f"{names[0]} minus {names[1]}, on the same {against['n']} texts"
        + (f" ({left_out} left out)" if left_out else ""),
        title_justify="left",
        caption=f"{counts['changed']} texts differ: {counts['better']} score higher, "
        f"{counts['worse']} lower; questions {counts['wrong_to_right']} wrong to right, "
        f"{counts['right_to_wrong']} right to wrong. Interval: 95 %, paired, whole images drawn."
        + (f" They were not asked alike: {settings}." if settings else ""),
        caption_justify="left",
    )
    table.add_column("metric")
    for name in (*names, "difference", "95 % interval", "without 0"):
        table.add_column(name, justify="right")
    for metric, found in against["metrics"].items():
        unit = against["units"].get(metric, "")
        table.add_row(
            metric + (" (lower is better)" if found["lower_is_better"] else ""),
            figure(found["a"], unit),
            figure(found["b"], unit),
            signed(found["difference"], unit),
            signed_ends(found["interval"], unit),
            {True: "yes", False: "no", None: ""}[found["excludes_zero"]],
        )
    return table


def column_names(a: str, b: str) -> tuple[str, str]:
    """Two evaluations' names, as short as they can be told apart."""
    short = _short(a), _short(b)
    return short if short[0] != short[1] else (a, b)


def _short(name: str) -> str:
    """The last part of a path; of RUN/eval/SPLIT the run."""
    parts = name.rstrip("/").split("/")
    if len(parts) > 2 and parts[-2].startswith("eval"):
        return parts[-3] if parts[-2] == "eval" else f"{parts[-3]}/{parts[-2]}"
    return parts[-1]


def headline(metrics: Mapping[str, float]) -> list[str]:
    """The metrics a short table shows."""
    ranks = {name: score.table for name, score in known_scores().items() if score.table is not None}
    chosen = sorted((name for name in metrics if name in ranks), key=ranks.__getitem__)
    if "closed_accuracy" in chosen or "open_exact_match" in chosen:
        chosen.remove("exact_match") if "exact_match" in chosen else None
    return chosen


def figure(value: float | None, unit: str) -> str:
    """A value in its unit: one decimal in percent, three elsewhere; a dash where there is none."""
    if value is None:
        return "–"
    return f"{value:.1f} %" if unit == PERCENT else f"{value:.3f}"


def signed(value: float, unit: str) -> str:
    """A difference with its sign, in percentage points or on the metric's scale; 0 has none."""
    text = figure(abs(value), unit).replace("%", "points")
    nothing = not any(digit in text for digit in "123456789")
    return text if nothing else ("+" if value > 0 else "\u2212") + text


def signed_ends(interval: Sequence[float] | None, unit: str) -> str:
    """The ends of a difference's interval, with the unit once; empty without an interval."""
    return " to ".join(signed(end, unit) for end in interval or ()).replace(" points", "", 1)


def report_html(report: Report) -> str:
    """Headline scores with 95 % intervals, baselines beside them, verdict and warnings below."""
    heads = ["metric", "score", "95 % interval", *(n.replace("_", " ") for n in report.baselines)]
    content = report.to_json()
    names = headline(report.metrics) or report.metrics
    lines = [_row(_score_cells(content, name), "td") for name in names]
    sentences = [*report.verdict, *(f"warning: {warning}" for warning in report.warnings)]
    notes = "".join(f"<p>{escape(sentence)}</p>" for sentence in sentences)
    title = f"{report.title}: {report.n} texts"
    return (
        f"<table><caption>{escape(title)}</caption><thead>{_row(heads, 'th')}</thead>"
        f"<tbody>{''.join(lines)}</tbody></table>{notes}"
    )


def _row(cells: list[str], tag: str) -> str:
    return f"<tr>{''.join(f'<{tag}>{escape(cell)}</{tag}>' for cell in cells)}</tr>"
