"""From names on the command line to images and questions; no image is opened."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from qvft.data.rows import Row
from qvft.data.wanted import wanted_rows
from qvft.errors import DataError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "below").mkdir()
    for name in ("b.JPG", "a.png", "below/c.webp", "notes.txt", "[1].png"):
        (tmp_path / name).touch()
    return tmp_path


def jsonl(folder: Path, *rows: dict[str, Any]) -> str:
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def named(folder: Path, rows: list[Row]) -> list[str]:
    return [str(Path(row.sample.image.name).relative_to(folder)) for row in rows]


def test_an_image_asks_for_a_caption(folder: Path) -> None:
    (row,) = wanted_rows([str(folder / "a.png")])
    assert (row.kind, row.question, row.sample.image.name) == (
        "caption", None, str(folder / "a.png"),
    )  # fmt: skip


def test_a_question_is_asked_about_every_image(folder: Path) -> None:
    rows = wanted_rows([str(folder / "b.JPG"), str(folder / "a.png")], question="Is it red?")
    assert named(folder, rows) == ["b.JPG", "a.png"]
    assert {(row.kind, row.question) for row in rows} == {("question", "Is it red?")}


def test_a_folder_stands_for_its_images_at_any_depth(folder: Path) -> None:
    assert named(folder, wanted_rows([str(folder)])) == [
        "[1].png",
        "a.png",
        "b.JPG",
        "below/c.webp",
    ]


def test_a_glob_stands_for_what_it_matches(folder: Path) -> None:
    assert named(folder, wanted_rows([str(folder / "**" / "*.webp")])) == ["below/c.webp"]


def test_a_file_whose_name_looks_like_a_glob_is_that_file(folder: Path) -> None:
    assert named(folder, wanted_rows([str(folder / "[1].png")])) == ["[1].png"]


def test_jsonl_rows_lie_beside_their_file_and_may_ask(folder: Path) -> None:
    path = jsonl(
        folder,
        {"image": "a.png"},
        {"image": "b.JPG", "question": "Own?"},
        {"image": "below/c.webp", "questions": [{"question": "One?"}, {"question": "Two?"}]},
    )
    rows = wanted_rows([path], question="Given?")
    assert named(folder, rows) == ["a.png", "b.JPG", "below/c.webp", "below/c.webp"]
    assert [row.question for row in rows] == ["Given?", "Own?", "One?", "Two?"]


def test_texts_of_one_image_share_its_sample(folder: Path) -> None:
    rows = wanted_rows([jsonl(folder, {"image": "a.png", "questions": ["One?", "Two?"]})])
    assert len({row.sample.id for row in rows}) == 1


@pytest.mark.parametrize("name", ["absent.png", "*.gif", "empty"])
def test_a_name_that_matches_nothing_is_an_error(folder: Path, name: str) -> None:
    (folder / "empty").mkdir()
    with pytest.raises(DataError, match="matches no image"):
        wanted_rows([str(folder / name)])


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"question": "What?"}, 'no "image"'),
        ({"image": 3}, 'no "image"'),
        ({"image": "a.png", "question": 7}, "a question that is a int"),
        ({"image": "a.png", "question": " "}, "an empty question"),
        ({"image": "a.png", "questions": "What?"}, "questions that are a str"),
        ({"image": "a.png", "questions": [{"answers": ["x"]}]}, "an empty question"),
    ],
)
def test_a_wrong_jsonl_row_is_named_by_its_line(
    folder: Path, row: dict[str, Any], message: str
) -> None:
    with pytest.raises(DataError, match=f"rows.jsonl:2: {message}"):
        wanted_rows([jsonl(folder, {"image": "a.png"}, row)])
