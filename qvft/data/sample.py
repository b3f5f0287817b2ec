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
    """Source of an image's pixels.

    `name` is its name in reports and messages (the path, if any). `open` returns the undecoded
    Pillow image; call `qvft.data.images.decoding.decode`, which adds the safety checks.
    """

    @property
    def name(self) -> str: ...

    def open(self) -> Image.Image: ...


@dataclass(frozen=True, slots=True)
class ImageFile:
    """An image file."""

    path: Path

    @property
    def name(self) -> str:
        return str(self.path)

    def open(self) -> Image.Image:
        return Image.open(self.path)


@dataclass(frozen=True, slots=True)
class ImageInMemory:
    """A Pillow image in memory; without a label the same object is the same image."""

    image: Image.Image
    label: str = ""

    @property
    def name(self) -> str:
        return self.label or f"image in memory {id(self.image):x}"

    @property
    def content_id(self) -> str:
        """Hex SHA-256 of the image's content, the same for equal images."""
        image = self.image
        digest = hashlib.sha256(f"{image.mode} {image.size} {image.getpalette()}".encode())
        digest.update(image.tobytes())
        return digest.hexdigest()

    def open(self) -> Image.Image:
        return self.image.copy()


@dataclass(frozen=True, slots=True)
class EncodedImage:
    """The bytes of an image file in memory; without a label equal bytes are one image."""

    content: bytes
    label: str = ""

    @property
    def name(self) -> str:
        return self.label or f"image {hashlib.sha256(self.content).hexdigest()[:16]}"

    def encoded(self) -> bytes:
        return self.content

    def open(self) -> Image.Image:
        return Image.open(io.BytesIO(self.content))


@dataclass(frozen=True, slots=True)
class Question:
    """A question about an image; `id` is unique within a split.

    `answers` are all answers with repetitions (VQA v2 has ten), never empty; `meta` is metadata for
    breakdowns, e.g. `answer_type`, `question_type`; `candidates` are the answers to choose among
    (multiple choice), if the data gives any.
    """

    id: str
    text: str
    answers: tuple[str, ...]
    meta: Mapping[str, str] = field(default_factory=dict)
    candidates: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Pair:
    """A preferred and a worse text for an image; `id` is unique within a split.

    `question` is None if both are captions.
    """

    id: str
    question: str | None
    chosen: str
    rejected: str
    meta: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Sample:
    """An image and every text that belongs to it.

    `id` is unique within a split; `meta` is metadata of the image: organ, modality, category, ...
    """

    id: str
    image: ImageSource
    captions: tuple[str, ...] = ()
    questions: tuple[Question, ...] = ()
    meta: Mapping[str, Any] = field(default_factory=dict)
    pairs: tuple[Pair, ...] = ()
