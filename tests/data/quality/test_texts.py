"""Repetitions, distributions and lengths of texts."""

from __future__ import annotations

from pathlib import Path

import pytest

from qvft.data.quality.contradictions import asked_before, repeats
from qvft.data.quality.distributions import answers, lengths, quantiles
from qvft.data.quality.texts import Text, normal, texts_of
from qvft.data.sample import ImageFile, Question, Sample


def sample(name: str, *questions: tuple[str, str, tuple[str, ...]], image: str = "a") -> Sample:
    return Sample(
        name, ImageFile(Path(image)), questions=tuple(Question(*one) for one in questions)
    )


def found(*samples: Sample) -> tuple[tuple[str, ...], ...]:
    return repeats(samples, lambda one: one.image.name).contradictions


def test_one_question_with_two_answers_contradicts_itself() -> None:
    assert found(sample("s", ("1", "Is it?", ("yes",)), ("2", "is  it", ("No.",)))) == (("1", "2"),)


def test_samples_of_an_equal_image_are_compared() -> None:
    first, second = sample("s", ("1", "Is it?", ("yes",))), sample("t", ("2", "Is it?", ("no",)))
    assert found(first, second) == (("1", "2"),)
    assert found(first, sample("t", ("2", "Is it?", ("no",)), image="b")) == ()


def test_case_blanks_and_full_stops_make_no_contradiction() -> None:
    result = repeats(
        [sample("s", ("1", "Is it?", ("Yes",)), ("2", "IS IT ?", (" yes. ",)))], lambda one: "x"
    )
    assert (result.contradictions, result.repeated_questions) == ((), (("1", "2"),))


def test_ten_human_answers_are_no_contradiction() -> None:
    people = ("yes",) * 6 + ("no",) * 4
    assert found(sample("s", ("1", "Is it?", people))) == ()
    assert found(sample("s", ("1", "Is it?", people), ("2", "Is it?", ("no",) * 10))) == ()
    assert found(sample("s", ("1", "Is it?", people), ("2", "Is it?", ("maybe",) * 10)))


def test_captions_said_again_of_an_image_are_counted() -> None:
    twice = Sample("s", ImageFile(Path("a")), captions=("A dog", "a dog.", "a cat"))
    other = Sample("t", ImageFile(Path("b")), captions=("a dog",))
    assert repeats([twice, other], lambda one: one.image.name).repeated_captions == ("s#caption1",)
    assert repeats([twice], lambda one: "x", texts="questions").repeated_captions == ()


def test_questions_of_an_equal_image_in_both_splits_are_named() -> None:
    train = [sample("s", ("1", "Is it?", ("yes",)))]
    evaluation = [
        sample("t", ("7", "is it", ("no",)), ("8", "What?", ("a",))),
        sample("u", ("9", "Is it?", ("no",)), image="b"),
    ]
    assert asked_before(evaluation, train, lambda one: one.image.name) == (("7", "1"),)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (" A  Dog. ", "a dog"),
        ("Straße", "strasse"),
        ("?", "?"),
        ("", ""),
        ("1.5", "1.5"),
        ("(left)", "left"),
        ("“Left” ", "left"),
        ("l’œil", "l'œil"),
        ("ｌｅｆｔ。", "left"),
        ("-5", "-5"),
        ("50 %", "50 %"),
        (".5", ".5"),
    ],
)
def test_what_does_not_change_a_texts_meaning_is_left_out(text: str, expected: str) -> None:
    assert normal(text) == expected


def given(*texts: str) -> list[Text]:
    return [Text("answer", str(number), text) for number, text in enumerate(texts)]


def test_answers_are_counted() -> None:
    result = answers(given(*["Yes"] * 5, "no", "left lung", "Left lung."), known={"yes"})
    assert result is not None
    assert (result.count, result.distinct, result.once, result.unseen) == (8, 3, 1, 3)
    assert result.yes_no_share == 6 / 8
    # An answer of few questions is not named: it may be about a person.
    assert [(one.answer, one.count, one.share) for one in result.common] == [("yes", 5, 5 / 8)]


def test_a_split_without_questions_has_no_answers() -> None:
    assert answers([Text("caption", "1", "a dog")]) is None


def test_quantiles_are_values_of_the_list() -> None:
    assert quantiles(range(101)) == (0, 5, 25, 50, 75, 95, 100)
    assert quantiles([7]) == (7,) * 7


def test_lengths_are_in_words_and_tokens_by_kind() -> None:
    texts = [Text("caption", "1", "a big dog"), Text("question", "2", "what?")]
    result = lengths(texts, {"a big dog": 4, "what?": 2})
    assert set(result) == {"caption", "question"}
    assert (result["caption"].words[3], result["caption"].tokens[3]) == (3, 4)


def test_texts_are_those_that_the_recipe_uses() -> None:
    both = Sample(
        "s", ImageFile(Path("a")), captions=("c",), questions=(Question("q", "?", ("x", "y", "y")),)
    )
    assert [(t.kind, t.row_id, t.text) for t in texts_of([both])] == [
        ("caption", "s#caption0", "c"),
        ("question", "q", "?"),
        ("answer", "q", "y"),
    ]
    assert {t.kind for t in texts_of([both], texts="captions")} == {"caption"}
    assert {t.kind for t in texts_of([both], texts="questions")} == {"question", "answer"}
