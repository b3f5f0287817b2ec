"""Pixels of image sources, chunk by chunk."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from qvft.data.collate import Collator
from qvft.data.pixels import pixel_chunks
from qvft.data.sample import ImageFile
from qvft.recipe.load import load_recipe
from qvft.setup.model import base_model, base_of


@pytest.fixture(scope="module")
def collator(recipe_file: Path) -> Collator:
    recipe = load_recipe(recipe_file)
    return base_model(recipe, base_of(recipe)).collator


@pytest.mark.parametrize("workers", [0, 1])
def test_an_unusable_image_stands_where_it_was_and_stops_no_other(
    collator: Collator, shapes: Path, tmp_path: Path, workers: int
) -> None:
    (tmp_path / "broken.png").write_bytes(b"no image")
    files = [shapes / "test0.png", tmp_path / "broken.png", shapes / "test1.png"]
    sources = [ImageFile(path) for path in [*files, tmp_path / "absent.png"]]
    found = list(pixel_chunks(collator, sources, size=3, workers=workers))
    (first, problems), (second, missing) = found
    assert [problem is None for problem in problems] == [True, False, True]
    assert "broken.png" in str(problems[1])
    assert torch.equal(first, collator.pixels([sources[0], sources[2]]))
    assert second is None and [problem is None for problem in missing] == [False]


def test_nothing_has_no_chunks(collator: Collator) -> None:
    assert list(pixel_chunks(collator, [], size=3, workers=2)) == []
