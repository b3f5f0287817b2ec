"""Progress of a phase: step, loss, texts per second, memory, time left, in one line."""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback

from qvft.progress import duration, say

WritePage = Callable[[str], None]
"""Writes the run's page with a line of progress."""
PAGE_S, SHARE = 5.0, 0.02
"""Seconds between versions of the page, and the share of time that writing them may take."""
WINDOW = 50
"""Steps over which texts per second are measured."""
_SHOWN = ("eval_token_loss", "eval_pair_loss", "eval_exact_match", "eval_held_out", "eval_reward")


class ProgressLine(TrainerCallback):
    """Callback that knows what a person wants to know of a phase; `line` says it."""

    def __init__(
        self,
        phase: str,
        texts: Callable[[], int],
        page: WritePage | None,
        begin: Callable[[], None],
    ) -> None:
        self.phase, self.texts, self.page, self.begin = phase, texts, page, begin
        self.next_page = 0.0
        self.loss: float | None = None
        self.step = self.first = self.last = 0
        self.begun = self.stepped = time.monotonic()  # the last step
        self.done: deque[tuple[float, int]] = deque(maxlen=WINDOW)  # time and texts after steps
        self.rate: float | None = None
        self.evaluated: tuple[int, int] | None = None  # batches of the evaluation, and all
        self.device, self.processes = torch.device("cpu"), 1

    def line(self) -> str:
        """`step 40 of 528, loss 0.41, 310 texts/s, 1.2 GB, 2 min left`."""
        if not self.last:
            return f"{self.phase}preparing the first step"
        parts = [f"{self.phase}step {self.step:,} of {self.last:,}"]
        if self.evaluated is not None:
            done, batches = self.evaluated
            return f"{parts[0]}, evaluating" + (f": batch {done:,} of {batches:,}" if done else "")
        if self.loss is not None:
            parts.append(f"loss {self.loss:.4g}")
        if self.rate:
            parts.append(f"{self.rate:,.{1 if self.rate < 20 else 0}f} texts/s")
        parts.append(gigabytes(peak_memory(self.device)))
        steps = self.step - self.first
        if steps:
            left = (self.stepped - self.begun) / steps * (self.last - self.step)
            parts.append(f"{duration(max(0, left - (time.monotonic() - self.stepped)))} left")
        return ", ".join(parts)

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.device, self.processes = args.device, args.world_size
        self.step = self.first = state.global_step
        self.last, self.begun = state.max_steps, time.monotonic()
        processes = "1 process" if self.processes == 1 else f"{self.processes} processes"
        say(f"{self.phase}{self.last - self.first:,} steps on {processes}, {self.device}")
        self.begin()

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if not self.done:
            self.done.append((time.monotonic(), self.texts()))

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.step, self.stepped = state.global_step, time.monotonic()
        self.done.append((self.stepped, self.texts()))
        seconds, texts = (self.done[-1][place] - self.done[0][place] for place in (0, 1))
        if seconds > 0:
            self.rate = texts * self.processes / seconds
        if self.step == self.first + 1:
            say(self.line())
        self._draw()
        if control.should_evaluate:
            self.evaluated = (0, 0)

    def on_log(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.loss = kwargs["logs"].get("loss", self.loss)

    def on_prediction_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        done = self.evaluated[0] if self.evaluated else 0
        self.evaluated = (done + 1, len(kwargs["eval_dataloader"]))

    def on_evaluate(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        metrics, self.evaluated = kwargs["metrics"], None
        self.done.clear()  # the time of an evaluation does not count
        self.stepped = time.monotonic()
        names = dict.fromkeys((args.metric_for_best_model, *_SHOWN))
        found = [f"{shown_name(name)} {metrics[name]:.4g}" for name in names if name in metrics]
        seconds = duration(metrics.get("eval_runtime", 0.0))
        say(f"{self.phase}step {state.global_step:,}: {', '.join(found)} (evaluated in {seconds})")
        self._draw(soon=True)

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        taken = duration(time.monotonic() - self.begun)
        parts = [f"{self.phase}{state.global_step:,} of {state.max_steps:,} steps, {taken}"]
        if args.load_best_model_at_end and state.global_step < state.max_steps:
            parts[0] += ", stopped early"
        if args.load_best_model_at_end and state.best_model_checkpoint:
            best = Path(state.best_model_checkpoint).name.rpartition("-")[2]
            name = shown_name(args.metric_for_best_model)
            parts.append(f"best and kept: step {best} ({name} {state.best_metric:.4g})")
        parts.append(f"peak memory {gigabytes(peak_memory(self.device))}")
        say("; ".join(parts))
        self._draw(soon=True)

    def _draw(self, *, soon: bool = False) -> None:
        begun = time.monotonic()
        if self.page is not None and (soon or begun >= self.next_page):
            self.page(self.line())
            now = time.monotonic()
            self.next_page = now + max(PAGE_S, (now - begun) / SHARE)


def shown_name(metric: str) -> str:
    """`eval_generated/CIDEr` as `CIDEr`, `eval_token_loss` as `eval loss`."""
    generated = metric.partition("generated/")[2]
    return generated or metric.replace("token_loss", "loss").replace("_", " ")


def gigabytes(count: int) -> str:
    """Bytes as GB."""
    return f"{count / 1e9:.1f} GB"


def peak_memory(device: torch.device) -> int:
    """Most bytes so far: on a GPU allocated by torch, otherwise resident; 0 where unknown."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    if sys.platform == "win32":
        return 0
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak
