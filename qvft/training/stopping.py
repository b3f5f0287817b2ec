"""Stops training on a signal: saves a checkpoint after the current step and exits."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from transformers import TrainerCallback

from qvft.errors import StoppedError
from qvft.log import is_main_process

_SIGNALS = (signal.SIGTERM, signal.SIGINT)
_STOPPING = "stopping with a checkpoint after this step; again to stop at once"
_SAME_REQUEST_S = 2.0
"""Seconds within which repeated signals count as one: Ctrl-C reaches a process from its terminal
and again from the launcher. Later ones end the run at once."""


class StopOnSignal(TrainerCallback):
    """Saves a checkpoint after the step in which any process got SIGTERM or Ctrl-C, and stops.

    All processes stop at the same step, by an all-reduce.
    """

    def __init__(self) -> None:
        self.steps = 1
        self._number: int | None = None  # of the signal
        self._at = 0.0  # time of the first signal, monotonic seconds
        self._agreed: int | None = None

    @contextmanager
    def handling(self) -> Iterator[None]:
        """Context manager: signals are noted instead of ending the process; the second has its
        default effect.

        Does nothing outside the main thread, which alone receives signals.
        """
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        owner = os.getpid()

        def note(number: int, frame: FrameType | None) -> None:
            if os.getpid() != owner:
                return  # a worker; its main process ends it
            if self._number is None:
                self._number, self._at = number, time.monotonic()
                if is_main_process():
                    name = signal.Signals(number).name
                    # Unbuffered, since the signal may interrupt a buffered write.
                    os.write(2, f"qvft: {name}: {_STOPPING}\n".encode())
            elif time.monotonic() - self._at > _SAME_REQUEST_S:
                for one, handler in before.items():
                    signal.signal(one, handler)
                signal.raise_signal(number)

        before = {one: signal.signal(one, note) for one in _SIGNALS}
        try:
            yield
        finally:
            for one, handler in before.items():
                signal.signal(one, handler)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        number = self._number or 0
        if args.world_size > 1:
            highest = torch.tensor(number, device=args.device)
            torch.distributed.all_reduce(highest, torch.distributed.ReduceOp.MAX)
            number = int(highest)
        if number and state.global_step % self.steps == 0:
            self._agreed = number
            control.should_save = True

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Ends training once the checkpoint is saved; raises StoppedError if it was asked for."""
        if self._agreed is None:
            return
        checkpoint = Path(args.output_dir) / f"checkpoint-{state.global_step}"
        raise StoppedError(
            f"stopped by {signal.Signals(self._agreed).name} at step {state.global_step}; "
            f"{checkpoint} is complete; resume with the same command and train.resume=auto.",
            signal=self._agreed,
        )
