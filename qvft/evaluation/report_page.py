"""`report.html` from a report: what the template is given, and its rendering."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from PIL import Image

from qvft.errors import ImageError
from qvft.evaluation.loss_chart import loss_chart
from qvft.evaluation.rows import PredictionRow

if TYPE_CHECKING:
    from qvft.evaluation.report import Report

THUMBNAIL_PIXELS = 160
_JPEG_QUALITY = 82

# The score that orders the grid: the first of these that an item has, over its highest value.
_MAIN_SCORES = {
    "accuracy": 1, "vqa_accuracy_2017": 1, "vqa_accuracy_2021": 1, "exact_match": 1, "CIDEr": 10,
}  # fmt: skip
_BASELINE_NAMES = {
    "base": "base model",
    "most_frequent_answer": "most frequent answer",
    "blind": "blind (images shuffled)",
}
_HEADLINES = (
    "accuracy", "closed_accuracy", "open_exact_match", "vqa_accuracy_2017", "vqa_accuracy_2021",
    "CIDEr", "Bleu_4", "ROUGE_L", "exact_match", "caption_exact_match",
)  # fmt: skip
_MOST_HEADLINES = 4
# Scores written on an item's card: those of the first line of which it has any.
_CARD_SCORES = (
    ("vqa_accuracy_2017", "vqa_accuracy_2021"),
    ("closed_accuracy", "open_token_f1"),
    ("CIDEr", "ROUGE_L"),
    ("exact_match",),
)
_LABELS = {f"Bleu_{n}": f"BLEU-{n}" for n in range(1, 5)} | {
    "ROUGE_L": "ROUGE-L", "open_bleu_1": "open BLEU-1", "open_token_f1": "open token F1",
    "vqa_accuracy_2017": "VQA accuracy (2017)", "vqa_accuracy_2021": "VQA accuracy (2021)",
    "closed_accuracy_llava_med": "closed accuracy (LLaVA-Med)",
}  # fmt: skip


def render_page(
    report: Report,
    rows: Sequence[PredictionRow],
    per_item: Sequence[Mapping[str, float | str]],
    *,
    image_for: Callable[[str], Image.Image] | None,
    grid: int,
) -> str:
    """The whole page, with styles, script and pictures inside; all text is escaped."""
    environment = Environment(
        loader=PackageLoader("qvft.evaluation", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["number"] = format_number
    environment.filters["value"] = format_value
    environment.filters["label"] = label
    environment.globals["extra_means"] = extra_means
    shown = choose_items(rows, per_item, grid)
    return environment.get_template("report.html.j2").render(
        report=report,
        headlines=_headlines(report),
        scores=[_score_line(report, name) for name in report.metrics],
        baseline_names={name: _BASELINE_NAMES.get(name, name) for name in report.baselines},
        chart=Markup(loss_chart(report.loss_curve)) if report.loss_curve else None,
        cards=[_card(index, rows[index], per_item[index], image_for) for index in shown],
        total=len(rows),
    )


def choose_items(
    rows: Sequence[PredictionRow], per_item: Sequence[Mapping[str, float | str]], grid: int
) -> list[int]:
    """Indices of at most `grid` items, ascending; captions and questions get equal parts.

    Of each part a third are the lowest scores, a sixth unparseable answers (where there are any),
    and the rest an even spread.
    """
    if len(rows) <= grid:
        return list(range(len(rows)))
    kinds = dict.fromkeys(row.kind for row in rows)
    chosen: list[int] = []
    for kind in kinds:
        pool = [i for i, row in enumerate(rows) if row.kind == kind]
        chosen += _choose(pool, per_item, grid // len(kinds))
    return sorted(chosen)


def _choose(
    pool: Sequence[int], per_item: Sequence[Mapping[str, float | str]], part: int
) -> list[int]:
    worst = sorted(pool, key=lambda i: (main_score(per_item[i]), i))[: part // 3]
    unparseable = [i for i in pool if per_item[i].get("parsed") == "unparseable"]
    special = dict.fromkeys([*worst, *unparseable[: part // 6]])
    rest = [i for i in pool if i not in special]
    room = min(part - len(special), len(rest))
    return [*special, *(rest[k * len(rest) // room] for k in range(room))]


def main_score(scores: Mapping[str, float | str]) -> float:
    """The item's most telling score, from 0 to 1; 0 if it has none."""
    name = next((name for name in _MAIN_SCORES if name in scores), None)
    return 0.0 if name is None else float(scores[name]) / _MAIN_SCORES[name]


def label(name: str) -> str:
    """A metric's or key's name as people write it."""
    return _LABELS.get(name, name.replace("_", " "))


def extra_means(entries: Sequence[Mapping[str, Any]]) -> list[str]:
    """The means that a breakdown has beside the exact match and that differ from it somewhere."""
    names = [name for name in _MAIN_SCORES if name != "exact_match"]
    return [
        name
        for name in names
        if any(name in e and abs(e[name] - e["exact_match"]) > 0.05 for e in entries)
    ]


def _headlines(report: Report) -> list[str]:
    found = [name for name in _HEADLINES if name in report.metrics]
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
    image_for: Callable[[str], Image.Image] | None,
) -> dict[str, Any]:
    picture, problem = None, None
    if image_for is not None:
        try:
            picture = thumbnail(image_for(row.image))
        except (ImageError, OSError):
            problem = "the image could not be read"
    lines = ({name: scores[name] for name in line if name in scores} for line in _CARD_SCORES)
    return {
        "index": index,
        "row": row,
        "references": list(dict.fromkeys(row.references)),
        "main": main_score(scores),
        "scores": next((found for found in lines if found), {}),
        "parsed": scores.get("parsed", ""),
        "picture": picture,
        "problem": problem,
    }


def thumbnail(image: Image.Image) -> str:
    """A `data:` address of the image as JPEG, its longer side at most 160 pixels."""
    small = image.convert("RGB")
    small.thumbnail((THUMBNAIL_PIXELS, THUMBNAIL_PIXELS))
    stream = io.BytesIO()
    small.save(stream, "JPEG", quality=_JPEG_QUALITY)
    return "data:image/jpeg;base64," + base64.b64encode(stream.getvalue()).decode("ascii")
