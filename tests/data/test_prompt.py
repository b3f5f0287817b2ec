"""The template: where image tokens stand, what is supervised, what is cut."""

from typing import Any

import pytest
import tiny_models

from qvft.data.prompt import PromptTemplate, TokenRow
from qvft.errors import ModelError
from tools.tiny_blip2.geometry import EOS_ID, QUERY_TOKENS, VOCABULARY_SIZE

IMAGE_ID = VOCABULARY_SIZE - 1


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return tiny_models.tokenizer()


def template(tokenizer: Any, **changes: Any) -> PromptTemplate:
    settings = {
        "num_query_tokens": QUERY_TOKENS,
        "image_token_id": IMAGE_ID,
        "stop_text": "\n",
        "caption": "a photo of",
    }
    return PromptTemplate(tokenizer, **{**settings, **changes})


def text_of(tokenizer: Any, ids: tuple[int, ...]) -> str:
    return tokenizer.decode(list(ids))


def split(tokenizer: Any, row: TokenRow) -> tuple[str, str]:
    """The text of what has no loss, without image tokens and `</s>`, and of what has."""
    prompt = row.ids[QUERY_TOKENS + 1 : row.target_start]
    return text_of(tokenizer, prompt), text_of(tokenizer, row.ids[row.target_start :])


def test_a_row_is_image_tokens_bos_prompt_target_and_stop(tokenizer: Any) -> None:
    row = template(tokenizer).encode("question", question="How many?", target="two")
    assert row.ids[:QUERY_TOKENS] == (IMAGE_ID,) * QUERY_TOKENS
    assert row.ids[QUERY_TOKENS] == EOS_ID
    assert split(tokenizer, row) == ("Question: How many? Answer:", " two\n")
    assert row.ids.count(IMAGE_ID) == QUERY_TOKENS
    assert row.cut_tokens == 0


def test_a_caption_has_its_own_prompt(tokenizer: Any) -> None:
    row = template(tokenizer).encode("caption", target="a cat")
    assert split(tokenizer, row) == ("a photo of", " a cat\n")


def test_without_a_prompt_the_target_starts_without_a_blank(tokenizer: Any) -> None:
    row = template(tokenizer, caption="").encode("caption", target="a cat")
    assert split(tokenizer, row) == ("", "a cat\n")


def test_without_a_target_nothing_is_supervised_and_nothing_stops(tokenizer: Any) -> None:
    row = template(tokenizer).encode("question", question="How many?")
    assert row.target_start == len(row.ids)
    assert split(tokenizer, row) == ("Question: How many? Answer:", "")


def test_the_prompt_alone_is_what_a_training_row_starts_with(tokenizer: Any) -> None:
    made = template(tokenizer)
    asked = made.encode("question", question="Is it red?")
    taught = made.encode("question", question="Is it red?", target="yes")
    assert taught.ids[: len(asked.ids)] == asked.ids


def test_the_stop_token_stands_only_at_the_end(tokenizer: Any) -> None:
    made = template(tokenizer)
    row = made.encode("caption", target=" two\n lines\n")
    assert split(tokenizer, row) == ("a photo of", " two lines\n")
    assert row.ids.count(made.stop_id) == 1


def test_line_breaks_in_a_question_are_folded(tokenizer: Any) -> None:
    row = template(tokenizer).encode("question", question="How\n\nmany?", target="two")
    assert split(tokenizer, row)[0] == "Question: How many? Answer:"


def test_braces_in_a_question_are_only_braces(tokenizer: Any) -> None:
    row = template(tokenizer).encode("question", question="{question} {0}?", target="x")
    assert split(tokenizer, row)[0] == "Question: {question} {0}? Answer:"


@pytest.mark.parametrize("special", ["<image>", "</s>", "<pad>"])
def test_a_text_that_names_a_special_token_gets_no_special_token(
    tokenizer: Any, special: str
) -> None:
    """Trap 1: an image token too many would take the place of the image's features."""
    row = template(tokenizer).encode("question", question=f"Is {special} it?", target=special)
    plain = template(tokenizer).encode("question", question="Is it?", target="x")
    special_id = tokenizer.convert_tokens_to_ids(special)
    assert row.ids.count(special_id) == plain.ids.count(special_id)
    assert f"Is {special} it?" in split(tokenizer, row)[0]


def test_a_long_prompt_loses_tokens_from_its_left_after_bos(tokenizer: Any) -> None:
    long = " ".join(f"w{n}" for n in range(200))
    made = template(tokenizer, max_text_tokens=24)
    row = made.encode("question", question=long, target="yes")
    assert len(row.ids) == QUERY_TOKENS + 24
    assert row.ids[QUERY_TOKENS] == EOS_ID
    prompt, target = split(tokenizer, row)
    assert target == " yes\n"
    assert prompt.endswith(" Answer:")
    whole = template(tokenizer, max_text_tokens=10_000)
    uncut = whole.encode("question", question=long, target="yes")
    assert row.cut_tokens == len(uncut.ids) - len(row.ids)


