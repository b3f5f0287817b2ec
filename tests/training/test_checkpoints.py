"""Checkpoints: whole under their names or unseen, and old ones go only when a new one is there."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from qvft.training.checkpoints import (
    STATE,
    NewCheckpoint,
    clear,
    follow_move,
    last_checkpoint,
    whole_checkpoints,
)


def write(folder: Path, step: int, *, keep: int | None = None, best: str | None = None) -> None:
    new = NewCheckpoint(folder, step)
    new.begin()
    made = new.staging / new.path.name
    made.mkdir()
    (made / STATE).write_text("{}")
    new.finish(keep=keep, best=best)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_checkpoint_is_unseen_until_it_is_whole(tmp_path: Path) -> None:
    new = NewCheckpoint(tmp_path, 3)
    new.begin()
    (new.staging / "checkpoint-3").mkdir()
    (new.staging / "checkpoint-3" / STATE).write_text("{}")
    assert last_checkpoint(tmp_path) is None
    new.finish(keep=None, best=None)
    assert (last_checkpoint(tmp_path), names(tmp_path)) == (
        str(tmp_path / "checkpoint-3"),
        ["checkpoint-3"],
    )


def test_steps_are_ordered_as_numbers(tmp_path: Path) -> None:
    for step in (9, 10, 100):
        write(tmp_path, step)
    assert [path.name for path in whole_checkpoints(tmp_path)] == [
        "checkpoint-9", "checkpoint-10", "checkpoint-100",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("keep", "best", "left"),
    [(1, None, [6]), (2, None, [4, 6]), (1, 2, [2, 6]), (2, 2, [2, 6]), (3, 2, [2, 4, 6])],
)
def test_the_newest_stay_and_the_best_whatever_its_age(
    keep: int, best: int | None, left: list[int], tmp_path: Path
) -> None:
    """As the Trainer counts: the best is one of those kept, the newest always stays."""
    for step in (2, 4, 6):
        named = f"/elsewhere/checkpoint-{best}" if best else None
        write(tmp_path, step, keep=keep if step == 6 else None, best=named)
    assert names(tmp_path) == [f"checkpoint-{step}" for step in left]


def test_old_ones_go_only_after_the_new_one_has_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, 2)

    def fail(source: Path, target: Path) -> None:
        raise OSError("no")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError):
        write(tmp_path, 4, keep=1)
    assert last_checkpoint(tmp_path) == str(tmp_path / "checkpoint-2")


def test_a_damaged_newer_one_costs_no_whole_one_its_place(tmp_path: Path) -> None:
    write(tmp_path, 2)
    (tmp_path / "checkpoint-9").mkdir()
    write(tmp_path, 4, keep=1)
    assert last_checkpoint(tmp_path) == str(tmp_path / "checkpoint-4")


def test_what_a_killed_process_left_is_removed(tmp_path: Path) -> None:
    write(tmp_path, 2)
    for left in (".partial/checkpoint-4", ".checkpoint-1.removed"):
        (tmp_path / left).mkdir(parents=True)
    clear(tmp_path)
    assert names(tmp_path) == ["checkpoint-2"]


def test_the_best_of_a_moved_run_is_found_where_it_lies_now(tmp_path: Path) -> None:
    (tmp_path / "old").mkdir()
    write(tmp_path / "old", 2)
    state = {"best_model_checkpoint": str(tmp_path / "old" / "checkpoint-2"), "epoch": 1}
    (tmp_path / "old" / "checkpoint-2" / STATE).write_text(json.dumps(state))
    shutil.move(tmp_path / "old", tmp_path / "new")
    follow_move(tmp_path / "new")
    found = json.loads((tmp_path / "new" / "checkpoint-2" / STATE).read_text())
    assert found == {**state, "best_model_checkpoint": str(tmp_path / "new" / "checkpoint-2")}
