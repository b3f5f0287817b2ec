"""csv beyond what its folder in data_formats shows: separators, encodings, columns, metadata."""

from __future__ import annotations

import logging
from pathlib import Path

import pandas as pd
import pytest

from qvft.data.formats import read_samples
from qvft.data.formats.csv_rows import holds_images
from qvft.data.sample import Sample
from qvft.errors import DataError, MissingToolError
from qvft.new_project.detect_format import detect


def read(folder: Path, content: str, name: str = "t.csv", **options) -> list[Sample]:
    file = folder / name
    file.write_text(content, encoding="utf-8")
    return read_samples("csv", str(file), **options)


@pytest.mark.parametrize(
    ("name", "sign"), [("t.csv", ","), ("t.csv", ";"), ("t.csv", "\t"), ("t.csv", "|"),
                       ("t.tsv", "\t"), ("t.txt", ";")],
)  # fmt: skip
def test_the_header_shows_the_separator(name: str, sign: str, tmp_path: Path) -> None:
    (sample,) = read(tmp_path, f'image{sign}caption\na.png{sign}"x{sign}y"\n', name)
    assert sample.captions == (f"x{sign}y",)


def test_a_byte_order_mark_and_windows_line_ends_are_no_part_of_a_name(tmp_path: Path) -> None:
    (sample,) = read(tmp_path, "\ufeffimage,caption\r\na.png,x\r\n\r\n")
    assert (sample.id, sample.captions) == ("a.png", ("x",))


def test_names_are_found_in_any_case(tmp_path: Path) -> None:
    (sample,) = read(tmp_path, "File Name,Filename,Question,ANSWER\nzz,a.png,?,yes\n")
    assert sample.image.path == tmp_path / "a.png"
    assert [(one.text, one.answers) for one in sample.questions] == [("?", ("yes",))]


def test_columns_are_those_of_the_recipe(tmp_path: Path) -> None:
    table = "scan,image,frage,antwort,caption\nb.png,a.png,was?,eins,no\n"
    columns = {"image": "scan", "question": "frage", "answer": "antwort"}
    (sample,) = read(tmp_path, table, columns=columns)
    assert (sample.id, sample.captions) == ("b.png", ())
    assert sample.questions[0].meta == {"image": "a.png", "caption": "no"}
    with pytest.raises(DataError, match="names the column `frag`.*did you mean `frage`"):
        read(tmp_path, table, columns={"question": "frag"})


def test_several_answers_are_a_list_in_a_cell(tmp_path: Path) -> None:
    (sample,) = read(tmp_path, 'image,question,answers\na.png,?,"[""1"", 2]"\na.png,!,one\n')
    assert [one.answers for one in sample.questions] == [("1", "2"), ("one",)]


def test_pairs_are_read(tmp_path: Path) -> None:
    (sample,) = read(tmp_path, "image,question,chosen,rejected\na.png,?,yes,no\na.png,,a,b\n")
    assert [(one.question, one.chosen, one.rejected) for one in sample.pairs] == [
        ("?", "yes", "no"),
        (None, "a", "b"),
    ]


def test_metadata_on_which_rows_differ_is_left_out_and_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    logging.getLogger("qvft").propagate = True
    with caplog.at_level(logging.WARNING):
        (sample,) = read(tmp_path, "image,caption,who,patient\na.png,x,ann,1\na.png,y,bob,1\n")
    assert sample.meta == {"patient": "1"}
    assert "differ in who; left out of the metadata of 1 images" in caplog.text


def test_an_index_and_what_spreadsheets_add_are_ignored(tmp_path: Path) -> None:
    (sample,) = read(tmp_path, ",Unnamed: 2,image,caption\n0,9,a.png,x,,\n,,,\n")
    assert (sample.captions, sample.meta) == (("x",), {})


def test_a_row_over_several_lines_is_named_by_its_first(tmp_path: Path) -> None:
    (sample,) = read(tmp_path, 'image,caption\na.png,"two\nlines"\n')
    assert sample.captions == ("two\nlines",)
    with pytest.raises(DataError, match=r"t.csv:4: `caption` is empty"):
        read(tmp_path, 'image,caption\na.png,"two\nlines"\na.png,\n')


