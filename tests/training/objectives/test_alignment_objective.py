"""The objective around the model, and what its batches hold."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from qvft.data.rows import Row, training_rows
from qvft.models.alignment.text_tokens import encode_texts
from qvft.recipe.load import load_recipe
from qvft.training.objectives.alignment import AlignmentCollator, AlignmentObjective, image_id
from qvft.training.objectives.language import LanguageModelling
from qvft.training.prepare_training import prepare_training
from qvft.training.training_run import TrainingRun

WEIGHTS = {"lm": 1.0, "itc": 0.5, "itm": 0.5, "itg": 0.25}


@pytest.fixture(scope="module")
def work(recipe_file: Path) -> TrainingRun:
    built = prepare_training(
        load_recipe(recipe_file, ["objectives={itc: 0.5, itm: 0.5, itg: 0.25}"])
    )
    built.counts(built.plans[0])
    return built


@pytest.fixture(scope="module")
def rows(work: TrainingRun) -> list[Row]:
    """Captions and questions of four images."""
    return training_rows(work.train.samples[:4])


@pytest.fixture(scope="module")
def collator(work: TrainingRun) -> AlignmentCollator:
    assert work.branch is not None
    return AlignmentCollator(work.loaded.collator, work.branch.tokenizer, max_text_tokens=32)


def objective(work: TrainingRun) -> AlignmentObjective:
    assert work.branch is not None
    return AlignmentObjective(work.loaded.model, work.branch.heads, weights=WEIGHTS, seed=0)


def test_captions_are_paired_with_their_images_and_questions_are_not(
    work: TrainingRun, rows: list[Row], collator: AlignmentCollator
) -> None:
    chosen = [rows[4], rows[3], rows[0], rows[1]]  # question and caption of 1, both of 0
    assert [row.kind for row in chosen] == ["question", "caption", "caption", "question"]
    batch = collator(list(enumerate(chosen)))
    assert batch["image_index"].tolist() == [0, 0, 1, 1]
    assert batch["pair_images"].tolist() == [0, 1]
    assert batch["image_ids"].tolist() == [image_id("train1"), image_id("train0")]
    texts = [chosen[1].target, chosen[2].target]
    expected = encode_texts(work.loaded.processor.tokenizer, texts)
    assert torch.equal(batch["text_ids"], expected[0])
    assert torch.equal(batch["text_mask"], expected[1])


def test_captions_are_aligned_as_they_are_cleaned(
    work: TrainingRun, rows: list[Row], collator: AlignmentCollator
) -> None:
    template = replace(work.loaded.template, text="blip2")
    cleaning = AlignmentCollator(
        replace(work.loaded.collator, template=template), collator.tokenizer, max_text_tokens=32
    )
    loud = [(0, replace(rows[0], target=f"{rows[0].target.upper()} (!)"))]
    found, expected = cleaning(loud), collator([(0, rows[0])])
    assert torch.equal(found["text_ids"], expected["text_ids"])
    assert torch.equal(found["input_ids"], expected["input_ids"])
    assert not torch.equal(collator(loud)["text_ids"], expected["text_ids"])


def test_an_image_has_one_number_of_63_bits() -> None:
    # printf train0 | sha256sum begins with these 16 digits.
    assert image_id("train0") == 0x088385246D11729C >> 1
    assert 0 <= image_id("b") < 2**63


def test_the_language_loss_is_the_one_without_alignment(
    work: TrainingRun, rows: list[Row], collator: AlignmentCollator
) -> None:
    batch = collator(list(enumerate(rows)))
    batch.pop("row_index")
    plain = work.loaded.collator(list(enumerate(rows)))
    plain.pop("row_index")
    alone = LanguageModelling(work.loaded.model).eval()(**plain)
    module = objective(work)
    evaluated = module.eval()(**batch)
    trained = module.train()(**batch)["losses"]["lm"]
    assert trained.total == alone["loss_sum"] == evaluated["loss_sum"]
    assert trained.count == alone["count"]
    assert torch.equal(evaluated["row_loss"], alone["row_loss"])


def test_counts_are_known_before_the_forward_pass(
    work: TrainingRun, rows: list[Row], collator: AlignmentCollator
) -> None:
    batches = [collator(list(enumerate(part))) for part in (rows[:5], rows[5:])]
    module = objective(work).train()
    found = dict.fromkeys(("itc", "itm", "itg"), 0)
    for batch in batches:
        inputs = {key: value for key, value in batch.items() if key != "row_index"}
        losses = module(**inputs)["losses"]
        for name in found:
            found[name] += int(losses[name].count)
    assert module.counts(batches) == found
    assert found["itc"] == found["itm"] == 4


def test_a_batch_without_captions_asks_nothing_of_the_heads_and_leaves_none_out(
    work: TrainingRun, rows: list[Row], collator: AlignmentCollator
) -> None:
    batch = collator([(i, row) for i, row in enumerate(rows) if row.kind == "question"])
    batch.pop("row_index")
    module = objective(work).train()
    losses = module(**batch)["losses"]
    for name in ("itc", "itm", "itg"):
        assert (losses[name].total.item(), int(losses[name].count)) == (0.0, 0), name
    module.zero_grad()
    sum(loss.total for loss in losses.values()).backward()
    for name, weight in module.heads.named_parameters():
        # DDP waits for each.
        assert weight.grad is not None, name
        assert not weight.grad.any(), name
