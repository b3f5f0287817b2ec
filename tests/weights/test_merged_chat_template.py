"""The chat template of a merged folder writes the tokens that the model was trained with."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from transformers import AutoProcessor

from qvft.recipe.recipe_lock import read_lock
from qvft.setup.model import base_of, processor_of
from qvft.setup.prompt_template import template_of
from qvft.weights.chat_template import chat_template


def message(*parts: dict[str, str]) -> list[dict]:
    return [{"role": "user", "content": [{"type": "image"}, *parts]}]


def test_a_chat_with_a_merged_folder_has_the_prompts_of_its_training(
    drawn_run: Path, merged: Path
) -> None:
    recipe = read_lock(drawn_run)
    template = template_of(recipe, base_of(recipe), processor_of(recipe, base_of(recipe)))
    tokenizer = AutoProcessor.from_pretrained(merged).tokenizer
    for kind, question in (("question", "Is  it {red}\n?"), ("caption", None)):
        parts = [{"type": "text", "text": question}] if question else []
        text = tokenizer.apply_chat_template(message(*parts), tokenize=False)
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        written = template.written_prompt(kind, question)
        assert ids == tokenizer(written)["input_ids"]
    as_string = [{"role": "user", "content": "Is it?"}]
    written = template.written_prompt("question", "Is it?")
    assert tokenizer.apply_chat_template(as_string, tokenize=False).endswith(written)


@pytest.mark.parametrize("text", ['Say "é😀\\": {question}\nA: ', "{question}"])
def test_any_prompt_is_kept_to_the_letter(drawn_run: Path, text: str) -> None:
    recipe = read_lock(drawn_run)
    template = template_of(recipe, base_of(recipe), processor_of(recipe, base_of(recipe)))
    template = replace(template, question=text)
    processor = template.tokenizer
    spoken = processor.apply_chat_template(
        [{"role": "user", "content": "who?"}], chat_template=chat_template(template), tokenize=False
    )
    assert spoken.removeprefix(processor.bos_token) == template.written_prompt("question", "who?")


def test_cleaned_questions_and_chat_turns_have_none(drawn_run: Path) -> None:
    recipe = read_lock(drawn_run)
    template = template_of(recipe, base_of(recipe), processor_of(recipe, base_of(recipe)))
    assert chat_template(replace(template, text="blip2")) is None
    assert chat_template(replace(template, chat_template=True)) is None
