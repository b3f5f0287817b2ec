"""CIDEr of single captions with the document frequencies of a corpus."""

import pytest

from qvft.evaluation.metrics.cider import CorpusCider, cider_d
from qvft.evaluation.metrics.ngrams import CaptionBatch

REFERENCES = [
    [["a", "red", "square", "above", "a", "small", "blue", "circle"], ["a", "red", "square"]],
    [["two", "green", "dots"], ["green", "dots", "on", "a", "grey", "field"]],
    [["a", "blue", "circle", "with", "a", "red", "edge"]],
    [["word"]],
]
PREDICTIONS = [
    ["a", "red", "square", "above", "a", "circle"],
    ["green", "green", "dots"],
    [],
    ["word", "word"],
]


def test_with_the_frequencies_of_its_own_items_it_is_the_toolkits() -> None:
    expected = cider_d(CaptionBatch.from_tokens(PREDICTIONS, REFERENCES))
    cider = CorpusCider(REFERENCES)
    found = [cider(*pair) for pair in zip(PREDICTIONS, REFERENCES, strict=True)]
    assert max(found) > 1
    # Sums of some ten float64 numbers of size 1 in another order.
    assert found == pytest.approx(list(expected), abs=1e-12)


def test_a_caption_is_scored_alone_by_the_corpus_not_by_its_batch() -> None:
    cider = CorpusCider(REFERENCES)
    alone = cider(PREDICTIONS[0], REFERENCES[0])
    by_batch = cider_d(CaptionBatch.from_tokens(PREDICTIONS[:1], REFERENCES[:1]))
    assert alone > 1
    assert by_batch[0] == 0  # a single document has no rare word
