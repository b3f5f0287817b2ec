"""Prompt template: the one template for training, evaluation and inference.

A row of tokens is: Q times `<image>`, the bos token, prompt, target, stop. The loss covers target
and stop; prompt tokens are masked. With a chat template the prompt is the user's turn. A marked
row is the tokenization of `<START> prompt target <END>`, with spaces. Where an encoder reads the
prompt (T5), that ends with the end token, and the target is a text of its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from typing import Any

from qvft.data.blip_text import Kind, TextForm, cleaned
from qvft.data.chat_template import ChatTurn, chat_turn
from qvft.errors import ModelError

_BATCH = 10_000


@dataclass(frozen=True)
class TokenRow:
    """One text as tokens, image tokens first.

    Attributes:
        target_start: index of the first supervised token; `len(ids)` without target.
        cut_prompt, cut_target: numbers of truncated tokens.
    """

    ids: tuple[int, ...]
    target_start: int
    cut_prompt: int = 0
    cut_target: int = 0

    @property
    def cut_tokens(self) -> int:
        return self.cut_prompt + self.cut_target


@dataclass(frozen=True)
class PromptTemplate:
    """Tokenizes a text of a sample, with its prompt, to a row of tokens.

    Args:
        tokenizer: the decoder's tokenizer.
        num_query_tokens: number of leading `<image>` tokens.
        image_token_id: id of `<image>`; None if not used.
        stop_text: end of a target; empty for the tokenizer's end token.
        caption: text before a caption.
        question: text before an answer, with `{question}`.
        max_text_tokens: maximum tokens after the image tokens.
        text: `blip2` cleans captions and questions as LAVIS does; never answers.
        marked: texts are enclosed in bos and eos tokens with a space inside each; a row that is too
            long is truncated at its end, including eos.
        chat_template: prompts are the user's turn of the tokenizer's chat template.
        start_id: token that begins the decoder's text where an encoder reads the prompt; else None.
    """

    tokenizer: Any
    num_query_tokens: int
    image_token_id: int | None
    stop_text: str
    caption: str = ""
    question: str = "Question: {question} Answer:"
    max_text_tokens: int = 128
    text: TextForm = "as_written"
    marked: bool = False
    chat_template: bool = False
    start_id: int | None = None

    def cleaned(self, kind: Kind, text: str) -> str:
        """A caption or question, cleaned as `text` says."""
        return cleaned(kind, text, self.text)

    def prompt_text(
        self, kind: Kind, question: str | None = None, prompt: str | None = None
    ) -> str:
        """The words before the target, without trailing spaces: the target begins with its own.

        Args:
            prompt: instead of `caption` or `question`, for a source with prompts of its own.
        """
        if kind == "caption":
            return (self.caption if prompt is None else prompt).rstrip(" ")
        asked = self.cleaned("question", question or "")
        if self.text == "as_written":
            asked = " ".join(asked.split())
        asking = self.question if prompt is None else prompt
        return asking.replace("{question}", asked).rstrip(" ")

    def written_prompt(
        self, kind: Kind, question: str | None = None, prompt: str | None = None
    ) -> str:
        """The prompt to give to a plain processor; `prompt` as in `prompt_text`."""
        words = self.prompt_text(kind, question, prompt)
        if self.chat is not None:
            return self.chat.written(words)
        return self.tokenizer.bos_token + self._before(words) if self.marked else words

    def written_target(self, kind: Kind, target: str, question: str | None = None) -> str:
        """The target as it follows the prompt, without its stop."""
        return self._answer_text(kind, self.prompt_text(kind, question), target)

    @cached_property
    def chat(self) -> ChatTurn | None:
        """The user's turn, if prompts use a chat template; raises as `chat_turn`."""
        if not self.chat_template:
            return None
        return chat_turn(
            self.tokenizer, begin=self.tokenizer.bos_token or "" if self.begin_ids else ""
        )

    @cached_property
    def stop_id(self) -> int:
        """The token that ends a target; raises ModelError if the stop text is several tokens."""
        if not self.stop_text:
            return self.tokenizer.eos_token_id
        (ids,) = self._tokens([self.stop_text])
        if len(ids) != 1:
            raise ModelError(f"the tokenizer writes the stop text as {len(ids)} tokens, not one")
        return ids[0]

    @cached_property
    def begin_ids(self) -> list[int]:
        """The bos token; empty if the tokenizer has none (Qwen2) or does not put it in front of a
        text (SmolLM2, GPT-2).
        """
        first = self.tokenizer.bos_token_id
        if first is None:
            return []
        begins = self.marked or self.tokenizer("a")["input_ids"][0] == first
        return [first] if begins else []

    @property
    def pad_id(self) -> int:
        """Padding token; the end token if the tokenizer has none (Llama)."""
        found = self.tokenizer.pad_token_id
        return self.tokenizer.eos_token_id if found is None else found

    def encode(
        self,
        kind: Kind,
        *,
        question: str | None = None,
        target: str | None = None,
        prompt: str | None = None,
    ) -> TokenRow:
        """Tokens of a row, with its target if given; `prompt` as in `prompt_text`.

        A prompt that is too long is truncated on the left, after the first token; a target at its
        end, before the stop token (in a marked row including it). Whitespace of targets is
        collapsed, since the stop token must not occur inside.
        """
        return next(self.encode_all([(kind, question, target, prompt)]))

    def target_span(self, row: TokenRow) -> slice:
        """Columns of a row's target in the decoder's text."""
        start = row.target_start if self.start_id is None else 1
        return slice(start, start + len(row.ids) - row.target_start)

    def encode_targets(self, kind: Kind, prompt: str, targets: Sequence[str]) -> list[list[int]]:
        """Tokens of targets after a prompt of `prompt_text`, each with its stop, none truncated."""
        texts = [self._answer_text(kind, prompt, one) if one.strip() else "" for one in targets]
        return [[*ids, self.stop_id] for ids in self._tokens(texts)]

    def encode_all(
        self, texts: Iterable[tuple[Kind, str | None, str | None, str | None]]
    ) -> Iterator[TokenRow]:
        """`encode` of each (kind, question, target, prompt), in half the time.

        The tokenizer is called with lists, in which repeated texts occur once.
        """
        remaining = iter(texts)
        while batch := list(islice(remaining, _BATCH)):
            prompts = [self.prompt_text(kind, question, own) for kind, question, _, own in batch]
            different = list(dict.fromkeys(prompts))
            ids = dict(zip(different, self._prompt_tokens(different), strict=True))
            written = [
                None if target is None else self._answer_text(kind, prompt, target)
                for prompt, (kind, _, target, _) in zip(prompts, batch, strict=True)
            ]
            targets = list(dict.fromkeys(text for text in written if text is not None))
            answers = dict(zip(targets, self._tokens(targets), strict=True))
            for prompt, text in zip(prompts, written, strict=True):
                yield self._row(ids[prompt], None if text is None else answers[text])

    def _row(self, prompt: Sequence[int], target: Sequence[int] | None) -> TokenRow:
        answer = target or []
        stop = [self.stop_id] if target is not None else []
        if self.marked:
            answer, stop = [*answer, *stop], []
        end = [self.tokenizer.eos_token_id] if self.start_id is not None else []
        room = self.max_text_tokens - len(self.begin_ids) - len(stop) - len(end)
        # At least half the tokens are the prompt's: an answer is useless without its question.
        before, after = (0, 0) if self.chat is None else self.chat.fixed
        half = max(room // 2, before + after)
        kept_answer = answer[: max(1, room - min(len(prompt), half))]
        excess = max(0, len(prompt) - (room - len(kept_answer)))
        words = prompt[before : len(prompt) - after][excess:]
        kept_prompt = [*prompt[:before], *words, *prompt[len(prompt) - after :]]
        images = [] if self.image_token_id is None else [self.image_token_id]
        head = [*(images * self.num_query_tokens), *self.begin_ids]
        ids = [*head, *kept_prompt, *end, *kept_answer, *stop]
        return TokenRow(
            tuple(ids),
            len(head) + len(kept_prompt) + len(end),
            cut_prompt=len(prompt) - len(kept_prompt),
            cut_target=len(answer) - len(kept_answer),
        )

    def decode(self, new_ids: Sequence[int]) -> str:
        """Text of generated tokens, up to the first stop token."""
        ids = [int(token) for token in new_ids]
        if self.stop_id in ids:
            ids = ids[: ids.index(self.stop_id)]
        return self.tokenizer.decode(ids, skip_special_tokens=True).strip()

    def _before(self, prompt: str) -> str:
        return f" {prompt}" if self.marked and prompt else prompt

    def _answer_text(self, kind: Kind, prompt: str, target: str) -> str:
        text = self.cleaned(kind, target) if kind == "caption" else target
        words = " ".join(text.split())
        if self.marked:
            return f" {words} "
        prompt = prompt if self.chat is None else self.chat.written(prompt)
        spaced = prompt and not prompt[-1].isspace() and self.start_id is None
        return (" " if spaced else "") + words

    def _prompt_tokens(self, prompts: Sequence[str]) -> list[list[int]]:
        """Tokens of each prompt, in the user's turn if there is a chat template."""
        if self.chat is not None:
            return [self.chat.tokens(prompt) for prompt in prompts]
        return self._tokens(map(self._before, prompts))

    def _tokens(self, texts: Iterable[str]) -> list[list[int]]:
        """Tokens of plain texts: `<image>` or `</s>` in them are not special tokens."""
        given = list(texts)
        if not given:
            return []
        return self.tokenizer(
            given,
            add_special_tokens=False,
            split_special_tokens=True,
            return_attention_mask=False,
            verbose=False,
        )["input_ids"]
