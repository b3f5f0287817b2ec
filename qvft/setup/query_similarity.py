"""Query token collapse: cosine similarity between a model's query tokens, on a few images."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.nn.functional import normalize

from qvft.data.sample import Sample
from qvft.models.forward_stages import encode_vision, query_states
from qvft.setup.model import Loaded, device

IMAGES = 8
"""Number of images to check: collapsed queries are collapsed for every image."""

COLLAPSED = 0.995
"""Threshold of the mean cosine. The bundled model has 0.77 to 0.92, depending on the images."""


@torch.no_grad()
def query_similarity(loaded: Loaded, samples: Sequence[Sample]) -> float | None:
    """Mean cosine similarity between outputs of two query tokens, over pairs and images.

    None for a model with one query token. Runs in evaluation mode and restores the mode.

    Args:
        samples: their first images are used; with a feature cache, images that are in it.
    """
    model = loaded.model
    sources = [sample.image for sample in samples[:IMAGES]]
    place = device()
    seen = loaded.collator.seen(sources, [0] * len(sources))
    trained = model.training
    model.eval()
    try:
        if "features" in seen:
            features = seen["features"].to(place)
        else:
            features = encode_vision(model, seen["pixel_values"].to(place))
        states = normalize(query_states(model, features).float(), dim=-1)
    finally:
        model.train(trained)
    count = states.shape[1]
    if count < 2:
        return None
    cosines = states @ states.transpose(1, 2)
    return float(((cosines.sum(dim=(1, 2)) - count) / (count * (count - 1))).mean())


def collapse_warning(query_similarity: float) -> list[str]:
    """Warning if the query tokens have collapsed."""
    if query_similarity < COLLAPSED:
        return []
    return [
        "The query tokens have collapsed onto one another: their outputs of the Q-Former have a "
        f"mean cosine of {query_similarity:.3f}, so all of them describe an image alike. Try "
        "lower learning rates for qformer and query_tokens (train.learning_rate), more "
        "train.warmup_steps, or trainable.query_tokens=frozen."
    ]
