"""Supervised heads of stage one: pooling by place, loss, learning."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from tools.tiny_blip2.drawn import draw, sample_scene, targets
from tools.tiny_blip2.geometry import IMAGE_SIZE_PX, WIDTH, init_tiny
from tools.tiny_blip2.scene_heads import (
    CLASS_COUNTS,
    LOSS_WEIGHTS,
    SceneHeads,
    pooled_places,
)


def _batch(count: int) -> tuple[Tensor, dict[str, Tensor]]:
    scenes = [sample_scene(0, index) for index in range(count)]
    pixels = np.stack([np.asarray(draw(scene, IMAGE_SIZE_PX)) for scene in scenes])
    labels = [targets(scene) for scene in scenes]
    return (
        torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 127.5 - 1.0,
        {key: torch.from_numpy(np.stack([label[key] for label in labels])) for key in labels[0]},
    )


def test_quarters_are_pooled_apart_and_the_centre_over_all() -> None:
    grid = torch.zeros(1, 4, 4, 1)
    grid[:, 0, 0], grid[:, 0, 3], grid[:, 3, 0], grid[:, 3, 3] = 4.0, 8.0, 12.0, 16.0
    tokens = torch.cat([torch.full((1, 1, 1), 100.0), grid.reshape(1, 16, 1)], dim=1)
    # A quarter holds four patches, the image sixteen: 4/4, 8/4, 12/4, 16/4, 40/16 + 100.
    assert pooled_places(tokens).flatten().tolist() == [1.0, 2.0, 3.0, 4.0, 102.5]


def test_patches_that_quarters_would_share_are_refused() -> None:
    with pytest.raises(ValueError, match="square of an even number"):
        pooled_places(torch.zeros(1, 1 + 9, 4))


def test_zero_heads_give_the_loss_of_a_uniform_guess() -> None:
    heads = SceneHeads(init_tiny(0).vision_model, WIDTH)
    for head in (*heads.quarter_heads.values(), *heads.centre_heads.values()):
        torch.nn.init.zeros_(head.weight)
        torch.nn.init.zeros_(head.bias)
    pixels, labels = _batch(8)
    # Quarters and centre count apart; "size" counts at the quarters alone.
    counted = {"name": 2, "colour": 2, "size": 1}
    expected = sum(
        times * LOSS_WEIGHTS[key] * math.log(CLASS_COUNTS[key]) for key, times in counted.items()
    )
    # fp32 cross-entropy of about 4, summed over a few dozen places.
    assert heads(pixels, **labels)["loss"].item() == pytest.approx(expected, abs=1e-4)


def test_logits_have_one_row_a_place() -> None:
    outputs = SceneHeads(init_tiny(0).vision_model, WIDTH)(_batch(3)[0])
    assert {key: tuple(value.shape) for key, value in outputs.items()} == {
        key: (3, 5, count) for key, count in CLASS_COUNTS.items()
    }


def test_a_few_steps_lower_the_loss_through_the_vision_model() -> None:
    torch.manual_seed(0)
    heads = SceneHeads(init_tiny(0).vision_model, WIDTH)
    pixels, labels = _batch(32)
    optimizer = torch.optim.AdamW(heads.parameters(), lr=1e-3)
    losses = []
    for _ in range(8):
        loss = heads(pixels, **labels)["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.8 * losses[0]
    assert heads.vision_model.embeddings.patch_embedding.weight.grad.abs().sum() > 0
