"""Locks: one writer at a time, gone with its process, whatever ends it."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from qvft.errors import BusyError, DataError
from qvft.files import new_folder
from qvft.locks import LOCK, beside, in_turn, inside

HOLD = """
import os, sys, time
from pathlib import Path
from qvft.locks import inside
with inside(Path(sys.argv[1])):
    if os.fork() == 0:  # a worker that outlives its parent
        print(os.getpid(), flush=True)
        time.sleep(60)
        os._exit(0)
    time.sleep(60)
"""

TURN = """
import sys, time
from pathlib import Path
from qvft.locks import in_turn
with in_turn(Path(sys.argv[1]), "x", waiting=print):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that holds `tmp_path/run` and has a child of its own."""
    command = [sys.executable, "-c", HOLD, str(tmp_path / "run")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    child = int(process.stdout.readline())
    yield process
    process.kill()
    process.wait()
    process.stdout.close()
    os.kill(child, 9)


def test_a_second_process_is_told_who_writes(holder: subprocess.Popen[str], tmp_path: Path) -> None:
    says = rf"process {holder.pid} on {socket.gethostname()}\); wait until"
    with pytest.raises(BusyError, match=says), inside(tmp_path / "run"):
        pass


def test_a_kill_lets_go_though_a_child_lives_on(
    holder: subprocess.Popen[str], tmp_path: Path
) -> None:
    holder.kill()
    holder.wait()
    assert (tmp_path / "run" / LOCK).is_file()
    with inside(tmp_path / "run"):
        pass


def test_a_copy_of_a_held_folder_is_free(holder: subprocess.Popen[str], tmp_path: Path) -> None:
    shutil.copytree(tmp_path / "run", tmp_path / "copy")
    with inside(tmp_path / "copy"):
        pass


def test_nothing_is_left_behind(tmp_path: Path) -> None:
    with inside(tmp_path / "run"), beside(tmp_path / "out"):
        assert (tmp_path / ".out.lock").is_file()
    assert [path.name for path in tmp_path.rglob("*")] == ["run"]


def test_a_new_folder_has_one_writer(tmp_path: Path) -> None:
    says = pytest.raises(BusyError, match="another process")
    with new_folder(tmp_path / "out"), says, new_folder(tmp_path / "out"):
        pass
    assert (tmp_path / "out").is_dir()


def test_a_folder_that_cannot_be_written_is_said() -> None:
    with pytest.raises(DataError, match="cannot be written"), inside(Path("/proc/nope")):
        pass


def test_a_turn_comes_when_the_other_process_has_ended(tmp_path: Path) -> None:
    command = [sys.executable, "-c", TURN, str(tmp_path)]
    said: list[str] = []
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        process.stdout.readline()

        def waiting(busy: BusyError) -> None:
            said.append(str(busy))
            process.kill()

        with in_turn(tmp_path, "x", waiting=waiting):
            assert f"process {process.pid}" in said[0] and len(said) == 1
    assert list(tmp_path.iterdir()) == []
