"""Logs of training: `metrics.jsonl`, one JSON object per line, and trackers (tensorboard, wandb,
trackio): their errors, and tables of texts.
"""

from __future__ import annotations

import json
import time
import traceback
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback

from qvft.disk import saving, to_disk
from qvft.errors import QvftError, RecipeError, first_line
from qvft.files import write_text
from qvft.json_files import complete_lines

RESUMABLE = "the checkpoints are complete; resume with train.resume=auto"


def drop_repeated(path: Path, phase: str, step: int) -> None:
    """Drops a phase's lines after a step, from which it resumes; all of them at step 0."""
    if not path.is_file():
        return
    kept = [
        json.dumps(row) + "\n"
        for row in complete_lines(path)
        if row["phase"] != phase or 0 < step >= row["step"]
    ]
    with saving(path, kept=RESUMABLE):
        write_text(path, "".join(kept))


def append_lines(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Appends rows as lines of JSON."""
    with saving(path, kept=RESUMABLE), path.open("a", encoding="utf-8") as stream:
        stream.writelines(json.dumps(row) + "\n" for row in rows)
        to_disk(stream)  # before the checkpoint to resume from


class MetricsLog(TrainerCallback):
    """Callback that appends the Trainer's logs with phase, step and seconds since the start.

    A resumed run first drops the lines of steps that it repeats.
    """

    def __init__(self, path: Path, phase: str) -> None:
        self.path, self.phase, self.start = path, phase, time.monotonic()

    def on_train_begin(self, args, state, control, **kwargs) -> None:  # noqa: ANN001, ANN003
        self.start = time.monotonic()
        if state.is_world_process_zero:
            drop_repeated(self.path, self.phase, state.global_step)

    def on_log(self, args, state, control, logs=None, **kwargs) -> None:  # noqa: ANN001, ANN003
        if state.is_world_process_zero and logs:
            facts = {key: value for key, value in logs.items() if key != "epoch"}
            self.note(state.global_step, facts)

    def on_train_end(self, args, state, control, **kwargs) -> None:  # noqa: ANN001, ANN003
        if state.is_world_process_zero and torch.cuda.is_available():
            peak = torch.cuda.max_memory_allocated(args.device) / 1e9
            self.note(state.global_step, {"peak_memory_gb": round(peak, 3)})

    def note(self, step: int, facts: Mapping[str, Any]) -> None:
        """Appends an event at a step; called by the main process."""
        seconds = round(time.monotonic() - self.start, 2)
        row = {"phase": self.phase, "step": step, "seconds": seconds, **facts}
        append_lines(self.path, [row])


_THEIRS = "transformers/integrations/integration_utils.py"
"""The file of transformers that calls trackers."""


@contextmanager
def trackers_named(names: Sequence[str]) -> Iterator[None]:
    """Turns an error raised in one of these trackers (no login, no network) into a RecipeError."""
    try:
        yield
    except QvftError:
        raise
    except Exception as error:
        frames = traceback.extract_tb(error.__traceback__)
        if not any(frame.filename.replace("\\", "/").endswith(_THEIRS) for frame in frames):
            raise
        raise RecipeError(
            f"{', '.join(names)} failed ({first_line(error)})",
            where="train.report_to",
            do="log in to it, or leave it out",
        ) from error


def log_texts(callbacks: Iterable[Any], lines: Sequence[Mapping[str, Any]], *, step: int) -> None:
    """Logs generated texts to those trackers of the Trainer that show texts."""
    columns = ["id", "question", "text", "references"]
    table = [
        [line["id"], line.get("question", ""), line["text"], " | ".join(line["references"])]
        for line in lines
    ]
    for callback in callbacks:
        if getattr(callback, "tb_writer", None) is not None:
            text = "\n\n".join(
                f"`{name}` {asked} **{text}** ({r})" for name, asked, text, r in table
            )
            callback.tb_writer.add_text("completions", text, step)
        for name in ("_wandb", "_trackio"):  # with the same interface
            tracker = getattr(callback, name, None)
            if tracker is not None:
                content = tracker.Table(columns=columns, data=table)
                tracker.log({"completions": content, "train/global_step": step})
