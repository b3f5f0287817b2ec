"""From a recipe's train section to TrainingArguments."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from transformers import TrainingArguments, get_scheduler

from qvft.errors import RecipeError
from qvft.recipe.train import Train
from qvft.training.arguments import training_arguments, use_bf16


def arguments(folder: Path, *, has_eval: bool = True, **train: Any) -> TrainingArguments:
    return training_arguments(
        Train.model_validate(train).model_dump(),
        output_dir=folder,
        seed=7,
        workers=0,
        has_eval=has_eval,
    )


def test_columns_are_kept_for_our_collator(tmp_path: Path) -> None:
    """Trap 15: the Trainer would drop what the model's forward does not name."""
    assert arguments(tmp_path).remove_unused_columns is False


def test_a_non_finite_loss_is_not_filtered_away(tmp_path: Path) -> None:
    """Trap 11."""
    assert arguments(tmp_path).logging_nan_inf_filter is False


def test_values_of_the_recipe_arrive(tmp_path: Path) -> None:
    made = arguments(
        tmp_path,
        epochs=1.5,
        per_device_train_batch_size=3,
        gradient_accumulation_steps=5,
        max_grad_norm=0.3,
        betas=[0.8, 0.9],
        warmup_steps=12,
    )
    assert made.num_train_epochs == 1.5
    assert made.per_device_train_batch_size == 3
    assert made.gradient_accumulation_steps == 5
    assert made.max_grad_norm == 0.3
    assert (made.adam_beta1, made.adam_beta2) == (0.8, 0.9)
    assert (made.warmup_steps, made.seed) == (12, 7)


def test_cosine_ends_at_a_share_of_each_rate(tmp_path: Path) -> None:
    """Between 0 and the end as torch's `CosineAnnealingLR(eta_min=...)` has it."""
    made = arguments(tmp_path, warmup_steps=0, min_lr_rate=0.05)
    weights = [torch.nn.Parameter(torch.zeros(1)) for _ in range(2)]
    groups = [{"params": [weights[0]], "lr": 2e-5}, {"params": [weights[1]], "lr": 2e-4}]
    optimizer = torch.optim.AdamW(groups)
    scheduler = get_scheduler(
        made.lr_scheduler_type,
        optimizer,
        made.get_warmup_steps(100),
        100,
        scheduler_specific_kwargs=made.lr_scheduler_kwargs,
    )
    found = []
    for _ in range(101):
        found.append(scheduler.get_last_lr())
        optimizer.step()
        scheduler.step()
    assert found[100] == pytest.approx([1e-6, 1e-5])
    for step in (0, 30, 77):
        share = 0.05 + 0.95 * (1 + math.cos(math.pi * step / 100)) / 2
        assert found[step] == pytest.approx([2e-5 * share, 2e-4 * share])


@pytest.mark.parametrize(
    "further",
    [{"lr_scheduler_type": "linear"}, {"arguments": {"lr_scheduler_kwargs": {"min_lr": 1e-6}}}],
)
def test_an_end_above_zero_is_cosines_alone(tmp_path: Path, further: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match="min_lr_rate"):
        arguments(tmp_path, min_lr_rate=0.05, **further)


@pytest.mark.parametrize("schedule", ["cosine", "linear", "constant"])
def test_every_schedule_warms_up(tmp_path: Path, schedule: str) -> None:
    made = arguments(tmp_path, lr_scheduler_type=schedule, warmup_steps=10)
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    steps = made.get_warmup_steps(100)
    scheduler = get_scheduler(made.lr_scheduler_type, optimizer, steps, 100)
    rates = []
    for _ in range(12):
        rates.append(scheduler.get_last_lr()[0])
        optimizer.step()
        scheduler.step()
    assert rates[0] == 0.0
    assert rates[5] == pytest.approx(0.5)
    assert rates[10] == pytest.approx(1.0)


def test_a_warm_up_below_one_is_a_share_of_all_steps(tmp_path: Path) -> None:
    assert arguments(tmp_path, warmup_steps=0.05).get_warmup_steps(200) == 10


def test_the_best_checkpoint_is_kept_by_token_loss(tmp_path: Path) -> None:
    made = arguments(tmp_path, eval_steps=5, load_best_model_at_end=True, save_total_limit=3)
    assert made.load_best_model_at_end
    assert (made.metric_for_best_model, made.greater_is_better) == ("eval_token_loss", False)
    assert (made.save_strategy, made.save_steps, made.save_total_limit) == ("steps", 5, 3)


def test_without_evaluation_data_nothing_is_evaluated(tmp_path: Path) -> None:
    made = arguments(tmp_path, has_eval=False, eval_steps=5, load_best_model_at_end=True)
    assert (made.eval_strategy, made.load_best_model_at_end) == ("no", False)


def test_without_save_steps_nothing_is_saved(tmp_path: Path) -> None:
    assert arguments(tmp_path).save_strategy == "no"


def test_no_tracker_is_asked_for_unless_named(tmp_path: Path) -> None:
    assert arguments(tmp_path).report_to == []


def test_any_further_field_can_be_set(tmp_path: Path) -> None:
    made = arguments(tmp_path, arguments={"optim": "adafactor", "adam_epsilon": 1e-6})
    assert made.optim == "adafactor"
    assert made.adam_epsilon == 1e-6


def test_an_unknown_further_field_is_told_the_nearest_one(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r'train\.arguments\.optm.*did you mean "optim"'):
        arguments(tmp_path, arguments={"optm": "adafactor"})


@pytest.mark.parametrize(
    ("field", "instead"),
    [
        ("bf16", "train.mixed_precision"),
        ("num_train_epochs", "train.epochs"),
        ("output_dir", "run.dir"),
        ("seed", "run.seed"),
    ],
)
def test_a_field_with_a_key_of_its_own_is_refused(tmp_path: Path, field: str, instead: str) -> None:
    with pytest.raises(RecipeError, match=f"is set by qvft; set {instead} instead"):
        arguments(tmp_path, arguments={field: 1})


@pytest.mark.parametrize(("precision", "on_cpu"), [("auto", False), ("bf16", True), ("no", False)])
def test_bfloat16_runs_on_request_or_where_a_gpu_has_it(
    precision: str, on_cpu: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert use_bf16(precision) is on_cpu
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: True)
    assert use_bf16(precision) is (precision != "no")
