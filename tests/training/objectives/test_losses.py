"""The language loss: what transformers computes, whatever the layout of the batch."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from qvft.data.collate import IGNORED
from qvft.data.rows import Row, training_rows
from qvft.recipe.load import load_recipe
from qvft.training.objectives.language import LanguageModelling
from qvft.training.phase_setup import phase_setup
from qvft.training.prepare_training import prepare_training
from qvft.training.trainer import QFormerTrainer
from qvft.training.training_run import TrainingRun


@pytest.fixture(scope="module")
def work(recipe_file: Path) -> TrainingRun:
    built = prepare_training(load_recipe(recipe_file))
    built.counts(built.plans[0])
    built.loaded.model.double()
    return built


@pytest.fixture(scope="module")
def rows(work: TrainingRun) -> list[Row]:
    """Rows of unequal length; two images have two texts each."""
    all_rows = training_rows(work.train.samples)
    return [all_rows[index] for index in (0, 1, 4, 6, 7, 12, 15, 19)]


def collated(work: TrainingRun, rows: list[Row]) -> dict[str, Tensor]:
    batch = work.loaded.collator(list(enumerate(rows)))
    batch.pop("row_index")
    return {**batch, "pixel_values": batch["pixel_values"].double()}


def evaluated(work: TrainingRun, batch: dict[str, Tensor]) -> dict[str, Tensor]:
    with torch.no_grad():
        return LanguageModelling(work.loaded.model).eval()(**batch)


def test_what_the_loss_does_not_know_is_refused(work: TrainingRun, rows: list[Row]) -> None:
    batch = collated(work, rows[:2])
    with pytest.raises(TypeError, match="packed_places is not an input"):
        LanguageModelling(work.loaded.model)(**batch, packed_places=batch["labels"])


def gradients(work: TrainingRun, batches: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Gradients of the mean loss over all supervised tokens, batch after batch."""
    objective = LanguageModelling(work.loaded.model).eval()
    objective.zero_grad()
    total = sum(int((batch["labels"] != IGNORED).sum()) for batch in batches)
    for batch in batches:
        (objective(**batch)["loss_sum"] / total).backward()
    found = {name: p.grad for name, p in objective.named_parameters() if p.requires_grad}
    assert all(gradient is not None for gradient in found.values())
    return {name: gradient.clone() for name, gradient in found.items()}


def assert_equal_gradients(first: dict[str, Tensor], second: dict[str, Tensor]) -> None:
    """The softmax is float32: its 6e-8 stands in every gradient, the largest of which is 0.2."""
    assert first.keys() == second.keys()
    for name, gradient in first.items():
        torch.testing.assert_close(second[name], gradient, rtol=1e-4, atol=1e-7, msg=name)


def test_the_loss_is_the_one_transformers_computes(work: TrainingRun, rows: list[Row]) -> None:
    batch = collated(work, rows)
    ours = evaluated(work, batch)
    with torch.no_grad():
        theirs = work.loaded.model.eval()(
            pixel_values=batch["pixel_values"][batch["image_index"]],
            input_ids=batch["input_ids"],
            attention_mask=batch["attention_mask"],
            labels=batch["labels"],
        )
    # Our cross-entropy runs in float32 whatever the model's type: 7 digits of a loss near 7.
    torch.testing.assert_close(
        (ours["loss_sum"] / ours["count"]).float(), theirs.loss.float(), rtol=1e-6, atol=1e-6
    )


def test_the_count_is_of_target_and_stop_tokens(work: TrainingRun, rows: list[Row]) -> None:
    encode = work.loaded.template.encode
    taken = [encode(row.kind, question=row.question, target=row.target) for row in rows]
    expected = sum(len(tokens.ids) - tokens.target_start for tokens in taken)
    assert int(evaluated(work, collated(work, rows))["count"]) == expected


def test_a_rows_loss_is_its_mean(work: TrainingRun, rows: list[Row]) -> None:
    batch = collated(work, rows)
    found = evaluated(work, batch)
    supervised = (batch["labels"] != IGNORED).sum(dim=1)
    torch.testing.assert_close((found["row_loss"] * supervised).sum(), found["loss_sum"])


def test_padding_changes_nothing(work: TrainingRun, rows: list[Row]) -> None:
    together = evaluated(work, collated(work, rows))["row_loss"]
    alone = [evaluated(work, collated(work, [row]))["row_loss"] for row in rows]
    # Losses are summed in float32; the hidden states behind them are float64.
    torch.testing.assert_close(torch.cat(alone), together, rtol=1e-6, atol=1e-6)


