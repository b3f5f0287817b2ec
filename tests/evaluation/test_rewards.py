"""Reward functions: metrics of samples, the stop token among n-grams, functions of a user's own."""

from __future__ import annotations

from pathlib import Path

import pytest

from qvft.data.rows import Row
from qvft.data.sample import ImageFile, Sample
from qvft.errors import RecipeError
from qvft.evaluation.metrics.answers import exact_match
from qvft.evaluation.metrics.captions import score_captions
from qvft.evaluation.rewards import reward_functions
from qvft.inference.reward_function import UNTRAINED, held_out_score
from qvft.inference.sampled import Sampled
from tests.training.rewards.functions import recorded

CAPTIONS = {
    "x": ("a man with a dog", "a man walks with a small dog"),
    "y": ("two red cars on a street", "cars in a street"),
    "z": ("a bowl of soup", "soup with bread"),
}


def row_of(name: str, references: tuple[str, ...], question: str | None = None) -> Row:
    sample = Sample(name, ImageFile(Path(f"{name}.png")))
    kind = "caption" if question is None else "question"
    return Row(name, sample, kind, question, references[0], references, {"organ": "chest"})


ROWS = [row_of(name, references) for name, references in CAPTIONS.items()]
ASKED = row_of("q", ("yes", "yes", "no", *["yes"] * 7), "Is it?")


def text_of(row: Row, text: str, *, stopped: bool = True) -> Sampled:
    return Sampled(0, row, row.question or "", (1, 2), (5, 6, 7), text, stopped)


def rewards_of(name: str, *texts: Sampled, stop_token: bool = True) -> list[float | None]:
    function = reward_functions([name], [*ROWS, ASKED], stop_token)[name]
    return list(function.rewards(texts, UNTRAINED))


@pytest.mark.parametrize("name", ["cider", "bleu4"])
def test_a_fragment_scores_less_where_the_stop_token_is_a_word(name: str) -> None:
    whole, fragment = text_of(ROWS[0], "a man with a dog"), text_of(ROWS[0], "a man with a")
    with_stop = rewards_of(name, whole, fragment)
    without = rewards_of(name, whole, fragment, stop_token=False)
    assert with_stop[1] / with_stop[0] < 0.9 * without[1] / without[0]


def test_a_text_that_did_not_stop_lacks_the_stop_tokens_ngrams() -> None:
    stopped, cut = (text_of(ROWS[0], "a man with a dog", stopped=one) for one in (True, False))
    with_stop = rewards_of("cider", stopped, cut)
    assert with_stop[1] < with_stop[0]
    without = rewards_of("cider", stopped, cut, stop_token=False)
    assert without[1] == without[0]


def test_document_frequencies_are_the_training_references() -> None:
    # "a" is in every training item, and says nothing of an image that is not among them.
    new = row_of("new", ("a",))
    assert rewards_of("cider", text_of(new, "a"), stop_token=False) == [0.0]
    rare = row_of("new", ("zebra zebra",))
    assert rewards_of("cider", text_of(rare, "zebra zebra"), stop_token=False)[0] > 4


def test_a_metric_says_nothing_about_the_other_kind_of_text() -> None:
    texts = text_of(ROWS[0], "a man with a dog"), text_of(ASKED, "yes")
    for name in ("cider", "bleu4", "rouge_l"):
        assert rewards_of(name, *texts)[1] is None
    assert rewards_of("vqa_accuracy", *texts) == [None, 1.0]
    assert rewards_of("exact_match", *texts) == [1.0, 1.0]
    assert rewards_of("token_f1", *texts) == [1.0, 1.0]


def test_answers_with_one_reference_have_no_vqa_accuracy() -> None:
    with pytest.raises(RecipeError, match=r"reward\.funcs\.vqa_accuracy.*exact_match"):
        reward_functions(["vqa_accuracy"], [row_of("q", ("yes",), "Is it?")], True)


def test_held_out_metrics_are_the_official_ones() -> None:
    functions = reward_functions(["cider", "rouge_l", "exact_match"], ROWS, True)
    said = ("a man", "red cars", "a bowl of soup")
    texts = [text_of(row, text) for row, text in zip(ROWS, said, strict=True)]
    official = score_captions(
        {row.id: row.references for row in ROWS},
        {text.row.id: text.text for text in texts},
    ).corpus
    assert held_out_score(functions["cider"], texts) == official["CIDEr"]
    assert held_out_score(functions["rouge_l"], texts) == official["ROUGE_L"]
    mean = sum(exact_match(one.text, one.row.references) for one in texts) / 3
    assert held_out_score(functions["exact_match"], texts) == mean == pytest.approx(1 / 3)
    assert held_out_score(functions["cider"], [text_of(ASKED, "yes")]) is None


def test_a_function_of_ones_own_gets_what_trl_gives_and_the_rows_columns() -> None:
    name = "tests.training.rewards.functions.recorded"
    assert rewards_of(name, text_of(ROWS[1], "cars"), text_of(ASKED, "yes")) == [0.0, 0.0]
    given = recorded.given
    assert given["prompts"] == ["", "Is it?"]
    assert given["completions"] == ["cars", "yes"]
    assert given["completion_ids"] == [[5, 6, 7], [5, 6, 7]]
    assert given["references"][0] == list(CAPTIONS["y"])
    assert given["kind"] == ["caption", "question"]
    assert given["meta"] == [{"organ": "chest"}, {"organ": "chest"}]
    assert given["image"][0].name == "y.png"
    assert {"trainer_state", "log_extra", "log_metric"} <= given.keys()


@pytest.mark.parametrize("name", ["no_such_package.f", "tests.training.rewards.functions.absent"])
def test_a_function_that_is_not_there_is_refused_with_the_key(name: str) -> None:
    with pytest.raises(RecipeError, match=r"reward\.funcs"):
        reward_functions([name], ROWS, True)
