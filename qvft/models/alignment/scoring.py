"""Image-text similarity scores for retrieval and zero-shot classification.

Shape letters: I images, M texts, N pairs, C classes, P patches, Q query tokens, T text tokens,
E embedding width.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn.functional import normalize
from transformers import Blip2ForConditionalGeneration

from qvft.errors import UserError
from qvft.models.alignment.heads import AlignmentHeads
from qvft.models.alignment.qformer_states import matching_logits

BLOCK_ELEMENTS = 1 << 25
"""Numbers in one block of similarities by query: 128 MiB in float32."""


def similarity(images: Tensor, texts: Tensor, *, block_elements: int = BLOCK_ELEMENTS) -> Tensor:
    """Cosines (I, M) float32, those of the best query of each image.

    Without blocks, 5,000 images of 32 queries against 25,000 texts would take 16 GB on the way to
    a matrix of 0.5 GB; a block bounds that. Differentiable, on the device of `images`.

    Args:
        images: unit vectors (I, Q, E).
        texts: unit vectors (M, E).

    Source: BLIP-2, arXiv 2301.12597, section 3.2 ("image-text contrastive learning").
    """
    count, queries, _ = images.shape
    at_once = max(1, block_elements // max(1, queries * len(texts)))
    # 3 digits of bfloat16 would tie what is close.
    with torch.autocast(images.device.type, enabled=False):
        blocks = [
            (images[start : start + at_once] @ texts.T).amax(dim=1)
            for start in range(0, count, at_once)
        ]
    return torch.cat(blocks) if blocks else images.new_zeros(0, len(texts))


@torch.no_grad()
def matching_scores(
    model: Blip2ForConditionalGeneration, heads: AlignmentHeads, **rows: Tensor
) -> Tensor:
    """How well each text matches its image (N,) float32: the logit of "match".

    The logit alone, not its softmax: re-ranking adds it to the cosine (Source: LAVIS,
    lavis/models/blip2_models/blip2_qformer.py, `compute_itm`).
    """
    return matching_logits(model, heads, **rows)[:, 1]


def best_candidates(cosines: Tensor, top: int) -> Tensor:
    """Indices (R, N) of each row's `top` best candidates among (R, K); all where there are fewer.

    Give `cosines.T` to choose images for texts.
    """
    return cosines.topk(min(top, cosines.shape[1]), dim=1).indices


def reranked(cosines: Tensor, candidates: Tensor, matching: Tensor) -> Tensor:
    """Scores (R, K) that rank each row's candidates first, ordered by matching.

    A candidate scores its matching logit plus its cosine. All others score below them,
    in the order of their cosines. Give transposes to rank images for texts.

    Args:
        cosines: (R, K) from `similarity`.
        candidates: (R, N) from `best_candidates`.
        matching: (R, K) matching scores; only those of candidates are used.

    Source: LAVIS, lavis/models/blip2_models/blip2_qformer.py, `compute_sim_matrix`, which gives
    the others -100 each and so leaves their order to chance.
    """
    scored = matching.gather(1, candidates) + cosines.gather(1, candidates)
    # Cosines lie in [-1, 1]: 3 below the least of the re-ranked keeps every other under it.
    below = scored.amin(dim=1, keepdim=True) - 3
    return (cosines + below).scatter_(1, candidates, scored)


def class_embeddings(
    names: Sequence[str], templates: Sequence[str], *, embed: Callable[[list[str]], Tensor]
) -> Tensor:
    """Unit vectors (C, E), for each class the direction of the mean over its prompts.

    `similarity` of images with these classifies without training.

    Args:
        templates: prompts with `{}` once, in place of the class.
        embed: texts to unit vectors (len(texts), E).

    Source: CLIP, arXiv 2103.00020, section 3.1.4 (an ensemble over embeddings).
    """
    check_classes(names, templates)
    prompts = [template.replace("{}", name) for name in names for template in templates]
    vectors = embed(prompts)
    return normalize(vectors.reshape(len(names), len(templates), -1).mean(dim=1), dim=-1)


def check_classes(names: Sequence[str], templates: Sequence[str]) -> None:
    """Raises UserError if there is no class or no template, a class is empty or comes twice, or a
    template has not exactly one `{}`; before anything is loaded.
    """
    if not names or len(set(names)) < len(names):
        raise UserError(f"{len(names)} classes", expected="one or more, each once")
    if not all(name.strip() for name in names):
        raise UserError("a class without a name")
    if not templates:
        raise UserError("no template", expected="one or more, such as `a photo of {}`")
    for template in templates:
        if template.count("{}") != 1:
            raise UserError(f"template `{template}`", expected="`{}` once, in place of the class")
