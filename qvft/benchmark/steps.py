"""Training steps for benchmarks: step time, FLOPs and peak memory of several variants."""

from __future__ import annotations

import contextlib
import gc
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode
from transformers import PreTrainedModel

from qvft.benchmark.machine import resident_peak
from qvft.models.flex_attention import use_flex, uses_flex
from qvft.training.activations import lean_activations
from qvft.training.objectives.language import LanguageModelling


@dataclass(frozen=True)
class Way:
    """A variant of a training step on the same texts.

    Attributes:
        image_once: an image is encoded once for its rows, rather than once per row.
        packed: rows are packed, rather than padded to the longest.
        cached: ViT features are cached.
        own_forward: the model's own `forward` with logits at every position, instead of only at
            supervised positions.
    """

    image_once: bool = True
    packed: bool = True
    cached: bool = True
    own_forward: bool = False


WAYS = {
    "plain": Way(image_once=False, packed=False, cached=False, own_forward=True),
    "label_logits": Way(image_once=False, packed=False, cached=False),
    "image_once": Way(packed=False, cached=False),
    "packed": Way(cached=False),
    "cached": Way(packed=False),
    "qvft": Way(),
}
"""The plain implementation, each optimization alone, and all of them."""


class Steps:
    """Training steps on one model, in any variant."""

    def __init__(self, model: PreTrainedModel, *, bf16: bool) -> None:
        self.model, self.bf16 = model, bf16
        self.place = model.device
        self.objective = LanguageModelling(model).train()
        trained = [weight for weight in model.parameters() if weight.requires_grad]
        self.optimizer = torch.optim.AdamW(trained, lr=0.0)
        self.objective.zero_grad()

    def loss(self, way: Way, batch: Mapping[str, Tensor]) -> Tensor:
        """Mean loss of a batch's supervised tokens."""
        with torch.autocast(self.place.type, dtype=torch.bfloat16, enabled=self.bf16):
            if way.own_forward:
                inputs = {k: v for k, v in batch.items() if k != "image_index"}
                return self.model(**inputs).loss
            outputs = self.objective(**batch)
            return outputs["loss_sum"] / outputs["count"]

    def step(self, way: Way, batch: Mapping[str, Tensor]) -> None:
        """Forward, backward and optimizer step."""
        lean = lean_activations(self.model, active=self.bf16 and not way.own_forward)
        with lean, self._as_they_come() if way.own_forward else contextlib.nullcontext():
            self.loss(way, batch).backward()
        self.optimizer.step()
        self.optimizer.zero_grad()

    def timed(self, way: Way, batches: Sequence[Mapping[str, Tensor]]) -> float:
        """Seconds per step on each batch."""
        self._wait()
        start = time.perf_counter()
        for batch in batches:
            self.step(way, batch)
        self._wait()
        return time.perf_counter() - start

    def flops(self, way: Way, batches: Sequence[Mapping[str, Tensor]]) -> float:
        """FLOPs per step on each batch, as torch counts them."""
        with self._as_they_come(), FlopCounterMode(display=False) as counter:
            for batch in batches:
                self.loss(way, batch).backward()
        self.optimizer.zero_grad()
        return float(counter.get_total_flops())

    def memory(self, way: Way, batches: Sequence[Mapping[str, Tensor]]) -> int:
        """Peak bytes of the largest step above those between steps."""
        self.step(way, batches[0])
        gc.collect()
        if self.place.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.place)
            before = torch.cuda.memory_allocated(self.place)
            self.timed(way, batches)
            return torch.cuda.max_memory_allocated(self.place) - before
        with resident_peak() as peak:
            self.timed(way, batches)
        return peak()

    def differences(
        self, first: Sequence[Mapping[str, Tensor]], second: Sequence[Mapping[str, Tensor]]
    ) -> tuple[float, float, float]:
        """Largest differences of loss and of gradient, plain against qvft; largest gradient."""
        loss, gradient, largest = 0.0, 0.0, 0.0
        self.objective.eval()
        for batches in zip(first, second, strict=True):
            found: list[tuple[Tensor, dict[str, Tensor]]] = []
            for name, batch in zip(("plain", "qvft"), batches, strict=True):
                plain = self._as_they_come() if name == "plain" else contextlib.nullcontext()
                with plain:
                    value = self.loss(WAYS[name], batch)
                    value.backward()
                found.append((value.detach(), self._gradients()))
                self.optimizer.zero_grad()
            (one, ones), (other, others) = found
            loss = max(loss, float((one - other).abs()))
            for name, value in ones.items():
                gradient = max(gradient, float((value - others[name]).abs().max()))
                largest = max(largest, float(value.abs().max()))
        self.objective.train()
        return loss, gradient, largest

    def _gradients(self) -> dict[str, Tensor]:
        named = self.model.named_parameters()
        return {n: p.grad.detach().clone() for n, p in named if p.grad is not None}

    @contextlib.contextmanager
    def _as_they_come(self) -> Iterator[None]:
        """Context in which blocks run as transformers has them: not compiled, without flex.

        Plain practice has neither, and operations are counted of what is neither."""
        flex = uses_flex(self.model)
        if flex:
            cast(
                PreTrainedModel, self.model.get_submodule("language_model")
            ).set_attn_implementation("sdpa")
        try:
            with torch.compiler.set_stance("force_eager"):
                yield
        finally:
            if flex:
                use_flex(self.model)

    def _wait(self) -> None:
        if self.place.type == "cuda":
            torch.cuda.synchronize(self.place)
