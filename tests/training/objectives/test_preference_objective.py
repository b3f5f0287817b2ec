"""Pairs in a batch: packed and separate, padding rows, the reference, its file, dropout."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from qvft.data.rows import FILLER, Row
from qvft.data.token_stats import row_tokens
from qvft.models.forward_stages import encode_images
from qvft.models.supervised_tokens import supervised_tokens
from qvft.recipe.load import load_recipe
from qvft.recipe.preference import Preference
from qvft.training.objectives.build import packer_of, preference_of
from qvft.training.objectives.language import tokens_of
from qvft.training.objectives.preference import PreferenceCollator, PreferenceObjective, key_of
from qvft.training.objectives.reference_logps import reference_logps, stored_reference
from qvft.training.prepare_training import prepare_training
from qvft.training.training_run import TrainingRun
from tests.models.decoder_models import TEXT, write_model

FAMILIES = {
    "blip2": [],
    "question-aware": ["model.text_branch=fresh", "model.query_tokens=4"],
    "encoder-decoder": ["model.id=T5", "trainable.lora.target_modules=[q,v,wi_0]"],
}
ALL = Preference(loss_type=["sigmoid", "ipo", "sft"], loss_weights=[1.0, 0.5, 0.3], ld_alpha=0.4)


@pytest.fixture(scope="module")
def build(
    pairs_recipe: Path, tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., TrainingRun]:
    """A function that makes the setup of a family in float64, with LoRA that does something."""
    t5 = write_model(tmp_path_factory.mktemp("models") / "t5", tiny_folder, TEXT["t5"])

    def built(*overrides: str) -> TrainingRun:
        given = [one.replace("=T5", f"={t5}") for one in overrides]
        work = prepare_training(load_recipe(pairs_recipe, given))
        work.counts(work.plans[0])
        for name, parameter in work.loaded.model.named_parameters():
            if ".lora_B" in name:
                torch.nn.init.normal_(parameter, std=0.05)
        work.loaded.model.double()
        return work

    return built


@pytest.fixture(scope="module", params=list(FAMILIES))
def work(build: Callable[..., TrainingRun], request: pytest.FixtureRequest) -> TrainingRun:
    return build(*FAMILIES[request.param])


@pytest.fixture(scope="module")
def blip2(build: Callable[..., TrainingRun]) -> TrainingRun:
    return build()


def pairs_of(work: TrainingRun) -> list[tuple[int, Row]]:
    """The pairs of four images, one image without its second pair."""
    rows = list(enumerate(work.rows(work.plans[0], work.train, training=True)))
    return [rows[place] for place in (0, 1, 3, 5, 6)]


def batch_of(
    work: TrainingRun, rows: list[tuple[int, Row]], *, packed: bool = True, **known: object
) -> dict[str, Tensor]:
    packer = packer_of(work.loaded.base) if packed else None
    collate = PreferenceCollator(replace(work.loaded.collator, packer=packer), **known)  # type: ignore[arg-type]
    batch = collate(rows)
    assert batch.pop("row_index").tolist() == [number for number, _ in rows]
    return {**batch, "pixel_values": batch["pixel_values"].double()}


def objective_of(work: TrainingRun, preference: Preference = ALL) -> PreferenceObjective:
    return preference_of(work.loaded, preference, packing=True)[0]


def outcome(
    objective: PreferenceObjective, batch: dict[str, Tensor]
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Each loss and metric per item, and every gradient of the weighted sum."""
    objective.train().zero_grad()
    outputs = objective(**batch)
    losses = outputs["losses"]
    torch.stack(
        [w * losses[n].total / losses[n].count for n, w in objective.weights.items()]
    ).sum().backward()
    sums = {**losses, **outputs["metrics"]}
    gradients = {n: p.grad.clone() for n, p in objective.named_parameters() if p.grad is not None}
    return {name: (one.total / one.count).detach() for name, one in sums.items()}, gradients


