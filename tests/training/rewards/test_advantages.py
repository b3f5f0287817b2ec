"""Advantages: equal to trl's own RLOOTrainer and GRPOTrainer on random rewards."""

import warnings
from collections import defaultdict, deque
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from qvft.training.rewards.advantages import advantages, weighted, without_spread

trl = pytest.importorskip("trl", reason="trl is the oracle of the advantages")
PROMPTS, SAMPLES, LENGTH = 6, 5, 4
ROUNDING = 1e-5  # trl's rewards are float32, of size 1, and it divides by deviations of 0.1


def by_trl(trainer_class: Any, rewards: Tensor, logps: Tensor | None = None, **options: Any) -> Any:
    """(P * K,) advantages and the metrics that trl computes from these rewards (P, K).

    Generation, reward function and model are replaced; `logps` (2, P * K, LENGTH) are those of the
    policy and of the reference.
    """
    name = trainer_class.__name__.replace("Trainer", "Config")
    with warnings.catch_warnings():  # trl's own default has a deprecated name in transformers
        warnings.simplefilter("ignore", FutureWarning)
        config = getattr(trl, name)(
            output_dir="unused",
            report_to=[],
            bf16=False,
            num_generations=SAMPLES,
            per_device_train_batch_size=PROMPTS * SAMPLES,
            **options,
        )
    # What neither config nor test sets is off: tools, environments, vLLM.
    stub = type("Stub", (trainer_class,), {"__getattr__": lambda self, name: None})
    trainer = stub.__new__(stub)
    flat = rewards.reshape(-1).float()
    count = len(flat)
    ids = [[1] * LENGTH] * count
    same = lambda value: value  # noqa: E731
    known = iter([] if logps is None else logps)

    class Model:
        training = True
        is_gradient_checkpointing = False

        def modules(self) -> list:
            return []

    written = ids, ids, [""] * count
    if trainer_class is trl.GRPOTrainer:
        written = ids, ids, None, [""] * count, None, {}, None, []
    parts = dict(
        model=Model(),
        args=config,
        accelerator=SimpleNamespace(
            device=torch.device("cpu"),
            process_index=0,
            num_processes=1,
            gather=same,
            reduce=lambda value, reduction: value,
        ),
        _tokenizer=SimpleNamespace(pad_token_id=0),
        _generate=lambda prompts: written,
        _calculate_rewards=lambda *arguments: flat[:, None],
        _get_per_token_logps_and_entropies=lambda *a, **k: (next(known, None), None, None),
        reward_weights=torch.ones(1),
        reward_func_names=["given"],
        reward_funcs=[None],
        ref_model=object(),
        _metrics={"train": defaultdict(list)},
        _logs=defaultdict(deque, rewards=defaultdict(deque), extra=defaultdict(deque)),
        _pending_extra_logs={},
        _pending_metrics={},
    )
    for key, value in {**vars(config), **parts}.items():
        setattr(trainer, key, value)
    return trainer


def rloo(rewards: Tensor, **options: Any) -> tuple[Tensor, dict]:
    """Advantages of `RLOOTrainer._generate_and_score_completions`."""
    options = {"beta": 0.0, **options}
    logps = options.pop("logps", torch.zeros(1, rewards.numel(), LENGTH))
    trainer = by_trl(trl.RLOOTrainer, rewards, logps, **options)
    out = trainer._generate_and_score_completions([{"prompt": "a"}] * rewards.numel())
    return out["advantages"].view(rewards.shape).double(), trainer._metrics["train"]


@pytest.fixture
def rewards() -> Tensor:
    found = torch.rand(PROMPTS, SAMPLES, generator=torch.Generator().manual_seed(0)).double()
    found[2] = 0.25  # a group without spread
    return found


def test_leave_one_out_is_trls(rewards: Tensor) -> None:
    expected, logged = rloo(rewards)
    found = advantages(rewards, "rloo")
    torch.testing.assert_close(found, expected, rtol=ROUNDING, atol=ROUNDING)
    assert float(without_spread(rewards).double().mean()) == pytest.approx(
        logged["frac_reward_zero_std"][0]
    )


def test_a_text_without_reward_is_in_no_baseline_as_in_trl(rewards: Tensor) -> None:
    rewards[0, 1] = rewards[3, :4] = torch.nan
    expected, _ = rloo(rewards)
    found = advantages(rewards, "rloo")
    torch.testing.assert_close(found, expected, rtol=ROUNDING, atol=ROUNDING)
    assert not found[0, 1] and not found[3].any()


def test_the_kl_penalty_is_in_the_reward_as_in_trl(rewards: Tensor) -> None:
    logps = -torch.rand(2, rewards.numel(), LENGTH, generator=torch.Generator().manual_seed(1))
    expected, _ = rloo(rewards, beta=0.3, logps=logps)
    divergence = (logps[0] - logps[1]).sum(dim=1).view(rewards.shape).double()
    found = advantages(rewards - 0.3 * divergence, "rloo")
    torch.testing.assert_close(found, expected, rtol=ROUNDING, atol=ROUNDING)


def test_the_greedy_baseline_is_the_same_for_all_samples_of_a_prompt(rewards: Tensor) -> None:
    greedy = torch.arange(PROMPTS).double()
    found = advantages(rewards, "greedy", greedy=greedy)
    torch.testing.assert_close(found + greedy[:, None], rewards)


@pytest.mark.parametrize(("form", "scale"), [("grpo", "group"), ("dr_grpo", "none")])
def test_group_means_are_trls(rewards: Tensor, form: str, scale: str) -> None:
    rewards[0, 1] = torch.nan
    trainer = by_trl(trl.GRPOTrainer, rewards, scale_rewards=scale, beta=0.0)
    out = trainer._generate_and_score_completions([{"prompt": "a"}] * rewards.numel())
    expected = out["advantages"].view(rewards.shape).double()
    found = advantages(rewards, form, is_scaled=scale == "group")
    torch.testing.assert_close(found, expected, rtol=ROUNDING, atol=ROUNDING)
    # trl counts texts, and groups are of equal size.
    logged = trainer._metrics["train"]["frac_reward_zero_std"][0]
    assert float(without_spread(rewards).double().mean()) == pytest.approx(logged)


def test_rewards_are_summed_with_their_weights_where_there_are_any() -> None:
    found = weighted({"a": [1.0, None, None], "b": [0.5, 2.0, None]}, {"a": 2.0, "b": -1.0}, 3)
    assert found[:2].tolist() == [1.5, -2.0]
    assert found[2].isnan()
