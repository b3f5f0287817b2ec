"""Rows of a stream whose image does not decode."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from PIL import Image

from qvft.data.collate import Collator
from qvft.data.prompt import PromptTemplate
from qvft.data.rows import FILLER, training_rows
from qvft.data.sample import ImageInMemory, Sample
from qvft.data.streaming_collator import StreamingCollator, left_out_index, left_out_number
from qvft.errors import ImageError


@dataclasses.dataclass(frozen=True)
class Broken:
    name: str = "shard.tar, 7.png"

    def open(self) -> Image.Image:
        raise ImageError("broken", where=self.name)


@pytest.fixture(scope="module")
def collator() -> Collator:
    from qvft.models.load import load_processor
    from qvft.recipe.load import parse_recipe
    from qvft.setup.model import base_of
    from qvft.setup.prompt_template import template_of

    recipe = parse_recipe({"name": "a", "model": {"id": "qvft/tiny-blip2"}})
    base = base_of(recipe)
    processor = load_processor(base)
    template: PromptTemplate = template_of(recipe, base, processor)
    return Collator(template, processor.image_processor, recipe.data.max_image_pixels)


def red() -> ImageInMemory:
    return ImageInMemory(Image.new("RGB", (40, 32), (200, 10, 10)))


def test_a_batch_of_whole_images_is_the_collators(collator: Collator) -> None:
    samples = [Sample("a", red(), ("a red picture", "red")), Sample("b", red(), ("a picture",))]
    rows = list(enumerate(training_rows(samples)))
    plain, streamed = collator(rows), StreamingCollator(collator, collator.decode)(rows)
    assert plain.keys() == streamed.keys()
    assert all(torch.equal(plain[key], streamed[key]) for key in plain)


def test_a_row_of_a_broken_image_counts_nothing_and_names_itself(collator: Collator) -> None:
    samples = [Sample("a", red(), ("a red picture",)), Sample("b", Broken(), ("a picture",))]
    rows = [(40 + n, row) for n, row in enumerate(training_rows(samples))]
    batch = StreamingCollator(collator, collator.decode)(rows)
    assert (batch["labels"][1] == -100).all()
    assert (batch["labels"][0] != -100).any()
    good, bad = batch["row_index"].tolist()
    assert (good, left_out_number(bad)) == (40, 41)


def test_rows_that_are_there_are_not_taken_for_left_out() -> None:
    assert left_out_number(FILLER) is None
    assert left_out_number(0) is None
    assert left_out_number(left_out_index(0)) == 0
    assert left_out_index(FILLER) == FILLER
