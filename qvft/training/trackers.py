"""Experiment trackers (tensorboard, wandb, trackio): their errors, and tables of texts."""

from __future__ import annotations

import traceback
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from qvft.errors import QvftError, RecipeError, first_line

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
