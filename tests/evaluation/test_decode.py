"""From images and prompts to text, with fresh weights: what is said is arbitrary, but fixed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoProcessor, Blip2ForConditionalGeneration

from qvft.assembly.data import read_split
from qvft.assembly.model import Loaded, base_model, base_of
from qvft.data.images import decode as decode_image
from qvft.data.rows import Row, evaluation_rows
from qvft.data.sample import ImageFile, Sample
from qvft.evaluation import decode
from qvft.evaluation.decode import PromptBatches, blind_images, generate_texts
from qvft.recipe.load import load_recipe

GREEDY = {"max_new_tokens": 6, "do_sample": False, "num_beams": 1}


@pytest.fixture(scope="module")
def loaded(recipe_file: Path) -> Loaded:
    recipe = load_recipe(recipe_file)
    made = base_model(recipe, base_of(recipe))
    # Fresh output weights are so small that every text is the same; larger ones tell texts apart.
    with torch.no_grad():
        made.model.language_projection.weight *= 100
    return made


@pytest.fixture(scope="module")
def rows(recipe_file: Path) -> list[Row]:
    """Eight images with a caption and two questions of different lengths each."""
    return evaluation_rows(read_split(load_recipe(recipe_file), "eval").samples)


def batches(loaded: Loaded, rows: Sequence[Row], *, size: int) -> PromptBatches:
    images = [row.sample for row in rows]
    return PromptBatches(rows, images, loaded.collator, batch_size=size, workers=0)


def texts(loaded: Loaded, rows: Sequence[Row], *, size: int, **settings: Any) -> list[str]:
    found = [""] * len(rows)
    for batch in batches(loaded, rows, size=size):
        said = generate_texts(loaded.model, loaded.collator, batch, {**GREEDY, **settings})
        for index, text in zip(batch["rows"], said, strict=True):
            found[index] = text
    return found


def test_batched_texts_are_those_of_one_row_at_a_time(loaded: Loaded, rows: list[Row]) -> None:
    """Questions of two lengths share batches, so left padding is among what must not matter."""
    alone = texts(loaded, rows[:9], size=1)
    assert texts(loaded, rows[:9], size=6) == alone
    assert len(set(alone)) > 1


def test_prompts_are_padded_on_the_left(loaded: Loaded, rows: list[Row]) -> None:
    questions = [row for row in rows[:3] if row.kind == "question"]
    (batch,) = batches(loaded, questions, size=2)
    assert (
        len({len(loaded.template.encode("question", question=r.question).ids) for r in questions})
        == 2
    )
    assert (batch["attention_mask"][:, -1] == 1).all()
    assert (batch["attention_mask"].diff(dim=1) >= 0).all()


def test_captions_and_questions_do_not_share_a_batch(loaded: Loaded, rows: list[Row]) -> None:
    for batch in batches(loaded, rows, size=5):
        assert {rows[index].kind for index in batch["rows"]} == {batch["kind"]}


def test_every_row_is_asked_once(loaded: Loaded, rows: list[Row]) -> None:
    asked = [index for batch in batches(loaded, rows, size=5) for index in batch["rows"]]
    assert sorted(asked) == list(range(len(rows)))


def test_an_image_is_encoded_once_for_its_texts(
    loaded: Loaded, rows: list[Row], monkeypatch: pytest.MonkeyPatch
) -> None:
    encoded: list[int] = []

    def counting(model: Any, pixel_values: torch.Tensor) -> torch.Tensor:
        encoded.append(len(pixel_values))
        return encode_images(model, pixel_values)

    encode_images = decode.encode_images
    monkeypatch.setattr(decode, "encode_images", counting)
    questions = [row for row in rows if row.kind == "question"]
    texts(loaded, questions, size=4, max_new_tokens=1)
    assert encoded == [2, 2, 2, 2]  # 16 questions of eight images, four questions a batch


@pytest.mark.parametrize("beams", [1, 3])
def test_generation_is_that_of_plain_transformers(
    loaded: Loaded, rows: list[Row], tiny_folder: Path, beams: int
) -> None:
    """The reference is `Blip2ForConditionalGeneration.generate` on what the processor makes."""
    model = Blip2ForConditionalGeneration.from_pretrained(tiny_folder)
    model.load_state_dict(loaded.model.state_dict())
    processor = AutoProcessor.from_pretrained(tiny_folder)
    stop = [loaded.template.stop_id, processor.tokenizer.eos_token_id]
    expected = []
    for row in rows[:3]:
        image = decode_image(row.sample.image)
        prompt = loaded.template.prompt_text(row.kind, row.question)
        inputs = processor(images=image, text=prompt, return_tensors="pt")
        settings = {**GREEDY, "num_beams": beams}
        ids = model.generate(**inputs, **settings, eos_token_id=stop)
        said = processor.decode(ids[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
        expected.append(said.strip())
    assert texts(loaded, rows[:3], size=2, num_beams=beams) == expected
    assert any(expected)


def test_generation_stops_at_a_newline(
    loaded: Loaded, rows: list[Row], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The newline token is made the likeliest: nothing may be written after it."""
    template = loaded.template
    written: list[list[int]] = []
    remember = type(template).decode

    def keep(self: Any, ids: list[int]) -> str:
        written.append(ids)
        return remember(self, ids)

    monkeypatch.setattr(type(template), "decode", keep)
    bias = [[[template.stop_id], 1e4]]
    assert texts(loaded, rows[:1], size=1, sequence_bias=bias) == [""]
    assert written == [[template.stop_id]]


@pytest.mark.parametrize("count", [2, 3, 50])
def test_blind_images_show_every_image_once_and_none_to_its_own_texts(count: int) -> None:
    samples = [Sample(str(i), ImageFile(Path(f"{i}.png"))) for i in range(count)]
    for seed in range(5):
        shown = blind_images(samples, seed=seed)
        assert all(shown[sample.id].id != sample.id for sample in samples)
        assert {other.id for other in shown.values()} == {sample.id for sample in samples}


def test_blind_images_depend_on_the_seed_alone() -> None:
    samples = [Sample(str(i), ImageFile(Path(f"{i}.png"))) for i in range(20)]
    assert blind_images(samples, seed=1) == blind_images(samples, seed=1)
    assert blind_images(samples, seed=1) != blind_images(samples, seed=2)


def test_a_row_may_be_shown_another_image(loaded: Loaded, rows: list[Row]) -> None:
    first, other = rows[0], rows[3]
    shown = PromptBatches([first], [other.sample], loaded.collator, batch_size=1, workers=0)
    (own,) = batches(loaded, [first], size=1)
    (swapped,) = shown
    assert torch.equal(swapped["pixel_values"], loaded.collator.pixels([other.sample.image]))
    assert not torch.equal(swapped["pixel_values"], own["pixel_values"])
    assert torch.equal(swapped["input_ids"], own["input_ids"])
