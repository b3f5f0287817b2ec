"""What a name on the command line means; no weights are loaded here but in the last test."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

from qvft.errors import CheckpointError, DataError, RecipeError
from qvft.recipe.recipe_lock import LOCK_NAME
from qvft.setup.resolve_model import load_resolved, require_eval_data, resolve_model


@pytest.fixture
def model_folder(tiny_folder: Path, tmp_path: Path) -> Path:
    """A model folder without its weights: opening needs the configuration alone."""
    folder = tmp_path / "model"
    folder.mkdir()
    shutil.copy(tiny_folder / "config.json", folder)
    return folder


def test_a_run_folder_brings_its_recipe(drawn_run: Path) -> None:
    opened = resolve_model(str(drawn_run), overrides=["eval.batch_size=3"])
    assert (opened.kind, opened.home) == ("run", drawn_run)
    assert opened.recipe.name == "drawn"
    assert opened.recipe.eval.batch_size == 3


def test_a_run_takes_no_second_recipe(drawn_run: Path, recipe_file: Path) -> None:
    with pytest.raises(CheckpointError, match="leave --recipe out"):
        resolve_model(str(drawn_run), recipe_path=str(recipe_file))


def test_an_unfinished_run_is_refused(drawn_run: Path, tmp_path: Path) -> None:
    shutil.copy(drawn_run / LOCK_NAME, tmp_path)
    with pytest.raises(CheckpointError, match=r"train\.resume=auto"):
        resolve_model(str(tmp_path))


def test_a_folder_that_is_neither_run_nor_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="expected a run folder or a model folder"):
        resolve_model(str(tmp_path))


def test_the_base_of_a_recipe_is_known_as_such(recipe_file: Path, tiny_folder: Path) -> None:
    for name in (str(tiny_folder), f"{tiny_folder}/"):
        assert resolve_model(name, recipe_path=str(recipe_file)).kind == "base"


def test_another_model_is_asked_as_the_recipe_says(recipe_file: Path, model_folder: Path) -> None:
    opened = resolve_model(str(model_folder), recipe_path=str(recipe_file))
    assert (opened.kind, opened.home) == ("model", model_folder)
    assert opened.recipe.model.id == str(model_folder)
    assert opened.recipe.eval.batch_size == 8


def test_a_hub_id_has_no_home() -> None:
    opened = resolve_model("qvft/tiny-blip2")
    assert (opened.kind, opened.home) == ("model", None)


def test_a_merged_folder_keeps_the_prompts_it_was_trained_with(model_folder: Path) -> None:
    prompt = {"caption": "a photo of", "question": "Q: {question} A:"}
    (model_folder / "merge.json").write_text(json.dumps({"prompt": prompt}))
    assert resolve_model(str(model_folder)).recipe.data.prompt.recorded() == prompt


def test_a_broken_merge_json_is_named(model_folder: Path) -> None:
    (model_folder / "merge.json").write_text("{")
    with pytest.raises(DataError, match="merge.json:1"):
        resolve_model(str(model_folder))


def test_overrides_can_stand_for_a_recipe(model_folder: Path) -> None:
    opened = resolve_model(str(model_folder), overrides=["data.eval.path=rows.jsonl"])
    assert require_eval_data(opened).path == "rows.jsonl"


def test_a_finished_model_keeps_its_image_size(model_folder: Path) -> None:
    held = json.loads((model_folder / "config.json").read_text())["vision_config"]["image_size"]
    same, other = [f"model.image_size={held}"], [f"model.image_size={2 * held}"]
    assert resolve_model(str(model_folder), overrides=same, program="eval").kind == "model"
    with pytest.raises(RecipeError, match=rf"model\.image_size: {2 * held}; expected {held}"):
        resolve_model(str(model_folder), overrides=other, program="eval")
    assert resolve_model(str(model_folder), overrides=other).kind == "model"  # for another model


def test_without_evaluation_data_the_user_is_told_to_name_some(model_folder: Path) -> None:
    with pytest.raises(RecipeError, match="give a recipe with --recipe"):
        require_eval_data(resolve_model(str(model_folder)))


def test_a_run_is_loaded_with_its_trained_weights(drawn_run: Path, tiny_folder: Path) -> None:
    trained = load_resolved(resolve_model(str(drawn_run))).model
    base = load_resolved(resolve_model(str(tiny_folder))).model
    assert not (trained.training or base.training)
    assert not torch.equal(trained.query_tokens, base.query_tokens)
    assert torch.equal(
        trained.vision_model.embeddings.class_embedding,
        base.vision_model.embeddings.class_embedding,
    )
