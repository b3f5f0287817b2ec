"""Rows of the images and questions that a Python caller gives."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from qvft.data.images.sources import ImageLike, image_source
from qvft.data.predict_inputs import require_question
from qvft.data.prompt import Kind
from qvft.data.rows import Row
from qvft.data.sample import ImageSource, Sample
from qvft.errors import DataError


def asked_rows(
    images: ImageLike | Iterable[ImageLike], questions: str | Iterable[str] | None = None
) -> list[Row]:
    """A row per question, see `VisionLanguageModel.answer`; without questions, per image.

    Raises:
        DataError: an unsupported image type, a question that is no text, or numbers that differ.
    """
    sources = _sources(images)
    if questions is None:
        return [_row(source, None) for source in sources]
    listed = isinstance(questions, Iterable) and not isinstance(questions, str)
    asked: list[str] = list(questions) if listed else [questions]  # type: ignore[list-item]
    for question in asked:
        require_question(question, where="questions")
    if isinstance(questions, str):
        asked *= len(sources)
    if isinstance(images, ImageLike):
        sources *= len(asked)
    if len(sources) != len(asked):
        raise DataError(
            f"{len(sources)} images and {len(asked)} questions",
            expected="a question for each image, one question, or one image that is no list",
        )
    return [_row(source, text) for source, text in zip(sources, asked, strict=True)]


def _sources(images: ImageLike | Iterable[ImageLike]) -> list[ImageSource]:
    one = isinstance(images, ImageLike) or not isinstance(images, Iterable)
    listed: Iterable[Any] = [images] if one else images  # type: ignore[assignment]
    return [image_source(image, where="images") for image in listed]


def _row(source: ImageSource, question: str | None) -> Row:
    kind: Kind = "caption" if question is None else "question"
    return Row("", Sample(source.name, source), kind, question, "", (), {})