def assert_same(one: tuple[dict, dict], other: tuple[dict, dict]) -> None:
    """In float64: sums of some hundred terms of size 1 in another order, each within 2e-16."""
    for expected, found in zip(one, other, strict=True):
        assert expected.keys() == found.keys()
        for name, value in expected.items():
            torch.testing.assert_close(found[name], value, rtol=1e-10, atol=1e-10, msg=name)
    assert max(float(gradient.abs().max()) for gradient in one[1].values()) > 1e-4


def test_packed_pairs_have_the_losses_and_gradients_of_separate_ones(work: TrainingRun) -> None:
    rows, objective = pairs_of(work), objective_of(work)
    known = {key_of(row): (-3.0 - number, -4.0) for number, row in rows}
    plain, packed = (
        outcome(objective, batch_of(work, rows, packed=value, reference=known))
        for value in (False, True)
    )
    assert_same(plain, packed)


def test_log_probabilities_are_those_of_the_language_loss(work: TrainingRun) -> None:
    rows, objective = pairs_of(work), objective_of(work, Preference()).eval()
    with torch.no_grad():
        found = objective.logps(**batch_of(work, rows))
        for place, (number, row) in enumerate(rows):
            for side, target in enumerate((row.target, row.rejected)):
                batch = work.loaded.collator([(number, replace(row, target=target or ""))])
                batch.pop("row_index")
                images = encode_images(work.loaded.model, batch.pop("pixel_values").double())
                names = ("image_index", "attention_mask", "labels")
                given = {name: batch.pop(name) for name in names}
                alone = supervised_tokens(work.loaded.model, batch, images=images, **given)
                # In float64, see `assert_same`.
                assert float(found[place, side]) == pytest.approx(
                    -float(alone.losses.sum()), rel=1e-10
                )


def test_training_mode_has_no_dropout(work: TrainingRun) -> None:
    """The Q-Former's config asks for 0.1."""
    objective, batch = objective_of(work), batch_of(work, pairs_of(work))
    with torch.no_grad():
        evaluated, trained = (objective.train(mode).logps(**batch) for mode in (False, True))
    assert torch.equal(evaluated, trained)


def test_recomputed_activations_have_the_same_gradients(blip2: TrainingRun) -> None:
    objective, batch = objective_of(blip2), batch_of(blip2, pairs_of(blip2))
    plain = outcome(objective, batch)
    calls: list[int] = []
    block = blip2.loaded.model.language_model.model.decoder.layers[0].fc1
    hook = block.register_forward_hook(lambda *_: calls.append(1))
    blip2.loaded.model.activation_checkpointing_enable({"use_reentrant": False})
    try:
        assert_same(plain, outcome(objective, batch))
    finally:
        blip2.loaded.model.activation_checkpointing_disable()
        hook.remove()
    assert len(calls) == 2  # forward, and again in the backward pass


def test_padding_rows_change_nothing(blip2: TrainingRun) -> None:
    rows, objective = pairs_of(blip2), objective_of(blip2)
    known = {key_of(row): (-3.0, -4.0) for _, row in rows}
    padded = [*rows, (FILLER, rows[0][1]), (FILLER, rows[0][1])]
    batches = [batch_of(blip2, one, reference=known) for one in (rows, padded)]
    assert_same(*(outcome(objective, batch) for batch in batches))
    assert objective.counts(batches[:1]) == objective.counts(batches[1:])


def test_the_sums_of_parts_are_those_of_the_whole(blip2: TrainingRun) -> None:
    rows, objective = pairs_of(blip2), objective_of(blip2)
    known = {key_of(row): (-3.0, -4.0) for _, row in rows}
    whole, *parts = (
        objective.train()(**batch_of(blip2, part, reference=known))["losses"]
        for part in (rows, rows[:2], rows[2:])
    )
    for name, one in whole.items():
        total = sum(float(part[name].total.detach()) for part in parts)
        assert float(one.total.detach()) == pytest.approx(
            total, rel=1e-10
        )  # float64, see `assert_same`
        assert int(one.count) == sum(int(part[name].count) for part in parts)


