"""Checks around the first step, on modules small enough to see through."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from qvft.data.rows import Row, training_rows
from qvft.data.sample import ImageFile, Sample
from qvft.errors import PreflightError
from qvft.models.families import FAMILIES
from qvft.recipe.load import load_recipe
from qvft.training.objectives.alignment import AlignmentCollator, AlignmentObjective
from qvft.training.preflight import (
    HEADS_WITHIN,
    GradientCheck,
    check_backward,
    check_image_matters,
    preflight_batch,
)
from qvft.training.prepare_training import prepare_training
from qvft.training.training_run import TrainingRun

BLIP2 = FAMILIES["blip2"]


class Objective(nn.Module):
    """A row's loss is `scale` times the mean of its image, through two trained components."""

    def __init__(self, *, scale: float = 1.0) -> None:
        super().__init__()
        self.scale = scale
        self.qformer = nn.Linear(1, 1, bias=False)
        self.language_projection = nn.Linear(1, 1, bias=False)
        nn.init.ones_(self.qformer.weight)
        nn.init.ones_(self.language_projection.weight)

    def forward(self, pixel_values: Tensor, image_index: Tensor) -> dict[str, Tensor]:
        means = self.scale * pixel_values.flatten(1).mean(1, keepdim=True)
        loss = self.language_projection(self.qformer(means))[image_index, 0]
        return {"row_loss": loss, "loss_sum": loss.sum(), "count": torch.tensor(len(loss))}


def batch(*values: float) -> dict[str, Tensor]:
    pixels = torch.tensor(values).reshape(-1, 1, 1, 1).expand(-1, 3, 2, 2)
    return {"pixel_values": pixels, "image_index": torch.arange(len(values))}


def test_the_largest_change_of_a_rows_loss_is_told() -> None:
    # Each row gets the next image: changes of 1 - 4, 4 - 2 and 2 - 1.
    assert check_image_matters(Objective(), batch(1.0, 4.0, 2.0)) == 3.0


def test_one_image_cannot_be_exchanged() -> None:
    assert math.isnan(check_image_matters(Objective(), batch(1.0)))


def test_a_loss_that_is_not_finite_is_not_called_a_missing_image() -> None:
    with pytest.raises(PreflightError, match="not finite"):
        check_image_matters(Objective(scale=float("nan")), batch(1.0, 2.0))


def test_the_check_leaves_the_mode_of_training_as_it_was() -> None:
    module = Objective().train()
    check_image_matters(module, batch(1.0, 2.0))
    assert module.training


def test_one_backward_pass_tells_gradients_and_drops_them() -> None:
    module = Objective()
    # The mean of the images is 3 and every weight is 1: so are both gradients.
    largest = check_backward(module, module, BLIP2, batch(2.0, 4.0))
    assert largest == {"qformer": 3.0, "language_projection": 3.0}
    assert all(parameter.grad is None for parameter in module.parameters())


def test_only_the_first_backward_pass_is_checked() -> None:
    module = Objective()
    check = GradientCheck(module, BLIP2)
    module(**batch(2.0))["loss_sum"].backward()
    check.on_pre_optimizer_step(None, None, None)
    module.zero_grad()
    check.on_pre_optimizer_step(None, None, None)
    with pytest.raises(PreflightError, match="qformer, language_projection"):
        GradientCheck(module, BLIP2).on_pre_optimizer_step(None, None, None)


def test_rows_of_different_images_are_chosen() -> None:
    def indices(names: str) -> list[int]:
        samples = [Sample(name, ImageFile(Path("none"))) for name in names]
        rows = [Row(f"{i}", one, "caption", None, "", (), {}) for i, one in enumerate(samples)]
        collate = lambda rows: {"row_index": torch.tensor([index for index, _ in rows])}  # noqa: E731
        batch = preflight_batch(collate, list(enumerate(rows)), torch.device("cpu"))
        return batch["row_index"].tolist()

    assert indices("aabcbdef") == [0, 2, 3, 5]
    assert indices("aa") == [0]


