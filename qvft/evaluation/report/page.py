"""Writes a report: `report.json` and a self-contained `report.html`."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from qvft.errors import ImageError
from qvft.evaluation.breakdowns import item_values
from qvft.evaluation.comparison import ChangedItem, Comparison
from qvft.evaluation.metric_table import known_scores
from qvft.evaluation.report.confusion import confusions
from qvft.evaluation.report.grid import choose_items
from qvft.evaluation.report.loss_chart import loss_chart
from qvft.evaluation.report.phases import phase_lines
from qvft.evaluation.report.preference_and_reward import preference_section, reward_section
from qvft.evaluation.report.progress_page import page_environment
from qvft.evaluation.report.report import Report
from qvft.evaluation.report.table import column_names, signed
from qvft.evaluation.rows import PredictionRow
from qvft.evaluation.scoring import main_metric, main_score, main_scores
from qvft.files import write_text
from qvft.json_files import write_json

THUMBNAIL_PIXELS = 160
_JPEG_QUALITY = 82

_BASELINE_NAMES = {
    "base": "base model",
    "most_frequent_answer": "most frequent answer",
    "blind": "blind (images shuffled)",
}
_MOST_HEADLINES = 4
_CLOSED_AND_OPEN = ("closed_accuracy", "open_token_recall")


def write_report(
    folder: Path,
    report: Report,
    rows: Sequence[PredictionRow],
    per_item: Sequence[Mapping[str, float | str]],
    *,
    image_for: Callable[[str], Image.Image] | None = None,
    grid: int = 24,
) -> None:
    """Writes `report.json` and `report.html` into `folder`.

    Args:
        image_for: decodes an image by name; None: no images. Called only for the items of the grid;
            may raise `ImageError`.
        grid: maximum number of items: lowest scores, unparseable answers, items that changed
            against the other run, and a spread of all.
    """
    write_json(folder / "report.json", report.to_json())
    page = _page(report, rows, per_item, image_for=image_for, grid=grid)
    write_text(folder / "report.html", page)


def _page(
    report: Report,
    rows: Sequence[PredictionRow],
    per_item: Sequence[Mapping[str, float | str]],
    *,
    image_for: Callable[[str], Image.Image] | None,
    grid: int,
) -> str:
    """The page, with styles, script and pictures inside; all text is escaped."""
    environment = page_environment()
    environment.filters["number"] = format_number
    environment.filters["value"] = format_value
    environment.filters["label"] = label
    environment.filters["label_setting"] = lambda path: path.replace("_", " ").replace(".", ": ")
    environment.filters["signed"] = signed
    environment.globals["extra_means"] = extra_means
    changed = {item.id: item for item in report.against.changed} if report.against else {}
    shown = choose_items(
        rows, per_item, grid, {i for i, row in enumerate(rows) if row.id in changed}
    )
    page = environment.get_template("report.html.j2").render(
        report=report,
        headlines=_headlines(report),
        scores=[_score_line(report, name) for name in report.metrics],
        baseline_names={name: _BASELINE_NAMES.get(name, name) for name in report.baselines},
        phases=phase_lines(report.phases),
        confusions=confusions(rows),
        loss=loss_chart(report.loss_curve, report.phases),
        preference=preference_section(report.preference_curve, report.phases),
        reward=reward_section(report.reward_curve, report.phases),
        against=report.against and _compared(report, report.against),
        retention={name: _compared(report, found) for name, found in report.retention.items()},
        cards=[
            _card(index, rows[index], per_item[index], changed.get(rows[index].id), image_for)
            for index in shown
        ],
        total=len(rows),
        provenance=_provenance(report),
    )
    return page.encode(errors="replace").decode()  # half of a surrogate pair, in a file's name


def label(name: str) -> str:
    """A metric's or key's name as people write it."""
    score = known_scores().get(name)
    return (score and score.label) or name.replace("_", " ")


def extra_means(entries: Sequence[Mapping[str, Any]]) -> list[str]:
    """The means shown beside the exact match: main scores that differ from it somewhere, and
    closed and open scores where a value has both (not beside CIDEr, where kinds are compared)."""
    names = [
        name
        for name in main_scores()
        if name != "exact_match"
        and any(name in e and abs(e[name] - e["exact_match"]) > 0.05 for e in entries)
    ]
    both = any(all(name in e for name in _CLOSED_AND_OPEN) for e in entries)
    return [*names, *_CLOSED_AND_OPEN] if both and "CIDEr" not in names else names


def _headlines(report: Report) -> list[str]:
    ranks = {name: score.page for name, score in known_scores().items() if score.page is not None}
    found = sorted((name for name in report.metrics if name in ranks), key=ranks.__getitem__)
    telling = [name for name in found if name not in ("exact_match", "caption_exact_match")]
    return (telling or found)[:_MOST_HEADLINES]


def format_number(value: Any, unit: str = "") -> str:
    """A value as its scale wants it: percent to 0.1, other scales to 0.001, counts whole."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return str(value)
    if unit == "percent":
        return f"{value:.1f}"
    if unit or not float(value).is_integer():
        return f"{value:.3f}" if abs(value) < 100 else f"{value:.1f}"
    return f"{int(value):,}".replace(",", "\u2009")


