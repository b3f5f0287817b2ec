"""Formats from outside: registered, or named by where they are defined."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from qvft.convert import main as convert
from qvft.data.formats import FORMATS, Format, find_format, read_samples, register_format
from qvft.data.sample import ImageFile, Sample
from qvft.errors import DataError, RecipeError, UserError


def read(path: Path, *, split: str | None = None) -> Iterator[Sample]:
    for line in path.read_text().splitlines():
        name, caption = line.split("\t")
        yield Sample(id=name, image=ImageFile(path.parent / name), captions=(caption,))


TABBED = Format("tabbed", "one image and one caption per line", read, ("split",))


@pytest.fixture(autouse=True)
def _own_table() -> Iterator[None]:
    before = dict(FORMATS)
    yield
    FORMATS.clear()
    FORMATS.update(before)


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    (tmp_path / "rows.tsv").write_text("a.png\ta cat\nb.png\ta dog\n")
    return tmp_path / "rows.tsv"


def test_a_registered_format_is_read_and_listed(rows: Path, capsys) -> None:
    register_format(TABBED)
    assert [one.captions for one in read_samples("tabbed", str(rows))] == [("a cat",), ("a dog",)]
    with pytest.raises(DataError, match="`images` is set for format tabbed"):
        read_samples("tabbed", str(rows), images=str(rows.parent))
    with pytest.raises(SystemExit) as end:
        convert(["--list"])
    assert end.value.code == 0
    said = capsys.readouterr().out
    assert all(f"{one.name} " in said and one.description in said for one in FORMATS.values())


def test_a_dotted_name_is_imported(rows: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "house", sys.modules[__name__])
    assert len(read_samples("house.TABBED", str(rows), split="train")) == 2
    assert find_format("house:TABBED") is TABBED


@pytest.mark.parametrize("name", ["no_such_package.rows", "json.no_such_name", "json.dumps", "tsv"])
def test_a_name_that_means_no_format_is_refused(name: str) -> None:
    with pytest.raises(UserError, match=name) as refusal:
        find_format(name)
    assert isinstance(refusal.value, RecipeError if "." in name else DataError)


def test_a_name_is_given_once() -> None:
    with pytest.raises(ValueError, match="already"):
        register_format(Format("jsonl", "another one", read))
