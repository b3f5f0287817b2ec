"""Report in a notebook: an HTML table of the scores."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

from qvft.evaluation.report.table import figure, headline

if TYPE_CHECKING:
    from qvft.evaluation.report.report import Report


def report_html(report: Report) -> str:
    """Headline scores with 95 % intervals, baselines beside them, verdict and warnings below."""
    heads = ["metric", "score", "95 % interval", *(n.replace("_", " ") for n in report.baselines)]
    lines = []
    for name in headline(report.metrics) or report.metrics:
        unit, interval = report.units.get(name, ""), report.intervals.get(name)
        cells = [
            name,
            figure(report.metrics[name], unit),
            " to ".join(figure(end, unit) for end in interval) if interval else "",
            *(figure(one.get(name), unit) for one in report.baselines.values()),
        ]
        lines.append(_row(cells, "td"))
    said = [*report.verdict, *(f"warning: {warning}" for warning in report.warnings)]
    notes = "".join(f"<p>{escape(sentence)}</p>" for sentence in said)
    title = f"{report.title}: {report.n} texts"
    return (
        f"<table><caption>{escape(title)}</caption><thead>{_row(heads, 'th')}</thead>"
        f"<tbody>{''.join(lines)}</tbody></table>{notes}"
    )


def _row(cells: list[str], tag: str) -> str:
    return f"<tr>{''.join(f'<{tag}>{escape(cell)}</{tag}>' for cell in cells)}</tr>"
