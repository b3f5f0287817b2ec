"""The script of GPU measurements: here on a CPU with narrow layers, whole where there is a GPU."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch

HERE = Path(__file__).parent


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch):
    """The script as a module, with the files beside it."""
    monkeypatch.syspath_prepend(str(HERE))
    monkeypatch.syspath_prepend(str(HERE.parent / "fullsize"))
    import run as script

    yield script
    for name in ("run", "geometry", "table", "make_model"):
        sys.modules.pop(name, None)


def test_it_measures_everything_that_a_cpu_can(run, tmp_path: Path) -> None:
    out, table = tmp_path / "found.json", tmp_path / "found.md"
    given = [str(out), "--markdown", str(table), "--tiny", "--rounds", "1", "--geometries", "2.7b"]
    with torch.compiler.set_stance("force_eager"):  # compiling would take most of the time
        assert run.main(given) == 0
    found = json.loads(out.read_text())
    measured = found["measured"]
    assert found["tiny"] and found["machine"]["versions"]["torch"] == torch.__version__
    for name in ("training", "compile"):
        bench = measured[f"2.7b.{name}"]
        assert (bench["texts"], bench["images"], bench["precision"]) == (20, 4, "bf16")
        assert bench["plain"]["flops_per_text"] > bench["qvft"]["flops_per_text"] > 0
        # bfloat16 has 8 bits, and the texts' mean losses are near log(vocabulary), 6.2
        assert bench["max_abs_loss_difference"] < 0.05
    assert measured["2.7b.decoding"]["texts"] == 2
    assert measured["2.7b.nf4_memory_bytes"] > 0
    caption = measured["qvision.caption"]
    assert caption["tokens"] == 20 and caption["plain_ms"] > 0 and caption["qvft_ms"] > 0
    lines = table.read_text().splitlines()
    line = f"| QVision: one caption of 20 tokens, qvft, ms | 50 | {caption['qvft_ms']:.1f} |"
    assert line in lines
    flex = "2.7b: qvft with flex attention, texts/s | | not measured"
    assert f"| {flex} |" in lines or torch.cuda.is_available()
    ratio = measured["2.7b.training"]["speedup"]
    assert any(
        line.startswith(f"| 2.7b: times plain practice | 4.5 | {ratio:.2f}") for line in lines
    )
    assert "nothing but that it runs" in lines[0]


def test_what_comes_too_late_or_fails_is_not_measured(run, tmp_path: Path) -> None:
    session = run.Session(minutes=1)
    session.measure("a", lambda: 1 / 0)
    session.end = 0
    session.measure("b", lambda: 1)
    assert session.found["a"] == {"not_measured": "ZeroDivisionError: division by zero"}
    assert session.found["b"] == {"not_measured": "the minutes were up"}


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_says_so(run, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert run.main([str(tmp_path / "x.json")]) == 2
    assert "no GPU" in capsys.readouterr().err


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_the_targets_are_reached(run, tmp_path: Path) -> None:
    out = tmp_path / "found.json"
    assert run.main([str(out), "--geometries", "2.7b"]) == 0
    measured = json.loads(out.read_text())["measured"]
    training = measured["2.7b.training"]
    assert training["speedup"] >= 4.5
    assert training["qvft"]["flops_per_second"] >= 0.45 * training["matmul_flops_per_second"]
    assert measured["2.7b.nf4_memory_bytes"] <= 8.0e9
