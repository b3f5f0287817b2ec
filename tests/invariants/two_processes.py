"""Programs under two processes, and recipes that end alike under one and under two."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

# Plain gradient descent: what differs between one process and two is the order in which sums are
# taken, and it does not pass that through the sign of a gradient near zero, as Adam's first steps
# do. Rates are such that weights move by much more than the tolerance below.
PLAIN = [
    "train.arguments.optim=sgd", "train.lr_scheduler_type=constant", "train.warmup_steps=0",
    "train.learning_rate=0.05",
]  # fmt: skip
# 72 texts: five batches of 14, and one of 2 that leaves the second process without any.
UNEVEN = ["train.max_steps=-1", "train.epochs=1", "train.save_steps=null"]
# AdamW whose moments count, with an epsilon so large that a gradient near zero moves little.
SMOOTH = ["train.arguments.optim=adamw_torch", "train.arguments.adam_epsilon=0.01"]
PHASES = """
phases:
  - {name: bridge, trainable: {decoder: frozen}, train: {max_steps: 2}}
  - {name: both, train: {max_steps: 3, eval_steps: 3}}
"""
# Of the greedy baseline, whose loss is not 0 in the first update of a generation.
REWARD = """
phases: [{name: reward, objective: reward}]
reward: {funcs: {reward_of_ids.remainder: 1.0}, advantage: greedy, num_iterations: 2, lm: 0.1}
"""
PREFERENCE = """
phases: [{name: preference, objective: preference}]
preference: {loss_type: [sigmoid, sft], loss_weights: [1, 0.1]}
"""
ALIGNMENT = "objectives: {itc: 0.5, itm: 0.5, itg: 0.5}\n"
# Text generation counts less: the norm of its gradients, those of 150,000 word embeddings, has an
# error of 7e-6 of its size in float32, and another one where two processes add up halves.
ALIGNMENT_PARTS = "objectives: {itc: 0.5, itm: 0.5, itg: 0.05}\n"

Program = tuple[str, list[str], dict[str, str]]
"""Its name, its arguments, and variables of the environment that a launcher would set."""


HURT_STEP = 7
HURT_STEPS = ["train.max_steps=9", "train.spike={policy: skip, window: 8}"]


def under_two(
    script: str, arguments: Sequence[str], **variables: str
) -> subprocess.CompletedProcess[str]:
    """Runs a script of this folder under two processes of the CPU, started by torchrun.

    Not forked: gloo's thread crashed once in a forked process that trained for long.
    """
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2"]
    command += ["--master_port=0", "--rdzv_backend=c10d", "--rdzv_endpoint=localhost:0"]
    command += [str(Path(__file__).with_name(script)), *arguments]
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "", **variables}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=900)


def hurt(
    kind: str, recipe: Path, folder: Path, *changes: str, rows: int = 0
) -> subprocess.CompletedProcess[str]:
    """Trains with something wrong in step `HURT_STEP` of the second process, see hurt.py."""
    given = [f"run.dir={folder}", *changes, "train.per_device_train_batch_size=4", *HURT_STEPS]
    return under_two("hurt.py", [kind, str(rows), str(recipe), *given])


def launched(programs: Sequence[Program], cache: Path) -> str:
    """Runs programs under two processes; returns what they said."""
    done = under_two("entries.py", [json.dumps(programs)], QVFT_CACHE=str(cache))
    assert done.returncode == 0, (done.returncode, done.stderr[-3000:])
    return done.stdout + done.stderr
