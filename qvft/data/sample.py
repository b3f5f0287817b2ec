"""`Sample`: an image with all its texts."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from PIL import Image


@runtime_checkable
class ImageSource(Protocol):
    """Where an image's pixels come from.

    `name` is what reports and messages call it (a path where there is one). `open` returns the
    undecoded Pillow image; only `qvft.data.images.decoding.decode` calls it, which adds the safety.
    """

    @property
    def name(self) -> str: ...

    def open(self) -> Image.Image: ...


@dataclass(frozen=True, slots=True)
class ImageFile:
    """An image in a file of its own."""

    path: Path

    @property
    def name(self) -> str:
        return str(self.path)

    def open(self) -> Image.Image:
        return Image.open(self.path)


@dataclass(frozen=True, slots=True)
class ImageInMemory:
    """A Pillow image that a caller holds; without a label the same object is the same image."""

    image: Image.Image
    label: str = ""

    @property
    def name(self) -> str:
        return self.label or f"image in memory {id(self.image):x}"

    @property
    def content_id(self) -> str:
        """Hex SHA-256 of what the image holds, the same for equal images."""
        image = self.image
        digest = hashlib.sha256(f"{image.mode} {image.size} {image.getpalette()}".encode())
        digest.update(image.tobytes())
        return digest.hexdigest()

    def open(self) -> Image.Image:
        return self.image.copy()


@dataclass(frozen=True, slots=True)
class EncodedImage:
    """The bytes of an image file that a caller holds; without a label equal bytes are one image."""

    content: bytes
    label: str = ""

    @property
    def name(self) -> str:
        return self.label or f"image {hashlib.sha256(self.content).hexdigest()[:16]}"

    def encoded(self) -> bytes:
        """The bytes."""
        return self.content

    def open(self) -> Image.Image:
        return Image.open(io.BytesIO(self.content))


@dataclass(frozen=True, slots=True)
class Question:
    """A question about an image.

    Attributes:
        id: unique within a split; a string whatever the source's type was.
        text: the question.
        answers: every given answer, repetitions kept (VQA v2 has ten); never empty.
        meta: what breakdowns may group by, e.g. `answer_type`, `question_type`.
    """

    id: str
    text: str
    answers: tuple[str, ...]
    meta: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Sample:
    """An image and every text that belongs to it.

    Attributes:
        id: unique within a split.
        image: where the pixels come from.
        captions: descriptions, any number.
        questions: questions with their answers, any number.
        meta: of the image: organ, modality, category, ...
    """

    id: str
    image: ImageSource
    captions: tuple[str, ...] = ()
    questions: tuple[Question, ...] = ()
    meta: Mapping[str, Any] = field(default_factory=dict)
