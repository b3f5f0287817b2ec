"""The main job at BLIP-2-OPT-2.7B's real size, on a CPU within 24 GB: `pytest -m fullsize -s`.

Weights are random, so that no score means anything; time and memory do. The real commands run one
after the other as processes of their own. `QVFT_FULLSIZE_MODEL` names a folder that
`tests/fullsize/make_model.py` wrote before; without it one is written (7.5 GB).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from qvft.json_files import write_json

PROJECT = Path(__file__).resolve().parents[2]
MEMORY_MAX_BYTES = 24_000_000_000
EVAL_IMAGES = 4  # their ten questions are the least that whole images give beyond eight


@dataclass(frozen=True)
class Stage:
    """What a command took: wall-clock time, and the largest resident memory of its processes."""

    seconds: float
    peak_bytes: int


class Stages:
    """Runs commands and keeps what each took."""

    def __init__(self) -> None:
        self.taken: dict[str, Stage] = {}

    def run(self, name: str, *arguments: str | Path) -> None:
        """Runs a command; its output goes to the terminal. Fails the test if the command fails."""
        started = time.monotonic()
        process = subprocess.Popen([sys.executable, *map(str, arguments)], cwd=PROJECT)
        # wait4, unlike getrusage of all children, tells this command's peak from the others'.
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        seconds = time.monotonic() - started
        self.taken[name] = Stage(seconds, usage.ru_maxrss * 1024)
        print(f"{name}: {seconds:.0f} s, {usage.ru_maxrss * 1024 / 1e9:.1f} GB", flush=True)
        assert process.returncode == 0, f"{name} ended with {process.returncode}"


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with BLIP-2-OPT-2.7B of random weights."""
    if given := os.environ.get("QVFT_FULLSIZE_MODEL"):
        return Path(given).resolve()
    folder = tmp_path_factory.mktemp("fullsize") / "model"
    Stages().run("make_model", "tests/fullsize/make_model.py", folder)
    return folder


@pytest.mark.fullsize
def test_medical_vqa_trains_evaluates_and_merges_within_24_gb(
    model_folder: Path, shared_data: Path, tmp_path: Path
) -> None:
    data = shared_data.resolve() / "vqa_rad"
    run, out = tmp_path / "run", tmp_path / "merged"
    stages = Stages()
    stages.run(
        "train",
        *("-m", "accelerate.commands.launch", "--num_processes", "1", "-m", "qvft.train"),
        "recipes/medical_vqa.yaml",
        f"model.id={model_folder}",
        f"data.train.path={data}",
        f"data.eval.path={data}",
        f"run.dir={run}",
        "train.max_steps=3",
        "train.per_device_train_batch_size=2",
        "train.gradient_accumulation_steps=1",
    )
    smaller = [f"data.eval.limit={EVAL_IMAGES}", "eval.blind=false"]
    stages.run("eval", "-m", "qvft.eval", run, *smaller)
    stages.run("merge", "-m", "qvft.merge", run, out)
    if report := os.environ.get("QVFT_FULLSIZE_REPORT"):
        write_json(Path(report), {name: vars(stage) for name, stage in stages.taken.items()})

    (figures,) = run.glob("eval/*/report.json")
    assert json.loads(figures.read_text())["n"] >= 8
    record = json.loads((out / "merge.json").read_text())
    assert record["dtype"] == "bfloat16"
    assert record["keys"]["lora"] == 32 * 6
    assert record["verification"]["weights"]["weights"] == 3_744_761_856
    assert record["verification"]["quantized"] is not None
    for name, stage in stages.taken.items():
        assert stage.peak_bytes <= MEMORY_MAX_BYTES, f"{name}: {stage.peak_bytes / 1e9:.1f} GB"
