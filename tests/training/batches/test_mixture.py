"""Mixtures of training sources: quotas, which rows an epoch has, batches by tokens."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
from PIL import Image

from qvft.data.rows import Row, training_rows
from qvft.data.sample import ImageInMemory, Origin, Sample
from qvft.data.token_stats import RowTokens
from qvft.errors import RecipeError
from qvft.recipe.load import parse_recipe
from qvft.recipe.schema import Recipe
from qvft.setup.mixing import quotas_of, source_shares
from qvft.training.batches.mixture import Mixture, mixture_of
from qvft.training.batches.sampler import GroupedSampler
from qvft.training.batches.token_budget_sampler import TokenBatchSampler


def recipe(*weights: float | None, **data: Any) -> Recipe:
    sources = [
        {"path": f"{name}.jsonl", "weight": weight}
        for name, weight in zip("abcd", weights, strict=False)
    ]
    return parse_recipe(
        {"name": "x", "model": {"id": "m"}, "data": {"train": sources, **data}, "run": {"seed": 3}}
    )


@pytest.mark.parametrize(
    ("given", "sizes", "quotas"),
    [
        (recipe(None, None), (900, 400), (900, 400)),
        (recipe(0.9, 0.1), (900, 4000), (900, 100)),
        (recipe(9, 1), (9000, 40), (360, 40)),
        (recipe(9, 1, stopping_strategy="all_exhausted"), (9000, 40), (9000, 1000)),
        # Square roots of the sizes are 30 and 10: an epoch is 100 * 4 texts, or 900 * 4 / 3.
        (recipe(None, None, mixing_temperature=2.0), (900, 100), (300, 100)),
        (
            recipe(None, None, mixing_temperature=2.0, stopping_strategy="all_exhausted"),
            (900, 100),
            (900, 300),
        ),
        (recipe(None, None, mixing_temperature=1.0), (900, 100), (900, 100)),
        # Three thirds of 100: the remainder goes to one of them.
        (recipe(1, 1, 1), (34, 33, 33), (33, 33, 33)),
    ],
)
def test_quotas_of_an_epoch(given: Recipe, sizes: tuple[int, ...], quotas: tuple[int, ...]) -> None:
    names = "abcd"[: len(sizes)]
    found = quotas_of(given, dict(zip(names, sizes, strict=True)))
    assert tuple(found[name] for name in names) == quotas


def test_a_weight_that_gives_no_text_is_refused_by_its_key() -> None:
    with pytest.raises(RecipeError, match=r"data\.train\.1\.weight"):
        quotas_of(recipe(1.0, 0.001), {"a": 100, "b": 5000})


def rows(**images: int) -> list[Row]:
    """Images of one to three captions by source."""
    picture = Image.new("RGB", (4, 4))
    samples = [
        Sample(
            f"{name}/{index}",
            ImageInMemory(picture, f"{name}{index}"),
            tuple(f"{name} {index} {text}" for text in range(1 + index % 3)),
            origin=Origin(name),
        )
        for name, count in images.items()
        for index in range(count)
    ]
    return training_rows(samples)


def epoch_of(order: GroupedSampler, epoch: int) -> list[int]:
    order.set_epoch(epoch)
    return list(order)


def test_no_text_comes_again_before_all_of_its_source_have_come() -> None:
    texts = rows(a=6, b=30)  # 12 and 60 texts
    found = mixture_of(recipe(0.5, 0.5), texts)
    assert found is not None and len(found) == 24
    order = GroupedSampler([row.sample.id for row in texts], group_size=2, seed=1, mixture=found)
    assert len(order) == 24
    seen: Counter[str] = Counter()
    for epoch in range(5):
        epoch_rows = epoch_of(order, epoch)
        assert epoch_rows == epoch_of(order, epoch)
        names = [texts[row].id for row in epoch_rows]
        assert sum(name.startswith("a/") for name in names) == 12
        seen.update(names)
    # 60 texts of each in five epochs: those of `a` five times, those of `b` once.
    assert {name[0]: count for name, count in seen.items()} == {"a": 5, "b": 1}
    assert set(seen.values()) == {5, 1} and len(seen) == 72
    assert epoch_of(order, 0) != epoch_of(order, 1)


def test_texts_that_come_twice_in_an_epoch_are_groups_of_their_own() -> None:
    texts = rows(a=4, b=1)  # 7 texts and 1
    found = Mixture(texts, {"a": 7, "b": 3}, seed=0)
    images = found.images(0)
    again = [place for place, row in enumerate(images.rows) if texts[row].id.startswith("b/")]
    assert len(again) == 3
    assert sorted(images.counts.tolist()) == [1, 1, 1, 1, 1, 2, 3]


def test_batches_by_tokens_hold_in_every_epoch_and_are_equally_many() -> None:
    texts = rows(a=9, b=90)
    found = mixture_of(recipe(0.5, 0.5), texts)
    assert found is not None
    numbers = np.random.default_rng(0)
    labels = numbers.integers(2, 30, len(texts))
    tokens = RowTokens(5, labels + 3, labels)
    made = TokenBatchSampler(
        [row.sample.id for row in texts],
        tokens,
        budget=90,
        group_size=2,
        processes=2,
        accumulation=1,
        seed=0,
        mixture=found,
        epochs=lambda count: 8,
    )
    assert made.rows == len(found) == 36
    for epoch in range(8):
        made.set_epoch(epoch)
        batches = list(made)
        assert len(batches) == len(made) and len(made) % 2 == 0
        assert sum(map(len, batches)) == 36
        for batch in batches:
            assert batch
            shared = 5 * len({texts[row].sample.id for row in batch})
            assert shared + tokens.own[batch].sum() <= 90


def test_shares_name_images_and_texts() -> None:
    found = source_shares(recipe(0.75, 0.25), rows(a=3, b=9))
    assert found == [
        {"name": "a", "images": 3, "texts": 6, "share": 0.75, "prompt": {}},
        {"name": "b", "images": 9, "texts": 18, "share": 0.25, "prompt": {}},
    ]
