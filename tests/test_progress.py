"""Progress without a terminal and at one."""

from __future__ import annotations

import io
import sys
import time
from collections.abc import Iterator

import pytest

from qvft import progress
from qvft.progress import Counted, counted, say


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Milliseconds instead of seconds, and no thread left of another test."""
    for name, seconds in (("REDRAWN_S", 0.005), ("LINE_S", 0.02), ("_written", 0.0)):
        monkeypatch.setattr(progress, name, seconds)
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("TERM", "xterm")
    while progress._thread is not None:
        time.sleep(0.01)
    yield
    while progress._thread is not None:
        time.sleep(0.01)


def wait_for(stream: io.StringIO, text: str) -> str:
    """What was written once it holds `text`; fails after 10 s, far above the intervals."""
    end = time.monotonic() + 10
    while text not in stream.getvalue():
        assert time.monotonic() < end, stream.getvalue()
        time.sleep(0.005)
    return stream.getvalue()


def test_without_a_terminal_lines_come_while_the_work_says_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    with counted("outer"), counted("checking images", 1200) as count:
        count.advance(300)
        lines = wait_for(stream, "checking images: 300 of 1,200").splitlines()
    assert "outer" not in stream.getvalue()  # the innermost is shown
    assert "\r" not in stream.getvalue()
    assert len(lines) >= 1


def test_a_terminal_has_one_line_that_disappears(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = Terminal()
    monkeypatch.setattr(sys, "stderr", stream)
    with counted("checking images", 4):
        wait_for(stream, "\rchecking images: 0 of 4\x1b[K")
        say("a line that stays")
        assert "\r\x1b[K" in stream.getvalue()
        wait_for(stream, "a line that stays\n\rchecking")
    assert stream.getvalue().endswith("\r\x1b[K")


def test_other_processes_show_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setenv("RANK", "1")
    with counted("checking images", 4):
        say("a line")
        time.sleep(0.1)
    assert stream.getvalue() == ""


def test_time_left_is_of_what_this_run_did(monkeypatch: pytest.MonkeyPatch) -> None:
    count = Counted("caching", 100, done=60)
    count.begun = time.monotonic() - 10
    count.advance(20)  # in 10 s; 20 more need as long
    assert count().endswith("80 of 100, 10 s left")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(40, "40 s"), (720, "12 min"), (3.5 * 3600, "3.5 h")],
)
def test_durations_read_as_a_person_says_them(seconds: float, text: str) -> None:
    assert progress.duration(seconds) == text
