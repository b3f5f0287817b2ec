"""Preference losses: each equals trl's own, `DPOTrainer._compute_loss`, on random numbers."""

import inspect
import re
import warnings
from collections import defaultdict
from dataclasses import fields
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from qvft.recipe.preference import LOSS_TYPES, OF_DIFFERENCES, Preference
from qvft.training.objectives.preference_losses import (
    SFT,
    PairLogps,
    pair_loss,
    pair_losses,
    rewards,
)

trl = pytest.importorskip("trl", reason="trl is the oracle of the preference losses")
PAIRS, LENGTH, PROMPT = 7, 12, 3
ROUNDING = 2e-6  # the sums of up to 9 float32 log-probabilities of about 2 nats, in another order


def by_trl(values: Tensor, reference: Tensor, mask: Tensor, **options: Any) -> tuple[float, dict]:
    """Loss and metrics of `DPOTrainer._compute_loss`, of a model that returns given numbers.

    Args:
        values, reference: (2 P, L) log-probability of each token but the first; chosen rows first.
        mask: (2 P, L + 1) 1 at the tokens of the text.
    """
    with warnings.catch_warnings():  # trl's own default has a deprecated name in transformers
        warnings.simplefilter("ignore", FutureWarning)
        config = trl.DPOConfig(output_dir="unused", report_to=[], bf16=False, **options)
    trainer = trl.DPOTrainer.__new__(trl.DPOTrainer)
    zeros = torch.zeros_like(values)
    outputs = SimpleNamespace(
        log_probs=values * mask[:, 1:],
        entropy=zeros,
        mean_logits=zeros,
        is_top1=zeros.bool(),
    )
    model = lambda **_: outputs  # noqa: E731
    model.training = True  # type: ignore[attr-defined]
    same = lambda value: value  # noqa: E731
    trainer.model, trainer.args = model, config
    trainer.accelerator = SimpleNamespace(
        device=torch.device("cpu"), gather=same, gather_for_metrics=same
    )
    trainer.aux_loss_enabled, trainer.precompute_ref_logps = False, True
    trainer._metrics, trainer._total_train_tokens, trainer._tp_size = (
        {"train": defaultdict(list)}, 0, 1,
    )  # fmt: skip
    trainer.loss_types = config.loss_type
    trainer.loss_weights = config.loss_weights or [1.0] * len(config.loss_type)
    for name in (
        "beta", "label_smoothing", "ld_alpha", "f_divergence_type", "f_alpha_divergence_coef",
        "use_weighting",
    ):  # fmt: skip
        setattr(trainer, name, getattr(config, name))
    ref = (reference * mask[:, 1:]).sum(dim=1)
    inputs = {
        "input_ids": torch.zeros_like(mask),
        "attention_mask": torch.ones_like(mask),
        "completion_mask": mask,
        "ref_chosen_logps": ref[: len(ref) // 2],
        "ref_rejected_logps": ref[len(ref) // 2 :],
    }
    loss = trainer._compute_loss(model, inputs, return_outputs=False)
    return float(loss), {name: value[0] for name, value in trainer._metrics["train"].items()}


def drawn() -> tuple[Tensor, Tensor, Tensor]:
    """Token log-probabilities of model and reference, and the mask of texts of several lengths."""
    generator = torch.Generator().manual_seed(0)
    values = -3 * torch.rand(2 * PAIRS, LENGTH, generator=generator)
    reference = values + 0.4 * torch.randn(2 * PAIRS, LENGTH, generator=generator)
    lengths = torch.randint(1, LENGTH - PROMPT + 1, (2 * PAIRS, 1), generator=generator)
    place = torch.arange(LENGTH + 1)
    return values, reference, ((place > PROMPT) & (place <= PROMPT + lengths)).long()


def as_pairs(values: Tensor, reference: Tensor, mask: Tensor) -> PairLogps:
    own, ref = ((one * mask[:, 1:]).sum(dim=1) for one in (values, reference))
    tokens = mask.sum(dim=1)
    return PairLogps(
        own[:PAIRS], own[PAIRS:], ref[:PAIRS], ref[PAIRS:], tokens[:PAIRS], tokens[PAIRS:]
    )


def smoothing_of(name: str) -> float:
    return {"robust": 0.2, "exo_pair": 1e-3}.get(name, 0.0)


@pytest.mark.parametrize("beta", [0.1, 0.7])
@pytest.mark.parametrize("name", [name for name in LOSS_TYPES if name != SFT])
def test_a_loss_is_trls(name: str, beta: float) -> None:
    found = drawn()
    smoothing = smoothing_of(name)
    expected, _ = by_trl(*found, loss_type=name, beta=beta, label_smoothing=smoothing)
    settings = Preference(beta=beta, label_smoothing=smoothing)
    loss = pair_loss(name, as_pairs(*found), settings).mean()
    assert float(loss) == pytest.approx(expected, rel=ROUNDING, abs=ROUNDING)


@pytest.mark.parametrize("kind", ["forward_kl", "js_divergence", "alpha_divergence"])
@pytest.mark.parametrize("name", sorted(OF_DIFFERENCES - {SFT}))
def test_a_loss_of_another_divergence_is_trls(name: str, kind: str) -> None:
    found = drawn()
    options = {"label_smoothing": smoothing_of(name), "f_divergence_type": kind}
    expected, _ = by_trl(*found, loss_type=name, **options)
    loss = pair_loss(name, as_pairs(*found), Preference(**options)).mean()
    # The exponentials of log ratios of about 2 nats multiply their rounding.
    assert float(loss) == pytest.approx(expected, rel=2e-5, abs=2e-5)


def test_several_losses_are_trls_weighted_sum() -> None:
    found = drawn()
    names, weights = ["sigmoid", "bco_pair", "ipo"], [0.8, 0.2, 1.5]
    expected, _ = by_trl(*found, loss_type=names, loss_weights=weights)
    chosen = Preference(loss_type=names, loss_weights=weights)
    loss = pair_losses(chosen.weights, as_pairs(*found), Preference()).mean()
    assert float(loss) == pytest.approx(expected, rel=ROUNDING)


def test_the_temperature_of_discopop_is_trls() -> None:
    found = drawn()
    expected, _ = by_trl(*found, loss_type="discopop", discopop_tau=0.3)
    loss = pair_loss("discopop", as_pairs(*found), Preference(discopop_tau=0.3)).mean()
    assert float(loss) == pytest.approx(expected, rel=ROUNDING)


def test_rewards_are_those_that_trl_logs() -> None:
    found = drawn()
    _, logged = by_trl(*found, beta=0.3)
    chosen, rejected = rewards(as_pairs(*found), beta=0.3)
    assert float(chosen.mean()) == pytest.approx(logged["rewards/chosen"], rel=ROUNDING)
    assert float(rejected.mean()) == pytest.approx(logged["rewards/rejected"], rel=ROUNDING)
    accuracy = (chosen > rejected).float().mean()
    assert float(accuracy) == pytest.approx(logged["rewards/accuracies"])


def test_a_loss_of_no_table_is_refused() -> None:
    with pytest.raises(ValueError, match="dpo2"):
        pair_loss("dpo2", as_pairs(*drawn()), Preference())


def test_keys_and_defaults_are_those_of_dpo_config() -> None:
    defaults = {
        field.name: field.default_factory() if callable(field.default_factory) else field.default
        for field in fields(trl.DPOConfig)
    }
    own = Preference().model_dump()
    assert own == {name: defaults.get(name) for name in own}


def test_every_loss_of_trl_is_here_but_those_that_sort_the_batch() -> None:
    source = inspect.getsource(trl.DPOTrainer._compute_loss)
    names = set(re.findall(r'loss_type == "(\w+)"', source))
    assert {name for name in names if not name.startswith("aot")} == set(LOSS_TYPES)
