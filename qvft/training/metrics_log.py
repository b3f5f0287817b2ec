"""`metrics.jsonl`: what the trainer logs, one object a line, as it comes."""

from __future__ import annotations

import json
import time
from pathlib import Path

from transformers import TrainerCallback


class MetricsLog(TrainerCallback):
    """Appends every log of the trainer with its phase, step and seconds since the start.

    A resumed run first drops the lines of steps it is about to repeat.
    """

    def __init__(self, path: Path, phase: str) -> None:
        self.path, self.phase, self.start = path, phase, time.monotonic()

    def on_train_begin(self, args, state, control, **kwargs) -> None:  # noqa: ANN001, ANN003
        """Drops lines beyond the step that training goes on from."""
        self.start = time.monotonic()
        if not state.is_world_process_zero or not self.path.is_file():
            return
        kept = [
            line
            for line in self.path.read_text().splitlines(keepends=True)
            if (row := json.loads(line))["phase"] != self.phase or row["step"] <= state.global_step
        ]
        self.path.write_text("".join(kept))

    def on_log(self, args, state, control, logs=None, **kwargs) -> None:  # noqa: ANN001, ANN003
        """Appends one line."""
        if not state.is_world_process_zero or not logs:
            return
        row = {
            "phase": self.phase,
            "step": state.global_step,
            "seconds": round(time.monotonic() - self.start, 2),
            **{key: value for key, value in logs.items() if key != "epoch"},
        }
        with self.path.open("a") as stream:
            stream.write(json.dumps(row) + "\n")


def read_metrics(path: Path) -> list[dict]:
    """The lines of a `metrics.jsonl`; empty where there is none."""
    if not path.is_file():
        return []
    return [json.loads(line) for line in path.read_text().splitlines() if line.strip()]
