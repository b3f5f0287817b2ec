"""Who sees whom: by the masks, and by what moves when a token or an image changes."""

import pytest
import torch
from torch import Tensor

from qvft.models.alignment.qformer_states import joint_states, pattern, text_states, visibility
from qvft.models.blip2 import query_states

QUERIES, TOKENS = 4, 5
# Two queries, three text tokens; rows read columns. Drawn after the paper's figure 2.
EXPECTED = {
    "unimodal": ["11000", "11000", "00111", "00111", "00111"],
    "bidirectional": ["11111"] * 5,
    "multimodal_causal": ["11000", "11000", "11100", "11110", "11111"],
}


def outputs(twins, kind: str, input_ids: Tensor, features: Tensor) -> Tensor:
    with torch.no_grad():
        return joint_states(
            twins.model,
            twins.heads,
            features=features,
            input_ids=input_ids,
            text_mask=twins.text_mask,
            kind=kind,
        )


def moved(before: Tensor, after: Tensor) -> list[bool]:
    """By position, whether an output differs at all; what is not read cannot move a bit of it."""
    return [bool(x) for x in (before != after).any(dim=-1)]


@pytest.mark.parametrize("kind", EXPECTED)
def test_the_pattern_is_the_papers(kind: str) -> None:
    found = pattern(kind, queries=2, tokens=3)
    assert ["".join(str(int(cell)) for cell in row) for row in found] == EXPECTED[kind]


@pytest.mark.parametrize("kind", EXPECTED)
def test_nothing_sees_padding(kind: str) -> None:
    found = visibility(kind, queries=2, text_mask=torch.tensor([[1, 1, 1], [1, 1, 0]]))
    assert torch.equal(found[0], pattern(kind, queries=2, tokens=3))
    assert torch.equal(found[1, :, :4], found[0, :, :4])
    assert not found[1, :, 4].any()


def test_text_alone_is_the_unimodal_texts_part() -> None:
    mask = torch.tensor([[1, 1, 1], [1, 0, 0]])
    alone = visibility("unimodal", queries=0, text_mask=mask)
    assert torch.equal(alone, visibility("unimodal", queries=2, text_mask=mask)[:, 2:, 2:])


@pytest.mark.parametrize("token", range(TOKENS))
@pytest.mark.parametrize("kind", EXPECTED)
def test_a_changed_token_moves_what_may_see_it(twins, kind: str, token: int) -> None:
    changed = twins.input_ids.clone()
    changed[:, token] = (changed[:, token] + 7) % 50
    features = twins.features
    before = outputs(twins, kind, twins.input_ids, features)
    after = outputs(twins, kind, changed, features)
    seen = pattern(kind, queries=QUERIES, tokens=TOKENS)[:, QUERIES + token].tolist()
    assert moved(before[0], after[0]) == seen
    if token >= 3:  # padding of the second text: nobody but itself
        itself = [place == QUERIES + token for place in range(QUERIES + TOKENS)]
        assert moved(before[1], after[1]) == itself


@pytest.mark.parametrize(
    ("kind", "text_moves"),
    [("unimodal", False), ("bidirectional", True), ("multimodal_causal", True)],
)
def test_another_image_moves_the_queries_and_what_reads_them(twins, kind, text_moves) -> None:
    features = twins.features
    before = outputs(twins, kind, twins.input_ids, features)
    after = outputs(twins, kind, twins.input_ids, features.flip(0))
    assert moved(before[0], after[0]) == [True] * QUERIES + [text_moves] * TOKENS


def test_apart_is_the_same_as_together_under_the_unimodal_mask(twins) -> None:
    features = twins.features
    together = outputs(twins, "unimodal", twins.input_ids, features)
    with torch.no_grad():
        queries = query_states(twins.model, features)
        text = text_states(twins.model, twins.heads, **twins.texts)
    # float64 of values near 1, summed in another order.
    torch.testing.assert_close(together[:, :QUERIES], queries, rtol=0, atol=1e-12)
    valid = twins.text_mask.bool()
    torch.testing.assert_close(together[:, QUERIES:][valid], text[valid], rtol=0, atol=1e-12)


def test_queries_before_causal_text_are_the_queries_alone(twins) -> None:
    features = twins.features
    causal = outputs(twins, "multimodal_causal", twins.input_ids, features)
    with torch.no_grad():
        queries = query_states(twins.model, features)
    torch.testing.assert_close(causal[:, :QUERIES], queries, rtol=0, atol=1e-12)


@pytest.mark.parametrize("kind", EXPECTED)
def test_padding_changes_nothing(twins, kind: str) -> None:
    features = twins.features[1:2]
    ids, mask = twins.input_ids[1:2], twins.text_mask[1:2]
    with torch.no_grad():
        padded, bare = (
            joint_states(
                twins.model,
                twins.heads,
                features=features,
                input_ids=ids[:, :width],
                text_mask=mask[:, :width],
                kind=kind,
            )[:, : QUERIES + 3]
            for width in (5, 3)
        )
    torch.testing.assert_close(padded, bare, rtol=0, atol=1e-12)


def test_the_eager_kernel_obeys_the_same_mask(twins) -> None:
    features = twins.features
    fast = outputs(twins, "multimodal_causal", twins.input_ids, features)
    config = twins.model.qformer.config
    kernel = config._attn_implementation
    assert kernel == "sdpa"
    try:
        config._attn_implementation = "eager"
        plain = outputs(twins, "multimodal_causal", twins.input_ids, features)
    finally:
        config._attn_implementation = kernel
    torch.testing.assert_close(plain, fast, rtol=0, atol=1e-12)


def test_checkpointing_changes_no_gradient(twins) -> None:
    def gradient() -> Tensor:
        twins.heads.zero_grad()
        states = joint_states(
            twins.model, twins.heads, features=twins.features, **twins.texts, kind="bidirectional"
        )
        states.square().mean().backward()
        return twins.heads.embeddings.word_embeddings.weight.grad.clone()

    layers = twins.model.qformer.encoder.layer
    plain = gradient()
    try:
        for layer in layers:
            # Only checkpointed layers look at `training`; dropout's modules stay in evaluation.
            layer.gradient_checkpointing, layer.training = True, True
        saved = gradient()
    finally:
        for layer in layers:
            layer.gradient_checkpointing, layer.training = False, False
        twins.heads.zero_grad()
        twins.model.zero_grad()
    assert plain.abs().sum() > 0
    torch.testing.assert_close(saved, plain, rtol=0, atol=1e-12)
