"""Similarities in blocks, re-ranking, and classes by prompts."""

import pytest
import torch
from torch.nn.functional import normalize

from qvft.errors import UserError
from qvft.models.alignment.qformer_states import matching_logits
from qvft.models.alignment.scoring import (
    best_candidates,
    class_embeddings,
    matching_scores,
    reranked,
    similarity,
)


def test_the_best_query_counts() -> None:
    images = torch.tensor([[[1.0, 0.0], [0.6, 0.8]]])
    texts = torch.tensor([[0.0, 1.0], [1.0, 0.0], [-1.0, 0.0]])
    # Query by query: 0 and 0.8; 1 and 0.6; -1 and -0.6.
    assert similarity(images, texts)[0].tolist() == pytest.approx([0.8, 1.0, -0.6])


@pytest.mark.parametrize("block_elements", [1, 3 * 4 * 5, 10**9])
def test_blocks_change_nothing(block_elements: int) -> None:
    generator = torch.Generator().manual_seed(0)
    images = normalize(torch.randn(7, 4, 6, generator=generator), dim=-1)
    texts = normalize(torch.randn(5, 6, generator=generator), dim=-1)
    expected = torch.einsum("iqe,me->imq", images, texts).amax(dim=-1)
    found = similarity(images, texts, block_elements=block_elements)
    # Dot products of six float32 numbers in another order.
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)


def test_no_images_have_no_similarities() -> None:
    assert similarity(torch.zeros(0, 4, 6), torch.zeros(5, 6)).shape == (0, 5)


@torch.no_grad()
def test_matching_scores_are_the_logits_of_belonging(twins) -> None:
    rows = {"features": twins.features, **twins.texts}
    found = matching_scores(twins.model, twins.heads, **rows)
    assert torch.equal(found, matching_logits(twins.model, twins.heads, **rows)[:, 1])


COSINES = torch.tensor([[0.9, 0.8, 0.1, 0.2], [-0.5, 0.3, 0.4, -0.6]])
# Matching turns the best two of each row around.
MATCHING = torch.tensor([[-4.0, 2.0, 9.0, 9.0], [9.0, 3.0, -9.0, 9.0]])


def test_the_best_candidates_are_ordered_by_matching_and_the_rest_follow() -> None:
    candidates = best_candidates(COSINES, 2)
    assert [sorted(row) for row in candidates.tolist()] == [[0, 1], [1, 2]]
    found = reranked(COSINES, candidates, MATCHING)
    assert found.argsort(dim=1, descending=True).tolist() == [[1, 0, 3, 2], [1, 2, 0, 3]]
    # Matching logit plus cosine: 2 + 0.8 and -4 + 0.9; 3 + 0.3 and -9 + 0.4.
    assert found[0, :2].tolist() == pytest.approx([-3.1, 2.8])
    assert found[1, 1:3].tolist() == pytest.approx([3.3, -8.6])


def test_transposes_rank_the_other_way() -> None:
    found = reranked(COSINES.T, best_candidates(COSINES.T, 1), MATCHING.T)
    # The best row of each column keeps its place, whatever matching says of the others.
    assert found.argmax(dim=1).tolist() == COSINES.argmax(dim=0).tolist()


def test_more_than_there_are_means_all() -> None:
    found = reranked(COSINES, best_candidates(COSINES, 50), MATCHING)
    # float32 sums near 10.
    torch.testing.assert_close(found, MATCHING + COSINES, rtol=0, atol=1e-5)


VECTORS = {
    "a cat": [1.0, 0.0],
    "my cat": [0.0, 1.0],
    "a dog": [-1.0, 0.0],
    "my dog": [-0.6, 0.8],
}


def test_a_class_is_the_direction_of_its_prompts_mean() -> None:
    def embed(texts: list[str]) -> torch.Tensor:
        return torch.tensor([VECTORS[text] for text in texts])

    found = class_embeddings(["cat", "dog"], ["a {}", "my {}"], embed=embed)
    # Means (0.5, 0.5) and (-0.8, 0.4), brought to length 1.
    assert found[0].tolist() == pytest.approx([0.5**0.5, 0.5**0.5])
    assert found[1].tolist() == pytest.approx([-2 / 5**0.5, 1 / 5**0.5])


@pytest.mark.parametrize(
    ("names", "templates", "message"),
    [
        ([], ["a {}"], "0 classes"),
        (["cat", "cat"], ["a {}"], "each once"),
        (["cat", " "], ["a {}"], "without a name"),
        (["cat"], [], "no template"),
        (["cat"], ["a photo"], "`a photo`"),
        (["cat"], ["{} or {}"], "`{} or {}`"),
    ],
)
def test_wrong_classes_and_templates_are_refused(names, templates, message: str) -> None:
    with pytest.raises(UserError, match=message.replace("{", r"\{")):
        class_embeddings(names, templates, embed=lambda texts: torch.zeros(len(texts), 2))
