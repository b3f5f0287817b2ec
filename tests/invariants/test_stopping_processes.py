"""Two processes, one of which gets a signal: both stop at the same step and go on as they were."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from qvft.files import sha256_file

# The second process is asked to stop in the middle of step 3, while the first knows nothing. None
# leaves before all have noted how they ended: torchrun kills the others once one has left with an
# error, and one that is about to leave by itself then counts as killed.
PROGRAM = """
import os, signal, sys, time
from pathlib import Path
from qvft.train import main
from qvft.training.trainer import QFormerTrainer

compute = QFormerTrainer.compute_loss

def patched(self, *given, **options):
    if os.environ["RANK"] == "1" and self.state.global_step == 2 and "STOP" in os.environ:
        os.kill(os.getpid(), signal.SIGTERM)
    return compute(self, *given, **options)

QFormerTrainer.compute_loss = patched
status = main(sys.argv[2:])
Path(sys.argv[1], os.environ["RANK"]).write_text(str(status))
until = time.monotonic() + 60
while len(os.listdir(sys.argv[1])) < 2 and time.monotonic() < until:
    time.sleep(0.05)
sys.exit(status)
"""


@pytest.mark.slow
def test_all_processes_stop_at_the_step_in_which_one_is_asked(
    recipe_file: Path, tmp_path: Path
) -> None:
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)

    def launch(run: Path, ended: str, **environment: str) -> tuple[list[str], str]:
        """How each process ended, and what was said."""
        notes = tmp_path / ended
        notes.mkdir()
        command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2"]
        command += ["--master_port=0", "--rdzv_backend=c10d", "--rdzv_endpoint=localhost:0"]
        command += [str(program), str(notes), str(recipe_file), f"run.dir={run}"]
        command += [
            "train.resume=auto",
            "train.per_device_train_batch_size=4",
            "trainable.decoder_dropout=0.1",
        ]
        given = {**os.environ, "CUDA_VISIBLE_DEVICES": "", **environment}
        done = subprocess.run(command, env=given, capture_output=True, text=True, timeout=600)
        return [path.read_text() for path in sorted(notes.iterdir())], done.stderr[-3000:]

    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    statuses, said = launch(whole, "ended whole")
    assert statuses == ["0", "0"], said
    statuses, said = launch(stopped, "ended stopped", STOP="1")
    assert "stopped by SIGTERM at step 3" in said
    assert statuses == ["143", "143"], said
    checkpoint = stopped / "checkpoints" / "0" / "checkpoint-3"
    assert sorted(path.name for path in checkpoint.glob("rng_state*")) == [
        "rng_state_0.pth", "rng_state_1.pth",
    ]  # fmt: skip
    statuses, said = launch(stopped, "ended resumed")
    assert statuses == ["0", "0"], said
    for name in ("bridge.safetensors", "adapter_model.safetensors"):
        assert sha256_file(stopped / "adapter" / name) == sha256_file(whole / "adapter" / name)
