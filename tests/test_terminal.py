"""Programs on terminals and pipes of any kind: no traceback, and JSON stays JSON."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from qvft.data.features.folders import default_cache
from qvft.errors import DataError, UserError
from qvft.eval import main as evaluate
from qvft.files import expanded

ROOT = Path(__file__).resolve().parents[1]
FULL = Path("/dev/full")


def shell(command: str, place: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """What a shell command ends with; `qvft` in it is the console script."""
    command = command.replace("qvft ", f"{sys.executable} -m qvft.cli ", 1)
    return subprocess.run(
        ["bash", "-c", f"set -o pipefail; {command}"],
        cwd=place,
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        capture_output=True,
        encoding="utf-8",
        errors="replace",
        timeout=120,
    )


@pytest.fixture
def place(tmp_path: Path) -> Path:
    (tmp_path / "r.yaml").write_text("name: r\nmodel: {id: modèle/犬😀}\n", encoding="utf-8")
    (tmp_path / "é.jsonl").write_text('{"image": "é.png", "caption": "x"}\n', encoding="utf-8")
    return tmp_path


ASCII = [
    {"PYTHONIOENCODING": "ascii"},
    {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    {"PYTHONIOENCODING": "latin-1"},
]


@pytest.mark.parametrize("environment", ASCII, ids=lambda one: next(iter(one.values())))
def test_characters_that_a_terminal_lacks_are_spelt_out(
    place: Path, environment: dict[str, str]
) -> None:
    ended = shell("qvft check r.yaml --only recipe", place, **environment)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert "/\\u72ac\\ud83d\\ude00" in ended.stdout


def test_errors_too(place: Path) -> None:
    ended = shell("qvft convert jsonl 犬.jsonl out.jsonl", place, PYTHONIOENCODING="ascii")
    assert (ended.returncode, "\\u72ac.jsonl: no such file" in ended.stderr) == (2, True)


def test_json_stays_json() -> None:
    written = {"text": 'é 犬 😀 "quoted" \\'}
    program = (
        "import json, sys; from qvft.terminal import open_streams; open_streams();"
        f"print(json.dumps({written!r}, ensure_ascii=False))"
    )
    ended = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "ascii"},
        capture_output=True,
        text=True,
    )
    assert json.loads(ended.stdout) == written


@pytest.mark.parametrize(
    ("command", "status"),
    [
        ("qvft check r.yaml --only recipe >&-", 0),
        ("qvft check r.yaml --only recipe <&- >&- 2>&-", 0),
        ("qvft check none.yaml >&- 2>&-", 2),
        ("qvft check none.yaml 2>&-", 2),
        ("qvft --help >&-", 0),
        ("qvft train --help >&- 2>&-", 0),
    ],
)
def test_closed_streams_change_no_status(command: str, status: int, place: Path) -> None:
    ended = shell(command, place)
    assert (ended.returncode, ended.stderr) == (status, "")


def test_a_closed_stdout_is_no_place_for_another_files_content(place: Path) -> None:
    Image.new("RGB", (8, 8)).save(place / "é.png")
    ended = shell("qvft convert jsonl é.jsonl out.jsonl >&-", place)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert [json.loads(line)["image"] for line in (place / "out.jsonl").open()] == ["é.png"]


@pytest.mark.parametrize("command", ["--help", "train --help", "check r.yaml --only recipe"])
def test_a_reader_that_has_gone_gets_no_traceback(command: str, place: Path) -> None:
    ended = shell(f"qvft {command} | sleep 0", place)
    assert ended.returncode in (0, 1)  # 0 where all was written before the reader had gone
    assert ended.stderr == ""


@pytest.mark.skipif(not FULL.exists(), reason="there is no /dev/full")
@pytest.mark.parametrize("command", ["--help", "check r.yaml --only recipe"])
def test_a_full_disk_behind_stdout_is_one_line(command: str, place: Path) -> None:
    ended = shell(f"qvft {command} > /dev/full", place)
    assert (ended.returncode, ended.stderr.count("\n")) == (1, 1)
    assert "No space left on device" in ended.stderr


@pytest.fixture
def no_home(monkeypatch: pytest.MonkeyPatch) -> None:
    """As of a user that the system does not know, with no HOME."""
    monkeypatch.delenv("HOME")
    monkeypatch.delenv("QVFT_CACHE")

    def unknown(*_: object) -> None:
        raise KeyError("no such user")

    monkeypatch.setattr("pwd.getpwuid", unknown)
    monkeypatch.setattr("pwd.getpwnam", unknown)


@pytest.mark.usefixtures("no_home")
def test_without_a_home_folder_the_cache_says_what_to_set() -> None:
    with pytest.raises(DataError, match="no home folder; set QVFT_CACHE"):
        default_cache()
    with pytest.raises(UserError, match="~/data: there is no home folder"):
        expanded("~/data")
    assert expanded("~nobody_at_all/x") == "~nobody_at_all/x"


@pytest.mark.usefixtures("no_home")
def test_without_a_home_folder_a_path_of_the_command_line_is_one_message(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for given in (
        ["~/run"],
        [str(tmp_path), "data.eval.path=~/x"],
        [str(tmp_path), "--out", "~/x"],
    ):
        assert evaluate(given) == 2
        said = capsys.readouterr().err
        assert len(said.splitlines()) == 1 and said.startswith("qvft: ")
    for given in (["~nobody_at_all/run"], ["~nobody_at_all"]):
        assert evaluate(given) == 2
        assert "~nobody_at_all" in capsys.readouterr().err


@pytest.mark.parametrize("command", [f"check {'x' * 300}", f"check r.yaml --json {'x' * 300}"])
def test_a_name_that_no_system_takes_is_one_message(command: str, place: Path) -> None:
    ended = shell(f"qvft {command}", place)
    assert (ended.returncode, "File name too long" in ended.stderr) == (2, True), ended.stderr
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize(
    ("command", "meant"),
    [
        ("train r.yaml --epochs 3", "did you mean train.epochs=3?"),
        ("check r.yaml --model.id x", "did you mean model.id=x?"),
        (
            "eval r --batch-size=4",
            "did you mean train.per_device_train_batch_size=4 or eval.batch_size=4?",
        ),
    ],
)
def test_an_option_that_is_a_key_names_the_override(command: str, meant: str, place: Path) -> None:
    ended = shell(f"qvft {command}", place)
    assert (ended.returncode, meant in ended.stderr) == (2, True), ended.stderr
