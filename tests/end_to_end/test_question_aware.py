"""A question-aware model through the programs: trained, resumed, evaluated, merged, asked."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import AutoProcessor, InstructBlipForConditionalGeneration

from qvft import load_model
from qvft.errors import ModelError, RecipeError
from qvft.recipe.load import load_recipe
from qvft.setup.model import base_model, base_of
from qvft.train import main as train
from qvft.weights.merge import merge_run

ASKED = ["Is it red?", "Which colour is it?"]


@pytest.fixture(scope="module")
def question_run(tmp_path_factory: pytest.TempPathFactory, recipe_file: Path) -> Path:
    """A run whose Q-Former reads the question through four query tokens."""
    folder = tmp_path_factory.mktemp("runs") / "asked"
    cut = ["model.text_branch=fresh", "model.query_tokens=4"]
    assert train([str(recipe_file), f"run.dir={folder}", *cut]) == 0
    return folder


@pytest.fixture(scope="module")
def question_merged(tmp_path_factory: pytest.TempPathFactory, question_run: Path) -> Path:
    out = tmp_path_factory.mktemp("merged") / "asked"
    merge_run(question_run, out)
    return out


def test_the_manifest_names_the_text_branch_among_what_was_trained(question_run: Path) -> None:
    manifest = json.loads((question_run / "adapter" / "manifest.json").read_text())
    assert manifest["family"] == "blip2_question"
    assert "qformer.embeddings.word_embeddings.weight" in manifest["bridge"]


def test_a_merged_folder_says_the_same_through_plain_transformers(
    question_run: Path, question_merged: Path, shapes: Path
) -> None:
    """The merge itself has compared logits and greedy text; here a user's own call."""
    from qvft.data.images.decoding import decode
    from qvft.data.sample import ImageFile

    image = shapes / "test1.png"
    ours = load_model(question_run).answer(image, ASKED)
    assert load_model(question_merged).answer(image, ASKED) == ours
    model = InstructBlipForConditionalGeneration.from_pretrained(question_merged)
    processor = AutoProcessor.from_pretrained(question_merged)
    assert model.config.num_query_tokens == processor.num_query_tokens == 4
    said = []
    for question in ASKED:
        prompt = f"Question: {question} Answer:"
        inputs = processor(images=decode(ImageFile(image)), text=prompt, return_tensors="pt")
        ids = model.generate(**inputs, max_new_tokens=4, do_sample=False)
        new = ids[:, inputs["input_ids"].shape[1] :]
        said.append(processor.batch_decode(new, skip_special_tokens=True)[0].strip())
    assert said == ours


def test_a_merged_folder_is_evaluated_with_the_recipe_it_came_from(
    recipe_file: Path, question_merged: Path, tmp_path: Path
) -> None:
    """The recipe asks for a text branch and fewer query tokens, which the folder already has."""
    from qvft.eval import main as evaluate

    asked = ["model.text_branch=fresh", "model.query_tokens=4", "eval.blind=false"]
    given = [str(question_merged), "--recipe", str(recipe_file), *asked]
    assert evaluate([*given, "data.eval.limit=2", "--out", str(tmp_path / "eval")]) == 0


def test_the_question_changes_what_the_queries_bring(recipe_file: Path) -> None:
    """Through the batch that training sees: the same image, another question, another prefix."""
    from qvft.data.rows import training_rows
    from qvft.models.blip2 import encode_vision
    from qvft.models.question_aware.forward_stages import encode_rows
    from qvft.setup.data import read_split

    recipe = load_recipe(recipe_file, ["model.text_branch=fresh"])
    loaded = base_model(recipe, base_of(recipe))
    rows = training_rows(read_split(recipe, "train").samples[:1], texts="questions")
    batch = loaded.collator(list(enumerate(rows)))
    assert batch["pixel_values"].shape[0] == 1 and len(rows) == 2
    read = {key: batch[key] for key in ("qformer_input_ids", "qformer_attention_mask")}
    with torch.no_grad():
        features = encode_vision(loaded.model, batch["pixel_values"])
        prefix = encode_rows(loaded.model, features, image_index=batch["image_index"], **read)
    assert not torch.allclose(prefix[0], prefix[1])


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["model.family=blip2_question"], r"^model\.text_branch: is not set"),
        (["model.family=blip2", "model.text_branch=fresh"], "model.text_branch"),
        (["model.query_tokens=99"], r"99 of \d+ query tokens"),
    ],
)
def test_wrong_combinations_are_refused(recipe_file: Path, overrides: list, said: str) -> None:
    with pytest.raises(ModelError, match=said):
        base_of(load_recipe(recipe_file, overrides))


def test_fresh_weights_have_no_text_branch(recipe_file: Path) -> None:
    recipe = load_recipe(recipe_file, ["model.text_branch=fresh", "model.init=random"])
    with pytest.raises(RecipeError, match=r"model\.init"):
        base_of(recipe)


def test_peft_export_says_what_to_do_instead(
    question_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from qvft.export import main as export

    assert export([str(question_run), str(tmp_path / "out"), "--to", "peft"]) == 2
    assert "qvft.merge" in capsys.readouterr().err


def test_fewer_query_tokens_train_and_merge_without_a_text_branch(
    make_run: Callable[..., Path], tmp_path: Path, tiny_folder: Path
) -> None:
    run = make_run(
        tmp_path / "run",
        model={"id": str(tiny_folder), "query_tokens": 3},
        trainable={"query_tokens": "frozen"},
    )
    merge_run(run, tmp_path / "out")
    assert json.loads((tmp_path / "out" / "config.json").read_text())["num_query_tokens"] == 3
