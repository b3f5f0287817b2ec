"""Benchmarks one QVision caption: the published loop without a KV cache against qvft."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from qvft.benchmark.machine import timed
from qvft.errors import RecipeError
from qvft.models.forward_stages import encode_features, encode_images, encode_vision, generate
from qvft.recipe.schema import Recipe
from qvft.setup.model import base_model, base_of

TOKENS = 20


@dataclass(frozen=True)
class CaptionPace:
    """Result: time from normalised pixels to tokens.

    Attributes:
        plain_ms, qvft_ms: median milliseconds per caption.
        plain_round_ms, qvft_round_ms: milliseconds of every round.
        speedup: plain over qvft, of medians.
        tokens: of the caption; `<END>` is held back until then.
        equal_tokens: whether both generated the same tokens.
    """

    plain_ms: float
    qvft_ms: float
    plain_round_ms: tuple[float, ...]
    qvft_round_ms: tuple[float, ...]
    speedup: float
    tokens: int
    equal_tokens: bool
    rounds: int


def bench_caption(recipe: Recipe, *, rounds: int) -> CaptionPace:
    """Captions one noise image greedily with the recipe's base, alternating both implementations.

    Both run once as warm-up. Raises RecipeError if the base is no QVision.
    """
    base = base_of(recipe)
    if base.family.name != "qvision":
        raise RecipeError(
            f"a model of family {base.family.name}", where="--only caption", expected="a QVision"
        )
    loaded = base_model(recipe, base)
    model = loaded.model.eval()
    side_px = base.config.tower_config.image_size
    noise = np.random.default_rng(7).integers(0, 256, (side_px, side_px, 3), dtype=np.uint8)
    pixels = loaded.collator.normalise([Image.fromarray(noise)]).to(model.device)
    first, end = loaded.template.tokenizer.bos_token_id, loaded.template.stop_id
    milliseconds: dict[str, list[float]] = {"plain": [], "qvft": []}
    tokens: dict[str, list[int]] = {}
    for _ in range(rounds + 1):
        for name, way in (("plain", _published_loop), ("qvft", _with_cache)):
            call = partial(way, model, pixels, first, end)
            tokens[name], taken = timed(call)
            milliseconds[name].append(1000 * taken)
    plain, ours = milliseconds["plain"][1:], milliseconds["qvft"][1:]
    medians = statistics.median(plain), statistics.median(ours)
    return CaptionPace(
        *medians,
        plain_round_ms=tuple(plain),
        qvft_round_ms=tuple(ours),
        speedup=medians[0] / medians[1],
        tokens=TOKENS,
        equal_tokens=tokens["plain"] == tokens["qvft"],
        rounds=rounds,
    )


@torch.no_grad()
def _published_loop(model: Any, pixels: Tensor, first: int, end: int) -> list[int]:
    """CLIP once; then per token Q-Former, decoder and head over all tokens so far."""
    features = encode_vision(model, pixels)
    ids = torch.tensor([[first]], device=pixels.device)
    for _ in range(TOKENS):
        states = encode_features(model, features)
        scores = model(input_ids=ids, visual_tokens=states, use_cache=False).logits[:, -1]
        scores[:, end] = -torch.inf
        ids = torch.cat([ids, scores.argmax(dim=-1, keepdim=True)], dim=1)
    return ids[0, 1:].tolist()


@torch.no_grad()
def _with_cache(model: Any, pixels: Tensor, first: int, end: int) -> list[int]:
    """As `qvft.predict`: the image once, then one position per token with a KV cache."""
    ids = torch.tensor([[first]], device=pixels.device)
    written = generate(
        model,
        {"input_ids": ids, "attention_mask": torch.ones_like(ids)},
        images=encode_images(model, pixels),
        eos_token_id=end,
        do_sample=False,
        num_beams=1,
        min_new_tokens=TOKENS,
        max_new_tokens=TOKENS,
    )
    return written[0].tolist()
