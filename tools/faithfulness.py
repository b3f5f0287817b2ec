"""Faithfulness of attention heatmaps, measured by masking patches:
`python -m tools.faithfulness MODEL [--recipe R] [--limit N] [--json F]`.

A fifth of the patches is set to zero after normalisation, i.e. to the mean colour: once the
brightest fifth of the heatmap, and several times a random fifth. If the heatmap is faithful, the
brightest fifth must cost more.

Source: the deletion test of RISE, Petsiuk et al., arXiv 1806.07421, section 4.1, at one size.

Shape letters: B rows, R rows and C columns of patches, L row length.
"""

from __future__ import annotations

import argparse
import dataclasses
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, pad
from transformers import PreTrainedModel

from qvft.data.collate import IGNORED, Collator
from qvft.data.rows import Row, evaluation_rows
from qvft.errors import FailedError
from qvft.evaluation.explanation.explain import generated_texts
from qvft.evaluation.explanation.maps import FloatArray, explain_texts, target_batch
from qvft.evaluation.stats import paired_difference
from qvft.files import given_path
from qvft.json_files import write_json
from qvft.log import exit_status
from qvft.models.forward_stages import (
    decode_hidden,
    embed_rows,
    encode_images,
    encode_prompts,
    logits_of,
    read_images,
)
from qvft.setup.data import read_split
from qvft.setup.resolve_model import load_resolved, require_eval_data, resolve_model

SHARE = 0.2
"""Share of masked patches."""
DRAWS = 5
"""Random masks per text."""


@dataclass(frozen=True)
class Faithfulness:
    """Loss of log-probability of the model's own texts, in nats per text.

    Attributes:
        brightest: mean loss when the brightest fifth is masked.
        random: mean loss when a random fifth is, over all draws.
        difference: brightest minus random. interval: its 95 %, paired, drawn by image; None with
            fewer than two images.
        n: texts. images: images. without_words: rows without generated words, left out.
        masked_patches, patches: patches masked, and patches.
        draws: random masks per text. seed: seed of the masks.
    """

    brightest: float
    random: float
    difference: float
    interval: tuple[float, float] | None
    n: int
    images: int
    without_words: int
    masked_patches: int
    patches: int
    draws: int
    seed: int

    @property
    def verdict(self) -> str:
        """Interpretation of the interval."""
        if self.interval is None:
            return "Too few images to say whether the maps do better than random."
        low, high = self.interval
        if low > 0:
            return "The maps do better than random: masking where they point costs more."
        if high < 0:
            return "The maps do worse than random: masking where they point costs less."
        return "The maps do no better than random: masking where they point costs no more."

    def screen(self) -> str:
        """The values with the verdict, as lines."""
        between = f" ({self.interval[0]:+.3f} to {self.interval[1]:+.3f})" if self.interval else ""
        return (
            f"{self.n} texts of {self.images} images; {self.masked_patches} of {self.patches} "
            "patches masked; loss of log-probability in nats per text\n"
            f"  brightest   {self.brightest:8.3f}\n"
            f"  random      {self.random:8.3f}, mean of {self.draws} draws per text\n"
            f"  difference  {self.difference:+8.3f}{between}\n"
            f"{self.verdict}"
        )


def faithfulness(
    model: PreTrainedModel,
    collator: Collator,
    rows: Sequence[Row],
    texts: Sequence[str],
    *,
    batch_size: int,
    draws: int = DRAWS,
    seed: int = 0,
) -> Faithfulness | None:
    """Measures heatmaps by masking; None if no text has a word.

    Args:
        seed: seed of the masks, which depend only on it and on the row number.
    """
    bright: list[float] = []
    random: list[float] = []
    clusters: list[str] = []
    patches = 0
    for start in range(0, len(rows), batch_size):
        chunk, chunk_texts = rows[start : start + batch_size], texts[start : start + batch_size]
        found = explain_texts(model, collator, chunk, chunk_texts)
        maps = {number: item.map for number, item in enumerate(found) if item is not None}
        if not maps:
            continue
        patches = next(iter(maps.values())).size
        aimed, worded = [chunk[n] for n in maps], [chunk_texts[n] for n in maps]
        batch = target_batch(collator, aimed, worded, place=model.device)
        bright.extend(_losses(model, batch, [[brightest_patches(m)] for m in maps.values()]))
        drawn = []
        for number, map_ in maps.items():
            generator = np.random.default_rng((seed, start + number))
            drawn.append([random_patches(map_.shape, generator) for _ in range(draws)])
        random.extend(_losses(model, batch, drawn))
        clusters.extend(row.sample.id for row in aimed)
    if not clusters:
        return None
    paired = paired_difference(bright, random, clusters=clusters, seed=seed)
    return Faithfulness(
        brightest=float(np.mean(bright)),
        random=float(np.mean(random)),
        difference=paired.difference,
        interval=paired.interval,
        n=len(clusters),
        images=len(set(clusters)),
        without_words=len(rows) - len(clusters),
        masked_patches=masked_count(patches),
        patches=patches,
        draws=draws,
        seed=seed,
    )


