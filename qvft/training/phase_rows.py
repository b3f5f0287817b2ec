"""Rows of each phase: texts (language), pairs (preference), prompts with references (reward); and
the bounded sample of its evaluations (`train.eval_limit`).
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence

from qvft.data.rows import Row, evaluation_rows, preference_rows, training_rows
from qvft.errors import RecipeError
from qvft.recipe.phases import PhasePlan
from qvft.setup.data import Split

PREFERENCE, REWARD = "preference", "reward"
LEAST = 256
"""Fewest texts of the default limit: of 256 answers, half of them right, the 95 % interval is 6
points wide on either side."""


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


def default_limit(texts_between: float) -> int:
    """Half of the texts that are trained between two evaluations.

    A text takes about a third of its time in training, where it also goes backward; so an
    evaluation takes about a sixth of the time.
    """
    return max(LEAST, int(texts_between / 2))


def watched_rows(rows: Sequence[Row], limit: int, seed: int) -> list[Row]:
    """At most `limit` rows (0: all), those of whole images in an order drawn with `seed`; as they
    are ordered in `rows`. The first rows if no image has few enough.
    """
    if not limit or len(rows) <= limit:
        return list(rows)
    counts = Counter(row.sample.id for row in rows)
    chosen: set[str] = set()
    for image in random.Random(seed).sample(list(counts), len(counts)):
        if counts[image] <= limit:
            chosen.add(image)
            limit -= counts[image]
    return [row for row in rows if row.sample.id in chosen] or list(rows[:limit])
