"""Errors of experiment trackers (wandb, tensorboard), reported as `train.report_to`."""

from __future__ import annotations

import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from qvft.errors import QvftError, RecipeError
from qvft.recipe.refused_settings import first_line

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
