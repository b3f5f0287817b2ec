"""From a recipe's data to what a check says about it before anything is trained."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from qvft.assembly.data import Split, inspect_split
from qvft.checking.findings import LeftOut, Quality, SplitFindings, TextShown
from qvft.data.prompt import PromptTemplate
from qvft.data.quality import distributions, spelling
from qvft.data.quality.contradictions import asked_before, repeats
from qvft.data.quality.duplicates import Duplicates, content_of_sample, duplicates
from qvft.data.quality.texts import Text, normal, texts_of
from qvft.data.rows import Row, evaluation_rows, training_rows
from qvft.data.token_stats import TokenStats, shown_rows, token_stats
from qvft.errors import RecipeError
from qvft.recipe.schema import Recipe

EXAMPLES = 3
LISTED = 3
CUT_SHARE = 0.01
"""Warned about where more rows lose something: a few are what the limit is there for."""


@dataclass(frozen=True)
class Side:
    """A split, its rows as they are used, and what they come to in tokens."""

    which: str
    split: Split
    rows: list[Row]
    stats: TokenStats

    @property
    def texts(self) -> list[Text]:
        """Its texts as training would supervise them."""
        return list(texts_of(self.split.samples, texts=self.split.source.texts))


@dataclass(frozen=True)
class DataFound:
    """What the data part of a check gives."""

    train: SplitFindings
    eval: SplitFindings | None
    shown: tuple[TextShown, ...]
    warnings: tuple[str, ...]
    notes: tuple[str, ...]


def read_sides(recipe: Recipe, template: PromptTemplate) -> list[Side]:
    """The training data and, where the recipe has any, the evaluation data.

    Raises:
        RecipeError, DataError: as `inspect_split`, or a split holds no text.
    """
    sides = []
    for which in ("train", "eval") if recipe.data.eval else ("train",):
        split = inspect_split(recipe, which)
        expand = training_rows if which == "train" else evaluation_rows
        rows = expand(split.samples, texts=split.source.texts)
        if not rows:
            purpose = "train" if which == "train" else "evaluate"
            raise RecipeError(f"holds no text to {purpose} on", where=f"data.{which}")
        sides.append(Side(which, split, rows, token_stats(rows, template)))
    return sides


def data_found(sides: Sequence[Side], template: PromptTemplate) -> DataFound:
    """Everything that can be said of the splits."""
    samples = {side.which: side.split.samples for side in sides}
    looks = {name: one for side in sides for name, one in side.split.looks.items()}
    copies = duplicates(samples["train"], samples.get("eval"), looks)
    asked: tuple[str, ...] = ()
    if copies.overlap is not None:
        asked = asked_before(
            samples["eval"], samples["train"], lambda sample: content_of_sample(sample, looks)
        )
    known = {normal(one.text) for one in sides[0].texts if one.kind == "answer"}
    found = [_split_findings(side, template, copies, known=known, asked=asked) for side in sides]
    shown = shown_rows(sides[0].rows, template, count=EXAMPLES)
    warnings = [warning for one in found for warning in _split_warnings(one)]
    notes: list[str] = []
    if copies.overlap is None:
        warnings.append("data.eval is not set: nothing will be evaluated")
    else:
        across, notes = _overlap_says(copies, *sides)
        warnings += across
        if asked:
            warnings.append(
                f"{len(asked)} questions of {sides[1].split.name} are asked in "
                f"{sides[0].split.name} too, of the same image, first {', '.join(asked[:LISTED])}"
            )
    return DataFound(
        train=found[0],
        eval=found[1] if len(found) > 1 else None,
        shown=tuple(TextShown(**asdict(row)) for row in shown),
        warnings=tuple(warnings),
        notes=tuple(notes),
    )


def _split_findings(
    side: Side,
    template: PromptTemplate,
    copies: Duplicates,
    *,
    known: set[str],
    asked: Sequence[str],
) -> SplitFindings:
    split, stats, texts = side.split, side.stats, side.texts
    counts = spelling.token_counts(texts, template.tokenizer)
    own = side.which == "train"
    answers = distributions.answers(texts, known=None if own else known)
    overlap = None if own else copies.overlap
    said = repeats(
        split.samples,
        lambda sample: content_of_sample(sample, split.looks),
        texts=split.source.texts,
    )
    return SplitFindings(
        name=split.name,
        images=len(split.samples),
        captions=sum(len(sample.captions) for sample in split.samples),
        questions=sum(len(sample.questions) for sample in split.samples),
        rows=stats.rows,
        skipped=tuple(LeftOut(one.id, one.reason) for one in split.skipped),
        target_tokens=stats.target_tokens,
        longest=stats.longest,
        longest_id=stats.longest_id,
        cut_rows=stats.cut_rows,
        cut_tokens=stats.cut_tokens,
        sha256=split.sha256,
        quality=Quality(
            exact_duplicates=copies.exact[side.which],
            near_duplicates=tuple(asdict(pair) for pair in copies.near[side.which]),
            overlap=None if overlap is None else {**asdict(overlap), "questions": tuple(asked)},
            repeats=asdict(said),
            answers=None if answers is None else asdict(answers),
            lengths=_plain(distributions.lengths(texts, counts)),
            cut=_plain(stats.cut),
            spelling=asdict(spelling.spelling(texts, template.tokenizer, counts)),
        ),
    )


def _plain(records: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    return {name: asdict(record) for name, record in records.items()}


def _split_warnings(found: SplitFindings) -> list[str]:
    """What a user should act on, in one split."""
    quality, name = found.quality, found.name
    warnings = []
    if found.skipped:
        warnings.append(f"{name}: {len(found.skipped)} images are unusable and left out")
    if found.cut_rows > CUT_SHARE * found.rows:
        warnings.append(
            f"{name}: {found.cut_rows} rows ({found.cut_rows / found.rows:.1%}) are cut; "
            "raise data.max_text_tokens"
        )
    extra = sum(len(group) - 1 for group in quality.exact_duplicates)
    if extra:
        first = ", ".join(quality.exact_duplicates[0][:LISTED])
        warnings.append(f"{name}: {extra} images are there before, byte by byte; first {first}")
    if quality.near_duplicates:
        pair = quality.near_duplicates[0]
        warnings.append(
            f"{name}: {len(quality.near_duplicates)} pairs of images look like copies of each "
            f"other, first {pair['first']} and {pair['second']}"
        )
    opposed = quality.repeats["contradictions"]
    if opposed:
        first = "; ".join(", ".join(group) for group in opposed[:LISTED])
        warnings.append(
            f"{name}: {len(opposed)} questions are asked again about the same image and answered "
            f"otherwise, first {first}"
        )
    spelt = quality.spelling
    if spelt["lost"]:
        points = ", ".join(one["name"] for one in spelt["lost"][:LISTED])
        warnings.append(
            f"{name}: {len(spelt['lost'])} characters in {spelt['lost_rows']} rows are lost by the "
            f"tokenizer, first {points} in row {spelt['lost'][0]['first_ids'][0]}"
        )
    return warnings


def _overlap_says(copies: Duplicates, train: Side, other: Side) -> tuple[list[str], list[str]]:
    """Warnings and notes about images of the evaluation data that are in the training data."""
    overlap = copies.overlap
    assert overlap is not None
    count, name, of = len(other.split.samples), other.split.name, train.split.name
    warnings, notes = [], []
    if overlap.exact:
        first = ", ".join(overlap.exact[:LISTED])
        warnings.append(
            f"{len(overlap.exact)} of {count} images of {name} are also in {of}, first {first}"
        )
    if overlap.near:
        pairs = ", ".join(f"{one.first} like {one.second}" for one in overlap.near[:LISTED])
        near = len({one.first for one in overlap.near})
        warnings.append(
            f"{near} of {count} images of {name} are in {of} in another size, encoding or crop, "
            f"first {pairs}"
        )
    if overlap.id_only:
        first = ", ".join(overlap.id_only[:LISTED])
        notes.append(
            f"{len(overlap.id_only)} of {count} ids, of other images, of {name} are also in {of}, "
            f"first {first}"
        )
    return warnings, notes
