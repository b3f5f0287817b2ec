"""Text of a tokenizer's chat template around a prompt: `data.prompt.chat_template`."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

from qvft.errors import ModelError

_PROMPT = "PROMPT-OF-THE-USER"
_DATE = "26 Jul 2024"
"""Date for templates that write one (Llama 3): their own default, so that a run does not depend on
the day."""


@dataclass(frozen=True)
class ChatTurn:
    """The user's turn of a chat: text before and after the prompt, up to where the answer begins.
    Special tokens in `before` and `after` are tokenized as such, those in a prompt as plain text.
    """

    tokenizer: Any
    before: str
    after: str

    def written(self, prompt: str) -> str:
        """The whole turn as text, for a plain processor."""
        return self.before + prompt + self.after

    def tokens(self, prompt: str) -> list[int]:
        """Tokens of the turn: of the whole text, or of its parts if a special token is in the
        prompt, which is then plain text.
        """
        if any(token in prompt for token in self._special):
            return [*self._before_ids, *self._ids(prompt, split=True), *self._after_ids]
        return self._ids(self.written(prompt))

    @property
    def fixed(self) -> tuple[int, int]:
        """Number of tokens before and after a prompt, which are never truncated."""
        return len(self._before_ids), len(self._after_ids)

    @cached_property
    def _before_ids(self) -> list[int]:
        return self._ids(self.before)

    @cached_property
    def _after_ids(self) -> list[int]:
        return self._ids(self.after)

    @cached_property
    def _special(self) -> list[str]:
        added = self.tokenizer.get_added_vocab()
        return [*added, *self.tokenizer.all_special_tokens]

    def _ids(self, text: str, *, split: bool = False) -> list[int]:
        if not text:
            return []
        return self.tokenizer(
            text, add_special_tokens=False, split_special_tokens=split, verbose=False
        )["input_ids"]


def chat_turn(tokenizer: Any, *, begin: str) -> ChatTurn:
    """The user's turn of the tokenizer's chat template, without system prompt of our own.

    Args:
        begin: the token that the tokenizer itself puts in front of every text; empty if none. The
            template's own is left out then.

    Raises ModelError without chat template, or for one that does not write the prompt once.
    """
    where = "data.prompt.chat_template"
    if not getattr(tokenizer, "chat_template", None):
        raise ModelError(
            "true, but the decoder's tokenizer has no chat template",
            where=where,
            expected="an instruction-tuned decoder",
            do="set data.prompt.chat_template=false, and write the prompt in data.prompt",
        )
    message = [{"role": "user", "content": _PROMPT}]
    try:
        text = tokenizer.apply_chat_template(
            message, tokenize=False, add_generation_prompt=True, date_string=_DATE
        )
    except Exception as error:  # templates are programs and can raise nearly anything
        reason = str(error).strip().split("\n")[0]
        raise ModelError(
            f"the chat template fails: {reason}", where=where, do="set it to false"
        ) from error
    before, found, after = text.partition(_PROMPT)
    if not found or _PROMPT in after:
        raise ModelError(
            f"the chat template writes the prompt {text.count(_PROMPT)} times",
            where=where,
            expected="once",
            do="set it to false",
        )
    if begin:
        before = before.removeprefix(begin)
    return ChatTurn(tokenizer, before, after)
