"""A model asked from Python."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from peft import PeftModel
from PIL import Image
from safetensors.torch import load_file, save_file

import qvft
from qvft.errors import DataError, FailedError, ImageError, RecipeError
from qvft.predict import main

ASKED = ("Is it red?", "Which colour is it?")


@pytest.fixture(scope="module")
def model(tiny_run: Path) -> qvft.VisionLanguageModel:
    return qvft.load_model(tiny_run)


@pytest.fixture(scope="module")
def files(shapes: Path) -> list[Path]:
    return [shapes / f"test{number}.png" for number in range(3)]


def test_texts_are_those_of_the_program(
    model: qvft.VisionLanguageModel, tiny_run: Path, files: list[Path], capsys
) -> None:
    assert main([str(tiny_run), *map(str, files), "--workers=0"]) == 0
    captions = [json.loads(line)["text"] for line in capsys.readouterr().out.splitlines()]
    assert model.caption(files) == captions
    assert main([str(tiny_run), *map(str, files), "--workers=0", "--question", ASKED[0]]) == 0
    answers = [json.loads(line)["text"] for line in capsys.readouterr().out.splitlines()]
    assert model.answer(files, ASKED[0]) == answers


def test_one_image_gives_one_text(model: qvft.VisionLanguageModel, files: list[Path]) -> None:
    assert model.caption(files[1]) == model.caption(files)[1]
    assert model.answer(str(files[1]), ASKED[0]) == model.answer(files, [ASKED[0]] * 3)[1]


def test_pillow_images_are_read_as_files_are(
    model: qvft.VisionLanguageModel, files: list[Path]
) -> None:
    opened = [Image.open(file) for file in files]
    assert model.caption(opened) == model.caption(files)
    assert model.caption(opened) == model.caption(files)  # they can be used again


def test_arrays_are_read_as_pillow_images_are(
    model: qvft.VisionLanguageModel, files: list[Path]
) -> None:
    arrays = [np.asarray(Image.open(file)) for file in files]
    assert model.caption(arrays) == model.caption(files)
    assert model.caption(arrays[1]) == model.caption(files[1])
    assert model.answer(arrays[1], list(ASKED)) == model.answer(files[1], list(ASKED))


def test_bytes_are_read_as_files_are(model: qvft.VisionLanguageModel, files: list[Path]) -> None:
    contents = [file.read_bytes() for file in files]
    assert model.caption(contents) == model.caption(files)
    assert model.caption(contents[1]) == model.caption(files[1])
    with pytest.raises(ImageError):
        model.caption(b"\x89PNG")


def test_the_modules_of_transformers_and_peft_are_at_hand(model: qvft.VisionLanguageModel) -> None:
    assert isinstance(model.peft_model, PeftModel)
    assert any(one is model.model for one in model.peft_model.modules())
    assert model.processor.tokenizer is model.loaded.template.tokenizer
    assert type(model.model).__name__ in repr(model) and "LoRA" in repr(model)


@pytest.mark.parametrize(
    ("images", "given"),
    [
        (b"", "a bytes; expected a path"),
        (3, "a int; expected a path"),
        (None, "a NoneType; expected a path"),
        ([[None]], "a list; expected a path"),
        (np.zeros((4, 4, 3)), "an array of float64"),
        (np.zeros((2, 4, 4, 3), np.uint8), r".*of shape \(2, 4, 4, 3\)"),
        (np.zeros((3, 4, 5), np.uint8), r".*of shape \(3, 4, 5\)"),
        (np.zeros((0, 4), np.uint8), r".*of shape \(0, 4\)"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_what_is_no_image_is_refused_in_one_message(
    images, given: str, model: qvft.VisionLanguageModel
) -> None:
    with pytest.raises(DataError, match=f"^images: {given}"):
        model.caption(images)


@pytest.mark.parametrize("questions", [3, None, [3], [None]])
def test_a_question_that_is_no_text_is_refused(
    questions, model: qvft.VisionLanguageModel, files: list[Path]
) -> None:
    with pytest.raises(DataError, match="^questions: a question that is a "):
        model.answer(files[0], questions)


def test_many_questions_about_one_image_encode_it_once(
    model: qvft.VisionLanguageModel, files: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    from qvft.inference import encoding

    encode, encoded = encoding.encode_images, []
    monkeypatch.setattr(
        encoding,
        "encode_images",
        lambda m, pixels: encoded.append(len(pixels)) or encode(m, pixels),
    )
    found = model.answer(files[0], ASKED)
    assert encoded == [1]
    assert found == [model.answer(files[0], question) for question in ASKED]


def test_several_sequences_are_a_list_for_each(
    model: qvft.VisionLanguageModel, files: list[Path]
) -> None:
    found = model.caption(files, num_beams=2, num_return_sequences=2)
    assert [len(texts) for texts in found] == [2, 2, 2]


def test_a_broken_image_raises_or_gives_none(
    model: qvft.VisionLanguageModel, files: list[Path], tmp_path: Path
) -> None:
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no image")
    with pytest.raises(ImageError, match=r"broken\.png"):
        model.caption([files[0], broken])
    found = model.caption([files[0], broken, files[1]], on_bad_image="skip")
    assert found == [*model.caption(files[:1]), None, *model.caption(files[1:2])]


@pytest.mark.parametrize("asked", [["Is it red?"] * 2, ["Is it red?", " ", "Is it?"], []])
def test_questions_must_go_with_the_images(
    model: qvft.VisionLanguageModel, files: list[Path], asked: list[str]
) -> None:
    with pytest.raises(DataError):
        model.answer(files, asked)


def test_no_images_give_no_texts(model: qvft.VisionLanguageModel) -> None:
    assert model.caption([]) == []
    assert model.answer([], ASKED[0]) == []


def test_an_unknown_field_is_refused(model: qvft.VisionLanguageModel, files: list[Path]) -> None:
    with pytest.raises(RecipeError, match="num_beams"):
        model.caption(files, num_beems=2)


def test_a_model_with_a_nan_weight_writes_no_text_and_ranks_nothing(
    tiny_folder: Path, files: list[Path], tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(tiny_folder, tmp_path / "damaged"))
    weights = load_file(folder / "model.safetensors")
    weights["language_projection.bias"][0] = float("nan")
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    damaged = qvft.load_model(folder)
    for decoding in ({}, {"num_beams": 2}, {"do_sample": True, "seed": 1}):
        with pytest.raises(FailedError, match="NaN"):
            damaged.caption(files, **decoding)
    with pytest.raises(FailedError, match="NaN"):
        damaged.answer(files[0], list(ASKED))  # behind a shared prefix
    with pytest.raises(FailedError, match="NaN"):
        damaged.rank(files[0], ["yes", "no"], ASKED[0])