def test_a_long_target_loses_tokens_at_its_end_before_the_stop(tokenizer: Any) -> None:
    long = " ".join(f"w{n}" for n in range(200))
    made = template(tokenizer, max_text_tokens=16)
    row = made.encode("caption", target=long)
    assert len(row.ids) == QUERY_TOKENS + 16
    assert row.ids[-1] == made.stop_id
    assert split(tokenizer, row)[1].startswith(" w0 w1")
    assert row.cut_tokens > 0


def test_generated_tokens_are_read_up_to_the_first_stop(tokenizer: Any) -> None:
    made = template(tokenizer)
    ids = [*made.encode("caption", target="a cat").ids, *made.encode("caption", target="x").ids]
    assert made.decode(ids[QUERY_TOKENS:]) == "a photo of a cat"
    assert made.decode([EOS_ID]) == ""


def test_a_stop_text_of_several_tokens_is_refused(tokenizer: Any) -> None:
    with pytest.raises(ModelError, match="as [2-9] tokens, not one"):
        _ = template(tokenizer, stop_text="~~ stop").stop_id


def test_a_long_answer_leaves_half_the_room_to_its_question(tokenizer: Any) -> None:
    short = template(tokenizer, max_text_tokens=40)
    row = short.encode("question", question="Which is it?", target="word " * 200)
    asked = short.encode("question", question="Which is it?")
    head = QUERY_TOKENS + 1
    assert row.target_start - head == min(len(asked.ids) - head, (40 - 2) // 2)
    assert len(row.ids) == QUERY_TOKENS + 40
    assert row.ids[-1] == short.stop_id


def test_many_texts_at_once_are_the_rows_of_each(tokenizer: Any) -> None:
    made = template(tokenizer, caption="", max_text_tokens=24)
    long = "Is it " + "very " * 40 + "red?"
    texts = [
        ("caption", None, "a cat"),
        ("question", "How many?", " two\n or <image> </s> "),
        ("question", "How many?", "one " * 40),
        ("question", long, "yes"),
    ]
    expected = [made.encode(kind, question=asked, target=said) for kind, asked, said in texts]
    assert list(made.encode_all((*text, None) for text in texts)) == expected
    assert [row.cut_tokens > 0 for row in expected] == [False, False, True, True]
    assert list(made.encode_all([])) == []


@pytest.mark.parametrize(
    ("form", "caption", "question", "answer"),
    [
        ("as_written", " A Cat. Red!\n", "Question: Is it  3.5\tcm? Answer:", " Yes. 3.5\n"),
        ("blip2", " a cat red\n", "Question: is it  35\tcm? Answer:", " Yes. 3.5\n"),
    ],
)
def test_captions_and_questions_are_cleaned_and_answers_are_not(
    tokenizer: Any, form: str, caption: str, question: str, answer: str
) -> None:
    one = template(tokenizer, text=form)
    if form == "as_written":  # white space is folded
        question = " ".join(question.split())
    assert split(tokenizer, one.encode("caption", target="A Cat. Red!")) == ("a photo of", caption)
    row = one.encode("question", question="Is it  3.5\tcm?", target="Yes. 3.5")
    assert split(tokenizer, row) == (question, answer)
    several = [("caption", None, "A Cat. Red!"), ("question", "Is it  3.5\tcm?", "Yes. 3.5")]
    caption = one.encode("caption", target="A Cat. Red!")
    assert list(one.encode_all((*text, None) for text in several)) == [caption, row]


@pytest.mark.parametrize(
    ("caption", "written"),
    [
        ("a photo of  ", "a photo of a cat\n"),
        ("Describe:\n", "Describe:\na cat\n"),
        (" ", "a cat\n"),
    ],
)
def test_blanks_at_a_prompts_end_meet_the_targets_and_line_breaks_stay(
    tokenizer: Any, caption: str, written: str
) -> None:
    row = template(tokenizer, caption=caption).encode("caption", target="a cat")
    assert "".join(split(tokenizer, row)) == written


def test_a_question_template_keeps_what_follows_its_last_word(tokenizer: Any) -> None:
    made = template(tokenizer, question="Q: {question}\n\n")
    assert made.prompt_text("question", "Is it?") == "Q: Is it?\n\n"


def test_what_is_cut_of_prompt_and_target_is_told_apart(tokenizer: Any) -> None:
    long = " ".join(f"w{n}" for n in range(200))
    made = template(tokenizer, max_text_tokens=24)
    asked = made.encode("question", question=long, target="yes")
    captioned = made.encode("caption", target=long)
    assert asked.cut_prompt > 0 == asked.cut_target
    assert captioned.cut_target > 0 == captioned.cut_prompt
