"""Forked programs are processes of their own, and none outlives its test."""

from __future__ import annotations

import os
import signal
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import programs
import pytest


@pytest.fixture
def script(tmp_path: Path) -> Callable[[str], str]:
    """A function that writes a script and gives its path."""

    def write(text: str) -> str:
        path = tmp_path / "script.py"
        path.write_text(text)
        return str(path)

    return write


def ends(pid: int) -> bool:
    """Whether a process ends within some seconds."""
    for _ in range(200):
        if not Path(f"/proc/{pid}").exists():
            return True
        time.sleep(0.05)
    return False


def test_a_program_gets_arguments_environment_and_folder_and_gives_output_and_status(
    script: Callable[[str], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIVEN", "before")
    path = script(
        "import os, sys\n"
        "print(__name__, sys.argv, os.environ['GIVEN'], os.getcwd(), 'torch' in sys.modules)\n"
        "print(sys.stdin.read() + 'error', file=sys.stderr)\n"
        "sys.exit(7)"
    )
    done = programs.run([path, "a", "b c"], GIVEN="x")
    assert done.stdout == f"__main__ {[path, 'a', 'b c']} x {tmp_path} True\n"
    assert (done.returncode, done.stderr) == (7, "error\n")


def test_modules_and_programs_that_fail(script: Callable[[str], str]) -> None:
    assert programs.run(["-m", "qvft.cli", "version"]).stdout.startswith("qvft ")
    failed = programs.run([script("1 / 0")])
    assert failed.returncode == 1
    assert failed.stderr.endswith("ZeroDivisionError: division by zero\n")
    assert programs.run([script("import os; os.abort()")]).returncode == -signal.SIGABRT


def test_two_processes_meet_and_one_that_fails_ends_the_other(script: Callable[[str], str]) -> None:
    path = script(
        "import os, sys, time, torch\n"
        "torch.distributed.init_process_group('gloo')\n"
        "rank = torch.distributed.get_rank()\n"
        "found = torch.tensor(rank + 1)\n"
        "torch.distributed.all_reduce(found)\n"
        "os.write(1, b'%d\\n' % int(found))\n"
        "if len(sys.argv) > 1:\n"
        "    sys.exit(5) if rank else time.sleep(100)\n"
    )
    done = programs.run_two([path])
    assert (done.returncode, done.stdout) == (0, "3\n3\n"), done.stderr
    begun = time.monotonic()
    assert programs.run_two([path, "fail"]).returncode == 5
    assert time.monotonic() - begun < 60


def test_a_program_can_be_killed_and_does_not_outlive_its_test(
    script: Callable[[str], str], tmp_path: Path
) -> None:
    path = script("import os, time; os.fork(); time.sleep(100)")
    with tempfile.TemporaryFile("w+") as output:
        with programs.Program([path], os.environ, output=output, errors=output) as one:
            os.kill(one.pid, signal.SIGKILL)
            assert one.wait(30) == -signal.SIGKILL
        with programs.Program([path], os.environ, output=output, errors=output) as other:
            pass
        assert ends(other.pid)
    with pytest.raises(TimeoutError, match="runs for 0.5 s"):
        programs.run([path], timeout=0.5)


def test_what_is_read_at_start_asks_for_an_interpreter(script: Callable[[str], str]) -> None:
    with pytest.raises(AssertionError, match="start an interpreter"):
        programs.run([script("")], PYTHONHASHSEED="1")
