"""`model.image_size` through the programs: trained, resumed, evaluated, merged, exported."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import (
    AutoProcessor,
    Blip2ForConditionalGeneration,
    Blip2ForImageTextRetrieval,
    InstructBlipForConditionalGeneration,
)

from qvft import load_model
from qvft.data.images.decoding import decode
from qvft.data.sample import ImageFile
from qvft.eval import main as evaluate
from qvft.models.image_size import POSITIONS
from qvft.train import main as train
from qvft.weights.merge import merge_run

SIZE, PATCHES = 72, 36
"""Pixels per side, where the tiny model has 48, and patches of 12 pixels."""
RESIZED = f"model.image_size={SIZE}"
QUESTION = "Which colour is it?"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, recipe_file: Path) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "resized"
    assert train([str(recipe_file), f"run.dir={folder}", RESIZED]) == 0
    return folder


def plain_answer(folder: Path, image: Path, cls: type, *, max_new_tokens: int = 4) -> str:
    """A user's own call of plain transformers."""
    model, processor = cls.from_pretrained(folder), AutoProcessor.from_pretrained(folder)
    vision = model.config.vision_config
    assert vision.image_size == SIZE
    assert model.get_parameter(POSITIONS).shape[1] == PATCHES + 1
    inputs = processor(
        images=decode(ImageFile(image)), text=f"Question: {QUESTION} Answer:", return_tensors="pt"
    )
    assert inputs["pixel_values"].shape[-2:] == (SIZE, SIZE)
    ids = model.generate(**inputs, max_new_tokens=max_new_tokens, do_sample=False)
    new = ids[:, inputs["input_ids"].shape[1] :]
    return processor.batch_decode(new, skip_special_tokens=True)[0].strip()


def test_a_merged_folder_loads_plainly_in_its_size(run: Path, shapes: Path, tmp_path: Path) -> None:
    """The merge has compared every weight, logits and greedy texts."""
    merge_run(run, tmp_path / "out")
    image = shapes / "test1.png"
    ours = load_model(run).answer(image, QUESTION)
    assert plain_answer(tmp_path / "out", image, Blip2ForConditionalGeneration) == ours
    assert load_model(tmp_path / "out").answer(image, QUESTION) == ours


def test_a_merge_reads_the_base_weight_by_weight(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("the base was loaded whole")

    monkeypatch.setattr("qvft.weights.base_weights.base_model", refuse)
    merge_run(run, tmp_path / "out")


def test_a_base_in_a_narrow_type_merges_within_its_rounding(
    make_run: Callable[..., Path], tiny_folder: Path, tmp_path: Path
) -> None:
    narrow = tmp_path / "narrow"
    base = Blip2ForConditionalGeneration.from_pretrained(tiny_folder)
    base.to(torch.bfloat16).save_pretrained(narrow)
    AutoProcessor.from_pretrained(tiny_folder).save_pretrained(narrow)
    run = make_run(tmp_path / "run", model={"id": str(narrow), "image_size": SIZE})
    assert merge_run(run, tmp_path / "out")["dtype"] == "bfloat16"


def test_the_run_is_evaluated_in_its_size_and_the_report_says_so(run: Path, tmp_path: Path) -> None:
    given = [str(run), "data.eval.limit=2", "eval.blind=false", "--out", str(tmp_path / "eval")]
    assert evaluate(given) == 0
    model = json.loads((tmp_path / "eval" / "report.json").read_text())["model"]
    assert model["image_size"] == SIZE


def test_features_of_two_sizes_are_kept_apart(run: Path, features_cache: Path) -> None:
    kept = [json.loads(path.read_text()) for path in features_cache.rglob("space.json")]
    assert PATCHES + 1 in {space["patches"] for space in kept}


def test_a_stopped_run_resumes_in_its_size_alone(
    run: Path, recipe_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cut = Path(shutil.copytree(run, tmp_path / "cut"))
    shutil.rmtree(cut / "adapter")
    shutil.rmtree(cut / "checkpoints" / "0" / "checkpoint-6")
    asked = [str(recipe_file), f"run.dir={cut}", "train.resume=auto"]
    assert train(asked) == 2
    assert "model.image_size is 72 there and not set here" in capsys.readouterr().err
    assert train([*asked, RESIZED]) == 0
    whole, resumed = (load_file(one / "adapter" / "bridge.safetensors") for one in (run, cut))
    # Bit-equal: same data order, same random state, one thread.
    assert all(torch.equal(whole[key], resumed[key]) for key in whole)


def test_a_question_aware_model_trains_and_merges(
    make_run: Callable[..., Path], tiny_folder: Path, shapes: Path, tmp_path: Path
) -> None:
    model = {"id": str(tiny_folder), "text_branch": "fresh", "image_size": SIZE}
    run = make_run(tmp_path / "run", model=model)
    merge_run(run, tmp_path / "out")
    image = shapes / "test1.png"
    ours = load_model(run).answer(image, QUESTION)
    cls = InstructBlipForConditionalGeneration
    assert plain_answer(tmp_path / "out", image, cls, max_new_tokens=10) == ours


def test_peft_export_says_what_to_do_instead(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from qvft.export import main as export

    assert export([str(run), str(tmp_path / "out"), "--to", "peft"]) == 2
    assert "qvft.merge" in capsys.readouterr().err


def test_retrieval_export_has_the_size(recipe_file: Path, tmp_path: Path) -> None:
    from qvft.export import main as export

    run, out = tmp_path / "run", tmp_path / "out"
    heads = ["objectives.itc=0.1", "objectives.itm=0.1"]
    assert train([str(recipe_file), f"run.dir={run}", RESIZED, *heads, "train.max_steps=1"]) == 0
    assert export([str(run), str(out), "--to", "retrieval"]) == 0
    model = Blip2ForImageTextRetrieval.from_pretrained(out)
    assert model.config.vision_config.image_size == SIZE
    assert AutoProcessor.from_pretrained(out).image_processor.size["height"] == SIZE
