"""The script of GPU measurements: here on a CPU with narrow layers, whole where there is a GPU."""

from __future__ import annotations

import gc
import json
import sys
import time
from contextlib import nullcontext
from pathlib import Path
from types import ModuleType

import pytest
import torch

from qvft.benchmark.machine import MATMUL_SIDE

HERE = Path(__file__).parent
PERFORMANCE = HERE.parents[1] / "docs" / "performance.md"

MEASURED = (
    "2.7b.training", "2.7b.decoding", "2.7b.compile", "2.7b.flex", "2.7b.flex_compile",
    "2.7b.nf4_memory_bytes", "vicuna-7b.nf4_decoding", "flan-t5-xl.training_alone",
    "2.7b-364px.training", "qwen3-0.6b.training", "qvision",
)  # fmt: skip
"""Every geometry but 6.7b, which takes the way of 2.7b; every measurement but training on NF4,
which is `training` on the model of `nf4_memory_bytes`."""


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch):
    """The script as a module, with the files beside it."""
    monkeypatch.syspath_prepend(str(HERE))
    import run as script

    gc.freeze()  # what it imported is read by no collection
    yield script
    for name in ("run", "geometry", "session", "subject", "table"):
        sys.modules.pop(name, None)


@pytest.fixture
def sessions(run: ModuleType) -> ModuleType:
    return sys.modules["session"]


def test_it_measures_everything_that_a_cpu_can(
    run: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(MATMUL_SIDE, "cpu", 128)
    out, table = tmp_path / "found.json", tmp_path / "found.md"
    given = [str(out), "--markdown", str(table), "--tiny", "--rounds", "1"]
    given += ["--only", ",".join(MEASURED)]
    # A busy machine takes as long as it takes.
    monkeypatch.setattr(sys.modules["session"], "_interrupted_after", lambda _: nullcontext())
    given += ["--minutes", "60"]
    with torch.compiler.set_stance("force_eager"):  # compiling would take most of the time
        assert run.main(given) == 0
    found = json.loads(out.read_text())
    measured = found["measured"]
    assert found["tiny"] and found["machine"]["versions"]["torch"] == torch.__version__
    assert list(measured) == [
        case.name for case in run.CASES if {case.name, case.geometry} & {*MEASURED}
    ]
    assert {case.measure for case in run.CASES} == {
        case.measure for case in run.CASES if case.name in measured
    } | {sys.modules["subject"].nf4_training}
    for name, value in measured.items():
        if "flex" not in name or torch.cuda.is_available():
            assert "not_measured" not in str(value), (name, value)
    for name in ("2.7b.training", "2.7b.compile", "2.7b-364px.training", "qwen3-0.6b.training"):
        bench = measured[name]
        assert (bench["texts"], bench["images"], bench["precision"]) == (10, 2, "bf16")
        assert bench["plain"]["flops_per_text"] > bench["qvft"]["flops_per_text"] > 0
        # bfloat16 has 8 bits, and the texts' mean losses are near log(vocabulary), 7.1
        assert bench["max_abs_loss_difference"] < 0.05
    live, cached = (measured["2.7b.training"][key] for key in ("parts", "qvft"))
    assert live["packed"]["flops_per_text"] > cached["flops_per_text"]
    larger = measured["2.7b-364px.training"]["plain"]["flops_per_text"]
    assert larger > measured["2.7b.training"]["plain"]["flops_per_text"]
    assert measured["flan-t5-xl.training_alone"]["qvft"]["texts_per_second"] > 0
    assert measured["2.7b.decoding"]["texts"] == 2
    assert measured["vicuna-7b.nf4_decoding"]["texts"] == 10, "five questions per image"
    assert measured["2.7b.nf4_memory_bytes"] > 0
    caption = measured["qvision.caption"]
    assert caption["tokens"] == 20 and caption["plain_ms"] > 0 and caption["qvft_ms"] > 0
    lines = table.read_text().splitlines()
    assert (
        f"| qvision: one caption of 20 tokens, qvft, ms | 50 | {caption['qvft_ms']:.1f} |" in lines
    )
    flex = "2.7b: qvft with flex attention, texts/s | | not measured"
    assert f"| {flex} |" in lines or torch.cuda.is_available()
    ratio = measured["2.7b.training"]["speedup"]
    assert any(
        line.startswith(f"| 2.7b: times plain practice | 4.5 | {ratio:.2f}") for line in lines
    )
    assert "nothing but that it runs" in lines[0]


def test_all_budgets_fit_one_call(run: ModuleType) -> None:
    assert sum(case.budget_s for case in run.CASES) <= 8 * 60


def test_the_table_of_the_docs_has_the_rows_of_the_script(run: ModuleType) -> None:
    wanted = sys.modules["table"].table({case.name: {"not_measured": "x"} for case in run.CASES})
    head = len(wanted)
    lines = PERFORMANCE.read_text().partition("## A GPU\n")[2].splitlines()
    start = lines.index(wanted[0])
    found = lines[start : start + head]
    assert [line.split("|")[1:3] for line in found] == [line.split("|")[1:3] for line in wanted]


def test_what_fails_or_no_longer_fits_is_not_measured(sessions: ModuleType) -> None:
    written = []
    session = sessions.Session(
        ["a", "b", "c", "d"], minutes=1, write=lambda found: written.append({**found})
    )
    session.measure("a", lambda: 1 / 0, budget_s=1)
    session.measure("b", lambda: time.sleep(5), budget_s=0.05)
    session.measure("c", lambda: 1, budget_s=100)
    assert session.found["a"] == {"not_measured": "ZeroDivisionError: division by zero"}
    assert "longer than its budget" in session.found["b"]["not_measured"]
    assert "of its budget of 100 s" in session.found["c"]["not_measured"]
    assert written[-1]["d"] == {"not_measured": "not reached"}
    assert len(written) == 4, "at the start and after each"


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_says_so(
    run: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    assert run.main([str(tmp_path / "x.json")]) == 2
    assert "no GPU" in capsys.readouterr().err


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_the_targets_are_reached(run: ModuleType, tmp_path: Path) -> None:
    out = tmp_path / "found.json"
    assert run.main([str(out), "--only", "2.7b"]) == 0
    measured = json.loads(out.read_text())["measured"]
    training = measured["2.7b.training"]
    assert training["speedup"] >= 4.5
    assert training["qvft"]["flops_per_second"] >= 0.45 * training["matmul_flops_per_second"]
    assert measured["2.7b.nf4_memory_bytes"] <= 8.0e9
