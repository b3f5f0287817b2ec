"""Two processes, one of which gets a signal: both stop at the same step and go on as they were."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from qvft.files import sha256_file

# The second process is asked to stop in the middle of step 3, while the first knows nothing.
PROGRAM = """
import os, signal, sys
from qvft.train import main
from qvft.training.trainer import QFormerTrainer

compute = QFormerTrainer.compute_loss

def patched(self, *given, **options):
    if os.environ["RANK"] == "1" and self.state.global_step == 2 and "STOP" in os.environ:
        os.kill(os.getpid(), signal.SIGTERM)
    return compute(self, *given, **options)

QFormerTrainer.compute_loss = patched
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.slow
def test_all_processes_stop_at_the_step_in_which_one_is_asked(
    recipe_file: Path, tmp_path: Path
) -> None:
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)

    def launch(run: Path, **environment: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2"]
        command += ["--master_port=0", "--rdzv_backend=c10d", "--rdzv_endpoint=localhost:0"]
        command += [str(program), str(recipe_file), f"run.dir={run}", "train.resume=auto"]
        command += ["train.batch_size=4", "tune.decoder_dropout=0.1"]
        given = {**os.environ, "CUDA_VISIBLE_DEVICES": "", **environment}
        return subprocess.run(command, env=given, capture_output=True, text=True, timeout=600)

    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    assert launch(whole).returncode == 0
    done = launch(stopped, STOP="1")
    assert "stopped by SIGTERM at step 3" in done.stderr
    assert done.stderr.count("exitcode  : 143") == 2, done.stderr[-3000:]
    checkpoint = stopped / "checkpoints" / "0" / "checkpoint-3"
    assert sorted(path.name for path in checkpoint.glob("rng_state*")) == [
        "rng_state_0.pth", "rng_state_1.pth",
    ]  # fmt: skip
    assert launch(stopped).returncode == 0
    for name in ("bridge.safetensors", "adapter_model.safetensors"):
        assert sha256_file(stopped / "adapter" / name) == sha256_file(whole / "adapter" / name)
