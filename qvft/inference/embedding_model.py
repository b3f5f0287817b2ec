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

from qvft.adapters.manifest import fingerprints
from qvft.data.images.sources import ImageLike, image_source
from qvft.data.pixels import pixel_chunks
from qvft.data.sample import ImageSource
from qvft.errors import DataError
from qvft.inference.vector_file import FloatArray
from qvft.inference.vector_search import similarities
from qvft.log import get_logger
from qvft.models.blip2 import encode_vision, query_states
from qvft.models.finite_outputs import require_finite
from qvft.setup.alignment_model import AlignmentModel, open_alignment
from qvft.setup.itc_heads import has_contrast, is_retrieval_checkpoint, no_contrast
from qvft.setup.model import base_of
from qvft.setup.provenance import base_hash
from qvft.setup.resolve_model import ResolvedModel, load_resolved, resolve_model

logger = get_logger("qvft.embed")


def load_embedding_model(name: str | Path) -> EmbeddingModel:
    """Loads a model that embeds images and texts, on the GPU if there is one.

    Args:
        name: run trained with `itc`, exported retrieval folder, or hub id of a
            `Blip2ForImageTextRetrieval`; any other BLIP-2 embeds images alone.

    Raises:
        UserError: the model is not found, does not fit, or is of another family.
    """
    return EmbeddingModel(resolve_model(str(name)))


class EmbeddingModel:
    """Embeds images and texts by the contrast (ITC) heads.

    An image has one unit vector per query token (I, Q, E), a text one (M, 1, E). Without contrast
    heads an image has the mean of its query outputs (I, 1, D), and texts are refused.
    """

    def __init__(self, opened: ResolvedModel) -> None:
        self.name = opened.name
        self._aligned: AlignmentModel | None = None
        if has_contrast(opened):
            self._aligned = open_alignment(opened)
            self.loaded = self._aligned.loaded
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
        self, images: ImageLike | Iterable[ImageLike], *, batch_size: int = 16, workers: int = 0
    ) -> FloatArray:
        """Unit vectors (I, Q, E) float32; arguments and errors as `VisionLanguageModel.caption`."""
        one = isinstance(images, ImageLike) or not isinstance(images, Iterable)
        listed: Iterable[Any] = [images] if one else images  # type: ignore[assignment]
        sources = [image_source(image, where="images") for image in listed]
        if not sources:
            raise DataError("an empty list", where="images", expected="one image or more")
        batches = self.batches(sources, batch_size=batch_size, workers=workers, skip=False)
        return np.concatenate([vectors for _, vectors in batches])

    @torch.no_grad()
    def batches(
        self, sources: Sequence[ImageSource], *, batch_size: int, workers: int, skip: bool
    ) -> Iterator[tuple[list[str], FloatArray]]:
        """Names and vectors of images, batch by batch.

        Args:
            skip: leave out images that cannot be decoded, and count them; else raise `ImageError`.
        """
        failed, names = [], iter(source.name for source in sources)
        collator = self.loaded.collator
        for pixels, problems in pixel_chunks(collator, sources, size=batch_size, workers=workers):
            named = [(next(names), problem) for problem in problems]
            failed += [problem for problem in problems if problem is not None]
            if failed and not skip:
                raise failed[0]
            if pixels is not None:
                usable = [name for name, problem in named if problem is None]
                yield usable, self._vectors(pixels).cpu().numpy()
        if failed:
            says = "images that cannot be decoded, left out: %d of %d, first %s: %s"
            logger.warning(says, len(failed), len(sources), failed[0].where, failed[0].given)

    def embed_texts(self, texts: str | Sequence[str]) -> FloatArray:
        """Unit vectors (M, 1, E) float32 of texts, which are cleaned and truncated as in training.

        Raises:
            CheckpointError: it has no contrast heads.
            DataError: an empty list.
        """
        if self._aligned is None:
            raise no_contrast(self.name)
        listed = [texts] if isinstance(texts, str) else texts
        if not len(listed):
            raise DataError("an empty list", where="texts", expected="one text or more")
        cleaned = [self.loaded.template.cleaned("caption", text) for text in listed]
        return self._aligned.text_vectors(cleaned).cpu().numpy()[:, None]

    def similarity(self, first: FloatArray, second: FloatArray) -> FloatArray:
        """As `vector_search.similarities`."""
        return similarities(first, second)

    def _vectors(self, pixels: Tensor) -> Tensor:
        if self._aligned is not None:
            return self._aligned.image_vectors(pixels)
        model = self.loaded.blip2
        states = query_states(model, encode_vision(model, pixels.to(model.device, model.dtype)))
        means = require_finite(states.float().mean(dim=1, keepdim=True), "the vectors")
        return normalize(means, dim=-1)


def vector_settings(opened: ResolvedModel) -> dict[str, Any]:
    """The model of a file of vectors: its name, and `made_by`, which must be equal to mix vectors:
    hashes of the weights, text cleaning, and whether the contrast heads made them."""
    path, recipe = Path(opened.name), opened.recipe
    made_by = {
        "base_weights_sha256": base_hash(recipe, base_of(recipe)),
        "adapter_sha256": fingerprints(path / "adapter") if opened.kind == "run" else {},
        "text": recipe.data.text,
        "contrast": has_contrast(opened),
    }
    return {"model": str(path.resolve()) if path.exists() else opened.name, "made_by": made_by}
