"""Who speaks where a launcher has started several processes."""

from __future__ import annotations

import pytest

from qvft import log
from qvft.errors import DataError


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