def test_a_folder_has_a_file_per_split(tmp_path: Path) -> None:
    (tmp_path / "val.tsv").write_text("image\tcaption\na.png\tx\n")
    assert len(read_samples("csv", str(tmp_path), split="val")) == 1
    with pytest.raises(DataError, match="one of the splits: val"):
        read_samples("csv", str(tmp_path), split="test")


def test_a_workbook_is_named_as_such(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_bytes(b"PK\x03\x04\xff\xfe rest")
    with pytest.raises(DataError, match="Excel"):
        read_samples("csv", str(tmp_path / "t.csv"))


def test_a_table_of_classes_is_read_as_class_folders(tmp_path: Path) -> None:
    table = "image,label\na.png,big_cat\nb.png,dog\n"
    first, second = read(tmp_path, table)
    assert [(one.text, one.answers) for one in first.questions] == [("What is it?", ("big cat",))]
    assert second.questions[0].meta == {"class": "dog"}
    texts = {"caption": "a {class}"}
    assert read(tmp_path, table, class_texts=texts)[0].captions == ("a big cat",)
    with pytest.raises(DataError, match=r"t.csv:2: `label` is empty"):
        read(tmp_path, "image,label\na.png,\n")


def test_texts_are_read_rather_than_classes_unless_asked(tmp_path: Path) -> None:
    table = "image,label,caption\na.png,cat,hello\n"
    (sample,) = read(tmp_path, table)
    assert (sample.captions, sample.meta) == (("hello",), {"label": "cat"})
    for given in ({"columns": {"class": "label"}}, {"class_texts": {"question": "What is it?"}}):
        (sample,) = read(tmp_path, table, **given)
        assert (sample.captions, sample.questions[0].answers) == ((), ("cat",))
    with pytest.raises(DataError, match="no column of classes"):
        read(tmp_path, "image,caption\na.png,x\n", class_texts={"question": "?"})
    with pytest.raises(DataError, match="`columns.class` names the column `lable`.*`label`"):
        read(tmp_path, table, columns={"class": "lable"})


def test_an_excel_file_is_its_first_sheet(tmp_path: Path) -> None:
    openpyxl = pytest.importorskip("openpyxl", reason="needs qvft[excel]")
    book = openpyxl.Workbook()
    for row in (["Image", "question", "answer", "patient"], ["a.png", "How many?", 3.0, 7], [],
                ["b.png", "Is it?", True]):  # fmt: skip
        book.active.append(row)
    book.create_sheet().append(["other"])
    book.save(tmp_path / "t.xlsx")
    first, second = read_samples("csv", str(tmp_path / "t.xlsx"))
    assert (first.id, first.questions[0].answers) == ("a.png", ("3",))
    assert first.questions[0].meta["patient"] == "7"
    assert (second.id, second.questions[0].answers) == ("b.png", ("True",))
    (tmp_path / "bad.xlsx").write_text("image,caption")
    with pytest.raises(DataError, match=r"bad\.xlsx: not an Excel file"):
        read_samples("csv", str(tmp_path / "bad.xlsx"))


def test_a_data_frame_as_parquet_is_read_as_its_csv(tmp_path: Path) -> None:
    rows = {"image": ["a.png", "b.png"], "question": ["How many?", "Which?"],
            "answers": [["3", "three"], ["red"]], "patient": [7.0, None]}  # fmt: skip
    frame = pd.DataFrame(rows, index=["x", "y"])
    frame.to_parquet(tmp_path / "t.parquet")
    assert (detect(tmp_path / "t.parquet").format, holds_images(tmp_path / "t.parquet")) == (
        "csv",
        False,
    )
    first, second = read_samples("csv", str(tmp_path / "t.parquet"))
    assert first.image.path == tmp_path / "a.png"
    assert (first.questions[0].answers, first.questions[0].meta) == (
        ("3", "three"),
        {"patient": "7"},
    )
    assert second.questions[0].meta == {}
    frame.assign(image=[{"bytes": b"x", "path": "a"}] * 2).to_parquet(tmp_path / "u.parquet")
    assert detect(tmp_path / "u.parquet").format == "hf"


def test_without_openpyxl_the_message_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("qvft.extras.find_spec", lambda name: None)
    with pytest.raises(MissingToolError, match=r"qvft\[excel\].*CSV UTF-8"):
        read(tmp_path, "", "t.xlsx")
