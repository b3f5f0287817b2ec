"""Rollouts: samples and their log-probabilities, skipped groups, batches in parts, new weights."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from qvft.data.rows import FILLER
from qvft.evaluation.rewards import reward_functions
from qvft.inference import sample
from qvft.inference.decode import generate_ids
from qvft.inference.sample import uniforms_of
from qvft.recipe.load import load_recipe
from qvft.training.phase_setup import PhaseSetup, phase_setup
from qvft.training.prepare_training import prepare_training
from qvft.training.rewards.collate import GivenBatch
from qvft.training.rewards.rollouts import Rollouts
from qvft.training.trainer import NUMBERS
from tests.models.decoder_models import TEXT, write_model

PHASE = "phases=[{name: reward, objective: reward}]"
FUNCS = "{tests.training.rewards.functions.remainder: 1.0}"
FAMILIES = {
    "blip2": [],
    "unpacked": ["train.packing=false"],
    "blip2_question": ["model.text_branch=fresh"],
    "t5": ["model.id=T5", "trainable.lora.target_modules=[q,v]"],
    "nf4": ["model.quantization.load_in_4bit=true"],
    "checkpointed": ["train.gradient_checkpointing=true"],
}


@pytest.fixture(scope="module")
def t5(tmp_path_factory: pytest.TempPathFactory, tiny_folder: Path) -> Path:
    return write_model(tmp_path_factory.mktemp("models") / "t5", tiny_folder, TEXT["t5"])


@pytest.fixture
def phase(recipe_file: Path, t5: Path, tmp_path: Path) -> Callable[..., PhaseSetup]:
    """A function that sets up a reward phase."""

    def build(*changes: str, reward: str = "") -> PhaseSetup:
        funcs = "" if "funcs" in reward else f"funcs: {FUNCS}, "
        section = f"reward={{{funcs}num_generations: 3, {reward}}}"
        given = [change.replace("T5", str(t5)) for change in changes]
        recipe = load_recipe(recipe_file, [section, PHASE, *given])
        work = prepare_training(recipe, rewards=reward_functions)
        return phase_setup(work, work.plans[0], tmp_path)

    return build


def rolled(setup: PhaseSetup, rows: list[int], *, step: int = 0) -> tuple[dict[str, Tensor], Any]:
    """The batch of samples for these rows, and what is logged."""
    assert setup.rollouts is not None
    given = given_of(setup, rows)
    (batch,), logged = setup.rollouts.batches([given], step=step, trainer_state=None)
    return batch, {name: float(one.total / one.count) for name, one in logged.items()}


def samples_of(rollouts: Rollouts, batch: dict[str, Tensor]) -> list[tuple[int, tuple[int, ...]]]:
    return [
        (text.number, text.tokens.ids[text.tokens.target_start :])
        for text in rollouts.texts_of(batch)
    ]


def recorded(monkeypatch: pytest.MonkeyPatch) -> dict[int, list[Tensor]]:
    """Log-probabilities (T,) that generation had for the samples of each row, by place."""
    found: dict[int, list[Tensor]] = defaultdict(list)

    class Recorded(sample.ChosenByUniform):
        def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
            chosen = super().__call__(input_ids, scores)
            logps = torch.log_softmax(scores / self.temperature, dim=-1)
            self.logps = [*getattr(self, "logps", []), logps.gather(1, chosen.argmax(1)[:, None])]
            return chosen

    def generate(model: Any, collator: Any, batch: Any, settings: Any) -> Tensor:
        new_ids = generate_ids(model, collator, batch, settings)
        logps = torch.cat(settings["logits_processor"][0].logps, dim=1)
        for one, row in zip(batch, logps, strict=True):
            found[one.number].append(row)
        return new_ids

    monkeypatch.setattr(sample, "ChosenByUniform", Recorded)
    monkeypatch.setattr(sample, "generate_ids", generate)
    return found


@pytest.mark.parametrize("family", FAMILIES)
def test_the_packed_pass_has_the_log_probabilities_of_generation(
    phase: Callable[..., PhaseSetup], family: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = recorded(monkeypatch)
    # With a KL term in the loss no text is left out.
    setup = phase(
        *FAMILIES[family],
        reward="num_iterations: 2, temperature: 0.8, advantage: grpo, beta: 0.1",
    )
    setup.module.train()
    batch, _ = rolled(setup, [0, 1, 2, 5])
    texts = setup.rollouts.texts_of(batch)
    expected = [logps for place in range(4) for logps in said[place]]
    assert len(texts) == len(expected) == 12
    for text, logps in zip(texts, expected, strict=True):
        # Of a row that has stopped, later numbers are padding's. float32: logits of size 5 are sums
        # of 64 terms in another order.
        torch.testing.assert_close(text.old, logps[: len(text.old)], rtol=0, atol=1e-5)
        assert torch.equal(text.ref, text.old)
    outputs = setup.module.train()(**inputs_of(batch))
    # The first update: nothing is clipped, and the start is these weights.
    assert float(outputs["metrics"]["clip_ratio/region_mean"].total) == 0
    assert float(outputs["metrics"]["kl"].total) == pytest.approx(0, abs=1e-6)


def inputs_of(batch: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value for name, value in batch.items() if name not in NUMBERS}


def test_a_sample_depends_on_no_other_row(phase: Callable[..., PhaseSetup]) -> None:
    setup = phase(reward="beta: 0.1, advantage: grpo")
    together = samples_of(setup.rollouts, rolled(setup, [3, 4, 6, 7])[0])
    alone = samples_of(setup.rollouts, rolled(setup, [6])[0])
    assert alone == [one for one in together if one[0] == 6]
    later = samples_of(setup.rollouts, rolled(setup, [3, 4, 6, 7], step=1)[0])
    assert later != together


def test_samples_have_the_frequencies_of_the_model() -> None:
    generator = torch.Generator().manual_seed(0)
    scores = torch.randn(1, 6, generator=generator)
    count = 20_000
    choice = sample.ChosenByUniform(uniforms_of((0, 1), count, 1), temperature=0.7)
    chosen = choice(torch.zeros(count, 1), scores.expand(count, -1)).argmax(dim=1)
    found = chosen.bincount(minlength=6) / count
    # Four standard deviations of a share of 20,000 draws, at most sqrt(0.25 / 20,000) = 0.0035.
    torch.testing.assert_close(found, torch.softmax(scores[0] / 0.7, -1), rtol=0, atol=0.014)


def test_the_image_token_is_not_sampled(
    phase: Callable[..., PhaseSetup], monkeypatch: pytest.MonkeyPatch
) -> None:
    setup = phase(reward="beta: 0.1, advantage: grpo")
    image = setup.rollouts.collator.template.image_token_id
    head = setup.module.model.get_output_embeddings()
    monkeypatch.setattr(head, "bias", torch.nn.Parameter(torch.zeros(head.out_features)))
    with torch.no_grad():
        head.bias[image] = 100.0  # the most likely token at every place
    batch, _ = rolled(setup, [0, 1, 2])
    texts = setup.rollouts.texts_of(batch)
    assert all(image not in text.tokens.ids[text.tokens.target_start :] for text in texts)
    assert all(torch.isfinite(text.ref).all() and (text.ref > -20).all() for text in texts)


def test_defaults_of_the_checkpoints_generation_config_are_not_used(
    phase: Callable[..., PhaseSetup],
) -> None:
    setup = phase(reward="beta: 0.1, advantage: grpo")
    before = samples_of(setup.rollouts, rolled(setup, [0, 1, 5])[0])
    config = setup.module.model.language_model.generation_config
    config.repetition_penalty, config.no_repeat_ngram_size = 9.0, 1
    assert samples_of(setup.rollouts, rolled(setup, [0, 1, 5])[0]) == before
    assert setup.module.model.language_model.generation_config is config


def test_dropout_is_off_in_training(phase: Callable[..., PhaseSetup]) -> None:
    setup = phase("trainable.lora.lora_dropout=0.5", reward="beta: 0.1, advantage: grpo")
    batch, _ = rolled(setup, [0, 1])
    module = setup.module.train()
    first, second = (module(**inputs_of(batch))["losses"]["reward"].total for _ in range(2))
    assert module.training
    assert torch.equal(first, second)


def test_texts_of_groups_without_spread_are_skipped_and_counted(
    phase: Callable[..., PhaseSetup],
) -> None:
    parity = "beta: 0.0, funcs: {tests.training.rewards.functions.parity: 1.0}"
    setup = phase(reward=parity)
    batch, logged = rolled(setup, [0, 1, 2, 3, 4, 5, 6, 7])
    zero = logged["frac_reward_zero_std"]
    assert 0 < zero < 1
    assert len(batch["labels"]) == round((1 - zero) * 24)
    assert int(batch["texts"]) == 24


def test_a_batch_without_anything_to_learn_still_runs(phase: Callable[..., PhaseSetup]) -> None:
    setup = phase(reward="beta: 0.0")
    batch, logged = rolled(setup, [FILLER, FILLER])
    assert logged == {}
    outputs = setup.module.train()(**inputs_of(batch))
    outputs["losses"]["reward"].total.backward()
    assert float(outputs["losses"]["reward"].total.detach()) == 0
    assert int(batch["texts"]) == 0


@pytest.mark.parametrize("advantage", ["rloo", "greedy", "grpo", "dr_grpo"])
def test_halves_of_a_batch_add_up_to_it(phase: Callable[..., PhaseSetup], advantage: str) -> None:
    setup = phase(reward=f"beta: 0.05, advantage: {advantage}, lm: 0.3")
    batch, _ = rolled(setup, [0, 1, 2, 5])
    texts, module = setup.rollouts.texts_of(batch), setup.module.train()
    whole = module(**inputs_of(batch))["losses"]
    parts = [
        module(**inputs_of(setup.rollouts.collate(part)))["losses"]
        for part in (texts[:7], texts[7:])
    ]
    assert whole.keys() == parts[0].keys()
    for name, one in whole.items():
        # float32 sums of 20 texts in another order.
        both = sum(part[name].total for part in parts)
        torch.testing.assert_close(both, one.total, rtol=1e-4, atol=1e-4)


def test_samples_are_kept_for_the_updates_of_their_generation(
    phase: Callable[..., PhaseSetup],
) -> None:
    setup = phase(reward="num_iterations: 2")
    first, logged = rolled(setup, [0, 1], step=4)
    again, nothing = rolled(setup, [0, 1], step=5)
    assert logged and not nothing
    assert first.keys() == again.keys()
    assert all(torch.equal(first[name], again[name]) for name in first)


def test_the_kl_divergence_is_measured_from_the_phases_start(
    phase: Callable[..., PhaseSetup],
) -> None:
    setup = phase(reward="advantage: grpo, beta: 0.1")
    batch, _ = rolled(setup, [0, 1])
    before = [text.ref for text in setup.rollouts.texts_of(batch)]
    with torch.no_grad():  # of the Q-Former too, which disabling adapters would leave moved
        for parameter in setup.module.parameters():
            if parameter.requires_grad:
                parameter += 0.05
    module = setup.module.train()
    assert float(module(**inputs_of(batch))["metrics"]["kl"].total) > 0.01
    texts = setup.rollouts.texts_of(batch)
    again = setup.rollouts._log_probs(texts, given_of(setup, [0, 1]))
    assert all(torch.equal(one, text.ref) for one, text in zip(before, again, strict=True))


def given_of(setup: PhaseSetup, rows: list[int]) -> GivenBatch:
    numbered = [(number, setup.train_rows[max(number, 0)]) for number in rows]
    return GivenBatch(setup.collator(numbered), numbered)
