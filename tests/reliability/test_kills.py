"""A few kills of each program in every run of the suite; `kill.py` beside this does many."""

from __future__ import annotations

import json
from pathlib import Path

import programs
import pytest

HERE = Path(__file__).resolve().parent


def counts(folder: Path, *, stages: str, kills: int) -> dict[str, dict]:
    """What `kill.py` counts, by stage; it runs apart: with threads about, it could not fork."""
    out = folder / "counts.json"
    arguments = [str(HERE / "kill.py"), "--stages", stages, "--kills", f"{kills}"]
    done = programs.run([*arguments, "--json", str(out)], timeout=900)
    assert out.is_file(), done.stdout + done.stderr
    found = json.loads(out.read_text())
    found.pop("seed")
    return found


def test_a_killed_training_ends_as_an_undisturbed_one(tmp_path: Path) -> None:
    (found,) = counts(tmp_path, stages="train", kills=3).values()
    assert (found["kills"], found["lost"], found["differing"]) == (3, 0, 0), found["notes"]


@pytest.mark.slow
def test_other_killed_programs_end_as_undisturbed_ones(tmp_path: Path) -> None:
    found = counts(tmp_path, stages="cache,eval,predict,merge", kills=12)
    assert set(found) == {"cache", "eval", "predict", "merge"}
    for name, one in found.items():
        assert (one["kills"], one["lost"], one["differing"]) == (3, 0, 0), (name, one["notes"])
