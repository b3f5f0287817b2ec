"""Pairs of a chosen and a rejected text: JSONL, shards, memory, hashes, image checks."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tar_shards import png, write_tar

from qvft.data.formats import read_samples
from qvft.data.formats.memory import samples_in_memory
from qvft.data.rows import preference_rows, training_rows
from qvft.data.sample import Pair, Sample
from qvft.data.validate_images import validate_images
from qvft.errors import DataError, ImageError
from qvft.recipe.load import load_recipe
from qvft.setup.data import read_texts, samples_hash

CAPTIONS = {"chosen": "a red square", "rejected": "a square"}
ANSWERS = {"question": "What is it?", "chosen": "a square", "rejected": "a circle"}


def read(folder: Path, *rows: dict) -> list[Sample]:
    file = folder / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return read_samples("jsonl", str(file))


def test_listed_and_flat_pairs_of_an_image_are_merged_and_numbered(tmp_path: Path) -> None:
    (sample,) = read(
        tmp_path,
        {"image": "a.png", "pairs": [ANSWERS, {**CAPTIONS, "question": None}]},
        {"image": "a.png", "caption": "x"},
        {"image": "./a.png", "question": None, **CAPTIONS},
    )
    assert sample.pairs == (
        Pair("a.png#pair1", "What is it?", "a square", "a circle"),
        Pair("a.png#pair2", None, "a red square", "a square"),
        Pair("a.png#pair3", None, "a red square", "a square"),
    )
    assert sample.captions == ("x",)


def test_id_and_meta_of_a_pair_line_are_the_pairs(tmp_path: Path) -> None:
    (sample,) = read(tmp_path, {"id": 7, "image": "a.png", "meta": {"by": 2}, **CAPTIONS})
    assert (sample.id, sample.meta) == ("a.png", {})
    assert (sample.pairs[0].id, sample.pairs[0].meta) == ("7", {"by": "2"})


@pytest.mark.parametrize("half", ["chosen", "rejected"])
@pytest.mark.parametrize("nested", [True, False], ids=["nested", "flat"])
def test_a_pair_needs_both_halves(half: str, nested: bool, tmp_path: Path) -> None:
    pair = {key: text for key, text in ANSWERS.items() if key != half}
    row = {"image": "a.png", **({"pairs": [pair]} if nested else pair)}
    with pytest.raises(DataError, match=rf"rows\.jsonl:2.*without `{half}`") as caught:
        read(tmp_path, {"image": "a.png", "caption": "x"}, row)
    assert "square" not in str(caught.value)  # texts may be about patients


def test_equal_ids_and_a_given_id_that_is_another_default_are_refused(tmp_path: Path) -> None:
    first = {"image": "a.png", **CAPTIONS}
    for id in ("p", "a.png#pair1"):
        with pytest.raises(DataError, match="is used twice"):
            given = {**first, "id": id} if id == "p" else first
            read(tmp_path, given, {**ANSWERS, "image": "b.png", "id": id})


def test_pairs_are_no_rows_of_supervised_training(tmp_path: Path) -> None:
    samples = read(tmp_path, {"image": "a.png", "captions": ["x"], "pairs": [ANSWERS, CAPTIONS]})
    assert [row.target for row in training_rows(samples)] == ["x"]
    answers, captions = preference_rows(samples)
    assert (answers.kind, answers.target, answers.rejected) == ("question", "a square", "a circle")
    assert (captions.kind, captions.target, captions.rejected) == (
        "caption", "a red square", "a square",
    )  # fmt: skip
    assert preference_rows(samples, texts="captions") == [captions]
    assert preference_rows(samples, texts="questions") == [answers]


def test_pairs_in_memory_are_those_of_the_file(tmp_path: Path) -> None:
    rows = [{"image": "a.png", "pairs": [ANSWERS]}, {"image": "a.png", **CAPTIONS}]
    (given,) = samples_in_memory(rows)
    (from_file,) = read(tmp_path, *rows)
    assert given.pairs == from_file.pairs


def test_pairs_in_a_dataset_of_rows_like_the_jsonl(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    rows = datasets.Dataset.from_list([{"image": "a.png", "pairs": [{**ANSWERS, "id": "p"}]}])
    (sample,) = samples_in_memory(rows)
    assert [(one.id, one.chosen) for one in sample.pairs] == [("p", "a square")]


def test_shards_have_pairs(tmp_path: Path) -> None:
    members = {"red.png": png((255, 0, 0)), "blue.png": png((0, 0, 255))}
    for name, row in (("red", {"pairs": [ANSWERS]}), ("blue", CAPTIONS)):
        members[f"{name}.json"] = json.dumps(row).encode()
    path = write_tar(tmp_path / "a.tar", dict(sorted(members.items(), reverse=True)))
    red, blue = read_samples("tar", str(path))
    assert [one.id for one in (*red.pairs, *blue.pairs)] == ["a/red#pair1", "a/blue#pair1"]


def test_the_hash_covers_pairs_and_is_unchanged_without_them(tmp_path: Path) -> None:
    plain = {"image": "a.png", "captions": ["x"]}
    hashes = [
        samples_hash(read(tmp_path, {**plain, **more}))
        for more in (
            {},
            {"pairs": []},
            {"pairs": [CAPTIONS]},
            {"pairs": [{"chosen": CAPTIONS["rejected"], "rejected": CAPTIONS["chosen"]}]},
            {"pairs": [{**CAPTIONS, "question": "Which?"}]},
        )
    ]
    assert hashes[0] == hashes[1]
    assert len(set(hashes[1:])) == 4
    # The value of version 0.1.0, so that its runs resume.
    assert hashes[0] == "ae16c9ecac95a148dcdd115b6b7fd3a41da0d61dc8e728e54439afe29cb64e81"


def test_the_image_of_a_sample_with_pairs_alone_is_checked(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"not an image")
    samples = read(tmp_path, {"image": "a.png", **CAPTIONS})
    with pytest.raises(ImageError):
        validate_images(samples, on_error="error")


@pytest.mark.parametrize("half", ["chosen", "rejected"])
def test_a_caption_of_a_pair_that_cleaning_empties_is_refused(half: str, tmp_path: Path) -> None:
    read(tmp_path, {"image": "a.png", **CAPTIONS, half: "..."})
    recipe = load_recipe(
        "recipes/custom_jsonl.yaml",
        [f"data.train.path={tmp_path}/rows.jsonl", "data.text=blip2", "model.id=qvft/tiny-blip2"],
    )
    with pytest.raises(DataError, match=r"cleaning leaves nothing of 1 text: a\.png#pair1"):
        read_texts(recipe, "train")
