"""BLIP-2 with an OPT decoder, held against the numbers that LAVIS' own program computed.

The fixture has two models: the bundled one and one of random weights and another shape. Everything
here goes through what training, evaluation and prediction go through. docs/lavis.md says where
qvft has another number on purpose.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from qvft.data.rows import Row
from qvft.data.sample import ImageFile, Sample
from qvft.files import sha256_file
from qvft.inference.vision_language_model import VisionLanguageModel
from qvft.models.base_checkpoint import find_checkpoint
from qvft.models.forward_stages import (
    decode_hidden,
    embed_rows,
    encode_images,
    encode_vision,
    logits_of,
)
from qvft.models.supervised_tokens import IGNORED, token_losses
from qvft.predict import main as predict
from qvft.setup.resolve_model import resolve_model
from qvft.training.objectives.language import LanguageModelling

PROMPTS = ("with_prompt", "no_prompt")
# The largest differences seen are float32's rounding in other orders of sums (transformers' sdpa
# against LAVIS' own attention): features 4e-6 of numbers up to 9, prefix 1e-5 of numbers up to 6,
# token losses 6e-6, logits 2e-5 of numbers up to 16, mean losses 3e-7. Each bound is three times
# that, or more.
FEATURES, PREFIX, TOKEN_LOSS, LOGITS, LOSS = 3e-5, 3e-5, 2e-5, 6e-5, 1e-6


@dataclass(frozen=True)
class Reference:
    """A model of the fixture, what LAVIS was given and what it computed."""

    name: str
    folder: Path
    inputs: dict[str, Any]
    expected: dict[str, Any]
    pixels: Tensor
    tensors: dict[str, Tensor]

    @property
    def images(self) -> list[str]:
        return [str(self.folder / image) for image in self.inputs["images"]]

    def prompt(self, which: str) -> str:
        return self.inputs["prompt"] if which == "with_prompt" else ""

    def opened(self, which: str = "no_prompt", *overrides: str) -> VisionLanguageModel:
        prompt = f'data.prompt.caption="{self.prompt(which)}"'
        return VisionLanguageModel(resolve_model(self.name, overrides=[prompt, *overrides]))

    def rows(self) -> list[tuple[int, Row]]:
        return [
            (n, Row(str(n), Sample(image, ImageFile(Path(image))), "caption", None, text, (), {}))
            for n, (image, text) in enumerate(
                zip(self.images, self.inputs["captions"], strict=True)
            )
        ]


@pytest.fixture(scope="module", params=["bundled", "random"])
def reference(request: pytest.FixtureRequest, shared_data: Path) -> Reference:
    folder = shared_data / "reference" / "lavis_opt"
    if not folder.is_dir():
        pytest.skip(f"no reference numbers: {folder} is absent")
    name = "qvft/tiny-blip2"
    if request.param == "bundled":
        _require_the_weights_of(folder / "weights.json")
    else:
        folder = folder / "random_model"
        name = str(folder / "model")
    return Reference(
        name,
        folder,
        json.loads((folder / "inputs.json").read_text()),
        json.loads((folder / "expected.json").read_text()),
        load_file(folder / "inputs.safetensors")["pixel_values"],
        load_file(folder / "expected.safetensors"),
    )


def _require_the_weights_of(record: Path) -> None:
    """The numbers of the bundled model are those of one state of its weights."""
    weights = json.loads(record.read_text())
    home = Path(find_checkpoint("qvft/tiny-blip2").location)
    assert sha256_file(home / "model.safetensors") == weights["sha256"]
    assert sha256_file(home / "tokenizer.json") == weights["tokenizer_sha256"]


@pytest.fixture(scope="module", params=PROMPTS)
def trained_on(request: pytest.FixtureRequest, reference: Reference) -> TrainedOn:
    return TrainedOn(reference, request.param)


class TrainedOn:
    """A batch of the captions as training makes it, beside LAVIS' batch of the same."""

    def __init__(self, reference: Reference, which: str) -> None:
        self.which = which
        self.reference = reference
        self.loaded = reference.opened(which).loaded
        self.model = self.loaded.model
        self.batch = self.loaded.collator(reference.rows())
        self.theirs = reference.expected[which]
        # LAVIS' rows have no image tokens and are padded alike, so columns agree.
        self.queries = self.loaded.template.num_query_tokens

    def tensor(self, name: str) -> Tensor:
        return self.reference.tensors[f"{self.which}.{name}"]

    @property
    def supervised(self) -> Tensor:
        """(B, L - 1) what qvft learns of the next tokens."""
        return self.batch["labels"][:, 1:] != IGNORED

    @torch.no_grad()
    def hidden(self) -> Tensor:
        images = encode_images(self.model, self.batch["pixel_values"])
        embeds = embed_rows(
            self.model, self.batch, images=images, image_index=self.batch["image_index"]
        )
        return decode_hidden(self.model, embeds, self.batch["attention_mask"])


