"""How even batches are: tokens to learn, tokens of the decoder, and how full packed rows are.

    python docs/studies/balance.py RECIPE [key.path=value ...] [--tokens N] [--queries 32]
        [--row 512] [--out balance.json]

Lays out epochs of a recipe's training texts twice: `train.per_device_train_batch_size` texts per
batch in a plain shuffle, and up to `--tokens` tokens per batch (by default as many as the largest
of the former has), both with `train.texts_per_image`; and divides them between 1, 2 and
8 processes. Lengths are those of the recipe's tokenizer, with as many query tokens and as long
packed rows as BLIP-2-OPT-2.7B has unless said. Neither weights nor images are read.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from qvft.data.packing import SHARED_PREFIX, Packer
from qvft.data.prompt import PromptTemplate
from qvft.data.rows import Row, training_rows
from qvft.data.token_stats import row_tokens
from qvft.models.load import load_processor
from qvft.recipe.load import load_recipe
from qvft.setup.data import read_texts
from qvft.setup.model import base_of
from qvft.setup.prompt_template import template_of
from qvft.training.batches.sampler import GroupedSampler
from qvft.training.batches.token_budget_sampler import TokenBatchSampler

PROCESSES, EPOCHS = (1, 2, 8), 3


class Laid:
    """Batches of rows, measured.

    Args:
        rows: all of them.
        template: turns them into tokens.
        packer: lays them side by side.
    """

    def __init__(self, rows: Sequence[Row], template: PromptTemplate, packer: Packer) -> None:
        texts = [(row.kind, row.question, row.target, row.prompt) for row in rows]
        encoded = list(template.encode_all(texts))
        self.ids = [tokens.ids for tokens in encoded]
        self.labels = np.array([len(tokens.ids) - tokens.target_start for tokens in encoded])
        self.names = [row.sample.id for row in rows]
        self.packer = packer

    def measured(self, batches: Iterable[Sequence[int]]) -> np.ndarray:
        """(batches, 3): label tokens, tokens of the decoder, and those with the fill of rows."""
        found = []
        for batch in batches:
            images = {name: at for at, name in enumerate({self.names[row] for row in batch})}
            owner = self.packer(
                [self.ids[row] for row in batch], [images[self.names[row]] for row in batch]
            )["packed_owner"]
            seen = int((owner != SHARED_PREFIX).sum())
            found.append((int(self.labels[list(batch)].sum()), seen, owner.numel()))
        return np.array(found)


def unevenness(epochs: Sequence[np.ndarray], processes: int) -> dict[str, float]:
    """Over the whole steps of epochs, how far the most is from the mean.

    labels: of a process's batch, over all steps and processes; step_labels: of whole steps;
    waiting_labels, waiting_tokens: within a step, mean over the steps.
    """
    steps = np.concatenate(
        [one[: len(one) // processes * processes].reshape(-1, processes, 3) for one in epochs]
    )
    labels, tokens = steps[..., 0], steps[..., 1]
    totals = labels.sum(axis=1)
    return {
        "labels": labels.max() / labels.mean(),
        "step_labels": totals.max() / totals.mean(),
        "waiting_labels": float((labels.max(axis=1) / labels.mean(axis=1)).mean()),
        "waiting_tokens": float((tokens.max(axis=1) / tokens.mean(axis=1)).mean()),
    }


def summary(epochs: Sequence[np.ndarray]) -> dict[str, float]:
    """Batches an epoch, their tokens, and the share of packed rows that is filled."""
    every = np.concatenate(epochs)
    return {
        "batches": len(epochs[0]),
        "tokens_mean": every[:, 1].mean(),
        "tokens_most": int(every[:, 1].max()),
        "filled": every[:, 1].sum() / every[:, 2].sum(),
    }


def main() -> int:
    """Measures and writes both ways."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("recipe")
    parser.add_argument("overrides", nargs="*")
    parser.add_argument("--tokens", type=int)
    parser.add_argument("--queries", type=int, default=32)
    parser.add_argument("--row", type=int, default=512)
    parser.add_argument("--out", type=Path, default=Path("balance.json"))
    given = parser.parse_args()
    recipe = load_recipe(given.recipe, given.overrides)
    base, train = base_of(recipe), recipe.train
    assert recipe.data.train is not None
    template = dataclasses.replace(
        template_of(recipe, base, load_processor(base)), num_query_tokens=given.queries
    )
    rows = training_rows(read_texts(recipe, "train"), texts=recipe.data.train.texts)
    laid = Laid(
        rows, template, Packer(shares=base.family.shares_prefix(base.config), budget=given.row)
    )
    lengths = row_tokens(rows, template, shares=base.family.shares_prefix(base.config))
    plain = GroupedSampler(laid.names, group_size=train.texts_per_image, seed=0)
    shuffled = []
    for epoch in range(EPOCHS):
        plain.set_epoch(epoch)
        order, size = list(plain), train.per_device_train_batch_size
        whole = len(order) // size * size
        shuffled.append(laid.measured(order[at : at + size] for at in range(0, whole, size)))
    budget = given.tokens or int(np.concatenate(shuffled)[:, 1].max())
    found: dict[str, Any] = {
        "texts": len(rows),
        "budget": budget,
        "by_texts": summary(shuffled),
        "by_tokens": {},
    }
    for processes in PROCESSES:
        batches = TokenBatchSampler(
            laid.names,
            lengths,
            budget=budget,
            group_size=train.texts_per_image,
            processes=processes,
            accumulation=1,
            seed=0,
        )
        dealt = []
        for epoch in range(EPOCHS):
            batches.set_epoch(epoch)
            dealt.append(laid.measured(batches))
        found["by_tokens"][processes] = {**summary(dealt), **unevenness(dealt, processes)}
        found["by_texts"][processes] = unevenness(shuffled, processes)
    given.out.write_text(json.dumps(found, indent=1, default=float) + "\n")
    print(json.dumps(found, indent=1, default=float))
    return 0


if __name__ == "__main__":
    sys.exit(main())
