"""BLIP-2's processor as trl's collators call it: chat messages and texts become qvft's rows.

A row is Q image tokens, the begin token (`</s>` of OPT), the prompt, and after a target the stop
token, as in training. transformers' processor alone leaves out the begin token, pads between image
and prompt, and has no chat template.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from transformers import BatchFeature, Blip2Processor

from qvft.data.collate import Collator
from qvft.data.images.sources import image_source
from qvft.data.prompt import Kind, PromptTemplate
from qvft.errors import DataError
from qvft.setup.model import Loaded

_PADDING = ("padding", "padding_side", "return_tensors", "pad_to_multiple_of")


class PolicyProcessor(Blip2Processor):
    """A `Blip2Processor` whose texts are those of a prompt template.

    A user's message is a question, or an empty text for a caption; an assistant's is the target.

    Attributes:
        template: the recipe's prompt template.
        plain: transformers' processor, which is saved in its place.
        collator: decodes and normalises images.
    """

    template: PromptTemplate
    plain: Blip2Processor
    collator: Collator

    @classmethod
    def of(cls, loaded: Loaded) -> PolicyProcessor:
        """The processor of a model; its end token is the template's stop token."""
        template, plain = loaded.template, loaded.processor
        tokenizer = copy.deepcopy(plain.tokenizer)
        tokenizer.eos_token = tokenizer.convert_ids_to_tokens(template.stop_id)
        tokenizer.pad_token = tokenizer.convert_ids_to_tokens(template.pad_id)
        made = cls(plain.image_processor, tokenizer, num_query_tokens=template.num_query_tokens)
        # Not the model: trl's datasets hash their processor with all that it holds.
        made.template, made.plain, made.collator = template, plain, loaded.collator
        return made

    def apply_chat_template(  # type: ignore[override]
        self,
        conversation: Sequence[Any],
        chat_template: str | None = None,
        *,
        tokenize: bool = False,
        return_dict: bool = False,
        processor_kwargs: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> Any:
        """A conversation, or a list of them, as text; with `tokenize`, prompts as rows with images.

        Args:
            conversation: a user's message, and an assistant's if the row has a target.
            chat_template: refused; prompts are the recipe's `data.prompt`.
            options: of padding, as in `__call__`; others of a chat template have no effect.

        Raises:
            DataError: other messages, another template, tools, or with `tokenize` an answer: trl's
                SFTTrainer would train every token of it.
        """
        if chat_template is not None or options.get("tools"):
            raise DataError(
                "another chat template or tools",
                where="processor",
                expected="neither: prompts are written as data.prompt of the recipe says",
            )
        single = isinstance(conversation[0], Mapping)
        conversations = [conversation] if single else list(conversation)
        texts = [self._written(messages) for messages in conversations]
        if not tokenize:
            return texts[0] if single else texts
        if any(messages[-1]["role"] == "assistant" for messages in conversations):
            raise DataError(
                "whole conversations in `messages`, with a loss on image tokens and prompts",
                where="train_dataset",
                expected="columns image, prompt and completion",
            )
        images = [image for messages in conversations for image in _images(messages)]
        encoded = self(images=images or None, text=texts, **{**(processor_kwargs or {}), **options})
        return encoded if return_dict else encoded["input_ids"]

    def __call__(
        self, images: Any = None, text: str | Sequence[str] | None = None, **options: Any
    ) -> BatchFeature:
        """Token rows, `attention_mask` and `pixel_values`.

        With images a text is a prompt, which gets image tokens and the begin token; without, a
        target. Padding is outside of a row.

        Args:
            images: one per text, or lists of one.
            options: of `tokenizer.pad`, by default no padding; others have no effect.

        Raises:
            DataError: another number of images than of texts.
        """
        flat = None if images is None else list(_flat(images))
        found: dict[str, Any] = {}
        if text is not None:
            texts = [text] if isinstance(text, str) else list(text)
            if flat is not None and len(flat) != len(texts):
                raise DataError(
                    f"{len(flat)} images for {len(texts)} texts",
                    where="images",
                    expected="one each",
                )
            rows = [self._ids(one, after_image=flat is not None) for one in texts]
            padding = {key: options[key] for key in _PADDING if key in options}
            padded = self.tokenizer.pad(
                {"input_ids": rows},
                **{"padding": False, **padding},
                return_attention_mask=True,
                verbose=False,
            )
            found |= {key: padded[key] for key in ("input_ids", "attention_mask")}
        if flat is not None:
            decoded = [self.collator.decode(image_source(one, where="images")) for one in flat]
            found["pixel_values"] = torch.cat([self.collator.normalise([one]) for one in decoded])
        return BatchFeature(found)

    def batch_decode(self, *args: Any, **kwargs: Any) -> list[str]:
        """Texts of tokens; without special tokens, those up to the stop token."""
        if not kwargs.get("skip_special_tokens"):
            return self.tokenizer.batch_decode(*args, **kwargs)
        sequences = args[0] if args else kwargs["sequences"]
        return [self.template.decode(ids) for ids in sequences]

    def save_pretrained(self, save_directory: Any, push_to_hub: bool = False, **kwargs: Any) -> Any:
        """Writes transformers' processor."""
        return self.plain.save_pretrained(save_directory, push_to_hub, **kwargs)

    @property
    def _begin(self) -> str:
        return self.template.tokenizer.bos_token if self.template.begin_ids else ""

    @property
    def _stop(self) -> str:
        return self.template.stop_text or self.template.tokenizer.eos_token

    def _written(self, messages: Sequence[Mapping[str, Any]]) -> str:
        """The row's text: begin token, prompt, and target with its stop."""
        roles = [message["role"] for message in messages]
        if roles not in (["user"], ["user", "assistant"], ["assistant"]):
            raise DataError(
                f"messages of {', '.join(roles)}",
                where="conversation",
                expected="user, then assistant: one question, or an empty text for a caption",
            )
        texts = [_text(message) for message in messages]
        question = texts[0].strip() if roles[0] == "user" else ""
        kind: Kind = "question" if question else "caption"
        prompt = ""
        if roles[0] == "user":
            prompt = self._begin + self.template.written_prompt(kind, question)
        if roles[-1] == "user":
            return prompt
        return prompt + self.template.written_target(kind, texts[-1], question) + self._stop

    def _ids(self, text: str, *, after_image: bool) -> list[int]:
        """Tokens of a text; a begin token before it and a stop token behind it are read as such,
        others in it are plain text, unless a chat template has written them.
        """
        template, begin, stop = self.template, self._begin, self._stop
        starts = bool(begin) and text.startswith(begin)
        text = text.removeprefix(begin) if starts else text
        stops = text.endswith(stop)
        text = text.removesuffix(stop) if stops else text
        words = self.tokenizer(
            text,
            add_special_tokens=False,
            split_special_tokens=template.chat is None,
            verbose=False,
        )["input_ids"]
        head = [template.image_token_id] * template.num_query_tokens if after_image else []
        begin_ids = template.begin_ids if starts or after_image else []
        return [*head, *begin_ids, *words, *([template.stop_id] if stops else [])]


def _text(message: Mapping[str, Any]) -> str:
    content = message["content"]
    if isinstance(content, str):
        return content
    return "".join(part["text"] for part in content if part["type"] == "text")


def _images(messages: Sequence[Mapping[str, Any]]) -> Iterator[Any]:
    for message in messages:
        if not isinstance(message["content"], str):
            yield from (part["image"] for part in message["content"] if part["type"] == "image")


def _flat(images: Any) -> Iterator[Any]:
    for image in images if isinstance(images, list | tuple) else [images]:
        yield from image if isinstance(image, list | tuple) else [image]