def test_tokens_beyond_the_shorter_text_weigh_ld_alpha(blip2: TrainingRun) -> None:
    rows = pairs_of(blip2)
    batch = batch_of(blip2, rows)
    with torch.no_grad():
        logps = {
            alpha: objective_of(blip2, Preference(ld_alpha=alpha)).eval().logps(**batch)
            for alpha in (None, 1.0, 0.5, 0.0)
        }
        tokens = tokens_of(blip2.loaded.model, batch)
    assert torch.equal(logps[None], logps[1.0])
    middle = (logps[0.0] + logps[1.0]) / 2
    torch.testing.assert_close(logps[0.5], middle, rtol=1e-10, atol=1e-10)  # float64
    shorter, longer = tokens.count[:2].tolist()  # "red" and "red and nothing else"
    assert shorter < longer
    first = [-float(loss) for loss in tokens.losses[shorter : 2 * shorter]]
    assert float(logps[0.0][0, 1]) == pytest.approx(sum(first), rel=1e-10)
    assert float(logps[0.0][0, 0]) == float(logps[1.0][0, 0])


def test_a_pair_counts_the_tokens_of_both_rows(blip2: TrainingRun) -> None:
    rows = [row for _, row in pairs_of(blip2)]
    both = [replace(r, target=t or "", rejected=None) for r in rows for t in (r.target, r.rejected)]
    template = blip2.loaded.template
    pairs, texts = (row_tokens(one, template, shares=True) for one in (rows, both))
    assert pairs.own.tolist() == texts.own.reshape(-1, 2).sum(axis=1).tolist()
    assert pairs.labels.tolist() == texts.labels.reshape(-1, 2).sum(axis=1).tolist()


def test_the_reference_does_not_depend_on_the_batch(blip2: TrainingRun) -> None:
    rows = [row for _, row in pairs_of(blip2)]

    def collate(numbered: list[tuple[int, Row]]) -> dict[str, Tensor]:
        return {**batch_of(blip2, numbered), "row_index": torch.zeros(0)}

    objective = objective_of(blip2, Preference())
    found = [
        reference_logps(objective, collate, rows, batch_size=size, bf16=False) for size in (1, 2, 9)
    ]
    # In float64, see `assert_same`.
    torch.testing.assert_close(found[1], found[0], rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(found[2], found[0], rtol=1e-10, atol=1e-10)


def test_a_batch_of_the_reference_that_does_not_fit_is_halved(
    blip2: TrainingRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [row for _, row in pairs_of(blip2)]

    def collate(numbered: list[tuple[int, Row]]) -> dict[str, Tensor]:
        return {**batch_of(blip2, numbered), "row_index": torch.zeros(0)}

    objective = objective_of(blip2, Preference())
    whole = reference_logps(objective, collate, rows, batch_size=9, bf16=False)
    logps, sizes = PreferenceObjective.logps, []

    def small(self: PreferenceObjective, **batch: Tensor) -> Tensor:
        sizes.append(len(batch["labels"]) // 2)
        if sizes[-1] > 2:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return logps(self, **batch)

    monkeypatch.setattr(PreferenceObjective, "logps", small)
    found = reference_logps(objective, collate, rows, batch_size=9, bf16=False)
    assert sizes == [5, 2, 3, 1, 2]
    torch.testing.assert_close(found, whole, rtol=1e-10, atol=1e-10)  # float64


def test_a_stored_reference_is_read_unless_facts_or_pairs_change(
    blip2: TrainingRun, tmp_path: Path
) -> None:
    rows = [row for _, row in pairs_of(blip2)]
    asked: list[int] = []

    def compute(given: list[Row]) -> Tensor:
        asked.append(len(given))
        return torch.arange(2 * len(given), dtype=torch.float64).view(-1, 2) - 0.1

    def known(rows: list[Row], **facts: str) -> dict:
        return dict(stored_reference(tmp_path / "file", rows, facts=facts, compute=compute))  # type: ignore[arg-type]

    first = known(rows, weights="a")
    assert known(rows, weights="a") == first and asked == [5]
    assert first[key_of(rows[1])] == (1.9, 2.9)
    known(rows, weights="b")
    known(rows[:3], weights="b")
    known([replace(rows[0], rejected="other"), *rows[1:3]], weights="b")
    assert asked == [5, 5, 3, 3]
    (tmp_path / "file").write_bytes(b"cut off")
    known(rows, weights="a")
    assert asked[-1] == 5
