"""From images and prompts to text, with fresh weights: what is said is arbitrary, but fixed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoProcessor, Blip2ForConditionalGeneration

from qvft.data.images.decoding import decode as decode_image
from qvft.data.rows import Row, evaluation_rows
from qvft.data.sample import ImageFile, Sample
from qvft.errors import ImageError
from qvft.evaluation.baselines import blind_images
from qvft.inference import encoding
from qvft.inference.decode import (
    WIDTH_STEP,
    Prompted,
    Waiting,
    generate_texts,
)
from qvft.inference.encoding import Encoded, encoded_images
from qvft.inference.predict import outcomes, predict_rows
from qvft.models.forward_stages import embed_rows
from qvft.recipe.load import load_recipe
from qvft.setup.data import read_split
from qvft.setup.model import Loaded, base_model, base_of

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


def prompted(loaded: Loaded, rows: Sequence[Row]) -> list[Prompted]:
    sources = [row.sample.image for row in rows]
    images = encoded_images(loaded.model, loaded.collator, sources, batch_size=4, workers=0)
    template = loaded.template
    return [
        Prompted(
            number,
            row.kind,
            template.encode(row.kind, question=row.question).ids,
            image,
            template.prompt_text(row.kind, row.question),
        )
        for number, (row, image) in enumerate(zip(rows, images, strict=True))
    ]


def texts(loaded: Loaded, rows: Sequence[Row], *, size: int, **settings: Any) -> list[str]:
    found = [""] * len(rows)
    generation = dict.fromkeys(("caption", "question"), {**GREEDY, **settings})
    for outcome in predict_rows(
        loaded.model, loaded.collator, rows, generation=generation, batch_size=size, workers=0
    ):
        found[outcome.number] = outcome.texts[0]
    return found


def test_batched_texts_are_those_of_one_row_at_a_time(loaded: Loaded, rows: list[Row]) -> None:
    """Questions of two lengths share batches, so left padding is among what must not matter."""
    alone = texts(loaded, rows[:9], size=1)
    assert texts(loaded, rows[:9], size=6) == alone
    assert len(set(alone)) > 1


def test_a_batch_is_padded_behind_its_first_token_to_a_multiple_of_eight(
    loaded: Loaded, rows: list[Row], monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = [row for row in prompted(loaded, rows[:3]) if row.kind == "question"]
    assert len({len(row.ids) for row in batch}) == 2
    seen: list[torch.Tensor] = []
    generate = loaded.model.language_model.generate

    def look(**given: Any) -> torch.Tensor:
        seen.append(given["attention_mask"])
        return generate(**given)

    monkeypatch.setattr(loaded.model.language_model, "generate", look)
    generate_texts(loaded.model, loaded.collator, batch, GREEDY)
    assert seen[0].shape[1] % WIDTH_STEP == 0
    assert seen[0].sum(dim=1).tolist() == [len(row.ids) for row in batch]
    assert (seen[0][:, 0] == 1).all()
    assert (seen[0][:, 1:].diff(dim=1) >= 0).all()


def waiting_row(number: int, *, tokens: int, kind: str = "question") -> Prompted:
    return Prompted(number, kind, (0,) * tokens, Encoded(torch.zeros(1)), "")


def leave(rows: Sequence[Prompted], *, size: int) -> list[list[int]]:
    """Numbers of the rows of each batch, in the order in which batches leave."""
    waiting = Waiting(batch_size=size)
    full = [batch for row in rows if (batch := waiting.add(row))]
    return [[row.number for row in batch] for batch in [*full, *waiting.rest()]]


def test_rows_of_equal_shape_leave_together() -> None:
    lengths = [9, 17, 16, 24, 12, 20]
    rows = [waiting_row(number, tokens=n) for number, n in enumerate(lengths)]
    assert leave(rows, size=2) == [[0, 2], [1, 3], [4], [5]]


def test_captions_and_questions_do_not_share_a_batch() -> None:
    kinds = ["caption", "question", "caption", "question"]
    rows = [waiting_row(n, tokens=9, kind=kind) for n, kind in enumerate(kinds)]
    assert leave(rows, size=2) == [[0, 2], [1, 3]]


def test_a_rare_shape_does_not_wait_for_ever() -> None:
    """Row 0 has no company; it leaves when as many rows wait as eight batches hold."""
    rows = [waiting_row(number, tokens=1 + 8 * number) for number in range(16)]
    assert leave(rows, size=2)[0] == [0]
    assert sorted(number for batch in leave(rows, size=2) for number in batch) == list(range(16))


def test_an_image_is_encoded_once_for_its_texts(
    loaded: Loaded, rows: list[Row], monkeypatch: pytest.MonkeyPatch
) -> None:
    encoded: list[int] = []

    def counting(model: Any, pixel_values: torch.Tensor) -> torch.Tensor:
        encoded.append(len(pixel_values))
        return encode_images(model, pixel_values)

    encode_images = encoding.encode_images
    monkeypatch.setattr(encoding, "encode_images", counting)
    texts(loaded, sorted(rows, key=lambda row: row.id), size=3, max_new_tokens=1)
    assert encoded == [3, 3, 2]  # eight images of three texts each, their rows far apart


@pytest.mark.parametrize("held", [8, 3])
def test_a_second_pass_encodes_only_images_that_were_not_kept(
    loaded: Loaded, rows: list[Row], held: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    samples = list({row.sample.id: row.sample for row in rows}.values())
    swapped = blind_images(samples, seed=0)
    settings: dict[str, Any] = {"generation": dict.fromkeys(("caption", "question"), GREEDY)}
    settings |= {"batch_size": 3, "workers": 0}

    def texts_of(images: Sequence[Sample] | None, **further: Any) -> dict[int, tuple[str, ...]]:
        found = predict_rows(loaded.model, loaded.collator, rows, images, **settings, **further)
        return {outcome.number: outcome.texts for outcome in found}

    blind = [swapped[row.sample.id] for row in rows]
    expected = texts_of(None), texts_of(blind)
    assert expected[0] != expected[1]
    one, *_ = encoded_images(
        loaded.model, loaded.collator, [samples[0].image], batch_size=1, workers=0
    )
    monkeypatch.setattr(encoding, "MOST_KEPT", held * one.states.nbytes)
    kept: dict[str, torch.Tensor] = {}
    first = texts_of(None, kept=kept)
    encoded: list[int] = []
    encode_images = encoding.encode_images

    def counting(model: Any, pixel_values: torch.Tensor) -> torch.Tensor:
        encoded.append(len(pixel_values))
        return encode_images(model, pixel_values)

    monkeypatch.setattr(encoding, "encode_images", counting)
    assert (first, texts_of(blind, kept=kept)) == expected
    assert sum(encoded) == len(samples) - held


def test_an_unusable_image_is_the_outcome_of_its_rows_alone(
    loaded: Loaded, rows: list[Row], tmp_path: Path
) -> None:
    broken = Sample("broken", ImageFile(tmp_path / "absent.png"))
    shown = [broken if number in (1, 4) else row.sample for number, row in enumerate(rows)]
    settings = {"generation": dict.fromkeys(("caption", "question"), GREEDY), "batch_size": 4}
    found = list(outcomes(loaded.model, loaded.collator, rows, shown, **settings, workers=0))
    assert sorted(outcome.number for outcome in found) == list(range(len(rows)))
    assert {o.number: o.error.given for o in found if o.error} == dict.fromkeys(
        (1, 4), "no such file"
    )
    assert all(len(o.texts) == 1 for o in found if not o.error)
    with pytest.raises(ImageError, match="no such file"):
        list(predict_rows(loaded.model, loaded.collator, rows, shown, **settings, workers=0))


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


def test_a_repetition_penalty_passes_over_no_new_token(loaded: Loaded, rows: list[Row]) -> None:
    """Padding counts for nothing; the reference generates after a single row without any."""
    settings = {"repetition_penalty": 1.5, "min_new_tokens": 6}
    expected = []
    for row in prompted(loaded, rows[:3]):
        ids = torch.tensor([row.ids])
        with torch.no_grad():
            embeds = embed_rows(
                loaded.model,
                {"input_ids": ids},
                images=row.image.states[None],
                image_index=torch.tensor([0]),
            )
            new = loaded.model.language_model.generate(
                inputs_embeds=embeds,
                attention_mask=torch.ones_like(ids),
                eos_token_id=[loaded.template.stop_id, loaded.template.tokenizer.eos_token_id],
                **{**GREEDY, **settings},
            )
        expected.append(loaded.template.decode(new[0].tolist()))
    assert texts(loaded, rows[:3], size=2, **settings) == expected
    assert texts(loaded, rows[:3], size=2, min_new_tokens=6) != expected


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
    settings = {"generation": {"caption": GREEDY}, "batch_size": 1, "workers": 0}
    (outcome,) = predict_rows(loaded.model, loaded.collator, [first], [other.sample], **settings)
    (swapped,) = outcome.texts
    assert [swapped] == texts(loaded, [other], size=1)
    assert [swapped] != texts(loaded, [first], size=1)
