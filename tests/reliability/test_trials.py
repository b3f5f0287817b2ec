"""Some hundreds of each kind of damaged input; `fuzz.py` runs thousands."""

from __future__ import annotations

import copy
import logging
import random
from pathlib import Path

import pytest
import setting_trials
import trials
from mutations import changed_value, damaged_bytes, flipped_bit, misspelt

SEED = 20_000
"""Not that of the long run."""


def test_mutated_recipes_are_read_whole_or_refused_in_one_message(tmp_path: Path) -> None:
    ends = trials.recipes(100, seed=SEED, work=tmp_path)
    assert min(ends["accepted"], ends["refused"]) > 20


@pytest.mark.parametrize("kind", ["jsonl", "json_files", "images"])
def test_mutated_data_is_read_or_refused_in_one_message(kind: str, tmp_path: Path) -> None:
    ends = getattr(trials, kind)(200, seed=SEED, work=tmp_path)
    assert min(ends["accepted"], ends["refused"]) > 30


def test_damaged_adapters_are_refused_or_caught_by_a_hash(drawn_run: Path, tmp_path: Path) -> None:
    ends = trials.adapters(70, seed=SEED, work=tmp_path, adapter=drawn_run / "adapter")
    assert ends["refused"] > 30


@pytest.mark.parametrize(
    ("kind", "count"), [("arguments", 25), ("decoding", 40), ("command_lines", 100)]
)
def test_odd_settings_and_command_lines_end_without_a_traceback(
    kind: str, count: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # What libraries log of half a surrogate pair cannot be sent from a process of pytest-xdist.
    monkeypatch.setattr(logging.root.manager, "disable", logging.CRITICAL)
    ends = getattr(setting_trials, kind)(count, seed=SEED, work=tmp_path)
    assert ends.total() == count
    assert len(ends) > 1


def test_a_key_without_effect_would_be_noticed() -> None:
    given = {"a": {"b": 1, "c": [{"d": 2}]}}
    assert list(trials.unheard(given, copy.deepcopy(given))) == []
    assert list(trials.unheard(given, {"a": {"b": 1, "c": [{"d": 3}]}})) == [".a.c.0.d"]
    assert list(trials.unheard(given, {"a": {"c": [{"d": 2}]}})) == [".a.b"]


def test_generators_repeat_themselves_and_leave_their_input() -> None:
    value, content = {"a": [1, {"b": "text"}]}, b"some bytes"
    for make, given in (
        (changed_value, value),
        (damaged_bytes, content),
        (flipped_bit, content),
        (misspelt, "word"),
    ):
        before = copy.deepcopy(given)
        made = [repr(make(given, random.Random(n))) for n in range(30)]
        assert made == [repr(make(given, random.Random(n))) for n in range(30)]
        assert given == before
        assert len(set(made)) > 5
