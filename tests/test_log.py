"""How a program ends: what is said in one line, and with which status."""

from __future__ import annotations

import errno
import os
import signal
from pathlib import Path

import pytest

from qvft.errors import FailedError, StoppedError, UserError
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
