"""Zero-shot classification of images by class prompts.

Shape letters: I images, C classes, E embedding width.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, islice

import torch
from PIL.Image import Image
from torch import Tensor

from qvft.data.pixels import pixel_chunks
from qvft.data.rows import Row
from qvft.data.sample import ImageSource
from qvft.errors import ImageError
from qvft.evaluation.embedding_metrics import zero_shot_metric
from qvft.evaluation.metric import GroupScores
from qvft.evaluation.metrics.answers import normalise_answer
from qvft.evaluation.rows import PredictionRow
from qvft.inference.distributed import chunks_shared
from qvft.inference.predict import Outcome
from qvft.inference.prediction_file import Predictions
from qvft.inference.predictions import identity
from qvft.models.alignment.scoring import check_classes, class_embeddings, similarity
from qvft.setup.alignment_model import AlignmentModel, open_alignment
from qvft.setup.itc_heads import require_contrast
from qvft.setup.resolve_model import ResolvedModel

DIGITS = 6
"""Decimals of a cosine in a file; float32 has seven digits."""


@dataclass(frozen=True)
class Classes:
    """Classes of zero-shot classification.

    Attributes:
        templates: prompts with one `{}` for the class; their mean embedding represents the class.

    Raises:
        UserError: as `check_classes`.
    """

    names: tuple[str, ...]
    templates: tuple[str, ...]

    def __post_init__(self) -> None:
        check_classes(self.names, self.templates)

    def vectors(self, aligned: AlignmentModel) -> Tensor:
        """Unit vectors (C, E)."""
        return class_embeddings(self.names, self.templates, embed=aligned.text_vectors)


def classify(
    aligned: AlignmentModel, images: Sequence[Image], names: Sequence[str], templates: Sequence[str]
) -> list[str]:
    """The class of each image with the nearest prompts.

    Raises:
        UserError: as `check_classes`.
    """
    classes = Classes(tuple(names), tuple(templates)).vectors(aligned)
    vectors = aligned.image_vectors(aligned.loaded.collator.normalise(images))
    return [names[index] for index in similarity(vectors, classes).argmax(dim=1).tolist()]


def classifications(
    opened: ResolvedModel, rows: Sequence[Row], classes: Classes, *, batch_size: int, workers: int
) -> Predictions:
    """The nearest class of each row's image as `text`, and as `scores` the cosine of every class.

    A row's question is ignored.

    Raises:
        CheckpointError: the model has no ITC heads.
    """
    require_contrast(opened)
    settings = {
        **identity(opened),
        "classes": classes.names,
        "class_prompts": classes.templates,
    }

    def outcomes_of(remaining: Sequence[Row]) -> Iterator[Outcome]:
        aligned = open_alignment(opened)
        return _outcomes(aligned, remaining, classes, batch_size=batch_size, workers=workers)

    return Predictions(rows, settings, outcomes_of)


def zero_shot_group(
    aligned: AlignmentModel,
    rows: Sequence[PredictionRow],
    sources: Sequence[ImageSource],
    classes: Classes,
    *,
    batch_size: int,
    workers: int,
) -> GroupScores:
    """Accuracy over the rows whose reference is one of the classes, distributed over processes.

    Raises:
        ImageError: an image is unusable.
    """
    right = rows_of_class(rows, classes.names)
    images = {sources[index].name: sources[index] for index in right}

    def scores_of(
        chunks: Sequence[Sequence[ImageSource]],
    ) -> Iterator[list[Mapping[str, float] | ImageError]]:
        sources = list(chain(*chunks))
        arriving = _scores(aligned, sources, classes, batch_size=batch_size, workers=workers)
        return (list(islice(arriving, len(chunk))) for chunk in chunks)

    found = chunks_shared(list(images.values()), scores_of, size=batch_size)
    nearest: dict[str, str] = {}
    for name, scores in zip(images, chain(*found), strict=True):
        if isinstance(scores, ImageError):
            raise scores
        nearest[name] = _best(scores)
    items = {row: float(nearest[sources[row].name] == name) for row, name in right.items()}
    return GroupScores(len(items), [zero_shot_metric(rows, items)])


def rows_of_class(rows: Sequence[PredictionRow], names: Sequence[str]) -> dict[int, str]:
    """Class of each row whose references name exactly one, after normalisation."""
    known = {normalise_answer(name): name for name in names}
    found: dict[int, str] = {}
    for index, row in enumerate(rows):
        meant = {known.get(normalise_answer(reference)) for reference in row.references}
        if len(meant) == 1 and (name := meant.pop()) is not None:
            found[index] = name
    return found


def _outcomes(
    aligned: AlignmentModel, rows: Sequence[Row], classes: Classes, *, batch_size: int, workers: int
) -> Iterator[Outcome]:
    """Nearest class of each row's image, in order, with the cosine of every class."""
    sources = {row.sample.id: row.sample.image for row in rows}  # in order of first use
    found = _scores(
        aligned, list(sources.values()), classes, batch_size=batch_size, workers=workers
    )
    arriving = zip(sources, found, strict=True)
    ready: dict[str, Mapping[str, float] | ImageError] = {}
    for number, row in enumerate(rows):
        while row.sample.id not in ready:
            ready.update([next(arriving)])
        found_here = ready[row.sample.id]
        if isinstance(found_here, ImageError):
            yield Outcome(number, error=found_here)
        else:
            rounded = {name: round(score, DIGITS) for name, score in found_here.items()}
            yield Outcome(number, (_best(found_here),), scores=rounded)


def _best(scores: Mapping[str, float]) -> str:
    return max(scores, key=lambda name: scores[name])


@torch.no_grad()
def _scores(
    aligned: AlignmentModel,
    sources: Sequence[ImageSource],
    classes: Classes,
    *,
    batch_size: int,
    workers: int,
) -> Iterator[Mapping[str, float] | ImageError]:
    """Per source the cosine of every class, or its decoding error."""
    vectors = classes.vectors(aligned)
    collator = aligned.loaded.collator
    for pixels, problems in pixel_chunks(collator, sources, size=batch_size, workers=workers):
        cosines: list[list[float]] = []
        if pixels is not None:
            cosines = similarity(aligned.image_vectors(pixels), vectors).tolist()
        found = iter(cosines)
        for problem in problems:
            yield problem or dict(zip(classes.names, next(found), strict=True))
