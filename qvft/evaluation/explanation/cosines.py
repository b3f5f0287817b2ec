"""Cosine similarity between QVision's visual tokens and image patches.

The context token is the first visual token, followed by the query tokens. Patches are outputs of
the encoder's linear layer, which has the width of the visual tokens.

Shape letters: Q visual tokens, R rows and C columns of patches.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from torch import Tensor
from torch.nn.functional import normalize

from qvft.models.attention_capture import Attention

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Cosines:
    """The three cosine similarities that the published QVision shows of an image.

    Attributes:
        context_to_queries: (Q - 1,) the context token with each query token.
        context_to_patches: (R, C) the context token with each patch.
        queries_to_patches: (R, C) the mean over the query tokens of their cosine with each patch.
    """

    context_to_queries: FloatArray
    context_to_patches: FloatArray
    queries_to_patches: FloatArray


def cosines(attention: Attention, row: int) -> Cosines | None:
    """Cosine similarities of a row's image; None if patches are in another space."""
    if attention.features is None:
        return None
    context, queries = normalize(attention.queries[row], dim=-1).tensor_split([1])
    patches = normalize(attention.features[row], dim=-1)
    return Cosines(
        context_to_queries=_array((queries @ context.T)[:, 0]),
        context_to_patches=_array((context @ patches.T).view(attention.grid)),
        queries_to_patches=_array((queries @ patches.T).mean(dim=0).view(attention.grid)),
    )


def _array(tensor: Tensor) -> FloatArray:
    return tensor.double().cpu().numpy()
