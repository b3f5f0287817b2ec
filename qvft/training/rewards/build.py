"""Builds the parts of a reward phase from the recipe: functions, objective, rollouts, held-out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from qvft.data.rows import Row
from qvft.errors import RecipeError
from qvft.inference.reward_function import (
    FUNCS,
    UNTRAINED,
    RewardFactory,
    RewardFunction,
    rewards_of,
)
from qvft.inference.sample import never_sampled
from qvft.inference.sampled import Sampled
from qvft.models.base_checkpoint import BaseCheckpoint
from qvft.recipe.phases import PhasePlan
from qvft.recipe.reward import CAPTION_FUNCS
from qvft.recipe.schema import Recipe
from qvft.setup.model import Loaded
from qvft.setup.prompt_template import require_positions
from qvft.training.completions import GreedyTexts, reference_as_text
from qvft.training.objectives.build import collator_of
from qvft.training.objectives.reward import RewardObjective
from qvft.training.rewards.advantages import weighted
from qvft.training.rewards.held_out import HeldOut
from qvft.training.rewards.rollouts import Rollouts

TRIED = 4
"""Rows per kind on which the reward functions are tried before training."""


def functions_of(
    recipe: Recipe, splits: Mapping[str, Sequence[Row]], factory: RewardFactory
) -> dict[str, RewardFunction]:
    """The recipe's reward functions and metric, tried on the references of a few rows.

    Raises:
        RecipeError: a function is not there, fails, or none scores a kind of text.
    """
    reward = recipe.reward
    functions = dict(factory(reward.scored, splits["train"], reward.stop_token))
    for split, rows in splits.items():
        tried = list(_few(rows))
        found = {name: rewards_of(one, tried, UNTRAINED) for name, one in functions.items()}
        unscored = weighted(found, reward.funcs, len(tried)).isnan().tolist()
        kinds = sorted({text.row.kind for text, bad in zip(tried, unscored, strict=True) if bad})
        if kinds:
            raise RecipeError(
                f"no function scores the {kinds[0]}s of data.{split}",
                where=FUNCS,
                expected=", ".join(CAPTION_FUNCS) + " for captions; exact_match, token_f1 or "
                "vqa_accuracy for answers",
                do=f"add one, or set data.{split}.texts",
            )
        if reward.metric is not None and all(one is None for one in found[reward.metric]):
            raise RecipeError(
                f"{reward.metric} scores no text of data.{split}", where="reward.metric"
            )
    return functions


def _few(rows: Sequence[Row]) -> Iterator[Sampled]:
    """The first reference of a few rows of each kind, as a sample."""
    seen: Counter[str] = Counter()
    for number, row in enumerate(rows):
        seen[row.kind] += 1
        if seen[row.kind] <= TRIED:
            yield reference_as_text(number, row)


def max_new_tokens(recipe: Recipe) -> dict[str, int]:
    """Longest sample by kind of row."""
    given = recipe.reward.max_completion_length
    return {
        "caption": given or recipe.eval.caption.max_new_tokens,
        "question": given or recipe.eval.answer.max_new_tokens,
    }


def require_sample_positions(recipe: Recipe, base: BaseCheckpoint) -> None:
    """Raises RecipeError unless the longest sample fits the decoder's positions."""
    given = recipe.reward.max_completion_length
    where = "reward.max_completion_length" if given else "eval: max_new_tokens"
    require_positions(recipe, base, max(max_new_tokens(recipe).values()), where=where)


def reward_objective(loaded: Loaded, recipe: Recipe) -> RewardObjective:
    """The objective of a reward phase."""
    return RewardObjective(
        loaded.model,
        recipe.reward,
        max_length=max(max_new_tokens(recipe).values()),
        never=never_sampled(loaded.template),
    )


def rollouts_of(
    loaded: Loaded, recipe: Recipe, plan: PhasePlan, functions: Mapping[str, RewardFunction]
) -> Rollouts:
    """The rollouts of a reward phase; the KL divergence is measured from the weights now."""
    return Rollouts(
        loaded.model,
        collator_of(loaded, packing=plan.train.packing),
        functions,
        recipe.reward,
        max_new_tokens=max_new_tokens(recipe),
        seed=recipe.run.seed,
    )


def held_out_of(loaded: Loaded, recipe: Recipe, functions: Mapping[str, RewardFunction]) -> HeldOut:
    """The held-out metric of a reward phase."""
    greedy = GreedyTexts(
        loaded.model, loaded.collator, max_new_tokens(recipe), recipe.eval.batch_size
    )
    return HeldOut(greedy, functions, recipe.reward.funcs, recipe.reward.metric)
