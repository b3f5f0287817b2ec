"""Similarities of vectors, and pairs above a threshold, by arithmetic."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from qvft.inference import vector_search
from qvft.inference.vector_file import write_vectors
from qvft.inference.vector_search import near_duplicates, nearest, similarities


def units(*shape: int) -> np.ndarray:
    values = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    return values / np.linalg.norm(values, axis=-1, keepdims=True)


def test_a_text_is_as_near_as_the_best_query_and_an_image_as_its_queries_on_average() -> None:
    images, texts = units(5, 3, 4), units(2, 1, 4)
    best = np.einsum("nqe,me->nmq", images, texts[:, 0]).max(axis=2)
    # float32, summed in another order.
    np.testing.assert_allclose(similarities(images, texts), best, atol=1e-6)
    np.testing.assert_allclose(similarities(texts, images), best.T, atol=1e-6)
    mean = np.einsum("nqe,mqe->nmq", images, images).mean(axis=2)
    np.testing.assert_allclose(similarities(images, images), mean, atol=1e-6)
    np.testing.assert_allclose(np.diag(similarities(images, images)), 1, atol=1e-6)


@pytest.mark.parametrize("suffix", [".parquet", ".npy", ".safetensors"])
def test_blocks_change_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str
) -> None:
    vectors, names = units(7, 2, 4), [str(index) for index in range(7)]
    batches = [(names[:5], vectors[:5]), (names[5:], vectors[5:])]
    settings = {"kind": "image"}
    file = write_vectors(tmp_path / f"v{suffix}", settings, batches)
    scores = similarities(vectors, vectors)
    upper = np.argwhere(np.triu(scores >= 0, k=1))
    order = np.argsort(-scores[upper[:, 0], upper[:, 1]])[:4]
    monkeypatch.setattr(vector_search, "AT_ONCE", 3 * 8)  # three rows
    count, pairs, similar = near_duplicates(file, 0.0, 4)
    assert count == len(upper) and pairs.tolist() == upper[order].tolist()
    np.testing.assert_allclose(similar, scores[upper[order, 0], upper[order, 1]], atol=1e-6)
    indices, _ = nearest(file, vectors[:2], 3)
    assert indices.tolist() == np.argsort(-scores[:2], axis=1)[:, :3].tolist()