def test_images_are_read_as_lavis_evaluation_reads_them(reference: Reference) -> None:
    collator = reference.opened().loaded.collator
    pixels = collator.pixels([ImageFile(Path(image)) for image in reference.images])
    # Both resize by Pillow and then do the same float32 arithmetic; 1e-6 allows for its order.
    torch.testing.assert_close(pixels, reference.pixels, rtol=0, atol=1e-6)


@torch.no_grad()
def test_image_features_and_prefix(reference: Reference) -> None:
    model = reference.opened().loaded.model
    features = encode_vision(model, reference.pixels)
    torch.testing.assert_close(features, reference.tensors["image_features"], rtol=0, atol=FEATURES)
    prefix = encode_images(model, reference.pixels)
    torch.testing.assert_close(prefix, reference.tensors["prefix"], rtol=0, atol=PREFIX)


def test_rows_are_lavis_tokens(trained_on: TrainedOn) -> None:
    ours = trained_on.batch["input_ids"][:, trained_on.queries :]
    assert torch.equal(ours, trained_on.tensor("input_ids"))
    mask = trained_on.batch["attention_mask"][:, trained_on.queries :]
    assert torch.equal(mask, trained_on.tensor("attention_mask"))


def test_labels_are_lavis_but_for_the_first_token_without_a_prompt(trained_on: TrainedOn) -> None:
    """LAVIS masks as many tokens as the prompt has, none without one: the last query then learns
    to say the `</s>` that opens every text. qvft and transformers leave that out."""
    theirs = trained_on.tensor("labels").clone()
    if trained_on.which == "no_prompt":
        start = trained_on.loaded.template.tokenizer.bos_token_id
        assert (theirs[:, trained_on.queries] == start).all()
        theirs[:, trained_on.queries] = IGNORED
    assert torch.equal(trained_on.batch["labels"], theirs)


@torch.no_grad()
def test_loss_of_a_batch_and_of_each_row(trained_on: TrainedOn) -> None:
    batch = {key: value for key, value in trained_on.batch.items() if key != "row_index"}
    found = LanguageModelling(trained_on.model).eval()(**batch)
    theirs, suffix = trained_on.theirs, ""
    if trained_on.which == "no_prompt":
        suffix = "_without_the_first_target"
    loss = float(found["loss_sum"] / found["count"])
    assert loss == pytest.approx(theirs[f"loss{suffix}"], abs=LOSS)
    assert int(found["count"]) == theirs[f"supervised_tokens{suffix}"]
    losses = trained_on.tensor("token_losses") * trained_on.supervised
    rows = losses.sum(dim=1) / trained_on.supervised.sum(dim=1)
    torch.testing.assert_close(found["row_loss"], rows, rtol=0, atol=TOKEN_LOSS)


@torch.no_grad()
def test_loss_of_each_token_and_lavis_own_mean(trained_on: TrainedOn) -> None:
    """With LAVIS' targets, the first `</s>` among them, the same states give LAVIS' own loss."""
    targets = trained_on.tensor("labels")[:, 1:]
    asked = targets != IGNORED
    hidden = trained_on.hidden()[:, :-1][asked]
    losses, _ = token_losses(trained_on.model, hidden, targets[asked])
    expected = trained_on.tensor("token_losses")[asked]
    torch.testing.assert_close(losses, expected, rtol=0, atol=TOKEN_LOSS)
    assert float(losses.mean()) == pytest.approx(trained_on.theirs["loss"], abs=LOSS)


@torch.no_grad()
def test_logits(trained_on: TrainedOn) -> None:
    hidden = trained_on.hidden()
    text = trained_on.batch["attention_mask"].clone().bool()
    text[:, : trained_on.queries] = False
    logits = logits_of(trained_on.model, hidden[text]).double()
    theirs = trained_on.theirs
    # Of more than 100,000 logits; seen: 1e-7 of difference each on average, 4e-8 of the squares.
    total = theirs["logits_sum_over_text_positions"]
    squares = theirs["logits_sum_of_squares_over_text_positions"]
    assert float(logits.sum()) == pytest.approx(total, abs=1e-6 * logits.numel())
    assert float((logits**2).sum()) == pytest.approx(squares, rel=2e-7)
    if trained_on.which == "with_prompt":
        expected = trained_on.tensor("logits_row_0")
        first = trained_on.queries - 1
        row = logits_of(trained_on.model, hidden[0, first : first + len(expected)])
        torch.testing.assert_close(row, expected, rtol=0, atol=LOGITS)


