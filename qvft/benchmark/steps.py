"""Training steps for benchmarks: step time, FLOPs and peak memory of several variants."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import cast

import torch
from torch import Tensor
from transformers import PreTrainedModel

from qvft.benchmark import machine
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
        self.optimizer = machine.idle_optimizer(model)
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
        return machine.seconds_of(partial(self.step, way), batches)

    def flops(self, way: Way, batches: Sequence[Mapping[str, Tensor]]) -> float:
        """FLOPs per step on each batch, as torch counts them."""
        with self._as_they_come():
            return machine.backward_flops(partial(self.loss, way), batches, self.optimizer)

    def memory(self, way: Way, batches: Sequence[Mapping[str, Tensor]]) -> int:
        """Peak bytes of the largest step above those between steps."""
        return machine.peak_memory(self.place, partial(self.step, way), batches)

    def differences(
        self, first: Sequence[Mapping[str, Tensor]], second: Sequence[Mapping[str, Tensor]]
    ) -> tuple[float, float, float]:
        """Largest differences of loss and of gradient, plain against qvft; largest gradient."""
        loss, gradient, largest = 0.0, 0.0, 0.0
        self.objective.eval()
        for plain, ours in zip(first, second, strict=True):
            with self._as_they_come():
                one = self.loss(WAYS["plain"], plain)
                ones = machine.gradients(one, self.model, self.optimizer)
            other = self.loss(WAYS["qvft"], ours)
            others = machine.gradients(other, self.model, self.optimizer)
            loss = max(loss, float((one - other).detach().abs()))
            found = machine.gradient_difference(others, ones)
            gradient, largest = max(gradient, found[0]), max(largest, found[1])
        self.objective.train()
        return loss, gradient, largest

    @contextlib.contextmanager
    def _as_they_come(self) -> Iterator[None]:
        """Context in which blocks run as transformers has them: not compiled, without flex.

        Plain practice has neither, and operations are counted of what is neither.
        """
        flex = uses_flex(self.model)
        if flex:
            decoder = cast(PreTrainedModel, self.model.get_submodule("language_model"))
            decoder.set_attn_implementation("sdpa")
        try:
            with torch.compiler.set_stance("force_eager"):
                yield
        finally:
            if flex:
                use_flex(self.model)
