"""Batches: images once, labels by token spans, masks by lengths."""

from pathlib import Path

import pytest
import tiny_models
import torch
from PIL import Image

from qvft.data.collate import IGNORED, Collator, pad_rows
from qvft.data.images.decoding import MAX_PIXELS
from qvft.data.prompt import PromptTemplate
from qvft.data.rows import Row, training_rows
from qvft.data.sample import ImageFile, Question, Sample
from tools.tiny_blip2.geometry import (
    EOS_ID,
    IMAGE_SIZE_PX,
    PAD_ID,
    QUERY_TOKENS,
    VOCABULARY_SIZE,
)


@pytest.fixture(scope="module")
def collator() -> Collator:
    processor = tiny_models.processor()
    template = PromptTemplate(
        processor.tokenizer, QUERY_TOKENS, VOCABULARY_SIZE - 1, "\n", caption="a photo of"
    )
    return Collator(template, processor.image_processor, MAX_PIXELS)


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> list[Row]:
    folder = tmp_path_factory.mktemp("images")
    samples = []
    for name, colour in (("x", "red"), ("y", "blue")):
        Image.new("RGB", (30, 20), colour).save(folder / f"{name}.png")
        samples.append(
            Sample(
                name,
                ImageFile(folder / f"{name}.png"),
                (f"a {colour} rectangle of the plainest kind",),
                (Question(f"{name}1", "Which colour?", (colour,)),),
            )
        )
    return training_rows(samples)


def test_an_image_of_several_rows_is_decoded_once(collator: Collator, rows: list[Row]) -> None:
    batch = collator(list(enumerate([rows[0], rows[2], rows[1]])))
    assert batch["pixel_values"].shape == (2, 3, IMAGE_SIZE_PX, IMAGE_SIZE_PX)
    assert batch["image_index"].tolist() == [0, 1, 0]
    assert batch["pixel_values"].dtype == torch.float32


def test_labels_are_target_and_stop_tokens_only(collator: Collator, rows: list[Row]) -> None:
    """Trap 5: no loss on image, prompt or padding."""
    batch = collator(list(enumerate(rows)))
    template = collator.template
    for index, row in enumerate(rows):
        kept = batch["labels"][index] != IGNORED
        text = template.tokenizer.decode(batch["labels"][index][kept].tolist())
        assert text == f" {row.target}\n"
        assert torch.equal(batch["labels"][index][kept], batch["input_ids"][index][kept])


def test_the_mask_covers_a_row_and_nothing_else(collator: Collator, rows: list[Row]) -> None:
    """Trap 5: `</s>` opens every row, so a mask from ids would be wrong."""
    batch = collator(list(enumerate(rows)))
    for index, row in enumerate(rows):
        length = len(
            collator.template.encode(row.kind, question=row.question, target=row.target).ids
        )
        assert batch["attention_mask"][index].tolist() == [1] * length + [0] * (
            batch["input_ids"].shape[1] - length
        )
        assert (batch["input_ids"][index, length:] == PAD_ID).all()


def test_rows_keep_their_numbers(collator: Collator, rows: list[Row]) -> None:
    assert collator([(7, rows[1]), (3, rows[0])])["row_index"].tolist() == [7, 3]


@pytest.mark.parametrize(
    ("side", "ids", "mask"),
    [
        ("right", [[2, 5, 6], [7, 1, 1]], [[1, 1, 1], [1, 0, 0]]),
        ("left", [[2, 5, 6], [1, 1, 7]], [[1, 1, 1], [0, 0, 1]]),
    ],
)
def test_padding_goes_to_one_side(side: str, ids: list, mask: list) -> None:
    padded = pad_rows([[EOS_ID, 5, 6], [7]], PAD_ID, side=side)
    assert padded["input_ids"].tolist() == ids
    assert padded["attention_mask"].tolist() == mask


def test_a_broken_image_is_named(collator: Collator, rows: list[Row], tmp_path: Path) -> None:
    from qvft.errors import ImageError

    (tmp_path / "z.png").write_bytes(b"no image")
    broken = Sample("z", ImageFile(tmp_path / "z.png"), ("x",))
    with pytest.raises(ImageError, match=r"z\.png"):
        collator(list(enumerate(training_rows([broken]))))
