"""Retrieval and classes by prompts under several processes: the figures of one, the work shared."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest
from fake_processes import FakeProcesses
from torch import Tensor

from qvft.data.formats import read_samples
from qvft.data.rows import evaluation_rows
from qvft.evaluation.image_text_retrieval import retrieval_group
from qvft.evaluation.metric import GroupScores
from qvft.evaluation.rows import prediction_rows
from qvft.evaluation.zero_shot import Classes, zero_shot_group
from qvft.inference import distributed as shares
from qvft.setup.alignment_model import AlignmentModel

WORLD = 2
PACE = {"batch_size": 3, "workers": 0}
# Eight images: chunks of three, three and two.
SAMPLES = list(read_samples("drawn", "seed=6,count=8,size=48"))
# What five of the images are asked for: a chunk of three and one of two.
KINDS = Classes(("digit", "letter"), ("a {}",))


def retrieval(aligned: AlignmentModel) -> GroupScores:
    rows = evaluation_rows(SAMPLES)
    items = prediction_rows(rows, [""] * len(rows))
    return retrieval_group(aligned, items, [row.sample.image for row in rows], top=4, **PACE)


def zero_shot(aligned: AlignmentModel) -> GroupScores:
    rows = evaluation_rows(SAMPLES)
    items = prediction_rows(rows, [""] * len(rows))
    return zero_shot_group(aligned, items, [row.sample.image for row in rows], KINDS, **PACE)


def figures(scores: GroupScores) -> list[tuple[Any, ...]]:
    return [(one.name, one.value, one.items, one.interval) for one in scores.metrics]


@pytest.fixture
def encoded(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """The thread and the number of images, of every pass of the ViT."""
    seen: list[tuple[int, int]] = []
    features = AlignmentModel.features

    def counted(self: AlignmentModel, pixels: Tensor) -> Tensor:
        seen.append((threading.get_ident(), len(pixels)))
        return features(self, pixels)

    monkeypatch.setattr(AlignmentModel, "features", counted)
    return seen


@pytest.mark.parametrize("group", [retrieval, zero_shot])
def test_processes_share_the_images_and_have_the_figures_of_one(
    group: Callable[[AlignmentModel], GroupScores],
    aligned: AlignmentModel,
    encoded: list[tuple[int, int]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    alone = group(aligned)
    asked = sorted(count for _, count in encoded)
    encoded.clear()
    fake = FakeProcesses(WORLD)
    monkeypatch.setattr(shares, "processes", fake.processes)
    monkeypatch.setattr(shares, "all_gather_object", fake.all_gather_object)
    found = fake.run(lambda rank: group(aligned))
    for scores in found:
        assert scores.n == alone.n
        assert figures(scores) == figures(alone)  # to the last bit: the same batches were encoded
    assert sorted(count for _, count in encoded) == asked
    assert len({thread for thread, _ in encoded}) == WORLD
    assert 0 < alone.metrics[0].value < 100  # it is told from another order of images
