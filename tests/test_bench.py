"""`qvft.bench` from the command line. What it measures is not judged here: machines are noisy."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from qvft.bench import main


def test_both_ways_say_the_same_and_the_ratio_is_theirs(recipe_file: Path, tmp_path: Path) -> None:
    out = tmp_path / "bench.json"
    given = [str(recipe_file), "data.eval.limit=2", "--rounds", "2", "--json", str(out)]
    assert main(given) == 0
    found = json.loads(out.read_text())["predict"]
    assert (found["texts"], found["images"], found["rounds"]) == (6, 2, 2)
    assert found["equal_texts"] == 6
    plain, ours = found["plain"], found["qvft"]
    assert [len(pace["seconds"]) for pace in (plain, ours)] == [2, 2]
    assert plain["texts_per_second"] == pytest.approx(6 / (sum(plain["seconds"]) / 2))
    assert found["speedup"] == pytest.approx(ours["texts_per_second"] / plain["texts_per_second"])


@pytest.mark.parametrize("given", [["--rounds", "0"], ["data.eval=null"]])
def test_wrong_input_is_told(recipe_file: Path, capsys, given: list[str]) -> None:
    assert main([str(recipe_file), *given]) == 2
    assert capsys.readouterr().err.count("qvft: ") == 1
