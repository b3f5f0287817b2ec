from __future__ import annotations

import csv
import json
import math
import random
from pathlib import Path

import pytest

from qvft import cpu_threads
from qvft.errors import DataError
from qvft.evaluation.metrics import ngrams, word_numbers
from qvft.evaluation.metrics.captions import NAMES, CaptionScores, score_batch, score_captions
from qvft.evaluation.metrics.ngrams import CaptionBatch
from qvft.evaluation.metrics.tokenize import tokenize
from qvft.evaluation.metrics.vqa import vqa_accuracy

# The official scripts and this module add the same doubles in another order.
ROUNDING = 1e-12


def score_tokens(
    references: dict[str, list[list[str]]], predictions: dict[str, list[str]]
) -> CaptionScores:
    known = [references[key] for key in predictions]
    return score_batch(list(predictions), CaptionBatch.from_tokens(predictions.values(), known))


def test_corpus_and_items_equal_the_toolkit_on_real_captions(shared_data: Path) -> None:
    folder = shared_data / "caption_metrics" / "aac_metrics"
    with (folder / "example_1.csv").open(encoding="utf-8", newline="") as stream:
        rows = list(csv.reader(stream))[1:]
    official = json.loads((folder / "official_scores_computed.json").read_text())
    per_item = json.loads((folder / "example_1_per_item.json").read_text())["per_image"]
    scores = score_captions(
        {str(i): row[1:] for i, row in enumerate(rows)},
        {str(i): row[0] for i, row in enumerate(rows)},
    )
    assert len(scores.bleu_counts) == 464
    for name in NAMES:
        expected = official["example_1.csv"]["scores"][name]
        assert scores.corpus[name] == pytest.approx(expected, abs=ROUNDING)
        assert list(scores.per_item[name].values()) == pytest.approx(per_item[name], abs=ROUNDING)


def test_equals_nlg_evals_published_scores(shared_data: Path) -> None:
    folder = shared_data / "caption_metrics" / "nlg_eval"
    texts = {n: (folder / f"{n}.txt").read_text().splitlines() for n in ("hyp", "ref1", "ref2")}
    published = json.loads((folder / "published_scores.json").read_text())["files_hyp_ref1_ref2"]
    scores = score_captions(
        {str(i): pair for i, pair in enumerate(zip(texts["ref1"], texts["ref2"], strict=True))},
        {str(i): text for i, text in enumerate(texts["hyp"])},
    )
    for name in NAMES:
        # Published with six digits.
        assert scores.corpus[name] == pytest.approx(published[name], abs=5e-7)


def test_single_captions_equal_nlg_evals_published_scores(shared_data: Path) -> None:
    folder = shared_data / "caption_metrics" / "nlg_eval"
    for case in json.loads((folder / "published_scores.json").read_text())["single"]:
        # nlg-eval splits single captions on white space only.
        scores = score_tokens(
            {"x": [ref.split() for ref in case["ref"]]}, {"x": case["hyp"].split()}
        )
        for name in set(NAMES) & set(case):
            # Published with five decimals, cut rather than rounded.
            assert scores.corpus[name] == pytest.approx(case[name], abs=1e-5)


def test_equals_aac_metrics_published_scores(shared_data: Path) -> None:
    folder = shared_data / "caption_metrics" / "aac_metrics"
    case = json.loads((folder / "published_scores.json").read_text())
    scores = score_captions(
        {str(i): refs for i, refs in enumerate(case["references"])},
        {str(i): text for i, text in enumerate(case["candidates"])},
    )
    # Published to 1e-4.
    assert scores.corpus["Bleu_1"] == pytest.approx(case["corpus"]["Bleu_1"], abs=1e-4)
    assert list(scores.per_item["CIDEr"].values()) == pytest.approx(
        case["CIDEr_per_item"], abs=1e-4
    )


