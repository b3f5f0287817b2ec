"""Prompts through a chat template: tokens, special tokens in texts, truncation."""

from __future__ import annotations

from pathlib import Path

import pytest
from transformers import AutoTokenizer

from qvft.data.prompt import PromptTemplate
from qvft.errors import ModelError

IMAGES = 2
BEFORE, AFTER = "<|turn|>user\n", "</s>\n<|turn|>assistant\n"


@pytest.fixture
def template(language_folder: Path) -> PromptTemplate:
    tokenizer = AutoTokenizer.from_pretrained(language_folder)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<image>"]})
    return PromptTemplate(
        tokenizer=tokenizer,
        num_query_tokens=IMAGES,
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
        stop_text="",
        question="{question}",
        max_text_tokens=40,
        chat_template=True,
    )


def test_a_row_is_what_the_tokenizer_makes_of_the_conversation(template: PromptTemplate) -> None:
    row = template.encode("question", question="Is it red?", target="yes")
    messages = [{"role": "user", "content": "Is it red?"}]
    turn = template.tokenizer.apply_chat_template(
        messages, tokenize=True, add_generation_prompt=True, return_dict=False
    )
    answer = template.tokenizer("yes", add_special_tokens=False)["input_ids"]
    assert list(row.ids[IMAGES : row.target_start]) == turn
    assert list(row.ids[row.target_start :]) == [*answer, template.tokenizer.eos_token_id]
    assert list(template.encode_all([("question", "Is it red?", "yes", None)])) == [row]
    assert template.written_prompt("question", "Is it red?") == f"{BEFORE}Is it red?{AFTER}"


def test_special_tokens_in_a_text_are_plain_text(template: PromptTemplate) -> None:
    asked = "What is </s> <|turn|> here?"
    row = template.encode("question", question=asked)
    special = {
        template.tokenizer.eos_token_id,
        template.tokenizer.convert_tokens_to_ids("<|turn|>"),
    }
    found = [token for token in row.ids[IMAGES:] if token in special]
    assert len(found) == 3  # the template's own: two turns, and the end of the first
    assert asked in template.tokenizer.decode(row.ids[IMAGES:])


def test_a_long_question_is_cut_inside_the_turn(template: PromptTemplate) -> None:
    row = template.encode("question", question="red and blue " * 40, target="yes")
    assert len(row.ids) == IMAGES + template.max_text_tokens
    text = template.tokenizer.decode(row.ids[IMAGES : row.target_start])
    assert text.startswith(BEFORE)
    assert text.endswith(AFTER)
    assert row.cut_prompt > 0
    assert row.cut_target == 0


def test_a_template_that_drops_the_prompt_is_refused(template: PromptTemplate) -> None:
    template.tokenizer.chat_template = "nothing"
    with pytest.raises(ModelError, match="writes the prompt 0 times"):
        template.encode("question", question="Is it red?")


def test_a_template_that_fails_is_refused(template: PromptTemplate) -> None:
    template.tokenizer.chat_template = "{{ raise_exception('no system prompt') }}"
    with pytest.raises(ModelError, match="no system prompt"):
        template.encode("question", question="Is it red?")