def decoding(settings: dict[str, Any]) -> dict[str, Any]:
    """LAVIS' settings as qvft's: its lengths count a token that is not there, ours do not."""
    fields = dict(settings)
    fields["max_new_tokens"] = fields.pop("max_length") - 1
    if (least := fields.pop("min_length") - 1) > 0:
        fields["min_new_tokens"] = least
    return fields


def expected_texts(record: dict[str, Any]) -> list[str]:
    """LAVIS' texts; where the record says that transformers 5 ends beams otherwise, those."""
    instead = record["under_transformers_5.23_instead"]
    return [instead.get(str(row), text) for row, text in enumerate(record["texts"])]


@pytest.mark.parametrize("which", PROMPTS)
def test_captions_of_every_setting(reference: Reference, which: str) -> None:
    model = reference.opened(which)
    recorded = reference.expected["captions"][reference.prompt(which) or "no prompt"]
    settings = reference.expected["settings"]
    assert set(recorded) == set(settings)
    found, wanted = {}, {}
    for name, record in recorded.items():
        found[name] = model.caption(reference.images, **decoding(settings[name]))
        wanted[name] = expected_texts(record)
    assert found == wanted


def test_the_program_writes_lavis_captions(reference: Reference, tmp_path: Path) -> None:
    setting, out = "beam5_length_penalty_-1", tmp_path / "rows.jsonl"
    fields = decoding(reference.expected["settings"][setting])
    options = [part for name, value in fields.items() for part in (f"--{name}", str(value))]
    given = [reference.name, *reference.images, "--out", str(out), "--workers", "0", *options]
    assert predict(given) == 0
    texts = [json.loads(line)["text"] for line in out.read_text().splitlines()]
    assert texts == expected_texts(reference.expected["captions"]["no prompt"][setting])


@pytest.mark.parametrize("which", PROMPTS)
def test_a_length_is_one_less_than_lavis_says(reference: Reference, which: str) -> None:
    """LAVIS' max_length 5 writes four tokens: five would be another text for some image."""
    model = reference.opened(which)
    recorded = reference.expected["captions"][reference.prompt(which) or "no prompt"]
    texts = recorded["greedy_max5"]["texts"]
    assert model.caption(reference.images, max_new_tokens=4) == texts
    assert model.caption(reference.images, max_new_tokens=5) != texts


@torch.no_grad()
def test_plain_generate_penalises_words_of_the_prompt_too(reference: Reference) -> None:
    """A repetition penalty counts new tokens alone in LAVIS and here, where the decoder is given
    embeddings. transformers' own class gives it the prompt's tokens as well: with the same weights
    and settings another text may come out."""
    setting = "beam5_min8_repetition_1.5"
    if setting not in reference.expected["settings"]:
        pytest.skip("recorded for the bundled model")
    opened = reference.opened("with_prompt")
    template, model = opened.loaded.template, opened.loaded.model
    fields = decoding(reference.expected["settings"][setting])
    ids = torch.tensor([template.encode("caption").ids] * len(reference.pixels))
    new = model.generate(
        pixel_values=reference.pixels,
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        eos_token_id=[template.stop_id, template.tokenizer.eos_token_id],
        pad_token_id=template.tokenizer.pad_token_id,
        **fields,
    )[:, ids.shape[1] :]
    plain = [template.decode(row) for row in new.tolist()]
    record = reference.expected["captions"][reference.prompt("with_prompt")][setting]
    changed = [row for row, text in enumerate(expected_texts(record)) if plain[row] != text]
    assert changed == [6]


@pytest.mark.parametrize("length_penalty", [-1, 0])
def test_answers(reference: Reference, length_penalty: int) -> None:
    questions = reference.inputs["questions"]
    model = reference.opened()
    found = model.answer(
        [reference.images[asked["image"]] for asked in questions],
        [asked["question"] for asked in questions],
        num_beams=5,
        max_new_tokens=10,
        length_penalty=float(length_penalty),
    )
    name = f"length_penalty {length_penalty}"
    instead = reference.expected["answers_under_transformers_5.23_instead"][name]
    texts: Sequence[str] = reference.expected["answers"][name]
    assert found == [instead.get(str(row), text) for row, text in enumerate(texts)]
