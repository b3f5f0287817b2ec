"""DeepSpeed's ZeRO, stages 1 and 2: weights are whole in every process, moments are dealt out.

Each process keeps the optimizer's moments, and in stage 2 the gradients, of an equal part of what
is trained. Accelerate would let DeepSpeed's engine move the weights as the backward pass ends,
before loss and gradient could be looked at. Here the engine steps where the Trainer's optimizer
does, and a checkpoint holds the moments gathered, as without ZeRO: DeepSpeed's own checkpoints are
pickles, and are read by as many processes as wrote them.
"""

from __future__ import annotations

import contextlib
import copy
import logging
import os
import warnings
from collections.abc import Iterable, Iterator, Mapping
from importlib.util import find_spec
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from qvft.errors import RecipeError
from qvft.models.distributed import DEEPSPEED, processes

# Elements that are sent at once. Two buffers of this size are held; DeepSpeed's own default,
# 500 million, takes 4 GB.
_BUCKET = 25_000_000
_WITH_MOMENTS_ALONE = (torch.optim.AdamW, torch.optim.SGD)


def zero_stage() -> int:
    """The stage of ZeRO that the launcher asks for; 0: none.

    Raises:
        RecipeError: it is one that qvft does not take, or DeepSpeed is not installed.
    """
    processes()  # it is where the launcher's wish is noted
    asked = os.environ
    if asked.get(DEEPSPEED, "false") != "true":
        return 0
    stage = asked.get("ACCELERATE_DEEPSPEED_ZERO_STAGE", "2")
    if stage not in ("1", "2"):
        raise RecipeError(
            f"asks for stage {stage} of ZeRO",
            where="accelerate launch",
            expected="1 or 2",
            do="use recipes/accelerate/fsdp.yaml, which cuts weights as stage 3 does"
            if stage == "3"
            else "use recipes/accelerate/ddp.yaml",
        )
    for name in ("OFFLOAD_OPTIMIZER_DEVICE", "OFFLOAD_PARAM_DEVICE", "CONFIG_FILE"):
        value = asked.get(f"ACCELERATE_DEEPSPEED_{name}", "none")
        if value not in ("none", ""):
            raise RecipeError(
                f"asks for {name.lower()}: {value}",
                where="accelerate launch",
                expected="none: the recipe says all else",
                do="use recipes/accelerate/zero.yaml",
            )
    if find_spec("deepspeed") is None:
        raise RecipeError(
            "asks for ZeRO, but DeepSpeed is not installed",
            where="accelerate launch",
            do="run pip install 'qvft[zero]', or use recipes/accelerate/ddp.yaml",
        )
    return int(stage)


