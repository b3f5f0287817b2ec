"""QVision's vision towers and `model.image_size`: features, processor, feature cache, merging."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import (
    AutoImageProcessor,
    AutoModel,
    AutoModelForImageTextToText,
    AutoProcessor,
    PretrainedConfig,
    Siglip2Config,
    Siglip2VisionConfig,
    ViTConfig,
)

from qvft import load_model as open_model
from qvft.check import main as check
from qvft.errors import ModelError
from qvft.eval import main as evaluate
from qvft.models.attention_maps import attend
from qvft.models.base_checkpoint import find_checkpoint
from qvft.models.image_size import positions_of
from qvft.models.load import load_model, load_processor
from qvft.models.qvision.configuration import VISION_TYPES
from qvft.models.qvision.modeling import QVisionForConditionalGeneration
from qvft.train import main as train
from qvft.training.memory_estimate import vision_flops
from qvft.weights.merge import merge_run
from tests.models.decoder_models import TEXT, write_decoder
from tests.models.qvision_models import write_tower

PATCH, STORED, RESIZED = 4, 16, 24
# Features are of size 1 after the last norm, where float32 values are 1.2e-7 apart; sums of some
# hundred terms may be taken in another order.
ROUNDING = 1e-5

FEW = {
    "max_text_tokens": 60,
    "eval": {"format": "drawn", "path": "seed=2,count=2", "texts": "captions"},
}
"""Data of runs that are merged: captions, since the towers do not see a question."""


@pytest.fixture(scope="module")
def decoder(tmp_path_factory: pytest.TempPathFactory, tiny_folder: Path) -> Path:
    return write_decoder(tmp_path_factory.mktemp("decoder") / "gpt2", tiny_folder, TEXT["gpt2"])


@pytest.fixture(scope="module", params=VISION_TYPES)
def tower(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Stored for 16 pixels a side; a DINOv2 for 20, of which its image processor makes 16."""
    kind = request.param
    fields = {"image_size": 20} if kind.startswith("dinov2") else {}
    return write_tower(tmp_path_factory.mktemp("tower") / kind, kind, **fields)


def pixels_of(size: int) -> Tensor:
    return torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(0))


def plain_patches(folder: Path, pixels: Tensor) -> Tensor:
    """Patch features of the tower alone, positions interpolated per call."""
    model = AutoModel.from_pretrained(folder).eval()
    vision = getattr(model, "vision_model", model)
    options = {} if folder.name.startswith("dinov2") else {"interpolate_pos_encoding": True}
    with torch.no_grad():
        features = vision(pixel_values=pixels, **options).last_hidden_state
    first = {"siglip": 0, "siglip_vision_model": 0, "dinov2_with_registers": 4}.get(folder.name, 1)
    return features[:, first:]


