"""`metrics.jsonl`: what is appended, what a resumed run drops."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from qvft.json_files import complete_lines, drop_torn_line
from qvft.training.metrics_log import MetricsLog


def state(step: int, *, main: bool = True) -> SimpleNamespace:
    return SimpleNamespace(global_step=step, is_world_process_zero=main)


def write(path: Path, *steps: int, phase: str = "train") -> None:
    log = MetricsLog(path, phase)
    for step in steps:
        log.on_log(None, state(step), None, logs={"loss": step / 2, "epoch": 0.1})


def steps(path: Path) -> list[tuple[str, int]]:
    return [(row["phase"], row["step"]) for row in complete_lines(path)]


def test_a_log_becomes_a_line_with_phase_step_and_seconds(tmp_path: Path) -> None:
    write(tmp_path / "m.jsonl", 3)
    (row,) = complete_lines(tmp_path / "m.jsonl")
    assert set(row) == {"phase", "step", "seconds", "loss"}
    assert (row["phase"], row["step"], row["loss"]) == ("train", 3, 1.5)


def test_only_the_main_process_writes(tmp_path: Path) -> None:
    log = MetricsLog(tmp_path / "m.jsonl", "train")
    log.on_log(None, state(1, main=False), None, logs={"loss": 1.0})
    assert complete_lines(tmp_path / "m.jsonl") == []


def test_a_resumed_phase_drops_the_steps_it_repeats(tmp_path: Path) -> None:
    path = tmp_path / "m.jsonl"
    write(path, 5, phase="first")
    write(path, 1, 2, 3, phase="second")
    MetricsLog(path, "second").on_train_begin(None, state(1), None)
    assert steps(path) == [("first", 5), ("second", 1)]


def test_a_line_that_a_killed_process_left_unfinished_is_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "m.jsonl"
    write(path, 1, 2)
    path.write_text(path.read_text() + '{"phase": "tra')
    assert steps(path) == [("train", 1), ("train", 2)]
    MetricsLog(path, "train").on_train_begin(None, state(2), None)
    write(path, 3)
    assert steps(path) == [("train", 1), ("train", 2), ("train", 3)]


def test_a_torn_last_line_is_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "m.jsonl"
    write(path, 1, 2)
    whole = path.read_bytes()
    path.write_bytes(whole + b'{"phase": "tr')
    drop_torn_line(path)
    assert path.read_bytes() == whole
    drop_torn_line(tmp_path / "absent.jsonl")


def test_a_phase_on_a_gpu_ends_with_its_peak_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: 2_500_000_000)
    log = MetricsLog(tmp_path / "m.jsonl", "train")
    log.on_train_end(SimpleNamespace(device="cuda"), state(7), None)
    (row,) = complete_lines(log.path)
    assert (row["step"], row["peak_memory_gb"]) == (7, 2.5)
