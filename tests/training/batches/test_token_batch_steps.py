"""Training in batches by tokens: the losses, gradients and steps of rows by themselves."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor

from qvft.check import main as check
from qvft.data.packing import SHARED_PREFIX
from qvft.errors import RecipeError
from qvft.json_files import complete_lines
from qvft.recipe.load import load_recipe
from qvft.train import main as train
from qvft.training.objectives.language import LanguageModelling
from qvft.training.prepare_training import prepare_training
from qvft.training.training_run import TrainingRun

BUDGET = 180
BY_TOKENS = [f"train.batch_tokens={BUDGET}", "train.texts_per_image=2"]


def built(recipe_file: Path, *overrides: str) -> TrainingRun:
    work = prepare_training(load_recipe(recipe_file, [*BY_TOKENS, *overrides]))
    work.counts(work.plans[0])
    return work


def gradients(work: TrainingRun, batches: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Of the summed losses of these batches."""
    objective = LanguageModelling(work.loaded.model).eval()
    objective.zero_grad()
    for batch in batches:
        batch = {key: value for key, value in batch.items() if key != "row_index"}
        objective(**{**batch, "pixel_values": batch["pixel_values"].double()})[
            "loss_sum"
        ].backward()
    return {n: p.grad.clone() for n, p in objective.named_parameters() if p.grad is not None}


def test_an_epoch_of_batches_by_tokens_has_the_gradients_of_its_rows_one_by_one(
    recipe_file: Path,
) -> None:
    work = built(recipe_file, "data.train.limit=6")
    work.loaded.model.double()
    for name, parameter in work.loaded.model.named_parameters():
        if ".lora_B" in name:  # at its start of zero A has no gradient
            torch.nn.init.normal_(parameter, std=0.05)
    plan = work.plans[0]
    rows = work.rows(plan, work.train, training=True)
    collator = work.objective(plan, rows)[1]
    sampler = work.token_batches(plan)
    batches = [collator([(row, rows[row]) for row in batch]) for batch in sampler]
    assert 1 < len(batches) < len(rows)
    for batch in batches:
        assert 0 < int((batch["packed_owner"] != SHARED_PREFIX).sum()) <= BUDGET
    expected = gradients(work, [work.loaded.collator([row]) for row in enumerate(rows)])
    found = gradients(work, batches)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        # float64: sums of some thousand terms of size 1 in another order, each within 2e-16.
        torch.testing.assert_close(found[name], value, rtol=1e-10, atol=1e-10, msg=name)


def test_the_steps_of_an_epoch_are_known_and_what_check_says(
    recipe_file: Path, tmp_path: Path
) -> None:
    given = [
        *BY_TOKENS,
        "train.max_steps=-1",
        "train.epochs=2",
        "train.gradient_accumulation_steps=2",
    ]
    given += ["train.save_steps=null", f"run.dir={tmp_path / 'run'}"]
    report = tmp_path / "check.json"
    assert check([str(recipe_file), *given, "--json", str(report)]) == 0
    found = json.loads(report.read_text())
    assert found["recipe"]["rows_per_step"] == [None]
    assert found["recipe"]["tokens_per_step"] == [2 * BUDGET]
    assert train([str(recipe_file), *given]) == 0
    work = built(recipe_file, "train.gradient_accumulation_steps=2")
    batches = len(work.token_batches(work.plans[0]))
    assert batches % 2 == 0
    steps = [row["step"] for row in complete_lines(tmp_path / "run" / "metrics.jsonl")]
    assert max(steps) == batches == found["phases"][0]["steps"]  # two epochs, two batches a step


def test_alignment_trains_in_batches_by_tokens(recipe_file: Path, tmp_path: Path) -> None:
    objectives = "objectives={lm: 1.0, itc: 0.5, itm: 0.5, itg: 0.5}"
    given = [*BY_TOKENS, objectives, "train.max_steps=2", f"run.dir={tmp_path / 'run'}"]
    assert train([str(recipe_file), *given]) == 0
    last = [row for row in complete_lines(tmp_path / "run" / "metrics.jsonl") if "loss" in row][-1]
    assert {"loss_lm", "loss_itc", "loss_itm", "loss_itg"} <= last.keys()


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("train.batch_tokens=20", "train.batch_tokens: 20 tokens"),
        ("train.packing=false", "batch_tokens needs packing"),
    ],
)
def test_what_cannot_be_batched_is_an_error_before_training(
    recipe_file: Path, override: str, said: str
) -> None:
    with pytest.raises(RecipeError, match=said):
        built(recipe_file, override)
