"""`EmbeddingModel`: vectors of images and texts from Python.

Shape letters: I images, M texts, Q query tokens, E embedding width, D Q-Former width.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from qvft.data.images.sources import ImageLike, image_source
from qvft.data.pixels import pixel_chunks
from qvft.data.sample import ImageSource
from qvft.errors import ImageError
from qvft.inference.vector_file import FloatArray
from qvft.inference.vector_search import similarities
from qvft.log import get_logger
from qvft.models.blip2 import encode_vision, query_states
from qvft.setup.alignment_model import AlignmentModel, open_alignment
from qvft.setup.hashes import trained_files
from qvft.setup.itc_heads import has_contrast, is_retrieval_checkpoint, no_contrast
from qvft.setup.model import Loaded, base_of
from qvft.setup.provenance import base_hash
from qvft.setup.resolve_model import ResolvedModel, load_resolved, resolve_model

logger = get_logger("qvft.embed")


def load_embedding_model(name: str | Path) -> EmbeddingModel:
    """Loads a model that embeds images and texts, on the GPU if there is one.

    Args:
        name: run trained with `itc`, exported retrieval folder, or hub id of a
            `Blip2ForImageTextRetrieval`; any other BLIP-2 embeds images alone.

    Raises:
        CheckpointError: it is of another family.
        UserError: it is not found or does not fit.
    """
    return EmbeddingModel(resolve_model(str(name)))


class EmbeddingModel:
    """Embeds images and texts by the contrast (ITC) heads.

    An image has one unit vector per query token (I, Q, E), a text one (M, 1, E). Without contrast
    heads an image has the mean of its query outputs (I, 1, D), which no text was trained with.

    Args:
        opened: from `resolve_model`; loads the weights.

    Attributes:
        name: the run, folder or hub id it was loaded from.
        contrast: whether it has contrast heads.
    """

    def __init__(self, opened: ResolvedModel) -> None:
        self.name, self.contrast = opened.name, has_contrast(opened)
        self._aligned: AlignmentModel | None = None
        if self.contrast:
            self._aligned = open_alignment(opened)
            self.loaded: Loaded = self._aligned.loaded
            return
        family = base_of(opened.recipe).family.name
        if family != "blip2" or is_retrieval_checkpoint(opened):
            raise no_contrast(f"{opened.name} (family {family})")
        self.loaded = load_resolved(opened)
        logger.warning(
            "%s has no contrast heads: its vectors are means of the Q-Former's outputs, for "
            "similar images and near-duplicates alone; no text was trained to be near them",
            opened.name,
        )

    def embed_images(
        self,
        images: ImageLike | Iterable[ImageLike],
        *,
        batch_size: int = 16,
        workers: int = 0,
    ) -> FloatArray:
        """Unit vectors (I, Q, E) float32.

        Args:
            images: as in `VisionLanguageModel.caption`.
            batch_size: images encoded together.
            workers: image decoding processes; 0 decodes in this one.

        Raises:
            ImageError: an image cannot be decoded.
            DataError: an unsupported image type.
        """
        one = isinstance(images, ImageLike) or not isinstance(images, Iterable)
        listed: Iterable[Any] = [images] if one else images  # type: ignore[assignment]
        sources = [image_source(image, where="images") for image in listed]
        found = []
        for vectors, problems in self.image_batches(
            sources, batch_size=batch_size, workers=workers
        ):
            for problem in problems:
                if problem is not None:
                    raise problem
            found.append(vectors)
        return np.concatenate(found)

    def image_batches(
        self, sources: Sequence[ImageSource], *, batch_size: int, workers: int
    ) -> Iterator[tuple[FloatArray, list[ImageError | None]]]:
        """Vectors (I, Q, E) of the usable images of each batch, and per image its error or None."""
        collator = self.loaded.collator
        for pixels, problems in pixel_chunks(collator, sources, size=batch_size, workers=workers):
            if pixels is None:
                yield np.zeros((0, 1, 1), dtype=np.float32), problems
            else:
                yield self._vectors(pixels).cpu().numpy(), problems

    def embed_texts(self, texts: str | Sequence[str], *, batch_size: int = 64) -> FloatArray:
        """Unit vectors (M, 1, E) float32 of texts, which are cleaned and truncated as in training.

        Raises:
            CheckpointError: it has no contrast heads.
        """
        if self._aligned is None:
            raise no_contrast(self.name)
        listed = [texts] if isinstance(texts, str) else texts
        cleaned = [self.loaded.template.cleaned("caption", text) for text in listed]
        return self._aligned.text_vectors(cleaned, batch_size=batch_size).cpu().numpy()[:, None]

    def similarity(self, first: FloatArray, second: FloatArray) -> FloatArray:
        """As `vector_search.similarities`."""
        return similarities(first, second)

    @torch.no_grad()
    def _vectors(self, pixels: Tensor) -> Tensor:
        """Unit vectors (I, Q, E), or (I, 1, D) without contrast heads."""
        if self._aligned is not None:
            return self._aligned.image_vectors(pixels)
        model = self.loaded.blip2
        states = query_states(model, encode_vision(model, pixels.to(model.device, model.dtype)))
        return normalize(states.float().mean(dim=1, keepdim=True), dim=-1)


def vector_settings(opened: ResolvedModel) -> dict[str, Any]:
    """Settings of a file of vectors that say by which model, so that vectors of two never mix."""
    path, recipe = Path(opened.name), opened.recipe
    run = opened.home if opened.kind == "run" else None
    return {
        "model": str(path.resolve()) if path.exists() else opened.name,
        "base_weights_sha256": base_hash(recipe, base_of(recipe)),
        "adapter_sha256": trained_files(run / "adapter") if run else {},
        "text": recipe.data.text,
        "vectors": "contrast" if has_contrast(opened) else "query_mean",
    }
