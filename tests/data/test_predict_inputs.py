"""From names on the command line to images and questions."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from qvft.data.predict_inputs import resolve_inputs, the_one_row
from qvft.data.rows import Row
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
    (row,) = resolve_inputs([str(folder / "a.png")])
    assert (row.kind, row.question, row.sample.image.name) == (
        "caption", None, str(folder / "a.png"),
    )  # fmt: skip


def test_a_question_is_asked_about_every_image(folder: Path) -> None:
    rows = resolve_inputs([str(folder / "b.JPG"), str(folder / "a.png")], question="Is it red?")
    assert named(folder, rows) == ["b.JPG", "a.png"]
    assert {(row.kind, row.question) for row in rows} == {("question", "Is it red?")}


def test_a_folder_stands_for_its_images_at_any_depth(folder: Path) -> None:
    assert named(folder, resolve_inputs([str(folder)])) == [
        "[1].png",
        "a.png",
        "b.JPG",
        "below/c.webp",
    ]


def test_a_glob_stands_for_what_it_matches(folder: Path) -> None:
    assert named(folder, resolve_inputs([str(folder / "**" / "*.webp")])) == ["below/c.webp"]


def test_a_file_whose_name_looks_like_a_glob_is_that_file(folder: Path) -> None:
    assert named(folder, resolve_inputs([str(folder / "[1].png")])) == ["[1].png"]


def test_jsonl_rows_lie_beside_their_file_and_may_ask(folder: Path) -> None:
    path = jsonl(
        folder,
        {"image": "a.png"},
        {"image": "b.JPG", "question": "Own?"},
        {"image": "below/c.webp", "questions": [{"question": "One?"}, {"question": "Two?"}]},
    )
    rows = resolve_inputs([path], question="Given?")
    assert named(folder, rows) == ["a.png", "b.JPG", "below/c.webp", "below/c.webp"]
    assert [row.question for row in rows] == ["Given?", "Own?", "One?", "Two?"]


def test_texts_of_one_image_share_its_sample(folder: Path) -> None:
    rows = resolve_inputs([jsonl(folder, {"image": "a.png", "questions": ["One?", "Two?"]})])
    assert len({row.sample.id for row in rows}) == 1


@pytest.mark.parametrize("name", ["absent.png", "*.gif", "empty"])
def test_a_name_that_matches_nothing_is_an_error(folder: Path, name: str) -> None:
    (folder / "empty").mkdir()
    with pytest.raises(DataError, match="matches no image"):
        resolve_inputs([str(folder / name)])


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"question": "What?"}, "`image` is missing"),
        ({"image": 3}, "`image` is a number"),
        ({"image": "https://example.org/a.png"}, "`image` is a URL; .*; download it"),
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
        resolve_inputs([jsonl(folder, {"image": "a.png"}, row)])


def test_images_of_unknown_ending_are_taken_and_other_files_counted(
    tmp_path: Path, said: pytest.LogCaptureFixture
) -> None:
    for name in ("a.apng", "b.pgm", "c.jfif", "d.weird", "e"):
        kind = {"a.apng": "PNG", "b.pgm": "PPM"}.get(name, "JPEG")
        Image.new("L", (4, 4)).save(tmp_path / name, kind)
    for name in ("notes.txt", "page.html"):
        (tmp_path / name).write_text("words")
    (tmp_path / "drawing.psd").write_bytes(b"8BPS\0\1" + bytes(40))
    (tmp_path / "below").mkdir()
    for name in (str(tmp_path), str(tmp_path / "*")):
        said.clear()
        rows = resolve_inputs([name])
        assert named(tmp_path, rows) == ["a.apng", "b.pgm", "c.jfif", "d.weird", "e"]
        first = tmp_path / "drawing.psd"
        assert said.messages == [f"{name}: files that are not images, skipped: 3, first {first}"]


def test_a_glob_of_folders_alone_says_so(folder: Path) -> None:
    with pytest.raises(DataError, match=f"folders alone, first {folder}/below: name a folder"):
        resolve_inputs([str(folder / "b*w")])


def test_a_folder_with_a_list_alone_says_to_name_the_list(tmp_path: Path) -> None:
    path = jsonl(tmp_path, {"image": "x.png"})
    with pytest.raises(DataError, match=f"matches no image; .*; name {path} itself"):
        resolve_inputs([str(tmp_path)])


def test_questions_without_an_id_are_numbered_as_the_jsonl_format_does(folder: Path) -> None:
    row = {
        "id": "r",
        "image": "a.png",
        "questions": ["One?", {"id": 7, "question": "Two?"}, {"question": "Three?"}],
        "question": "Own?",
    }
    rows = resolve_inputs([jsonl(folder, row, {"image": "a.png", "questions": ["No id?"]})])
    assert [one.id for one in rows] == ["r#1", "7", "r#3", "r", ""]


def test_an_id_of_two_different_rows_is_refused_and_a_repeated_row_asked_once(
    folder: Path, said: pytest.LogCaptureFixture
) -> None:
    same = {"id": "x", "image": "a.png", "caption": "one"}
    rows = resolve_inputs([jsonl(folder, same, {**same, "caption": "two"})])
    assert [one.id for one in rows] == ["x"]
    assert "asked once: 1, first x" in said.text
    for other in ({**same, "image": "b.JPG"}, {**same, "question": "Why?"}):
        path = jsonl(folder, same, other)
        with pytest.raises(DataError, match=f":2: `id` x is used twice; .*{path}:1"):
            resolve_inputs([path])


def test_missing_images_are_counted_and_an_error_if_all_are(
    folder: Path, said: pytest.LogCaptureFixture
) -> None:
    absent = {"image": "absent.png"}
    rows = resolve_inputs([jsonl(folder, absent, {"image": "a.png"})])
    assert len(rows) == 2
    assert said.messages == [
        f"1 of 2 images do not exist, first {folder}/absent.png; their rows get an error"
    ]
    with pytest.raises(DataError, match=f"^{folder}/absent.png: no such file, nor any other of 1"):
        resolve_inputs([jsonl(folder, absent, {**absent, "question": "What?"})])


def test_names_that_windows_and_label_tools_write_are_found(folder: Path) -> None:
    (folder / "d e.png").touch()
    path = jsonl(folder, {"image": "below\\c.webp"}, {"image": "d%20e.png"})
    assert named(folder, resolve_inputs([path])) == ["below/c.webp", "d e.png"]


@pytest.mark.parametrize("question", ["", "  ", "caf\udce9"], ids=repr)
def test_a_question_of_the_command_line_that_is_no_text(question: str, folder: Path) -> None:
    """Bytes that are not the terminal's encoding come as halves of surrogate pairs."""
    with pytest.raises(DataError, match="^command line: --question: a"):
        resolve_inputs([str(folder)], question=question)
    with pytest.raises(DataError, match="^command line: --question: a"):
        the_one_row(str(folder), question=question)
