"""Embeddings and matching logits are those of transformers' retrieval class."""

import torch
from torch import Tensor

from qvft.models.alignment.qformer_states import (
    generation_logits,
    image_embeddings,
    matching_logits,
    text_embeddings,
)
from qvft.models.alignment.scoring import similarity
from qvft.models.blip2 import query_states

QUERIES = 4


def plain_scores(twins, *, matching: bool) -> Tensor:
    """transformers' scores; it takes as many image tokens in front as there are queries."""
    image_tokens = twins.input_ids.new_full((3, QUERIES), twins.plain.config.image_token_index)
    with torch.no_grad():
        return twins.plain(
            pixel_values=twins.pixels,
            input_ids=torch.cat([image_tokens, twins.input_ids], dim=1),
            attention_mask=torch.cat([torch.ones_like(image_tokens), twins.text_mask], dim=1),
            use_image_text_matching_head=matching,
        ).logits_per_image


@torch.no_grad()
def test_cosines_are_the_retrieval_classs(twins) -> None:
    images = image_embeddings(twins.heads, query_states(twins.model, twins.features))
    texts = text_embeddings(twins.model, twins.heads, **twins.texts)
    theirs = plain_scores(twins, matching=False)
    assert theirs.std() > 0.01
    # Weights in float64; embeddings are made float32 before they are normalised: 6e-8 of 1.
    torch.testing.assert_close(similarity(images, texts).double(), theirs, rtol=0, atol=1e-6)


@torch.no_grad()
def test_matching_logits_are_the_retrieval_classs(twins) -> None:
    ours = matching_logits(twins.model, twins.heads, features=twins.features, **twins.texts)
    theirs = plain_scores(twins, matching=True)
    assert theirs.std() > 0.01
    # As above, for logits near 1.
    torch.testing.assert_close(ours.double(), theirs, rtol=0, atol=1e-6)


@torch.no_grad()
def test_embeddings_have_length_one(twins) -> None:
    images = image_embeddings(twins.heads, query_states(twins.model, twins.features))
    texts = text_embeddings(twins.model, twins.heads, **twins.texts)
    assert images.shape == (3, QUERIES, 10) and texts.shape == (3, 10)
    for vectors in (images, texts):
        # float32 squares of ten numbers add up to 1 within a few 6e-8.
        torch.testing.assert_close(vectors.norm(dim=-1), torch.ones(vectors.shape[:-1]))


@torch.no_grad()
def test_generation_logits_are_tied_to_the_word_embeddings(twins) -> None:
    arguments = {"features": twins.features, **twins.texts}
    before = generation_logits(twins.model, twins.heads, **arguments)
    assert before.shape == (3, 5, 60)
    words = twins.heads.embeddings.word_embeddings.weight
    unused = next(i for i in range(1, 60) if not (twins.input_ids == i).any())
    kept = words[unused].clone()
    try:
        words[unused] += 1.0
        after = generation_logits(twins.model, twins.heads, **arguments)
    finally:
        words[unused] = kept
    columns = (before != after).flatten(0, 1).any(dim=0)
    assert columns.nonzero().flatten().tolist() == [unused]


@torch.no_grad()
def test_the_start_token_stands_first_when_text_is_generated(twins) -> None:
    arguments = {"features": twins.features, "text_mask": twins.text_mask}
    replaced = twins.input_ids.clone()
    replaced[:, 0] = 1
    expected = generation_logits(twins.model, twins.heads, input_ids=replaced, **arguments)
    try:
        twins.heads.generation_start_id = 1
        found = generation_logits(twins.model, twins.heads, input_ids=twins.input_ids, **arguments)
    finally:
        twins.heads.generation_start_id = None
    assert torch.equal(found, expected)
