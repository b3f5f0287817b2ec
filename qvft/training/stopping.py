"""Stops training on a signal: saves a checkpoint after the current step and exits."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from transformers import TrainerCallback

from qvft.errors import StoppedError
from qvft.log import is_main_process

_SIGNALS = (signal.SIGTERM, signal.SIGINT)
_SAME_REQUEST_S = 2.0
"""Seconds within which repeated signals count as one: Ctrl-C reaches a process from its terminal
and again from the launcher. Later ones end the run at once."""


@dataclass
class Request:
    """A request to stop: the signal's number, and the time of the first (monotonic seconds)."""

    number: int | None = None
    at: float = 0.0


@contextmanager
def requests_noted() -> Iterator[Request]:
    """Yields a request that SIGTERM and Ctrl-C set instead of ending the process.

    A second signal has its default effect. Does nothing outside the main thread, which alone
    receives signals.
    """
    request, owner = Request(), os.getpid()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return

    def note(number: int, frame: FrameType | None) -> None:
        if os.getpid() != owner:
            return  # a worker; its main process ends it
        if request.number is None:
            request.number, request.at = number, time.monotonic()
            if is_main_process():
                _say(number)
        elif time.monotonic() - request.at > _SAME_REQUEST_S:
            for one, handler in before.items():
                signal.signal(one, handler)
            signal.raise_signal(number)

    before = {one: signal.signal(one, note) for one in _SIGNALS}
    try:
        yield request
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)


def _say(number: int) -> None:
    """Writes unbuffered, since the signal may interrupt a buffered write."""
    name = signal.Signals(number).name
    text = f"qvft: {name}: stopping with a checkpoint after this step; again to stop at once\n"
    os.write(2, text.encode())


class StopAtStep(TrainerCallback):
    """Saves a checkpoint after the step in which any process was asked to stop, and stops.

    All processes stop at the same step, by an all-reduce.
    """

    def __init__(self, request: Request) -> None:
        self._request = request
        self._agreed: int | None = None

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Requests a checkpoint, if any process was asked to stop."""
        number = self._request.number or 0
        if args.world_size > 1:
            highest = torch.tensor(number, device=args.device)
            torch.distributed.all_reduce(highest, torch.distributed.ReduceOp.MAX)
            number = int(highest)
        if number:
            self._agreed = number
            control.should_save = True

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Ends training once the checkpoint is saved.

        Raises:
            StoppedError: it was asked for.
        """
        if self._agreed is None:
            return
        checkpoint = Path(args.output_dir) / f"checkpoint-{state.global_step}"
        raise StoppedError(
            f"stopped by {signal.Signals(self._agreed).name} at step {state.global_step}; "
            f"{checkpoint} is complete; resume with the same command and train.resume=auto.",
            signal=self._agreed,
        )
