"""Image-text retrieval of a split: recall at K in both directions.

Shape letters: I images, M texts, Q query tokens, P patches, E embedding width.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from itertools import chain, groupby

import torch
from torch import Tensor

from qvft.data.pixels import pixel_chunks
from qvft.data.sample import ImageSource
from qvft.evaluation.embedding_metrics import WAYS, recall_metric, recall_name
from qvft.evaluation.metric import GroupScores, ScoreValue
from qvft.evaluation.metrics.retrieval import CUTOFFS, image_ranks, text_ranks
from qvft.evaluation.rows import PredictionRow
from qvft.inference.distributed import chunks_shared
from qvft.models.alignment.scoring import best_candidates, matching_scores, reranked, similarity
from qvft.setup.alignment_model import AlignmentModel

PAIRS_AT_ONCE = 256
"""Pairs per ITM batch: their ViT-g features take 370 MB in float32."""


@torch.no_grad()
def retrieval_group(
    aligned: AlignmentModel,
    rows: Sequence[PredictionRow],
    sources: Sequence[ImageSource],
    *,
    top: int,
    batch_size: int,
    workers: int,
) -> GroupScores:
    """Recall of image-to-text and text-to-image retrieval over all rows of captions, questions
    ignored: by ITC only, and, if ITM was trained, with each query's `top` candidates re-ranked.

    Distributed: each process encodes and scores its share, and all have the results.

    Memory: of an image its vectors are kept (Q x E float32, 32 KB for ViT-g's 32 queries of 256),
    not its ViT features (1.4 MB): for matching, each image is encoded once more with the pairs that
    it is a candidate in. On the host, up to four matrices (I, M) of float32 and one of bool: 2.1 GB
    for COCO's 5,000 test images and their 25,000 captions.

    Args:
        batch_size: images, and texts, encoded together.

    Raises:
        ImageError: an image is unusable.
    """
    chosen = [index for index, row in enumerate(rows) if row.kind == "caption"]
    images = [sources[index] for index in chosen]
    template = aligned.loaded.template
    texts = [
        template.cleaned("caption", caption)
        for index in chosen
        for caption in rows[index].references
    ]
    owners = [place for place, index in enumerate(chosen) for _ in rows[index].references]

    def pixels(sources: Iterable[ImageSource]) -> Iterator[Tensor]:
        found = pixel_chunks(
            aligned.loaded.collator, list(sources), size=batch_size, workers=workers
        )
        for chunk, problems in found:
            for problem in problems:
                if problem is not None:
                    raise problem
            assert chunk is not None
            yield chunk

    def image_vectors(chunks: Sequence[Sequence[ImageSource]]) -> Iterator[Tensor]:
        return (aligned.image_vectors(chunk).cpu() for chunk in pixels(chain(*chunks)))

    def text_vectors(chunks: Sequence[Sequence[str]]) -> Iterator[Tensor]:
        return (aligned.text_vectors(chunk, batch_size=batch_size).cpu() for chunk in chunks)

    vectors = (
        torch.cat(chunks_shared(images, image_vectors, size=batch_size)),  # (I, Q, E)
        torch.cat(chunks_shared(texts, text_vectors, size=batch_size)),  # (M, E)
    )
    device = aligned.loaded.model.device
    cosines = similarity(*(one.to(device) for one in vectors)).cpu()
    recalls = partial(_recalls, rows, chosen, owners)
    metrics = recalls(cosines, cosines, suffix="", how="by cosine (ITC)")
    if "itm" in aligned.branch.objectives:
        for_images, for_texts = best_candidates(cosines, top), best_candidates(cosines.T, top)
        wanted = torch.zeros(cosines.shape, dtype=torch.bool)
        wanted.scatter_(1, for_images, True)
        wanted.T.scatter_(1, for_texts, True)
        encoded = aligned.encode(texts)

        def match(chunks: Sequence[Sequence[int]]) -> Iterator[Tensor]:
            arriving = pixels(images[number] for number in chain(*chunks))
            for numbers, chunk in zip(chunks, arriving, strict=True):
                pairs = wanted[list(numbers)].nonzero()
                yield _of_pairs(aligned, aligned.features(chunk), encoded, pairs)

        matching = torch.zeros(wanted.shape)
        numbers = range(len(images))
        matching[wanted] = torch.cat(chunks_shared(numbers, match, size=batch_size))
        metrics += recalls(
            reranked(cosines, for_images, matching),
            reranked(cosines.T, for_texts, matching.T).T,
            suffix="_reranked",
            how=f"by cosine (ITC), the {top} best of each ranked anew by matching (ITM)",
        )
    return GroupScores(len(texts), metrics)


def _of_pairs(
    aligned: AlignmentModel, features: Tensor, encoded: tuple[Tensor, Tensor], pairs: Tensor
) -> Tensor:
    """ITM scores (N,) on the CPU of pairs (N, 2), indices of image and text."""
    input_ids, text_mask = encoded
    found = [
        matching_scores(
            aligned.loaded.blip2,
            aligned.branch.heads,
            features=features[image.to(features.device)],
            input_ids=input_ids[text.to(input_ids.device)],
            text_mask=text_mask[text.to(input_ids.device)],
        ).cpu()
        for image, text in (part.T for part in pairs.split(PAIRS_AT_ONCE))
    ]
    return torch.cat(found)


def _recalls(
    rows: Sequence[PredictionRow],
    chosen: Sequence[int],
    owners: Sequence[int],
    of_images: Tensor,
    of_texts: Tensor,
    *,
    suffix: str,
    how: str,
) -> list[ScoreValue]:
    """Recalls in both directions, per image.

    Args:
        chosen: (I,) row of each image.
        owners: (M,) image of each text, in order.
        of_images, of_texts: scores (I, M) for ranking texts and images.
    """
    to_text = image_ranks(of_images.numpy(), owners)
    to_image = text_ranks(of_texts.numpy(), owners)
    of_image = groupby(zip(owners, to_image, strict=True), key=lambda pair: pair[0])
    ranks = [[int(rank) for _, rank in pairs] for _, pairs in of_image]
    metrics = []
    for way, found in zip(WAYS, ([[int(rank)] for rank in to_text], ranks), strict=True):
        for cutoff in CUTOFFS:
            items = {
                row: sum(rank < cutoff for rank in mine) / len(mine)
                for row, mine in zip(chosen, found, strict=True)
            }
            name = recall_name(way, cutoff, suffix)
            metrics.append(recall_metric(rows, name, items, how=how))
    return metrics
