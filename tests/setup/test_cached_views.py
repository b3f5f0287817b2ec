"""Augmented views in training: cached or made on the fly they are the same."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from qvft.data.rows import Row
from qvft.errors import RecipeError
from qvft.eval import main as evaluate
from qvft.models.forward_stages import encode_vision
from qvft.recipe.load import load_recipe
from qvft.setup import feature_cache as module
from qvft.train import main as train
from qvft.training.prepare_training import prepare_training
from qvft.training.training_run import TrainingRun

VIEWS = ["data.augmentations_per_image=2", "data.augment={crop: 0.7, brightness: 0.3}"]


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache for one test."""
    monkeypatch.setenv("QVFT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def encoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many images each call of the ViT by the cache has seen."""
    calls: list[int] = []

    def counting(model, pixels):
        calls.append(len(pixels))
        return encode_vision(model, pixels)

    monkeypatch.setattr(module, "encode_vision", counting)
    return calls


def built(recipe_file: Path, *overrides: str) -> TrainingRun:
    return prepare_training(load_recipe(recipe_file, [*VIEWS, *overrides]))


def rows_in(work: TrainingRun, views: list[int]) -> list[tuple[int, Row]]:
    """The first images' captions, in one view each."""
    captions = [
        Row(s.id, s, "caption", None, s.captions[0], s.captions, {}, view)
        for s, view in zip(work.train.samples, views, strict=False)
    ]
    return list(enumerate(captions))


def test_cached_views_are_those_made_on_the_fly_to_the_bit(recipe_file: Path, cache: Path) -> None:
    live = built(recipe_file, "data.train.limit=4")
    cached = built(recipe_file, "data.train.limit=4")
    model = live.loaded.model
    cached.cache_features()
    # The pass encodes an image's three views in turn, sixteen at once: all twelve together.
    order = [(image, view) for image in range(4) for view in range(3)]
    sources = [live.train.samples[image].image for image, _ in order]
    views = [view for _, view in order]
    pixels = live.loaded.collator.pixels(sources, views)
    with torch.no_grad():
        expected = encode_vision(model, pixels)
    assert torch.equal(cached.loaded.collator.features(sources, views), expected)
    assert len({pixel.numpy().tobytes() for pixel in pixels}) == 12


def test_a_batch_holds_the_view_that_its_rows_name(recipe_file: Path, cache: Path) -> None:
    work = built(recipe_file)
    collator = work.loaded.collator
    rows = rows_in(work, [2, 0, 1])
    again = [(7, rows[0][1])]
    batch = collator([*rows, *again])
    assert batch["image_index"].tolist() == [0, 1, 2, 0]
    sources = [sample.image for sample in work.train.samples[:3]]
    assert torch.equal(batch["pixel_values"], collator.pixels(sources, [2, 0, 1]))
    assert not torch.equal(batch["pixel_values"][0], collator.pixels(sources)[0])
    assert torch.equal(batch["pixel_values"][1], collator.pixels(sources)[1])


def test_kept_images_are_kept_by_view(recipe_file: Path, cache: Path) -> None:
    work = built(recipe_file, "data.cache_images=true")
    source = work.train.samples[0].image
    first = [work.loaded.collator.pixels([source], [view]) for view in (0, 1, 2)]
    for view, pixels in enumerate(first):
        assert torch.equal(work.loaded.collator.pixels([source], [view]), pixels)
    assert not torch.equal(first[0], first[1])


def test_training_images_alone_have_views(
    recipe_file: Path, cache: Path, encoded: list[int]
) -> None:
    # Of the eight images of evaluation, four are those trained on.
    watched = ["train.eval_steps=2", "train.save_steps=null", "data.train.limit=4"]
    built(recipe_file, *watched).cache_features()
    assert sum(encoded) - 1 == 4 * 3 + 4  # a blank image tells the shape
    encoded.clear()
    built(recipe_file, *watched, "run.seed=3").cache_features()
    assert sum(encoded) == 1  # runs of other seeds share them
    encoded.clear()
    built(recipe_file, *watched, "data.augment.brightness=0.2").cache_features()
    assert sum(encoded) - 1 == 4 * 2  # the images as they are stay


def test_the_limit_counts_views(
    recipe_file: Path, cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    # 16 of 8,704 bytes with their part of the header; 8 would be within.
    limit = "data.features_limit_gb=1e-4"
    work = built(recipe_file, "train.eval_steps=2", "data.train.limit=4", limit)
    work.cache_features()
    assert "the features of 16 images" in caplog.text
    assert "have fewer views" in caplog.text
    assert work.loaded.collator.features is None


def test_evaluation_sees_images_as_they_are(
    recipe_file: Path, tmp_path: Path, cache: Path, encoded: list[int]
) -> None:
    run = tmp_path / "run"
    assert train([str(recipe_file), f"run.dir={run}", *VIEWS, "data.train.limit=4"]) == 0
    encoded.clear()
    assert evaluate([str(run)]) == 0
    assert encoded == [1, 4]  # four images are those trained on


@pytest.mark.slow  # the features themselves are compared above, to the bit
def test_a_run_with_cached_views_is_the_run_that_makes_them(
    recipe_file: Path, tmp_path: Path, cache: Path
) -> None:
    found = []
    for name in ("off", "auto"):
        run = tmp_path / name
        given = [
            f"run.dir={run}",
            f"data.features={name}",
            *VIEWS,
            "train.per_device_train_batch_size=24",
        ]
        assert train([str(recipe_file), *given, "train.save_steps=null"]) == 0
        found.append(load_file(run / "adapter" / "bridge.safetensors"))
    for name, value in found[0].items():
        # As without views: AdamW at 1e-3 may turn a weight whose gradient is all but zero.
        torch.testing.assert_close(found[1][name], value, rtol=0, atol=1e-4, msg=name)


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("data.augment={crop: 1, brightness: 0, contrast: 0}", "needs an augmentation"),
        ("data.augmentations_per_image=-1", "data.augmentations_per_image"),
        ("data.augment.flip=true", 'unknown key "data.augment.flip"'),
    ],
)
def test_what_cannot_be_is_an_error_before_training(
    recipe_file: Path, override: str, said: str
) -> None:
    with pytest.raises(RecipeError, match=said):
        built(recipe_file, override)
