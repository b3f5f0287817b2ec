"""Policy-gradient losses: equal to trl's own RLOOTrainer and GRPOTrainer on random numbers."""

import warnings
from collections import defaultdict
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from qvft.training.objectives.reward import TextTokens, kl_terms, policy_loss, reduced

trl = pytest.importorskip("trl", reason="trl is the oracle of the reward losses")
TEXTS, LENGTH, EPSILON, EPSILON_HIGH = 9, 7, 0.2, 0.28
ROUNDING = 2e-6  # sums of 60 float32 numbers of size 1, in another order


def drawn() -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Log-probabilities (B, L) now, when sampled and at the start; mask (B, L); advantages (B,)."""
    generator = torch.Generator().manual_seed(0)
    logps = -torch.rand(TEXTS, LENGTH, generator=generator)
    old, ref = (logps + 0.3 * torch.randn(logps.shape, generator=generator) for _ in range(2))
    lengths = torch.randint(1, LENGTH + 1, (TEXTS, 1), generator=generator)
    mask = (torch.arange(LENGTH) < lengths).long()
    return logps, old, ref, mask, torch.randn(TEXTS, generator=generator)


def by_trl(trainer_class: Any, *, loss_type: str | None, beta: float) -> tuple[float, dict]:
    """The loss that trl computes of the drawn numbers, and its metrics."""
    logps, old, ref, mask, given = drawn()
    options = {} if loss_type is None else {"loss_type": loss_type}
    with warnings.catch_warnings():  # trl's own default has a deprecated name in transformers
        warnings.simplefilter("ignore", FutureWarning)
        config = getattr(trl, trainer_class.__name__.replace("Trainer", "Config"))(
            output_dir="unused", report_to=[], bf16=False, beta=beta, epsilon=EPSILON,
            epsilon_high=EPSILON_HIGH, max_completion_length=LENGTH, **options,
        )  # fmt: skip
    # What neither config nor test sets is off: tools, vLLM, entropy bonus.
    stub = type("Stub", (trainer_class,), {"__getattr__": lambda self, name: None})
    trainer = stub.__new__(stub)
    same = lambda value, **_: value  # noqa: E731
    parts = {
        "model": SimpleNamespace(training=True),
        "args": config,
        "accelerator": SimpleNamespace(gather=same, reduce=same, num_processes=1),
        "epsilon_low": EPSILON,
        "epsilon_high": EPSILON_HIGH,
        "_metrics": {"train": defaultdict(list)},
        "current_gradient_accumulation_steps": 1,
        "_get_per_token_logps_and_entropies": lambda *a, **k: (
            logps,
            torch.zeros_like(logps),
            None,
        ),
    }
    for key, value in {**vars(config), **parts}.items():
        setattr(trainer, key, value)
    config.steps_per_generation = 1
    ids = torch.ones_like(mask)
    loss = trainer._compute_loss(
        trainer.model,
        {
            "prompt_ids": ids,
            "prompt_mask": ids,
            "completion_ids": ids,
            "completion_mask": mask,
            "advantages": given,
            "old_per_token_logps": old,
            "old_logps": (old * mask).sum(dim=1),
            "ref_per_token_logps": ref,
            "num_items_in_batch": mask.sum(),
        },
    )
    return float(loss), trainer._metrics["train"]


def ours(loss_type: str, beta: float) -> tuple[float, Tensor]:
    """Our loss of the drawn numbers, and which ratios were clipped."""
    logps, old, ref, mask, given = drawn()
    kept = mask.bool()
    tokens = TextTokens(kept.nonzero()[:, 0], mask.sum(dim=1))
    total, clipped = policy_loss(
        logps[kept],
        old[kept],
        given,
        tokens,
        loss_type=loss_type,
        clip_range=(1 - EPSILON, 1 + EPSILON_HIGH),
    )
    if beta:
        total = total + beta * reduced(
            kl_terms(logps[kept], old[kept], ref[kept]), tokens, loss_type
        )
    divisor = {"dr_grpo": TEXTS * LENGTH, "dapo": int(mask.sum())}.get(loss_type, TEXTS)
    return float(total / divisor), clipped


@pytest.mark.parametrize("beta", [0.0, 0.3])
@pytest.mark.parametrize("loss_type", ["grpo", "dr_grpo", "dapo"])
def test_a_loss_per_token_is_trls(loss_type: str, beta: float) -> None:
    expected, _ = by_trl(trl.GRPOTrainer, loss_type=loss_type, beta=beta)
    assert ours(loss_type, beta)[0] == pytest.approx(expected, rel=ROUNDING, abs=ROUNDING)


def test_the_loss_per_text_is_trls() -> None:
    expected, logged = by_trl(trl.RLOOTrainer, loss_type=None, beta=0.0)
    loss, clipped = ours("rloo", 0.0)
    assert loss == pytest.approx(expected, rel=ROUNDING, abs=ROUNDING)
    assert 0 < float(clipped.float().mean()) < 1
    assert float(clipped.float().mean()) == pytest.approx(logged["clip_ratio/region_mean"][0])


def test_the_gradient_of_new_samples_is_that_of_advantage_times_log_probability() -> None:
    logps, _, _, mask, given = drawn()
    kept = mask.bool()
    tokens = TextTokens(kept.nonzero()[:, 0], mask.sum(dim=1))
    own = logps[kept].requires_grad_()
    total, _ = policy_loss(
        own, own.detach(), given, tokens, loss_type="rloo", clip_range=(0.8, 1.2)
    )
    (gradient,) = torch.autograd.grad(total, own)
    torch.testing.assert_close(gradient, -given[tokens.row])
