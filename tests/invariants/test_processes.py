"""Two processes with half the batch each train what one process trains."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from safetensors.torch import load_file

from qvft.train import main


def test_two_processes_equal_one(recipe_file: Path, tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    steps = ["train.max_steps=2", "train.save_steps=null"]
    assert main([str(recipe_file), f"run.dir={one}", *steps]) == 0
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2"]
    command += ["--master_port=0", "--rdzv_backend=c10d", "--rdzv_endpoint=localhost:0"]
    command += ["-m", "qvft.train", str(recipe_file), f"run.dir={two}", "train.batch_size=4"]
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(
        [*command, *steps], env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-3000:]
    for file in ("bridge.safetensors", "adapter_model.safetensors"):
        alone, both = load_file(one / "adapter" / file), load_file(two / "adapter" / file)
        assert alone.keys() == both.keys()
        for key in alone:
            # Gradients are summed in another order (1e-7 relative); Adam's first steps move every
            # weight by about the learning rate, 1e-3, whatever its gradient's size, so that a
            # gradient near zero may differ in sign. Two such steps at most.
            difference = (alone[key] - both[key]).abs()
            assert difference.median() < 1e-6, key
            assert difference.max() < 4.1e-3, key