def awkward(shared_data: Path) -> tuple[dict[str, list[str]], dict[str, str], dict]:
    """References and predictions of 200 images by id, and the toolkit's scores of them."""
    folder = shared_data / "reference" / "captions"
    annotations = json.loads((folder / "annotations.json").read_text(encoding="utf-8"))
    results = json.loads((folder / "predictions.json").read_text(encoding="utf-8"))
    known: dict[str, list[str]] = {str(image["id"]): [] for image in annotations["images"]}
    for row in annotations["annotations"]:
        known[str(row["image_id"])].append(row["caption"])
    said = {str(row["image_id"]): row["caption"] for row in results}
    expected = json.loads((folder / "expected.json").read_text())
    return known, {key: said[key] for key in known}, expected


def test_tokens_of_awkward_captions_equal_the_toolkits(shared_data: Path) -> None:
    known, said, _ = awkward(shared_data)
    file = shared_data / "reference" / "captions" / "tokens.json"
    official = json.loads(file.read_text(encoding="utf-8"))
    assert {
        "references": {
            key: [" ".join(tokenize(text)) for text in texts] for key, texts in known.items()
        },
        "predictions": {key: " ".join(tokenize(text)) for key, text in said.items()},
    } == official


def test_corpus_and_images_equal_the_toolkit_on_awkward_captions(shared_data: Path) -> None:
    known, said, expected = awkward(shared_data)
    scores = score_captions(known, said)
    assert len(scores.bleu_counts) == len(expected["images"]) == 200
    for name in NAMES:
        assert scores.corpus[name] == pytest.approx(expected["totals"][name], abs=ROUNDING)
        images = {key: image[name] for key, image in expected["images"].items()}
        assert scores.per_item[name] == pytest.approx(images, abs=ROUNDING)


def test_bleu_by_hand() -> None:
    # 2 of 3 unigrams and 1 of 2 bigrams match; the closest reference has 4 tokens.
    scores = score_tokens(
        {"x": [["a", "red", "dog", "runs"], ["a", "dog", "and", "a", "cat"]]},
        {"x": ["a", "red", "cow"]},
    )
    brevity = math.exp(1 - 4 / 3)
    # The smoothing constants 1e-9 and 1e-15 move the value by about 1e-9.
    assert scores.corpus["Bleu_1"] == pytest.approx(brevity * 2 / 3, abs=1e-8)
    assert scores.corpus["Bleu_2"] == pytest.approx(brevity * math.sqrt(2 / 3 * 1 / 2), abs=1e-8)


def test_rouge_takes_precision_and_recall_from_different_references() -> None:
    # Precision 2/2 against the long reference, recall 1/1 against the short one: F is 1.
    scores = score_tokens({"x": [["a", "b", "c", "d"], ["a"]]}, {"x": ["a", "b"]})
    assert scores.corpus["ROUGE_L"] == pytest.approx(1.0, abs=ROUNDING)


def test_one_item_alone_has_no_cider() -> None:
    assert score_captions({"x": ["a dog"]}, {"x": "a dog"}).corpus["CIDEr"] == 0.0


def test_two_perfect_items_reach_the_top_of_ciders_scale() -> None:
    texts = {"x": "a black dog runs", "y": "two people eat lunch"}
    scores = score_captions({key: [text] for key, text in texts.items()}, texts)
    assert scores.corpus["CIDEr"] == pytest.approx(10.0, abs=ROUNDING)


def test_empty_prediction_scores_nothing_and_breaks_nothing() -> None:
    scores = score_captions({"x": ["a dog"], "y": ["a cat"]}, {"x": "", "y": "a cat"})
    assert {name: scores.per_item[name]["x"] for name in NAMES} == pytest.approx(
        dict.fromkeys(NAMES, 0.0), abs=1e-3
    )  # smoothing leaves BLEU-4 of nothing at (1e-15 / 1e-9) ** (4 / 4) before the penalty


def test_order_of_items_does_not_matter() -> None:
    references = {"x": ["a dog", "one dog"], "y": ["a cat"], "z": ["the sea", "a sea"]}
    predictions = {"x": "a dog", "y": "a dog", "z": "sea"}
    turned = dict(reversed(predictions.items()))
    one, other = score_captions(references, predictions), score_captions(references, turned)
    assert one.corpus == pytest.approx(other.corpus, abs=ROUNDING)


