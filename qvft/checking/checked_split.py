"""Rows of a recipe's splits for the data checks, with their token statistics."""

from __future__ import annotations

from dataclasses import dataclass, replace

from qvft.data.blip_text import TextForm, cleaned
from qvft.data.prompt import PromptTemplate
from qvft.data.quality.texts import Text, texts_of, texts_of_pairs
from qvft.data.rows import Row, evaluation_rows, preference_rows, single_texts, training_rows
from qvft.data.token_stats import TokenStats, token_stats
from qvft.errors import RecipeError
from qvft.recipe.schema import Recipe
from qvft.setup.data import Split, Texts, inspect_split
from qvft.training.phase_rows import PREFERENCE


@dataclass(frozen=True)
class CheckedSplit:
    """A split with its rows, token statistics, and text cleaning; `pairs` are among the rows."""

    which: str
    split: Split
    rows: list[Row]
    stats: TokenStats
    form: TextForm = "as_written"

    @property
    def pairs(self) -> list[Row]:
        return [row for row in self.rows if row.rejected is not None]

    @property
    def cleaned_pairs(self) -> list[Row]:
        """Its pairs with their captions as training uses them."""
        return [
            row
            if row.kind == "question"
            else replace(
                row,
                target=cleaned("caption", row.target, self.form),
                rejected=cleaned("caption", row.rejected or "", self.form),
            )
            for row in self.pairs
        ]

    @property
    def texts(self) -> list[Text]:
        """Its texts as training uses them."""
        found: list[Text] = []
        if len(self.pairs) < len(self.rows):
            found += texts_of(self.split.samples, texts=self.split.source.texts)
        found += texts_of_pairs(self.pairs)
        return [
            one
            if one.kind == "answer" or self.form == "as_written"
            else replace(one, text=cleaned(one.kind, one.text, self.form))
            for one in found
        ]


def read_splits(
    recipe: Recipe, template: PromptTemplate, texts: Texts | None = None
) -> list[CheckedSplit]:
    """The training data and, if the recipe has any, the evaluation data.

    Raises RecipeError or DataError as `inspect_split`, or if a split has no text.
    """
    splits = []
    for which in ("train", "eval") if recipe.data.eval else ("train",):
        split = inspect_split(recipe, which, (texts or {}).get(which))
        rows = _rows(split, which, _objectives(recipe))
        stats = token_stats(single_texts(rows), template)
        splits.append(CheckedSplit(which, split, rows, stats, template.text))
    return splits


def _objectives(recipe: Recipe) -> set[str]:
    """Objectives of a recipe's phases."""
    return {phase.objective for phase in recipe.phases} or {"language"}


def _rows(split: Split, which: str, objectives: set[str]) -> list[Row]:
    """The rows that the phases use, pairs last; raises RecipeError if there are none."""
    texts, rows = split.source.texts, []
    if which == "eval":
        rows = evaluation_rows(split.samples, texts=texts)
    elif objectives != {PREFERENCE}:
        rows = training_rows(split.samples, texts=texts)
    pairs = preference_rows(split.samples, texts=texts)
    if PREFERENCE in objectives:
        rows += pairs
    if rows:
        return rows
    purpose = "train" if which == "train" else "evaluate"
    lacking = "pair" if objectives == {PREFERENCE} and which == "train" else "text"
    raise RecipeError(
        f"holds no {lacking} to {purpose} on",
        where=f"data.{which}",
        do="add a phase with objective: preference, which learns from its pairs"
        if pairs and which == "train"
        else None,
    )


def unused_texts(checked: CheckedSplit, recipe: Recipe) -> list[str]:
    """Notes on texts of the training data that no phase uses."""
    objectives = _objectives(recipe)
    samples, name = checked.split.samples, checked.split.name
    pairs = sum(len(sample.pairs) for sample in samples)
    if pairs and PREFERENCE not in objectives:
        return [f"{name}: no phase has objective: preference, so its pairs are not used: {pairs:,}"]
    others = sum(len(sample.captions) + len(sample.questions) for sample in samples)
    if others and objectives == {PREFERENCE}:
        return [f"{name}: pairs alone are used, not its captions and questions: {others:,}"]
    return []
