"""What a tokenizer loses, and what it charges."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from qvft.data.quality.texts import Text
from qvft.data.quality.tokenizer_coverage import spelling, token_counts


@pytest.fixture(scope="module")
def bytewise(tiny_folder: Path) -> Any:
    """A byte-level BPE, as OPT's is."""
    return AutoTokenizer.from_pretrained(tiny_folder)


@pytest.fixture(scope="module")
def letters() -> PreTrainedTokenizerFast:
    """Knows a to e, without accents; everything else is unknown."""
    inner = Tokenizer(models.WordLevel({"<unk>": 0, **{c: n for n, c in enumerate("abcde", 1)}}))
    inner.model.unk_token = "<unk>"
    inner.normalizer = normalizers.Sequence([normalizers.NFD(), normalizers.StripAccents()])
    inner.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Whitespace(), pre_tokenizers.Split("", "isolated")]
    )
    return PreTrainedTokenizerFast(tokenizer_object=inner, unk_token="<unk>")


def validate_and_sign(texts: list[Text], tokenizer: Any) -> Any:
    return spelling(texts, tokenizer, token_counts(texts, tokenizer))


def test_unknown_characters_and_lost_accents_are_named_with_their_rows(
    letters: PreTrainedTokenizerFast,
) -> None:
    texts = [
        Text("caption", "r1", "a b"),
        Text("caption", "r2", "a z"),
        Text("question", "r3", "z z"),
        Text("answer", "r3", "á"),
    ]
    found = validate_and_sign(texts, letters)
    assert [(one.character, one.rows, one.ids) for one in found.lost] == [
        ("z", 2, ("r2", "r3")),
        ("á", 1, ("r3",)),
    ]
    assert found.lost[0].name == "LATIN SMALL LETTER Z (U+007A)"
    assert found.lost_rows == 2


def test_bytes_spell_everything_but_some_at_a_price(bytewise: Any) -> None:
    texts = [Text("caption", "r1", "a red one"), Text("caption", "r2", "红色\n广场 🙂")]
    found = validate_and_sign(texts, bytewise)
    assert (found.lost, found.lost_rows) == ((), 0)
    # Three bytes of UTF-8 each, four for the smiley, and a blank in front of it or not.
    assert {one.character for one in found.costly} == {"红", "色", "广", "场", "🙂"}
    assert all(one.tokens >= 3 for one in found.costly)
    assert (found.costly_rows, found.other_script_rows) == (1, 1)
    tokens = len(bytewise(" 红色 广场 🙂", add_special_tokens=False)["input_ids"])
    assert found.other_script_tokens_per_character == tokens / len("红色\n广场 🙂")
    assert found.latin_tokens_per_character < found.other_script_tokens_per_character


def test_a_split_in_latin_letters_has_no_other_price(bytewise: Any) -> None:
    found = validate_and_sign([Text("caption", "r1", "naïve café, 3 °C")], bytewise)
    assert (found.other_script_rows, found.other_script_tokens_per_character) == (0, None)


def test_special_tokens_in_a_text_are_counted_as_plain_text(bytewise: Any) -> None:
    counts = token_counts([Text("caption", "r1", "</s>")], bytewise)
    assert counts["</s>"] > 1


def test_control_characters_and_replacement_characters_are_named(bytewise: Any) -> None:
    found = validate_and_sign(
        [Text("caption", "r1", "a\ufffdb"), Text("caption", "r2", "a\x07\n")], bytewise
    )
    assert [(one.character, one.ids) for one in found.broken] == [
        ("\x07", ("r2",)),
        ("\ufffd", ("r1",)),
    ]
    assert found.broken_rows == 2


def test_no_text_at_all_is_no_error(bytewise: Any) -> None:
    found = validate_and_sign([], bytewise)
    assert (found.lost, found.costly, found.latin_tokens_per_character) == ((), (), None)
