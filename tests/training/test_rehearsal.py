"""Whatever a library raises about a setting becomes one message with the setting's key."""

from __future__ import annotations

import random
from importlib.util import find_spec
from typing import Any

import pytest
import torch

from qvft.errors import RecipeError
from qvft.recipe.train import Train
from qvft.training import rehearsal
from qvft.training.metrics_log import trackers_named
from qvft.training.rehearsal import require_trainable


def settings(**train: Any) -> dict[str, Any]:
    return Train.model_validate(train).model_dump()


@pytest.mark.parametrize(
    ("arguments", "key", "says"),
    [
        ({"optim": "lomo"}, "optim", "lomo"),
        ({"optim": "no_such"}, "optim", "no_such"),
        ({"use_liger_kernel": True}, "use_liger_kernel", "liger"),
        ({"neftune_noise_alpha": 5.0}, "neftune_noise_alpha", ""),
        ({"dataloader_prefetch_factor": 2}, "dataloader_prefetch_factor", "num_workers"),
        ({"lr_scheduler_kwargs": {"x": 1}}, "lr_scheduler_kwargs", "'x'"),
        ({"adam_epsilon": 1e-8, "adam_epsilon_": 1}, "adam_epsilon_", "not a field"),
        ({"tf32": 3}, "tf32", "expected bool"),
        ({"logging_first_step": "x"}, "logging_first_step", "expected bool"),
        ({"push_to_hub": True}, "push_to_hub", "qvft.merge"),
        ({"torch_compile": True}, "torch_compile", "train.torch_compile"),
    ],
    ids=str,
)
def test_a_refused_field_is_named(arguments: dict[str, Any], key: str, says: str) -> None:
    with pytest.raises(RecipeError, match=f"^train.arguments.{key}: .*{says}"):
        require_trainable(settings(arguments=arguments))


def test_only_the_field_to_blame_is_named() -> None:
    fields = {"adam_epsilon": 1e-7, "optim": "lomo", "logging_first_step": True}
    with pytest.raises(RecipeError) as caught:
        require_trainable(settings(arguments=fields))
    assert caught.value.where == "train.arguments.optim"


NO_WANDB = pytest.mark.skipif(find_spec("wandb") is not None, reason="wandb is installed")


@pytest.mark.parametrize("tracker", [pytest.param("wandb", marks=NO_WANDB), "no_such"])
def test_a_tracker_that_is_not_there_is_named(tracker: str) -> None:
    with pytest.raises(RecipeError, match=rf"^train\.report_to: .*{tracker}"):
        require_trainable(settings(report_to=[tracker]))


def test_fields_that_work_are_taken_and_leave_the_random_state(capfd) -> None:
    random.seed(12345)
    before = torch.random.get_rng_state(), random.getstate()
    fields = {"optim": "adafactor", "logging_first_step": True, "eval_on_start": True}
    require_trainable(settings(arguments=fields))
    assert torch.equal(torch.random.get_rng_state(), before[0])
    assert random.getstate() == before[1]
    assert capfd.readouterr().out == ""


def test_a_recipe_without_further_fields_is_not_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rehearsal, "rehearse", lambda *_, **__: pytest.fail("was tried"))
    require_trainable(settings())


def test_a_fault_that_stays_without_the_settings_is_a_defect(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise KeyError("ours")

    monkeypatch.setattr(rehearsal, "rehearse", fail)
    with pytest.raises(KeyError, match="ours"):
        require_trainable(settings(arguments={"adam_epsilon": 1e-8}))


def test_what_fails_within_a_tracker_is_about_trackers() -> None:
    theirs = compile(
        "raise OSError('no login')", "/x/transformers/integrations/integration_utils.py", "exec"
    )
    failed = r"^train\.report_to: wandb failed \(no login\)"
    with pytest.raises(RecipeError, match=failed), trackers_named(["wandb"]):
        exec(theirs)
    with pytest.raises(OSError, match="of another"), trackers_named(["wandb"]):
        raise OSError("of another")