@torch.no_grad()
def log_probabilities(
    model: PreTrainedModel, pixel_values: Tensor, batch: dict[str, Tensor]
) -> FloatArray:
    """(B,) log-probability of each row's target without its stop token, in nats.

    Args:
        pixel_values: (B, 3, height, width), one image per row.
        batch: from `explanation.target_batch`.
    """
    image_index = torch.arange(len(pixel_values), device=pixel_values.device)
    images = encode_images(model, pixel_values)
    embeds = embed_rows(model, batch, images=images, image_index=image_index)
    prompts = encode_prompts(model, batch, images=images, image_index=image_index)
    hidden = decode_hidden(model, embeds, batch["attention_mask"], prompts=prompts)
    following = batch["labels"][:, 1:]
    words = following != IGNORED
    # The last supervised position of a row is its stop token.
    words &= words.flip(1).cumsum(dim=1).flip(1) > 1
    read = read_images(
        model,
        hidden[:, :-1][words],
        row=words.nonzero()[:, 0],
        images=images,
        image_index=image_index,
    )
    losses = cross_entropy(logits_of(model, read).float(), following[words], reduction="none")
    sums = losses.new_zeros(len(words)).index_add(0, words.nonzero()[:, 0], losses)
    return -sums.double().cpu().numpy()


def masked_count(patches: int) -> int:
    """A fifth of the patches, rounded up."""
    return math.ceil(SHARE * patches)


def brightest_patches(map_: FloatArray) -> npt.NDArray[np.bool_]:
    """(R, C) the brightest fifth of a heatmap (R, C); ties from the top left."""
    order = np.argsort(-map_.ravel(), kind="stable")
    return _chosen(map_.shape, order)


def random_patches(shape: tuple[int, ...], generator: np.random.Generator) -> npt.NDArray[np.bool_]:
    """(R, C) a random fifth."""
    return _chosen(shape, generator.permutation(math.prod(shape)))


def mask_patches(pixel_values: Tensor, masks: npt.NDArray[np.bool_]) -> Tensor:
    """Images (B, 3, height, width) with the patches in `masks` (B, R, C) set to zero.

    Pixels beyond the last full patch stay.
    """
    height, width = pixel_values.shape[-2:]
    rows, columns = masks.shape[-2:]
    patch_px = (height // rows, width // columns)
    wide = torch.from_numpy(masks).to(pixel_values.device)
    wide = wide.repeat_interleave(patch_px[0], dim=1).repeat_interleave(patch_px[1], dim=2)
    wide = pad(wide, (0, width - wide.shape[2], 0, height - wide.shape[1]))
    return pixel_values.masked_fill(wide[:, None], 0.0)


def _losses(
    model: PreTrainedModel,
    batch: dict[str, Tensor],
    masks: Sequence[Sequence[npt.NDArray[np.bool_]]],
) -> FloatArray:
    """(B,) loss of log-probability per row, mean over its masks; all rows have equally many."""
    whole = log_probabilities(model, batch["pixel_values"], batch)
    kept = [
        log_probabilities(model, mask_patches(batch["pixel_values"], np.stack(draw)), batch)
        for draw in zip(*masks, strict=True)
    ]
    return whole - np.mean(kept, axis=0)


def _chosen(shape: tuple[int, ...], order: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
    mask = np.zeros(math.prod(shape), dtype=bool)
    mask[order[: masked_count(mask.size)]] = True
    return mask.reshape(shape)


def measure(
    model: str, *, recipe: str | None = None, limit: int | None = None, seed: int = 0
) -> Faithfulness:
    """Faithfulness of a model's heatmaps on the evaluation data of its recipe, or of another.

    Raises:
        UserError: the recipe or the data is wrong.
        FailedError: the model generates no word for any row.
    """
    overrides = [] if limit is None else [f"data.eval.limit={limit}"]
    opened = resolve_model(model, recipe_path=recipe, overrides=overrides)
    source = require_eval_data(opened)
    rows = evaluation_rows(read_split(opened.recipe, "eval").samples, texts=source.texts)
    loaded = load_resolved(opened)
    found = faithfulness(
        loaded.model,
        loaded.collator,
        rows,
        generated_texts(loaded, opened.recipe, rows),
        batch_size=opened.recipe.eval.batch_size,
        seed=seed,
    )
    if found is None:
        raise FailedError(f"the model says nothing to any of {len(rows)} rows")
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures and prints; returns the exit status."""
    parser = argparse.ArgumentParser(prog="tools.faithfulness", description=__doc__)
    parser.add_argument("model", help="run folder, model folder or hub id")
    parser.add_argument("--recipe", help="for a model that is not a run: its evaluation data")
    parser.add_argument("--limit", type=int, metavar="N", help="only N images of that data")
    parser.add_argument("--seed", type=int, default=0, help="of random masks and the interval")
    parser.add_argument("--json", type=given_path, metavar="F", help="write what was measured to F")
    given = parser.parse_args(arguments)

    def run() -> None:
        found = measure(given.model, recipe=given.recipe, limit=given.limit, seed=given.seed)
        print(found.screen())
        if given.json is not None:
            write_json(given.json, {**dataclasses.asdict(found), "verdict": found.verdict})

    return exit_status(run)


if __name__ == "__main__":
    sys.exit(main())
