"""qvft's own JSONL beyond what data_formats/jsonl shows."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from qvft.data.formats import read_samples
from qvft.data.sample import Sample
from qvft.errors import DataError
from qvft.json_files import not_json, read_json


def read(folder: Path, *rows: dict, **options) -> list[Sample]:
    file = folder / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return read_samples("jsonl", str(file), **options)


def test_lines_of_an_image_are_merged_in_the_order_of_first_appearance(tmp_path: Path) -> None:
    samples = read(
        tmp_path,
        {"image": "b.png", "caption": "one"},
        {"image": "a.png", "caption": "two"},
        {"image": "sub/../b.png", "caption": "three"},
    )
    assert [(one.image.path.name, one.captions) for one in samples] == [
        ("b.png", ("one", "three")),
        ("a.png", ("two",)),
    ]


def test_absolute_paths_and_an_image_folder_of_their_own(tmp_path: Path) -> None:
    (tmp_path / "pictures").mkdir()
    here, there = read(
        tmp_path,
        {"image": "a.png", "caption": "x"},
        {"image": "/elsewhere/b.png", "caption": "x"},
        images=str(tmp_path / "pictures"),
        allow_paths_outside_root=True,
    )
    assert here.image.path == tmp_path / "pictures" / "a.png"
    assert there.image.path == Path("/elsewhere/b.png")


@pytest.mark.parametrize(
    ("given", "text"), [(5, "5"), (-2, "-2"), (2.5, "2.5"), (True, "true"), (" yes ", "yes")]
)
def test_answers_become_text(tmp_path: Path, given, text: str) -> None:
    (sample,) = read(tmp_path, {"image": "a.png", "question": "?", "answers": [given, given]})
    assert sample.questions[0].answers == (text, text)


def test_the_id_of_a_question_line_is_the_questions(tmp_path: Path) -> None:
    (sample,) = read(tmp_path, {"id": "q1", "image": "a.png", "question": "?", "answer": "x"})
    assert (sample.id, sample.questions[0].id) == ("a.png", "q1")


def test_the_id_of_a_caption_line_is_the_samples_and_the_first_counts(tmp_path: Path) -> None:
    (sample,) = read(
        tmp_path,
        {"id": "c1", "image": "a.png", "caption": "x"},
        {"id": "c2", "image": "a.png", "caption": "y"},
    )
    assert (sample.id, sample.captions) == ("c1", ("x", "y"))


def test_meta_of_a_question_becomes_text(tmp_path: Path) -> None:
    row = {"image": "a.png", "question": "?", "answer": "x", "meta": {"level": 3}}
    (sample,) = read(tmp_path, row)
    assert (sample.meta, sample.questions[0].meta) == ({}, {"level": "3"})


def test_a_folder_holds_one_file_a_split(tmp_path: Path) -> None:
    read(tmp_path, {"image": "a.png", "caption": "x"})
    assert len(read_samples("jsonl", str(tmp_path), split="rows")) == 1
    for split in ("test", None):
        with pytest.raises(DataError, match="expected one of the splits: rows"):
            read_samples("jsonl", str(tmp_path), split=split)


def test_messages_do_not_quote_texts(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        read(
            tmp_path,
            {"id": "q", "image": "a.png", "question": "secret question", "answer": "secret"},
            {"id": "q", "image": "a.png", "question": "secret question", "answer": "secret"},
        )
    assert "secret" not in str(caught.value)


def test_windows_line_ends_and_a_byte_order_mark_are_read(tmp_path: Path) -> None:
    content = b'\xef\xbb\xbf{"image": "a.png", "caption": "x"}\r\n\r\n'
    (tmp_path / "a.jsonl").write_bytes(content)
    assert read_samples("jsonl", str(tmp_path / "a.jsonl"))[0].captions == ("x",)


def test_old_line_ends_and_tabs_between_values_are_read(tmp_path: Path) -> None:
    content = b'{"image":\t"a.png",\t"caption": "x"}\r{"image": "b.png", "caption": "y"}\r'
    (tmp_path / "a.jsonl").write_bytes(content)
    samples = read_samples("jsonl", str(tmp_path / "a.jsonl"))
    assert [one.captions for one in samples] == [("x",), ("y",)]


def test_backslashes_separate_folders(tmp_path: Path) -> None:
    rows = [{"image": "img\\a.png", "caption": "x"}, {"image": "img/a.png", "caption": "y"}]
    (sample,) = read(tmp_path, *rows)
    assert (sample.image.path, sample.captions) == (tmp_path / "img" / "a.png", ("x", "y"))


def test_steps_out_of_a_linked_folder_lead_out_of_the_folder_itself(tmp_path: Path) -> None:
    (tmp_path / "disk" / "deep").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "disk" / "deep")
    (sample,) = read(
        tmp_path / "link", {"image": "../a.png", "caption": "x"}, allow_paths_outside_root=True
    )
    assert sample.image.path == tmp_path / "disk" / "a.png"


def test_meta_of_an_image_keeps_its_values(tmp_path: Path) -> None:
    meta = {"n": 3, "none": None, "list": [1, {"deep": True}]}
    (sample,) = read(tmp_path, {"image": "a.png", "meta": meta})
    assert sample.meta == meta


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (
            '{"image" "a.png"}',
            'a name without a colon and a value (column 10); write "name": value',
        ),
        ('{image: "a.png"}', "a name without double quotes (column 2)"),
        ('{"image": "a.png", "caption": "a do', "a text without its closing quote (column 31)"),
        ('{"image": "a.png", "caption": "a dog"', "it ends too early (column 38)"),
        ("# my images", "no object (column 1)"),
        ('[{"image": "a.png"},', "a value over several lines"),
        (
            '{"image": "a.png", "captions": ["a",]}',
            "a comma before the closing bracket (column 36)",
        ),
        ('{\0"\0', "a zero byte (column 2); save the file as UTF-8"),
        ('{"image": "a.png", "id": Infinity}', "`Infinity` is not a JSON value"),
    ],
)
def test_a_line_that_is_no_json_says_what_is_wrong(line: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"image": "a.png"}\n' + line + "\n")
    with pytest.raises(DataError, match=r"a\.jsonl:2: .*" + re.escape(message)):
        read_samples("jsonl", str(tmp_path / "a.jsonl"))


def test_python_3_13_points_at_the_comma_and_the_message_is_the_same() -> None:
    line = '{"image": "a.png",}'
    messages = {
        str(not_json(json.JSONDecodeError(words, line, place), Path("a.jsonl"), line=1))
        for words, place in [
            ("Illegal trailing comma before end of object", line.index(",")),
            ("Expecting property name enclosed in double quotes", line.index("}")),
        ]
    }
    assert messages == {
        "a.jsonl:1: not valid JSON: a comma before the closing bracket (column 18); "
        "remove the comma."
    }


def test_the_place_in_a_file_of_several_lines_is_the_commas(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('[\n  {"a": 1},\n]\n')
    with pytest.raises(DataError, match=r"a\.json:2: .*closing bracket \(column 11\)"):
        read_json(tmp_path / "a.json")


def test_a_limit_beyond_any_number_of_images_reads_all(tmp_path: Path) -> None:
    assert len(read(tmp_path, {"image": "a.png", "caption": "x"}, limit=10**400)) == 1
