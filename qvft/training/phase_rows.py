"""Rows of each phase: texts (language), pairs (preference), prompts with references (reward)."""

from __future__ import annotations

from collections.abc import Sequence

from qvft.data.rows import Row, evaluation_rows, preference_rows, training_rows
from qvft.errors import RecipeError
from qvft.recipe.phases import PhasePlan
from qvft.setup.data import Split

PREFERENCE, REWARD = "preference", "reward"


def is_reward(plan: PhasePlan) -> bool:
    """Whether a phase learns from rewards of its own samples."""
    return plan.phase.objective == REWARD


def phase_rows(plan: PhasePlan, split: Split | None, *, training: bool) -> list[Row]:
    """Rows of a split that a phase uses; none without a split.

    A preference phase is evaluated on the split's pairs, if it has any. The rows of a reward phase
    have all their references.
    """
    if split is None:
        return []
    texts = split.source.texts
    if plan.phase.objective == PREFERENCE:
        pairs = preference_rows(split.samples, texts=texts)
        if pairs or training:
            return pairs
    expand = training_rows if training and not is_reward(plan) else evaluation_rows
    return expand(split.samples, texts=texts)


def is_pairs(rows: Sequence[Row]) -> bool:
    """Whether rows are pairs of a chosen and a rejected text; a phase's are all or none."""
    return bool(rows) and rows[0].rejected is not None


def different_rows(plans: Sequence[PhasePlan], split: Split, *, training: bool) -> list[list[Row]]:
    """`phase_rows` of the phases, once for each objective."""
    first = {plan.phase.objective: plan for plan in reversed(plans)}
    objectives = dict.fromkeys(plan.phase.objective for plan in plans)
    return [phase_rows(first[name], split, training=training) for name in objectives]


def require_rows(plans: Sequence[PhasePlan], split: Split, *, training: bool) -> None:
    """Raises RecipeError if a phase has no rows to train on, or to evaluate."""
    which, purpose = ("train", "train") if training else ("eval", "evaluate")
    for plan in plans:
        if phase_rows(plan, split, training=training):
            continue
        texts, has_pairs = split.source.texts, bool(preference_rows(split.samples))
        if training and plan.phase.objective == PREFERENCE:
            if has_pairs:
                raise RecipeError(
                    f"is {texts}, of which the data has no pair",
                    where=f"data.{which}.texts",
                    do="set it to all, or to the kind that the pairs are",
                )
            raise RecipeError(
                "holds no pair of a chosen and a rejected text",
                where=f"data.{which}",
                expected=f"pairs, from which phase {plan.phase.name} learns",
                do='add `"pairs": [{"question": ..., "chosen": ..., "rejected": ...}]` to its '
                "lines (docs/preference.md), or make them with qvft.pairs",
            )
        only = has_pairs and "it has pairs only, from which phases with objective: preference learn"
        raise RecipeError(f"holds no text to {purpose} on", where=f"data.{which}", do=only or None)