def test_the_order_of_a_batch_changes_nothing(work: TrainingRun, rows: list[Row]) -> None:
    order = [5, 2, 7, 0, 3, 1, 6, 4]
    straight = evaluated(work, collated(work, rows))["row_loss"]
    shuffled = evaluated(work, collated(work, [rows[index] for index in order]))["row_loss"]
    torch.testing.assert_close(shuffled, straight[order], rtol=1e-6, atol=1e-6)


def test_two_texts_of_an_image_share_its_encoding(work: TrainingRun, rows: list[Row]) -> None:
    shared = collated(work, rows)
    assert len(shared["pixel_values"]) < len(rows)
    separate = {
        **shared,
        "pixel_values": shared["pixel_values"][shared["image_index"]],
        "image_index": torch.arange(len(rows)),
    }
    first, second = evaluated(work, shared), evaluated(work, separate)
    torch.testing.assert_close(second["row_loss"], first["row_loss"], rtol=1e-6, atol=1e-6)
    assert_equal_gradients(gradients(work, [shared]), gradients(work, [separate]))


def test_eight_batches_of_one_give_the_gradients_of_one_batch_of_eight(
    work: TrainingRun, rows: list[Row]
) -> None:
    one = gradients(work, [collated(work, rows)])
    eight = gradients(work, [collated(work, [row]) for row in rows])
    assert_equal_gradients(one, eight)


def test_swapping_images_moves_the_loss(work: TrainingRun, rows: list[Row]) -> None:
    batch = collated(work, rows)
    swapped = {**batch, "pixel_values": batch["pixel_values"].flip(0)}
    moved = evaluated(work, swapped)["row_loss"] - evaluated(work, batch)["row_loss"]
    assert moved.abs().max() > 1e-3


def test_a_row_is_exact_where_each_of_its_tokens_is_the_likeliest(
    work: TrainingRun, rows: list[Row]
) -> None:
    batch = collated(work, rows)
    with torch.no_grad():
        logits = work.loaded.model.eval()(
            pixel_values=batch["pixel_values"][batch["image_index"]],
            input_ids=batch["input_ids"],
            attention_mask=batch["attention_mask"],
        ).logits
    taught = {**batch, "labels": batch["labels"].clone()}
    taught["labels"][0, 1:] = torch.where(
        batch["labels"][0, 1:] != IGNORED, logits[0, :-1].argmax(dim=-1), IGNORED
    )
    exact = evaluated(work, taught)["exact"]
    assert exact[0]
    assert not evaluated(work, batch)["exact"].all()


def test_a_frozen_vit_stays_in_evaluation_mode(work: TrainingRun) -> None:
    objective = LanguageModelling(work.loaded.model).train()
    assert not work.loaded.model.vision_model.training
    assert objective.training and work.loaded.model.qformer.training


@pytest.fixture
def after_one_step(recipe_file: Path, tmp_path: Path) -> Any:
    """A function from batch size and accumulation to the trained weights after one SGD step."""

    def train(batch_size: int, accumulation: int) -> dict[str, Tensor]:
        overrides = [
            "train.max_steps=1",
            f"train.per_device_train_batch_size={batch_size}",
            f"train.gradient_accumulation_steps={accumulation}",
            "train.arguments={optim: sgd}",
            "train.lr_scheduler_type=constant",
            "train.warmup_steps=0",
            "train.max_grad_norm=0",
            "train.preflight=false",
            "train.weight_decay=0",
            "train.save_steps=null",
        ]
        work = prepare_training(load_recipe(recipe_file, overrides))
        setup = phase_setup(work, work.plans[0], tmp_path / f"{batch_size}")
        before = {n: p.detach().clone() for n, p in setup.module.named_parameters()}
        trainer = QFormerTrainer(
            setup,
            save_weights=work.save_weights,
            restore_weights=work.restore_weights,
            metrics_file=tmp_path / f"{batch_size}.jsonl",
        )
        trainer.train()
        return {
            name: p.detach().cpu() - before[name].cpu()
            for name, p in setup.module.named_parameters()
            if p.requires_grad
        }

    return train


def test_the_trainer_steps_alike_with_1_x_8_and_8_x_1(after_one_step: Any) -> None:
    whole, pieces = after_one_step(8, 1), after_one_step(1, 8)
    assert max(float(step.abs().max()) for step in whole.values()) > 1e-5
    for name, step in whole.items():
        # Steps are lr 1e-3 times gradients up to 0.2, read off float32 weights of up to 1: 6e-8.
        torch.testing.assert_close(pieces[name], step, rtol=0, atol=2e-7, msg=name)
