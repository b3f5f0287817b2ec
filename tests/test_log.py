"""How a program ends: what is said in one line, and with which status."""

from __future__ import annotations

import errno
import os
import signal
from pathlib import Path

import pytest

from qvft import log
from qvft.errors import DataError, FailedError, StoppedError, UserError
from qvft.files import new_folder
from qvft.log import exit_status


def raising(error: BaseException) -> None:
    raise error


@pytest.mark.parametrize(
    ("error", "status", "said"),
    [
        (UserError("wrong"), 2, "wrong."),
        (FailedError("failed"), 1, "failed"),
        (StoppedError("stopped at 3", signal=signal.SIGTERM), 143, "stopped at 3"),
        (StoppedError("stopped at 3", signal=signal.SIGINT), 130, "stopped at 3"),
        (KeyboardInterrupt(), 130, "stopped; go on so"),
        (
            OSError(errno.ENOSPC, "No space left on device", "out/x"),
            1,
            "out/x: cannot be written or read (No space left on device).",
        ),
        (
            PermissionError(errno.EACCES, "Permission denied", "out/x"),
            1,
            "out/x: cannot be written or read (Permission denied).",
        ),
        (OSError(errno.ENAMETOOLONG, "File name too long", "xx"), 2, "xx: File name too long."),
    ],
    ids=repr,
)
def test_an_end_is_one_line_and_a_status(error, status: int, said: str, capsys) -> None:
    assert exit_status(lambda: raising(error), when_stopped="go on so") == status
    assert capsys.readouterr().err.strip() == f"qvft: {said}"


@pytest.mark.parametrize("error", [FileNotFoundError(errno.ENOENT, "gone"), KeyError("x")])
def test_defects_keep_their_traceback(error: Exception) -> None:
    with pytest.raises(type(error)):
        exit_status(lambda: raising(error))


def test_sigterm_takes_half_written_things_away(tmp_path: Path, capsys) -> None:
    def work() -> None:
        with new_folder(tmp_path / "out") as partial:
            (partial / "a").write_text("half")
            os.kill(os.getpid(), signal.SIGTERM)

    assert exit_status(work) == 143
    assert list(tmp_path.iterdir()) == []
    assert capsys.readouterr().err.strip() == "qvft: stopped"
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


@pytest.fixture
def second_of_two(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr(log, "OTHERS_WAIT", 0.0)


def fail() -> None:
    raise DataError("broken", where="rows.jsonl:3")


@pytest.mark.usefixtures("second_of_two")
def test_another_process_says_what_is_wrong_and_which_it_is(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert log.exit_status(fail, many_processes=True) == 2
    assert capsys.readouterr().err == "qvft, process 1: rows.jsonl:3: broken.\n"


@pytest.mark.usefixtures("second_of_two")
def test_a_program_for_one_process_refuses_two(capsys: pytest.CaptureFixture[str]) -> None:
    begun = []
    assert log.exit_status(lambda: begun.append(1)) == 2
    assert begun == []
    assert "2 processes; expected one process" in capsys.readouterr().err
