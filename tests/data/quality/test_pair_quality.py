"""Quality of pairs: equal texts, contradictions, repetitions, rejected references, lengths."""

from __future__ import annotations

from pathlib import Path

from qvft.checking.pair_warnings import pair_warnings
from qvft.data.quality.pair_quality import PairQuality, pair_quality
from qvft.data.rows import preference_rows
from qvft.data.sample import ImageFile, Pair, Question, Sample


def quality(*pairs: tuple[str | None, str, str], second_image: bool = False) -> PairQuality:
    """Of pairs p0, p1, ... of one image; with `second_image` the last one is of another."""
    listed = [Pair(f"p{n}", *texts) for n, texts in enumerate(pairs)]
    own, other = (listed[:-1], listed[-1:]) if second_image else (listed, [])
    image = ImageFile(Path("a.png"))
    questions = (Question("q", "What is it?", ("a cat", "cat")),)
    samples = [Sample("a", image, ("a cat on a mat",), questions, pairs=tuple(own))]
    samples.append(Sample("b", ImageFile(Path("b.png")), pairs=tuple(other)))
    rows = preference_rows(samples)
    tokens = {text: len(text.split()) for row in rows for text in (row.target, row.rejected or "")}
    found = pair_quality(rows, lambda sample: sample.id, tokens)
    assert found is not None
    return found


def test_there_is_none_without_pairs() -> None:
    assert pair_quality([], lambda sample: sample.id, {}) is None


def test_texts_equal_after_normalisation_are_found() -> None:
    found = quality((None, "A dog.", "a  dog"), (None, "a dog", "a fox"))
    assert found.equal == ("p0",)


def test_a_over_b_and_b_over_a_contradict_each_other() -> None:
    what = "What is it?"
    found = quality(
        (what, "x", "y"), ("what is it", "Y", "x"), (what, "x", "y."), ("Why?", "y", "x")
    )
    assert found.contradictions == (("p0", "p1", "p2"),)
    assert found.repeated == ("p2",)


def test_other_images_and_captions_do_not_contradict_answers() -> None:
    assert not quality(("Q?", "x", "y"), (None, "y", "x")).contradictions
    assert not quality(("Q?", "x", "y"), ("Q?", "y", "x"), second_image=True).contradictions


def test_rejected_references_are_found() -> None:
    found = quality(
        ("What is it?", "a dog", "Cat"),
        ("Where?", "a dog", "cat"),
        (None, "a dog", "a cat on a mat"),
        (None, "a dog", "a cat"),
    )
    assert found.reference_rejected == ("p0", "p2")


def test_lengths_are_means_and_shares() -> None:
    found = quality((None, "a b c", "a"), (None, "a", "b"), (None, "a b", "c"), (None, "a", "b c"))
    assert (found.chosen_tokens, found.rejected_tokens) == (1.75, 1.25)
    assert (found.chosen_longer, found.rejected_longer) == (0.5, 0.25)
    assert found.uneven == ()


def test_much_longer_texts_are_named() -> None:
    long = " ".join(["word"] * 15)
    found = quality((None, long, "a b c d e"), (None, "a b c d e f", long), (None, "b", "a c d e"))
    assert found.uneven == ("p0",)


def test_a_length_bias_is_named_with_its_figures() -> None:
    pairs = [(None, f"long text {n}", f"no {n}") for n in range(9)]
    (warning,) = pair_warnings("train", quality(*pairs, (None, "a", "b")))
    assert "length bias: chosen texts have 2.8 tokens on average, rejected ones 1.9" in warning
    assert "longer in 90% of pairs, shorter in 0%" in warning
    assert pair_warnings("train", quality(*pairs)) == []  # too few pairs to say so
    balanced = [(None, f"a b {n}", f"c {n}") if n % 2 else (None, f"c {n}", f"a b {n}")
                for n in range(10)]  # fmt: skip
    assert pair_warnings("train", quality(*balanced)) == []


def test_every_finding_has_a_warning_without_texts() -> None:
    long = " ".join(["word"] * 15)
    found = quality(
        (None, "secret", "Secret."), (None, "x", "y"), (None, "y", "x"), (None, "x", "y"),
        (None, "z", "a cat on a mat"), (None, long, "w"),
    )  # fmt: skip
    warnings = pair_warnings("train", found)
    assert len(warnings) == 5
    assert [id for id in ("p0", "p3", "p4", "p5", "p1, p2, p3") if id not in str(warnings)] == []
    assert "secret" not in str(warnings).lower()
