"""The feature cache in training and evaluation: the same run, without the ViT."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from qvft.errors import ModelError
from qvft.eval import main as evaluate
from qvft.recipe.load import load_recipe
from qvft.setup import feature_cache as module
from qvft.train import main as train
from qvft.training.prepare_training import prepare_training
from qvft.training.training_run import TrainingRun


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache for one test."""
    monkeypatch.setenv("QVFT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def encoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many images each call of the ViT by the cache has seen."""
    calls: list[int] = []
    encode = module.encode_vision

    def counting(model, pixels):
        calls.append(len(pixels))
        return encode(model, pixels)

    monkeypatch.setattr(module, "encode_vision", counting)
    return calls


def built(recipe_file: Path, *overrides: str) -> TrainingRun:
    return prepare_training(load_recipe(recipe_file, list(overrides)))


def weights(run: Path) -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = {}
    for file in sorted((run / "adapter").glob("*.safetensors")):
        found |= load_file(file)
    return found


def test_a_run_with_cached_features_is_the_run_without(
    recipe_file: Path, tmp_path: Path, cache: Path
) -> None:
    for name in ("off", "auto"):
        assert train([str(recipe_file), f"run.dir={tmp_path / name}", f"data.features={name}"]) == 0
    live, cached = weights(tmp_path / "off"), weights(tmp_path / "auto")
    assert live.keys() == cached.keys()
    for name, value in live.items():
        # Six steps of AdamW at 1e-3: what a ViT pass over other batches rounds otherwise (1e-7)
        # may turn the sign of a gradient near zero, and a weight then goes the other way.
        torch.testing.assert_close(cached[name], value, rtol=0, atol=1e-4, msg=name)
    assert list(cache.glob("*/*.safetensors"))


def test_features_are_computed_once_for_all_runs(
    recipe_file: Path, cache: Path, encoded: list[int]
) -> None:
    built(recipe_file).cache_features()
    assert encoded == [1, 16, 8]  # a blank image tells the shape
    encoded.clear()
    built(recipe_file, "trainable.decoder=frozen", "run.seed=1").cache_features()
    assert encoded == [1]


def test_the_vit_leaves_memory_and_cannot_be_asked(recipe_file: Path, cache: Path) -> None:
    work = built(recipe_file)
    model = work.loaded.model
    before = work.counts(work.plans[0])
    work.cache_features()
    assert work.counts(work.plans[0]) == before
    vision = model.vision_model
    assert all(weight.untyped_storage().nbytes() <= 4 for weight in vision.parameters())
    with pytest.raises(ModelError, match=r"data.features=off"):
        vision(pixel_values=torch.zeros(1, 3, 48, 48))


@pytest.mark.parametrize("override", ["trainable.vision=full", "data.features=off"])
def test_a_vit_that_is_needed_stays(recipe_file: Path, cache: Path, override: str) -> None:
    work = built(recipe_file, override)
    work.cache_features()
    assert work.loaded.collator.features is None
    assert not list(cache.glob("*"))
    assert float(next(work.loaded.model.vision_model.parameters()).abs().max()) > 0


def test_a_later_phase_that_trains_the_vit_keeps_it(recipe_file: Path, cache: Path) -> None:
    phases = "phases=[{name: first}, {name: second, trainable: {vision: full}}]"
    work = built(recipe_file, phases)
    work.cache_features()
    assert work.loaded.collator.features is None


def test_another_vit_has_features_of_its_own(
    recipe_file: Path, cache: Path, encoded: list[int]
) -> None:
    built(recipe_file).cache_features()
    encoded.clear()
    work = built(recipe_file)
    with torch.no_grad():
        next(work.loaded.model.vision_model.parameters()).add_(1e-3)
    work.cache_features()
    assert encoded == [1, 16, 8]
    assert len(list(cache.glob("*/space.json"))) == 2


def test_a_limit_is_kept_to_and_the_vit_stays(
    recipe_file: Path, cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    work = built(recipe_file, "data.features_limit_gb=1e-6")
    work.cache_features()
    assert "the features of 24 images take" in caplog.text
    assert work.loaded.collator.features is None
    assert float(next(work.loaded.model.vision_model.parameters()).abs().max()) > 0
    assert not list(cache.glob("*/*.safetensors"))


def test_a_cache_that_cannot_be_written_is_done_without(
    recipe_file: Path, cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cache.write_text("a file stands where the folder should be")
    work = built(recipe_file)
    work.cache_features()
    assert "the ViT runs in every step" in caplog.text
    assert work.loaded.collator.features is None


@pytest.mark.parametrize("stored", ["bfloat16", "int8"])
def test_rounded_features_train_too(
    recipe_file: Path, tmp_path: Path, cache: Path, stored: str
) -> None:
    run = tmp_path / "run"
    given = [str(recipe_file), f"run.dir={run}", f"data.features_dtype={stored}"]
    assert train(given) == 0
    (space,) = cache.glob("*/space.json")
    assert json.loads(space.read_text())["stored_dtype"] == stored


def test_evaluation_takes_them_and_says_the_same(
    tiny_run: Path, tmp_path: Path, cache: Path, encoded: list[int]
) -> None:
    texts = []
    for name in ("off", "auto", "auto"):
        out = tmp_path / f"{len(texts)}"
        assert evaluate([str(tiny_run), f"data.features={name}", "--out", str(out)]) == 0
        lines = (out / "predictions.jsonl").read_text().splitlines()
        texts.append([json.loads(line)["prediction"] for line in lines])
    assert texts[0] == texts[1] == texts[2]
    assert encoded == [1, 8, 1]