class Zero:
    """DeepSpeed's engine around an objective and its optimizer.

    Args:
        objective: the module whose `forward` is a step, on its device.
        optimizer: over its trained weights; AdamW or SGD, which treat each weight by itself.
        stage: 1 or 2.
        clip: largest norm of a step's gradient; 0: any.

    Raises:
        RecipeError: the optimizer is another.
    """

    def __init__(
        self, objective: nn.Module, optimizer: torch.optim.Optimizer, *, stage: int, clip: float
    ) -> None:
        if not isinstance(optimizer, _WITH_MOMENTS_ALONE):
            raise RecipeError(
                f"{type(optimizer).__name__} under ZeRO",
                where="train.arguments.optim",
                expected="adamw_torch or sgd, whose moments can be dealt out",
                do="leave it out, or use recipes/accelerate/ddp.yaml",
            )
        logging.getLogger("DeepSpeed").setLevel(logging.ERROR)
        # Once a step and process, of a function that DeepSpeed calls by its older name.
        warnings.filterwarnings("ignore", message="`torch.distributed.all_gather_into_tensor`")
        import deepspeed

        self._objective = objective
        weights = [list(group["params"]) for group in optimizer.param_groups]
        trained = sum(weight.numel() for group in weights for weight in group)
        bucket = min(_BUCKET, -(-trained // 1024) * 1024)  # a multiple of 2, as is asked for
        settings = {
            "train_micro_batch_size_per_gpu": 1,  # read by DeepSpeed's own timers alone
            "gradient_clipping": clip,
            "zero_allow_untested_optimizer": True,
            "zero_optimization": {
                "stage": stage,
                "reduce_bucket_size": bucket,
                "allgather_bucket_size": bucket,
            },
        }
        with _not_sent(objective):
            self.engine, *_ = deepspeed.initialize(
                model=objective, optimizer=optimizer, config=settings
            )
        self.optimizer = ZeroOptimizer(self.engine, optimizer, weights)
        self._is_last = True

    def take_over(self, accelerator: Accelerator) -> None:
        """Has an accelerator, which knows nothing of ZeRO, hand backward passes to the engine."""
        plain = accelerator.prepare_model

        def prepare_model(model: nn.Module, *args: Any, **kwargs: Any) -> nn.Module:
            # Adds autocast where the recipe has it, and no DDP.
            plain(model, *args, **{**kwargs, "evaluation_mode": True})
            return self.engine if model is self._objective else model

        accelerator.prepare_model = prepare_model
        accelerator.backward = self._backward
        accelerator.no_sync = self._no_sync
        accelerator.clip_grad_norm_ = self._norm

    def _backward(self, loss: Tensor, **kwargs: Any) -> None:
        self.engine.set_gradient_accumulation_boundary(self._is_last)
        self.engine.backward(loss, **kwargs)

    @contextlib.contextmanager
    def _no_sync(self, model: nn.Module | None = None) -> Iterator[None]:
        self._is_last = False
        try:
            yield
        finally:
            self._is_last = True

    def _norm(self, parameters: Iterable[Tensor], max_norm: float, norm_type: float = 2) -> Tensor:
        """The norm of a step's gradient over all processes; the engine clips as it steps."""
        return self.engine.optimizer.scaled_global_norm()

    def leave_out(self) -> None:
        """Drops the gradients of a step, so that the optimizer's next step moves nothing.

        DeepSpeed itself drops a step whose gradient is not finite, with all that belongs to it.
        """
        weight = self.optimizer.weights[0][0]
        weight.set_full_hp_grad(torch.full_like(weight, torch.inf))

    def close(self) -> None:
        """Takes DeepSpeed's hooks off the weights."""
        self.engine.destroy()


@contextlib.contextmanager
def _not_sent(objective: nn.Module) -> Iterator[None]:
    """Has DeepSpeed take weights for a process's own, which it does not send to all.

    All have read the same files. It cannot send a single number (contrast's temperature), nor a ViT
    that was let go.
    """
    for weight in objective.parameters():
        weight.ds_optim_param = True
    yield
    for weight in objective.parameters():
        del weight.ds_optim_param


class ZeroOptimizer(torch.optim.Optimizer):
    """The engine's optimizer as one over whole weights: what it is asked and says is of these.

    Args:
        engine: DeepSpeed's.
        inner: the optimizer, which has its parts of the weights now.
        weights: the whole weights, by parameter group.
    """

    def __init__(
        self, engine: Any, inner: torch.optim.Optimizer, weights: list[list[nn.Parameter]]
    ) -> None:
        super().__init__([{"params": one} for one in weights], inner.defaults)
        self.param_groups, self.state = inner.param_groups, inner.state
        self.weights = weights
        self._engine = engine

    def step(self, closure: Any = None) -> None:
        """Moves all weights, in all processes."""
        self._engine.step()

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Nothing: gradients are dropped as the step has been taken."""

    def state_dict(self) -> dict[str, Any]:
        """As that of an optimizer over whole weights. All processes must ask."""
        groups, states, first = [], {}, 0
        for group, weights, part in self._groups():
            numbers = range(first, first + len(weights))
            first += len(weights)
            groups.append({**group, "params": list(numbers)})
            self._link(weights, part)
            for number, weight in zip(numbers, weights, strict=True):
                # Each with a count of its own: a shared one would count once for each weight.
                entry = {
                    name: weight.get_full_hp_param(name)
                    if _is_moment(name, value)
                    else copy.deepcopy(value)
                    for name, value in self.state.get(part, {}).items()
                }
                states.update({number: entry} if entry else {})
        return {"state": states, "param_groups": groups}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Takes this process's part of moments that are given whole."""
        for (group, weights, part), found in zip(
            self._groups(), state_dict["param_groups"], strict=True
        ):
            group.update({key: value for key, value in found.items() if key != "params"})
            entries = [state_dict["state"].get(number, {}) for number in found["params"]]
            if not entries[0]:
                continue
            self.state[part] = {
                name: torch.zeros_like(part) if _is_moment(name, value) else value
                for name, value in entries[0].items()
            }
            self._link(weights, part)
            for weight, entry in zip(weights, entries, strict=True):
                for name, value in entry.items():
                    if _is_moment(name, value):
                        weight.set_full_hp_param(value.to(part), name)

    def _link(self, weights: list[nn.Parameter], part: Tensor) -> None:
        """Has weights know their moments; DeepSpeed does so once, after the first group's step."""
        from deepspeed.utils import lazy_init_hp_params_optimizer_state

        lazy_init_hp_params_optimizer_state(weights, part, {part: self.state.get(part, {})})

    def _groups(self) -> Iterator[tuple[dict[str, Any], list[nn.Parameter], Tensor]]:
        """Each group with its weights, and this process's part of them in one tensor."""
        for group, weights in zip(self.param_groups, self.weights, strict=True):
            yield group, weights, group["params"][0]


def _is_moment(name: str, value: Any) -> bool:
    """Whether it has a number for each weight, as all that AdamW and SGD keep but their count."""
    return isinstance(value, Tensor) and name != "step"