def test_cores_and_sizes_of_parts_change_no_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    draw = random.Random(0)
    words = [f"{chr(97 + n % 26)}{'x' * (n % 5)}" for n in range(60)]
    text = lambda: " ".join(draw.choices(words, range(60, 0, -1), k=draw.randrange(14))) + "."  # noqa: E731
    predictions = {str(n): text() for n in range(80)}
    references = {key: [text() for _ in range(1 + n % 4)] for n, key in enumerate(predictions)}
    expected = score_captions(references, predictions)
    assert expected.corpus["CIDEr"] > 0 and expected.corpus["Bleu_4"] > 0
    monkeypatch.setattr(ngrams, "_BLOCK", 64)
    monkeypatch.setattr(word_numbers, "_TEXTS", 16)
    for cores in (1, 3):
        monkeypatch.setattr(cpu_threads, "cpu_cores", lambda cores=cores: cores)
        found = score_captions(references, predictions)
        assert (found.corpus, found.per_item) == (expected.corpus, expected.per_item)


def test_items_without_a_prediction_are_not_scored() -> None:
    scores = score_captions({"x": ["a dog"], "y": ["a cat"]}, {"x": "a dog"})
    assert list(scores.per_item["CIDEr"]) == ["x"]


def test_prediction_for_an_unknown_id_is_an_error() -> None:
    with pytest.raises(DataError, match="'z'"):
        score_captions({"x": ["a dog"]}, {"z": "a dog"})


def test_nothing_to_score_gives_zeros() -> None:
    assert score_captions({}, {}).corpus == dict.fromkeys(NAMES, 0.0)


def test_bleu_and_cider_split_a_token_at_a_no_break_space_and_rouge_does_not() -> None:
    """Reference run: pycocoevalcap 1.2 on the tokens of `1 1/2`, which hold U+00A0."""
    tokens = {"a": [["one\u00a0half", "cup"]], "b": [["two", "cups"]]}
    said = {"a": ["one\u00a0half", "cup"], "b": ["two", "dogs"]}
    found = score_tokens(tokens, said)
    apart = score_tokens(
        {"a": [["one", "half", "cup"]], "b": [["two", "cups"]]},
        {"a": ["one", "half", "cup"], "b": ["two", "dogs"]},
    )
    whole = score_tokens(
        {"a": [["one-half", "cup"]], "b": [["two", "cups"]]},
        {"a": ["one-half", "cup"], "b": ["two", "dogs"]},
    )
    for name in NAMES:
        expected = whole if name == "ROUGE_L" else apart
        assert found.corpus[name] == expected.corpus[name]
    assert apart.corpus["Bleu_1"] != whole.corpus["Bleu_1"]


@pytest.mark.parametrize("length", [63, 64, 200])
def test_rouge_of_long_captions_is_the_longest_common_subsequence(length: int) -> None:
    draw = random.Random(length)
    said = [draw.choice("abcdef") for _ in range(length)]
    known = [draw.choice("abcdefg") for _ in range(100)]
    row = [0] * (length + 1)
    for token in known:
        before = row
        row = [0]
        for place, own in enumerate(said):
            row.append(before[place] + 1 if own == token else max(before[place + 1], row[place]))
    precision, recall = row[-1] / length, row[-1] / 100
    expected = (1 + 1.2**2) * precision * recall / (recall + 1.2**2 * precision)
    # A short caption beside it is compared in machine words.
    scores = score_tokens({"x": [known], "y": [["a", "b"]]}, {"x": said, "y": ["a", "b"]})
    assert scores.per_item["ROUGE_L"] == pytest.approx({"x": expected, "y": 1.0}, abs=ROUNDING)


def test_one_text_in_place_of_a_list_of_references_is_refused() -> None:
    with pytest.raises(DataError, match="one text"):
        score_captions({"1": "a dog"}, {"1": "a dog"})
    with pytest.raises(ValueError, match="one text"):
        vqa_accuracy("yes", "yes")
