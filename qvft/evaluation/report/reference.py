"""`python -m qvft.evaluation.report.reference`: writes docs/report.md from the report's classes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args, get_origin

from qvft.evaluation.comparison import METHOD
from qvft.evaluation.evaluation_facts import Part
from qvft.evaluation.report.report import Report
from qvft.files import write_text

REFERENCE_FILE = "docs/report.md"

ROW_KEYS = {
    "id": "unique within the evaluation",
    "image": "the image's file, or its name where it has none; items of one image share it",
    "kind": "`caption` or `question`: what was asked for",
    "question": "the question; only where one was asked",
    "prediction": "what the model wrote, possibly empty",
    "references": "all human captions or answers, repetitions kept",
    "scores": "by name, the item's score on a scale of 0 to 1 (CIDEr 0 to 10); for yes/no "
    "questions also `parsed` (`yes`, `no` or `unparseable`) and `parsed_anywhere` (`yes`, `no`, "
    "`both` or `neither`), for medical ones `answer_type`",
    "meta": "what the data says about the item: answer_type, organ, modality, ...",
}
"""Keys of a row of `predictions.jsonl`, and what they hold."""

_OPENING = f"""\
# The report

Written by `python -m qvft.evaluation.report.reference` from the classes in `qvft/evaluation`.

`qvft.eval` leaves three files: `report.html` for reading (one file, nothing is loaded from
elsewhere), `report.json` with the same figures, and `predictions.jsonl` with every item.

`verdict` says in plain sentences what the figures come to: whether the model uses the image (it
scores higher with the right images than with shuffled ones), whether it beats the most frequent
training answer, and whether its query tokens have become one (`query_similarity` near 1). A
difference counts if its paired 95 % interval does not hold 0. The sentences are printed by
`qvft.eval` and stand at the top of `report.html`; `qvft.check RUN` repeats the one about query
tokens.

## How to read a comparison

```
python -m qvft.eval RUN_A --against RUN_B [key.path=value ...]
```

compares A with B item by item and writes the result as `against` into A's report.

**What B may be.** The folder of an earlier evaluation (it holds `predictions.jsonl` and
`report.json`; no model is loaded for it), a run, a merged folder, or a base. A run or model that
has no evaluation of A's data is evaluated on it, decoded and scored as A is; a run or merged folder
keeps the prompts that it was trained with. That evaluation stays in B's folder: in `eval/` where
nothing stands there yet, otherwise in `eval-against/`, since B's own report is not replaced.

**What is used again.** An evaluation of A or B that stands is used again only if the hashes of
weights, recipe, texts and images, the decoding, the prompts, the weights' type and all versions are
those that a new one would have; for A also its metrics and baselines. Otherwise the log says what
differs, and the model is asked again. Without `--against`, A is always evaluated anew.

**Which items are compared.** Those with the same id. Items that only one side has are left out,
counted and named (`only_in_a`, `left_out_a`, ...), and corpus scores are computed on the rest. If
an id means another item (image file, question, kind or references differ), the two were made on
different data: the comparison is refused with exit status 2, and the reports stay as they are.

**The direction.** `difference` is `a` minus `b`: A's figure minus B's. Above 0, A's figure is
higher; that is the better one except for `closed_unparseable` and `closed_undecided`.

**The interval.** {METHOD}
Drawing pairs takes out what both models find hard, so the interval is mostly narrower than the two
models' own intervals suggest, and two models whose intervals overlap may still differ.
`excludes_zero` says that the interval holds no 0. With a dozen metrics, one of them excludes 0 now
and then by chance: name the metric that counts beforehand. The interval speaks of other images of
the same kind; it knows nothing of other seeds of training.

**The items.** `changed` lists each item with different texts, both texts and both scores. `better`
means that A's score is higher. `wrong_to_right` counts questions that B has wrong and A has right
(a score of 1). In `report.html` the filters *Changed*, *Better* and *Worse* show them.

**Settings.** `settings` lists where the two were not asked alike: decoding, prompts, data, weights'
type, versions. Differences between the models themselves (base, adapter, recipe) are not listed.

## Breakdowns

A breakdown has an entry for each value of what the data says about its items, most frequent first:
by answer type, organ, modality, location, question type, by the question itself where there are
few. An item with several values counts once under each: a VQA-RAD question of type `PRES, ABN`
counts as `PRES` and as `ABN`, so the `n` of its breakdown sum to more than the questions. In
`report.html` a click on a value shows its items.

## `predictions.jsonl`

A line an item, in the order of the data.
"""


def reference_text() -> str:
    """The reference in Markdown: a table for each class of `report.json`, the report first."""
    lines = ["| key | what it holds |", "|---|---|"]
    lines += [f"| `{key}` | {text} |" for key, text in ROW_KEYS.items()]
    parts = [_OPENING, "\n".join(lines) + "\n"]
    for path, part in _parts(Report, ""):
        title = f"## `{path}`" if path else "## `report.json`"
        described = part.model_json_schema()
        rows = ["| key | type | what it holds |", "|---|---|---|"]
        rows += [
            f"| `{key}` | {_type(described['properties'][key])} | {field.description} |"
            for key, field in part.model_fields.items()
        ]
        parts.append("\n".join([title, "", (part.__doc__ or "").strip(), "", *rows]) + "\n")
    return "\n".join(parts)


def write_reference(root: Path) -> Path:
    """Writes the file below the repository's `root` and returns its path."""
    write_text(root / REFERENCE_FILE, reference_text())
    return root / REFERENCE_FILE


def _parts(part: type[Part], path: str) -> Iterator[tuple[str, type[Part]]]:
    """Pairs (key path, class), a class before those inside it."""
    yield path, part
    for key, field in part.model_fields.items():
        own = f"{path}.{key}" if path else key
        for inner, mark in _inner(field.annotation, ""):
            yield from _parts(inner, own + mark)


def _inner(annotation: Any, mark: str) -> Iterator[tuple[type[Part], str]]:
    """Classes in an annotation, with `[]` behind the key for lists and `.NAME` for mappings."""
    if isinstance(annotation, type) and issubclass(annotation, Part):
        yield annotation, mark
    marks: dict[Any, str] = {list: "[]", dict: ".NAME"}
    inner = marks.get(get_origin(annotation), mark)
    for option in get_args(annotation):
        yield from _inner(option, inner)


def _type(described: dict[str, Any]) -> str:
    if "anyOf" in described:
        return " or ".join(_type(option) for option in described["anyOf"])
    if "$ref" in described:
        return "object"
    if "enum" in described:
        return ", ".join(f"`{value}`" for value in described["enum"])
    kind = described.get("type", "any")
    if kind == "array":
        if "prefixItems" in described:
            return f"{len(described['prefixItems'])} numbers"
        return f"list of {_type(described['items'])}s"
    if kind == "object":
        inner = described.get("additionalProperties")
        return f"mapping to {_type(inner)}" if isinstance(inner, dict) and inner else "mapping"
    return str(kind)


if __name__ == "__main__":
    write_reference(Path(__file__).parents[3])
