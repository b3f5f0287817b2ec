"""class_folders beyond what its folder in data_formats shows."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
from PIL import Image

from qvft.data.formats import read_samples
from qvft.errors import DataError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("golden_retriever/b.png", "golden_retriever/a.png", "cat/deep/1.png"):
        (tmp_path / "pets" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 4)).save(tmp_path / "pets" / name)
    return tmp_path / "pets"


def test_without_texts_the_class_answers_a_question(folder: Path) -> None:
    samples = read_samples("class_folders", str(folder))
    assert [one.id for one in samples] == [
        "cat/deep/1.png",
        "golden_retriever/a.png",
        "golden_retriever/b.png",
    ]
    assert samples[1].captions == ()
    assert samples[1].questions[0].answers == ("golden retriever",)
    assert samples[1].meta == {"class": "golden_retriever"}


def test_a_caption_alone_leaves_the_question_out(folder: Path) -> None:
    texts = {"caption": "a {class}, {x}"}
    samples = read_samples("class_folders", str(folder), class_texts=texts)
    assert [one.captions for one in samples[:2]] == [("a cat, {x}",), ("a golden retriever, {x}",)]
    assert not any(one.questions for one in samples)


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        ({"caption": "a photo"}, "`caption` without {class}"),
        ({"captions": "a {class}"}, "unknown key `captions`.*did you mean `caption`"),
        ({"question": " "}, "`question` is empty"),
    ],
)
def test_texts_that_say_nothing_are_refused(folder: Path, texts: dict, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_samples("class_folders", str(folder), class_texts=texts)


def test_what_is_left_out_is_counted(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    logging.getLogger("qvft").propagate = True
    (folder / "cat" / "notes.txt").write_text("x")
    (folder / "cat" / ".DS_Store").write_text("x")
    Image.new("RGB", (4, 4)).save(folder / "stray.png")
    (folder / "dog").mkdir()
    with caplog.at_level(logging.WARNING):
        assert len(read_samples("class_folders", str(folder))) == 3
    assert "2 files are no images of a class" in caplog.text
    assert "1 classes have no image, first dog" in caplog.text


def test_a_split_is_a_folder(folder: Path) -> None:
    with pytest.raises(DataError, match="no file of any split"):
        read_samples("class_folders", str(folder), split="train")
    folder.rename(folder.parent / "train")
    assert len(read_samples("class_folders", str(folder.parent), split="train")) == 3


def test_links_that_lead_out_are_refused_where_the_recipe_says_so(folder: Path) -> None:
    Image.new("RGB", (4, 4)).save(folder.parent / "secret.png")
    (folder / "cat" / "out.png").symlink_to(folder.parent / "secret.png")
    with pytest.raises(DataError, match="class cat: the image .* lies outside"):
        read_samples("class_folders", str(folder), allow_paths_outside_root=False)
    assert len(read_samples("class_folders", str(folder))) == 4


def test_a_format_without_classes_takes_no_texts_of_them(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="`class_texts` is set for format jsonl"):
        read_samples("jsonl", str(tmp_path), class_texts={"question": "?"})