@pytest.fixture(scope="module")
def aligned_work(recipe_file: Path) -> TrainingRun:
    built = prepare_training(
        load_recipe(recipe_file, ["objectives={itc: 0.5, itm: 0.5, itg: 0.25}"])
    )
    built.counts(built.plans[0])
    return built


def aligned(work: TrainingRun, *names: str, kind: str = "caption"):
    """The objective with these parts of it, and a batch of four rows of a kind."""
    assert work.branch is not None
    work.branch.heads.train_only([name for name in names if name != "lm"])
    module = AlignmentObjective(
        work.loaded.model, work.branch.heads, weights=dict.fromkeys(names, 1.0), seed=0
    )
    collator = AlignmentCollator(work.loaded.collator, work.branch.tokenizer, max_text_tokens=32)
    rows = [row for row in training_rows(work.train.samples) if row.kind == kind][:4]
    return module, collator(list(enumerate(rows)))


def cut(monkeypatch: pytest.MonkeyPatch, head: nn.Module) -> None:
    """Takes a head's output out of the graph, as a mistake in the forward pass would."""
    forward = head.forward
    monkeypatch.setattr(head, "forward", lambda *inputs: forward(*inputs).detach())


def test_heads_are_a_component_of_the_objective(aligned_work: TrainingRun) -> None:
    work = aligned_work
    module, batch = aligned(work, "lm", "itc", "itm", "itg")
    largest = check_backward(module, work.loaded.model, BLIP2, batch)
    assert list(largest)[-1] == "heads" and largest["heads"] > 0
    assert {"qformer", "query_tokens", "language_projection", "adapters"} < largest.keys()
    assert all(weight.grad is None for weight in module.parameters())


def test_only_what_the_objectives_train_is_asked_for(aligned_work: TrainingRun) -> None:
    work = aligned_work
    module, batch = aligned(work, "lm", "itm")
    assert not module.heads.vision_projection.weight.requires_grad
    assert "heads" in check_backward(module, work.loaded.model, BLIP2, batch)


@pytest.mark.parametrize("part", ["itm_head", "text_projection"])
def test_a_head_without_gradient_is_named(
    aligned_work: TrainingRun, monkeypatch: pytest.MonkeyPatch, part: str
) -> None:
    work = aligned_work
    module, batch = aligned(work, "lm", "itc", "itm")
    cut(monkeypatch, getattr(module.heads, part))
    with pytest.raises(PreflightError, match=rf"heads\.{part} should be trained"):
        check_backward(module, work.loaded.model, BLIP2, batch)


def backward(module: AlignmentObjective, batch: dict[str, Tensor]) -> None:
    module.train().zero_grad()
    inputs = {key: value for key, value in batch.items() if key != "row_index"}
    sum(loss.total for loss in module(**inputs)["losses"].values()).backward()


def test_the_first_backward_pass_must_go_through_every_head(
    aligned_work: TrainingRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    module, batch = aligned(aligned_work, "lm", "itc", "itm")
    cut(monkeypatch, module.heads.itm_head)
    backward(module, batch)
    check = GradientCheck(module.model, BLIP2)
    with pytest.raises(PreflightError, match=r"pass heads\.itm_head should"):
        check.on_pre_optimizer_step(None, None, None, model=module)


def test_heads_may_wait_for_captions_but_not_for_ever(aligned_work: TrainingRun) -> None:
    module, questions = aligned(aligned_work, "lm", "itc", "itm", kind="question")
    backward(module, questions)
    check = GradientCheck(module.model, BLIP2)
    for _ in range(HEADS_WITHIN - 1):
        check.on_pre_optimizer_step(None, None, None, model=module)
    with pytest.raises(PreflightError, match=r"heads\.embeddings, heads\.itm_head, "):
        check.on_pre_optimizer_step(None, None, None, model=module)
    check = GradientCheck(module.model, BLIP2)
    check.on_pre_optimizer_step(None, None, None, model=module)
    assert not check.done
    backward(module, aligned(aligned_work, "lm", "itc", "itm")[1])
    check.on_pre_optimizer_step(None, None, None, model=module)
    assert check.done
