"""Packed rows: the losses and gradients of rows that stand by themselves."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from qvft.data.collate import Collator
from qvft.data.packing import Packer, packed
from qvft.data.rows import Row
from qvft.data.sample import Sample
from qvft.models import supervised_tokens
from qvft.recipe.load import load_recipe
from qvft.setup.model import Loaded
from qvft.training.objectives.language import LanguageModelling
from qvft.training.prepare_training import prepare_training
from qvft.training.training_run import TrainingRun

TEXTS = (
    ("caption", None, "a red square"),
    ("question", "Which colour is it?", "red"),
    ("question", "Which colour?", "red and some more words than the others have"),
    ("caption", None, "a blue one"),
    ("question", "Is it red?", "yes"),
    ("question", "Is it red?", "yes"),
)


def rows_of(samples: list[Sample], images: list[int]) -> list[tuple[int, Row]]:
    """A row for each image number; texts go round."""
    rows = []
    for index, image in enumerate(images):
        kind, question, target = TEXTS[index % len(TEXTS)]
        rows.append(Row(f"{index}", samples[image], kind, question, target, (target,), {}))
    return list(enumerate(rows))


def batches(
    work: TrainingRun, images: list[int], shares: bool, *, dtype: torch.dtype = torch.float64
) -> tuple[dict, dict]:
    """The same rows by themselves and packed."""
    rows = rows_of(work.train.samples, images)
    found = []
    for packer in (None, Packer(shares, budget=100)):
        batch = replace(work.loaded.collator, packer=packer)(rows)
        batch.pop("row_index")
        found.append({**batch, "pixel_values": batch["pixel_values"].to(dtype)})
    return found[0], found[1]


def outcome(
    loaded: Loaded, batch: dict[str, Tensor]
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """What the objective returns, and every gradient of its sum."""
    objective = LanguageModelling(loaded.model).eval()
    objective.zero_grad()
    outputs = objective(**batch)
    outputs["loss_sum"].backward()
    gradients = {n: p.grad.clone() for n, p in objective.named_parameters() if p.grad is not None}
    assert gradients
    return {key: value.detach() for key, value in outputs.items()}, gradients


def assert_equal(loaded: Loaded, plain: dict[str, Tensor], packed: dict[str, Tensor]) -> None:
    """All in float64: sums of some hundred terms of size 1 in another order, each within 2e-16."""
    first, second = outcome(loaded, plain), outcome(loaded, packed)
    for expected, found in zip(first, second, strict=True):
        assert expected.keys() == found.keys()
        for name, value in expected.items():
            torch.testing.assert_close(found[name], value, rtol=1e-10, atol=1e-10, msg=name)
    assert max(float(gradient.abs().max()) for gradient in first[1].values()) > 1e-3


@pytest.fixture(scope="module")
def build(recipe_file: Path) -> Callable[..., TrainingRun]:
    def built(*overrides: str, double: bool = True) -> TrainingRun:
        work = prepare_training(load_recipe(recipe_file, list(overrides)))
        work.counts(work.plans[0])
        # LoRA's B starts at zero, where A has no gradient.
        for name, parameter in work.loaded.model.named_parameters():
            if ".lora_B" in name:
                torch.nn.init.normal_(parameter, std=0.05)
        return replace(work, loaded=in_float64(work.loaded)) if double else work

    return built


def in_float64(loaded: Loaded) -> Loaded:
    loaded.model.double()
    return loaded


def collator_of(work: TrainingRun) -> Collator:
    """What builds the batches of the first phase."""
    rows = work.rows(work.plans[0], work.train, training=True)
    return work.objective(work.plans[0], rows)[1]


@pytest.fixture(scope="module")
def work(build: Callable[..., TrainingRun]) -> TrainingRun:
    return build()


@pytest.mark.parametrize(
    "images",
    [[0, 0, 0], [0, 1, 0, 2, 1, 0, 0], [0, 1, 2, 3], [4], [0] * 30 + [1]],
    ids=["one", "mixed", "one text each", "single", "thirty texts"],
)
def test_packed_rows_have_the_loss_and_gradients_of_separate_ones(
    work: TrainingRun, images: list[int]
) -> None:
    plain, packed = batches(work, images, True)
    assert_equal(work.loaded, plain, packed)


def test_several_packed_rows_are_like_one(work: TrainingRun) -> None:
    plain, _ = batches(work, [0, 1, 0, 2, 1, 0, 0, 3, 4], True)
    rows = zip(plain["input_ids"], plain["attention_mask"], strict=True)
    ids = [row[mask.bool()].tolist() for row, mask in rows]
    layout = packed(ids, plain["image_index"].tolist(), budget=40)
    assert len(layout["packed_source"]) > 1
    assert_equal(work.loaded, plain, {**plain, **layout})


def test_a_question_reading_model_packs_whole_rows(build: Callable[..., TrainingRun]) -> None:
    work = build("model.text_branch=fresh", "model.query_tokens=4")
    assert not collator_of(work).packer.shares
    plain, packed_rows = batches(work, [0, 1, 0, 2, 1, 0, 0], False)
    assert_equal(work.loaded, plain, packed_rows)


def test_what_a_question_reader_makes_of_an_image_differs_by_row(
    build: Callable[..., TrainingRun],
) -> None:
    """Sharing a prefix that depends on the question would be wrong, and would be seen."""
    work = build("model.text_branch=fresh", "model.query_tokens=4")
    plain, shared = batches(work, [0, 0, 0], True)
    right, wrong = (outcome(work.loaded, batch)[0]["row_loss"] for batch in (plain, shared))
    assert float((right - wrong).abs().max()) > 1e-4


def test_a_quantised_decoder_packs_too(build: Callable[..., TrainingRun]) -> None:
    work = build("model.quantization.load_in_4bit=true", double=False)
    plain, packed_rows = batches(work, [0, 1, 0, 2, 1, 0, 0], True, dtype=torch.float32)
    first, second = outcome(work.loaded, plain), outcome(work.loaded, packed_rows)
    for expected, found in zip(first, second, strict=True):
        for name, value in expected.items():
            # Sums of up to 2,000 float32 terms in another order: some 1e-6 of their size.
            torch.testing.assert_close(found[name], value, rtol=1e-4, atol=2e-5, msg=name)


def test_packing_can_be_left_out(build: Callable[..., TrainingRun]) -> None:
    assert collator_of(build()).packer == Packer(shares=True, budget=25)  # 128 wide
    assert collator_of(build("train.packing=false")).packer is None


@pytest.mark.parametrize("count", [1, 5])
def test_logits_in_pieces_have_the_same_gradients(
    work: TrainingRun, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    plain, _ = batches(work, [0, 1, 0, 2], True)
    whole = outcome(work.loaded, plain)
    monkeypatch.setattr(supervised_tokens, "LOGIT_ROWS", count)
    pieces = outcome(work.loaded, plain)
    for expected, found in zip(whole, pieces, strict=True):
        for name, value in expected.items():
            torch.testing.assert_close(found[name], value, rtol=1e-10, atol=1e-10, msg=name)
