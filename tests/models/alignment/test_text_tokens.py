"""Texts for the text branch: the first token, padding, cutting."""

import copy

import pytest
import tiny_models

from qvft.errors import ModelError
from qvft.models.alignment.text_tokens import check_tokenizer, encode_texts
from tools.tiny_blip2.geometry import EOS_ID, PAD_ID, VOCABULARY_SIZE


@pytest.fixture(scope="module")
def tokenizer():
    return tiny_models.tokenizer()


def test_texts_begin_alike_and_are_padded_on_the_right(tokenizer) -> None:
    left = copy.deepcopy(tokenizer)
    left.padding_side = "left"
    ids, mask = encode_texts(left, ["a circle", "a small red circle at the top"])
    assert ids[:, 0].tolist() == [EOS_ID, EOS_ID]
    short = int(mask[0].sum())
    assert short < ids.shape[1] == int(mask[1].sum())
    assert mask[0].tolist() == [1] * short + [0] * (ids.shape[1] - short)
    assert (ids[0, short:] == PAD_ID).all()


def test_a_long_text_is_cut(tokenizer) -> None:
    ids, mask = encode_texts(tokenizer, ["circle " * 50], max_tokens=8)
    assert ids.shape == mask.shape == (1, 8) and ids[0, 0] == EOS_ID


def test_the_bundled_tokenizer_will_do(tokenizer) -> None:
    # The image token, the last of the vocabulary, is never read by the text branch.
    check_tokenizer(tokenizer, vocab_size=VOCABULARY_SIZE - 1, where="text")


def test_a_tokenizer_larger_than_the_embeddings_is_refused(tokenizer) -> None:
    with pytest.raises(ModelError, match=f"{VOCABULARY_SIZE - 1} tokens; expected at most 100"):
        check_tokenizer(tokenizer, vocab_size=100, where="text")


def test_a_tokenizer_without_padding_is_refused(tokenizer) -> None:
    bare = copy.deepcopy(tokenizer)
    bare.pad_token = None
    with pytest.raises(ModelError, match="no padding token"):
        check_tokenizer(bare, vocab_size=VOCABULARY_SIZE, where="text")


def test_texts_without_a_first_token_are_refused() -> None:
    class Bare:
        pad_token_id, all_special_ids = 1, [0, 1, 2]

        def __call__(self, text: str) -> dict[str, list[int]]:
            return {"input_ids": [10 + len(text), 30]}

    with pytest.raises(ModelError, match=r"begin with no special token.*objectives\.text_branch"):
        check_tokenizer(Bare(), vocab_size=VOCABULARY_SIZE, where="text")
