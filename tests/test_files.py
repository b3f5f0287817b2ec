"""Files: what is written arrives where it was meant to, what is read is JSON or is refused."""

from __future__ import annotations

import gzip
import os
import subprocess
import sys
import threading
import zipfile
from pathlib import Path

import pytest

from qvft.errors import DataError
from qvft.files import expanded, read_text, require_writable, write_text
from qvft.json_files import read_json, read_jsonl

NESTED = "[" * 100_000 + "]" * 100_000
DIGITS = "9" * 5000


def test_a_link_is_followed_and_stays(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    target = tmp_path / "real" / "file.txt"
    target.write_text("old")
    link = tmp_path / "link.txt"
    link.symlink_to("real/file.txt")
    write_text(link, "new")
    assert (link.is_symlink(), target.read_text()) == (True, "new")
    assert [path.name for path in target.parent.iterdir()] == ["file.txt"]


def test_a_link_to_nothing_makes_its_target(tmp_path: Path) -> None:
    (tmp_path / "link.txt").symlink_to("absent.txt")
    write_text(tmp_path / "link.txt", "new")
    assert (tmp_path / "absent.txt").read_text() == "new"
    assert (tmp_path / "link.txt").is_symlink()


def test_a_pipe_is_written_into(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    got: list[str] = []
    reader = threading.Thread(target=lambda: got.append(pipe.read_text()), daemon=True)
    reader.start()
    require_writable(pipe)
    write_text(pipe, "new")
    reader.join(10)
    assert (got, pipe.is_fifo()) == (["new"], True)


def test_a_device_stays_one() -> None:
    write_text(Path(os.devnull), "new")
    assert Path(os.devnull).is_char_device()


@pytest.mark.parametrize("redirected", [False, True], ids=["pipe", "file"])
def test_stdout_gets_the_text_after_what_it_has(redirected: bool, tmp_path: Path) -> None:
    code = (
        "from pathlib import Path; from qvft.files import write_text\n"
        "print('before', flush=True); write_text(Path('/dev/stdout'), 'new\\n')\n"
        "print('after')"
    )
    out = tmp_path / "out.txt"
    with out.open("w") as stream:
        done = subprocess.run(
            [sys.executable, "-c", code],
            stdout=stream if redirected else subprocess.PIPE,
            text=True,
            check=True,
        )
    assert (out.read_text() if redirected else done.stdout) == "before\nnew\nafter\n"


def test_what_cannot_be_written_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "file.txt").write_text("old")
    with pytest.raises(UnicodeEncodeError):
        write_text(tmp_path / "file.txt", "\ud800")
    assert [path.name for path in tmp_path.iterdir()] == ["file.txt"]
    assert (tmp_path / "file.txt").read_text() == "old"


@pytest.mark.parametrize("place", ["/proc/nope/x.json", "file/x.json", "x" * 300, "x" * 245])
def test_what_will_not_be_written_is_said_before(place: str, tmp_path: Path) -> None:
    """With the partial file's suffix, 245 characters are too many as well."""
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot be written"):
        require_writable(tmp_path / place)
    with pytest.raises(OSError):
        write_text(tmp_path / place, "x")


def test_asking_leaves_nothing_behind(tmp_path: Path) -> None:
    require_writable(tmp_path / "new" / "deep" / "x.json")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (NESTED, "nested too deeply; expected"),
        (f'{{"answer": {DIGITS}}}', "a number of thousands of digits"),
        ('{"a": 1, "b": {"c": 1, "c": 2}}', "key `c` occurs twice; expected each key once"),
        ("{,}", "not valid JSON"),
    ],
)
def test_json_that_cannot_be_taken_is_refused(text: str, says: str, tmp_path: Path) -> None:
    path = tmp_path / "in.json"
    path.write_text(text)
    with pytest.raises(DataError) as whole:
        read_json(path)
    with pytest.raises(DataError) as lines:
        list(read_jsonl(path))
    assert str(lines.value).startswith(f"{path}:1: ")
    for message in (str(whole.value), str(lines.value)):
        assert says in message


@pytest.mark.parametrize("number", ["NaN", "-Infinity", "1e999", "-1e999", "9" * 400 + ".0"])
def test_a_line_holds_no_number_beyond_all_floats(number: str, tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_text(f'{{"meta": {{"v": {number}}}}}')
    with pytest.raises(DataError, match=r"in\.jsonl:1: `.*` is not a JSON value; remove") as got:
        list(read_jsonl(tmp_path / "in.jsonl"))
    assert len(str(got.value)) < len(str(tmp_path)) + 120


def test_what_python_writes_for_nan_is_read_from_whole_files(tmp_path: Path) -> None:
    """Trainers note a gradient norm of NaN or Infinity in their state."""
    (tmp_path / "in.json").write_text('{"norm": Infinity}')
    assert read_json(tmp_path / "in.json") == {"norm": float("inf")}


@pytest.mark.parametrize("name", ["", "absent", "file/x", "x" * 300])
def test_paths_that_cannot_be_read_are_named(name: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("{}")
    path = tmp_path / name
    with pytest.raises(DataError) as caught:
        read_json(path)
    assert str(caught.value).startswith(f"{path}: ")


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b"PK\x05\x06" + bytes(18), "an empty zip archive"),
        (gzip.compress(b"{}", mtime=0), "a gzip file"),
        (b"PAR1\xff\xfe", "a parquet file"),
    ],
)
def test_what_is_no_text_is_called_what_it_is(content: bytes, kind: str, tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_bytes(content)
    with pytest.raises(DataError, match=f"^{file}: {kind}, not text; .*unpack it"):
        read_text(file)


def test_a_zip_of_data_is_not_taken_for_an_encoding(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("train.jsonl", '{"image": "a.png", "caption": "c"}\n' * 40)
    with pytest.raises(DataError, match="a zip archive .or an Excel or Word file., not text"):
        read_text(file)


def test_a_file_in_another_encoding_is_still_called_so(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"PARis caf\xe9")
    with pytest.raises(DataError, match="not UTF-8 at byte 9"):
        read_text(tmp_path / "a.txt")


def test_a_path_is_expanded_by_its_home_folder_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/ann")
    monkeypatch.setenv("DATA", "/data")
    assert expanded("~/a") == "/home/ann/a"
    for path in ("a/$DATA", "a/~/b", "seed=1", "owner/name"):
        assert expanded(path) == path