def format_value(value: Any) -> str:
    """A setting as text: nested mappings and lists in one line."""
    if isinstance(value, Mapping):
        return ", ".join(f"{key}: {format_value(inner)}" for key, inner in value.items())
    if isinstance(value, (list, tuple)):
        return ", ".join(map(format_value, value))
    return "\u2013" if value is None else str(value)


def _score_line(report: Report, name: str) -> dict[str, Any]:
    """A row of the score table; positions are in percent of the strip's width."""
    unit = report.units.get(name, "")
    value, interval = report.metrics[name], report.intervals.get(name)
    others = {b: values[name] for b, values in report.baselines.items() if name in values}
    seen = [value, *(interval or ()), *others.values()]
    top = {"percent": 100.0, "0..1": 1.0}.get(unit) or max(1.0, math.ceil(max(seen) * 2) / 2)
    place = {key: 100 * min(max(other / top, 0), 1) for key, other in others.items()}
    return {
        "name": name,
        "unit": unit,
        "value": value,
        "interval": interval,
        "others": others,
        "at": 100 * min(max(value / top, 0), 1),
        "band": interval and [100 * min(max(end / top, 0), 1) for end in interval],
        "places": place,
        "top": top,
    }


def _card(
    index: int,
    row: PredictionRow,
    scores: Mapping[str, float | str],
    change: ChangedItem | None,
    image_for: Callable[[str], Image.Image] | None,
) -> dict[str, Any]:
    picture, problem = None, None
    if image_for is not None:
        try:
            picture = thumbnail(image_for(row.image))
        except (ImageError, OSError):
            problem = "the image could not be read"
    metric = main_metric(scores)
    return {
        "index": index,
        "row": row,
        "references": list(dict.fromkeys(row.references)),
        "main": main_score(scores),
        # A short caption that equals its reference has a CIDEr below 10.
        "right": main_score(scores) >= 0.999 or scores.get("caption_exact_match") == 1,
        "scores": {} if metric is None else {metric: scores[metric]},
        "parsed": scores.get("parsed", ""),
        "picture": picture,
        "problem": problem,
        "change": change,
        "values": {key: list(values) for key, values in item_values(row).items()},
    }


def _compared(report: Report, found: Comparison) -> dict[str, Any]:
    """A comparison with the lines of its table."""
    names = column_names(report.model.name or "this model", found.name)
    return {
        "comparison": found,
        "here": names[0],
        "there": names[1],
        "lines": [_difference_line(found, name) for name in found.metrics],
    }


def _difference_line(comparison: Comparison, name: str) -> dict[str, Any]:
    """A row of the comparison's table; the strip's middle is 0, its ends 1.1 of the largest end."""
    metric, unit = comparison.metrics[name], comparison.units.get(name, "")
    ends = metric.interval or (metric.difference, metric.difference)
    # One scale for a unit, so that strips of a unit can be compared by eye.
    reach = 1.1 * max(
        abs(end)
        for other, values in comparison.metrics.items()
        if comparison.units.get(other, "") == unit
        for end in (values.difference, *(values.interval or ()))
    )
    at = [50 + 50 * value / (reach or 1.0) for value in (metric.difference, *ends)]
    gain = -metric.difference if metric.lower_is_better else metric.difference
    verdict = {None: "one image", False: "no clear difference"}.get(metric.excludes_zero)
    return {
        "name": name,
        "unit": unit,
        "metric": metric,
        "at": at[0],
        "band": (at[1], at[2]) if metric.interval else None,
        "verdict": verdict or ("better" if gain > 0 else "worse"),
        "reach": reach,
    }


def _provenance(report: Report) -> list[tuple[str, dict[str, Any]]]:
    """Title and content of each panel on where the figures come from, without what is not known."""
    decode, model = report.decode.model_dump(), report.model.model_dump()
    for kind, text in decode.pop("prompt").items():
        if isinstance(text, str):
            decode[f"{kind}_prompt"] = text.replace("\n", "\\n") or "(none)"
        else:
            decode[kind] = text  # chat_template
    model["adapter_sha256"] = "\n".join(
        f"{file} {value}" for file, value in report.model.adapter_sha256.items()
    )
    model["started_from"] = "\n".join(
        f"{name} {value}" for name, value in report.model.started_from.items()
    )
    panels: list[tuple[str, dict[str, Any]]] = [
        ("Decoding", decode),
        ("Model", model),
        ("Data", report.data.model_dump()),
        ("Counts", dict(report.counts)),
        ("Versions", dict(report.versions)),
    ]
    known = [
        (title, {key: value for key, value in content.items() if value not in (None, {}, "", [])})
        for title, content in panels
    ]
    return [(title, content) for title, content in known if content]


def thumbnail(image: Image.Image) -> str:
    """A `data:` address of the image as JPEG, its longer side at most 160 pixels."""
    small = image.convert("RGB")
    small.thumbnail((THUMBNAIL_PIXELS, THUMBNAIL_PIXELS))
    stream = io.BytesIO()
    small.save(stream, "JPEG", quality=_JPEG_QUALITY)
    return "data:image/jpeg;base64," + base64.b64encode(stream.getvalue()).decode("ascii")