def require_plain(model: Any, folder: Path, size: int) -> None:
    """The model's patch features are the tower's, and its parts know the size."""
    patches = []
    model.vision_model.projection.register_forward_pre_hook(
        lambda _, given: patches.append(given[0])
    )
    with torch.no_grad():
        model.vision_model(pixels_of(size))
    expected = plain_patches(folder, pixels_of(size))
    assert expected.shape[1] == (size // PATCH) ** 2
    torch.testing.assert_close(patches[0], expected, atol=ROUNDING, rtol=0)
    assert model.config.tower_config.image_size == size
    assert model.config.patch_grid == (size // PATCH, size // PATCH)
    first = positions_of(model.config).first
    positions = model.get_parameter(positions_of(model.config).key)
    assert positions.shape[-2] == first + expected.shape[1]


@pytest.mark.parametrize("size", [None, RESIZED])
def test_features_are_those_of_the_tower(tower: Path, decoder: Path, size: int | None) -> None:
    base = find_checkpoint(str(tower), decoder=str(decoder), image_size=size)
    require_plain(load_model(base, dtype=torch.float32), tower, size or STORED)
    images = load_processor(base).image_processor
    made = images(images=torch.zeros(3, 40, 30), return_tensors="pt")["pixel_values"]
    assert made.shape[-2:] == (size or STORED,) * 2


def test_attention_maps_have_the_grid_of_the_images(tower: Path, decoder: Path) -> None:
    base = find_checkpoint(str(tower), decoder=str(decoder))
    model = load_model(base, dtype=torch.float32)
    ids = torch.arange(3, 9)[None].expand(2, -1)
    found = attend(model, pixels_of(STORED), {"input_ids": ids, "attention_mask": ids.ne(0)})
    assert found.grid == (4, 4) and found.cross.shape[-1] == 16


def test_a_run_is_merged_to_a_folder_of_its_size(
    tower: Path,
    decoder: Path,
    make_run: Callable[..., Path],
    recipe_file: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The merge compares weights, logits and texts of run and folder. A plain DINOv2 has the size
    of its image processor, the others one from the recipe.
    """
    size = None if tower.name == "dinov2" else RESIZED
    run = make_run(
        tmp_path / "run",
        model={"id": str(tower), "decoder": str(decoder), "image_size": size},
        data=FEW,
        trainable={"lora": {"target_modules": ["c_attn"], "r": 4}},
    )
    out = tmp_path / "out"
    assert merge_run(run, out)["verification"]["behaviour"]["parted"] == ()
    require_plain(AutoModelForImageTextToText.from_pretrained(out), tower, size or STORED)
    images = AutoProcessor.from_pretrained(out).image_processor
    assert type(images) is type(AutoImageProcessor.from_pretrained(tower))
    made = images(images=torch.zeros(3, 40, 30), return_tensors="pt")["pixel_values"]
    assert made.shape[-2:] == (size or STORED,) * 2
    asked = [str(out), "--recipe", str(recipe_file), f"model.image_size={PATCH}"]
    assert evaluate(asked) == 2
    assert "a finished model keeps its image size" in capsys.readouterr().err


@pytest.mark.parametrize(
    "tower", ["clip_vision_model", "siglip", "dinov2_with_registers"], indirect=True
)
def test_a_finished_model_is_a_base_of_another_size(
    tower: Path,
    decoder: Path,
    make_run: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its merge reads the base weight by weight, unless transformers saved it under other names
    than the model's, as it does a DINOv2's.
    """

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("the base was loaded whole")

    if not tower.name.startswith("dinov2"):
        monkeypatch.setattr("qvft.weights.base_weights.base_model", refuse)
    first = tmp_path / "first"
    base = find_checkpoint(str(tower), decoder=str(decoder))
    load_model(base, dtype=torch.float32).save_pretrained(first)
    load_processor(base).save_pretrained(first)
    again = find_checkpoint(str(first), image_size=RESIZED)
    require_plain(load_model(again, dtype=torch.float32), _twice(tower, tmp_path), RESIZED)
    run = make_run(
        tmp_path / "run",
        model={"id": str(first), "image_size": RESIZED},
        data=FEW,
        trainable={"lora": {"target_modules": ["c_attn"], "r": 4}},
    )
    merge_run(run, tmp_path / "out")
    merged = QVisionForConditionalGeneration.from_pretrained(tmp_path / "out")
    require_plain(merged, _twice(tower, tmp_path), RESIZED)


def _twice(tower: Path, folder: Path) -> Path:
    """The tower itself, or a DINOv2 with positions as they were interpolated for 16 pixels."""
    if not tower.name.startswith("dinov2"):
        return tower
    model = QVisionForConditionalGeneration.from_pretrained(folder / "first").vision_model.tower
    model.save_pretrained(folder / tower.name)
    return folder / tower.name


def test_a_dinov2_is_trained_on_cached_features_and_asked(
    decoder: Path,
    recipe_file: Path,
    shapes: Path,
    features_cache: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = write_tower(tmp_path / "dinov2", "dinov2", side=28, image_size=20)
    given = [str(recipe_file), f"model.id={folder}", f"model.decoder={decoder}"]
    given += [
        "data.max_text_tokens=40",
        "train.max_steps=2",
        "trainable.lora.target_modules=[c_fc]",
    ]
    assert check([*given, "--only", "model"]) == 0
    assert "DINOv2 encoder" in capsys.readouterr().out
    run = tmp_path / "run"
    assert train([*given, f"run.dir={run}"]) == 0
    kept = [json.loads(path.read_text()) for path in features_cache.rglob("space.json")]
    assert (28 // PATCH) ** 2 in {space["patches"] for space in kept}
    merge_run(run, tmp_path / "out")
    image = shapes / "test1.png"
    assert open_model(tmp_path / "out").caption(image) == open_model(run).caption(image)


def test_a_trained_tower_is_counted(
    tower: Path, decoder: Path, recipe_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = [str(recipe_file), f"model.id={tower}", f"model.decoder={decoder}"]
    given += ["data.max_text_tokens=40", "trainable.lora.target_modules=[c_fc]"]
    assert check([*given, "--only", "model", "trainable.vision=full"]) == 0
    assert "activations" in capsys.readouterr().out
    model = load_model(find_checkpoint(str(tower), decoder=str(decoder)), dtype=torch.float32)
    assert vision_flops(model) > 0


def test_the_published_layout_has_another_size(published_qvision: Path) -> None:
    side = find_checkpoint(str(published_qvision)).config.tower_config
    size = 2 * side.image_size
    base = find_checkpoint(str(published_qvision), image_size=size)
    model: Any = load_model(base, dtype=torch.float32)
    grid = model.config.patch_grid[0]
    assert grid == size // side.patch_size
    assert model.vision_model(torch.zeros(1, 3, size, size)).shape[1] == grid**2
    assert load_processor(base).image_processor.crop_size["height"] == size


def refused(config: PretrainedConfig, folder: Path, decoder: Path) -> str:
    config.save_pretrained(folder)
    with pytest.raises(ModelError) as refusal:
        find_checkpoint(str(folder), decoder=str(decoder))
    return str(refusal.value)


@pytest.mark.parametrize("made", [Siglip2Config, Siglip2VisionConfig])
def test_naflex_is_refused_by_name(made: type, decoder: Path, tmp_path: Path) -> None:
    said = refused(made(), tmp_path / "naflex", decoder)
    assert 'model_type "siglip2' in said and "NaFlex" in said and "siglip2-base-patch16" in said


def test_another_tower_is_refused_with_those_that_fit(decoder: Path, tmp_path: Path) -> None:
    said = refused(ViTConfig(), tmp_path / "vit", decoder)
    assert 'model_type "vit"' in said and all(kind in said for kind in VISION_TYPES)
    assert "NaFlex" not in said


@pytest.mark.parametrize("size", [PATCH - 1, STORED + 1])
def test_a_size_that_is_no_multiple_of_the_patch_is_refused(
    tower: Path, decoder: Path, size: int
) -> None:
    with pytest.raises(ModelError, match=rf"{size} pixels.*a multiple of {PATCH}"):
        find_checkpoint(str(tower), decoder=str(decoder), image_size=size)


def test_images_that_are_not_square_are_refused(decoder: Path, tmp_path: Path) -> None:
    folder = write_tower(tmp_path / "dinov2", "dinov2")
    file = folder / "preprocessor_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"do_center_crop": False}))
    with pytest.raises(ModelError, match="a height and an equal width"):
        find_checkpoint(str(folder), decoder=str(decoder))
