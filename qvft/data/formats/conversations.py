"""Conversations about an image: LLaVA, ShareGPT (LLaMA-Factory) and chat messages, JSON or JSONL.

Sources: github.com/haotian-liu/LLaVA, docs/Finetune_Custom_Data.md;
github.com/hiyouga/LLaMA-Factory, data/README.md.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from qvft.data.formats import fields
from qvft.data.formats.fields import Record
from qvft.data.formats.format import IMAGE_OPTIONS, Format
from qvft.data.formats.path_guard import PathGuard
from qvft.data.formats.sample_builder import SampleBuilder, file_of_split, require_different
from qvft.data.sample import Pair, Question, Sample
from qvft.errors import DataError
from qvft.log import get_logger

_log = get_logger(__name__)

USER, ASSISTANT, SYSTEM = "user", "assistant", "system"
ROLES = {"human": USER, USER: USER, "gpt": ASSISTANT, ASSISTANT: ASSISTANT, SYSTEM: SYSTEM}
"""Speakers as LLaVA and ShareGPT (`from`) and chat messages (`role`) name them."""
_IMAGE = "<image>"

Turns = list[tuple[str, str]]
"""Pairs (speaker of `ROLES`' values, text without `<image>`)."""


def read(
    path: Path,
    *,
    split: str | None = None,
    images: Path | None = None,
    allow_paths_outside_root: bool | None = None,
) -> Iterator[Sample]:
    """Samples in order of first appearance of their images; each turn is a question of its own.

    Records have `messages` or `conversations`, and `images` or `image`. A turn of `<image>` alone
    makes its answer a caption. Records without image or with several, system messages, and turns
    without their other half are left out and counted. A question's default id is its image as
    written and its number; its meta has the record's `id`, and its `turn` from the second on. A
    record with `chosen` and `rejected` is a pair, its last turn the question.

    Args:
        path: the file, or a folder that holds `{split}.json` or `{split}.jsonl`.
    """
    file = file_of_split(path, split, (".json", ".jsonl"))
    guard = PathGuard(images or file.parent, allow_paths_outside_root=allow_paths_outside_root)
    found: dict[str, SampleBuilder] = {}
    left_out: Counter[str] = Counter()
    for row in fields.records_of_file(file):
        image_key = "images" if "images" in row else "image"
        usual = "messages" if image_key == "images" else "conversations"
        key = next((one for one in ("messages", "conversations") if one in row), usual)
        messages = fields.field(row, key, where=row.where)
        names = _image_names(row, image_key)
        if len(names) != 1:
            left_out[f"records with {'several images' if names else 'no image'}"] += 1
            continue
        written = fields.text(names[0], image_key, where=row.where)
        image = guard.image(written, image_key, where=row.where)
        builder = found.setdefault(image.name, SampleBuilder(written, image))
        turns = read_turns(messages, key, where=row.where)
        left_out["system messages"] += bool(row.get("system"))
        asked = _add(builder, turns, row, left_out)
        if "chosen" in row or "rejected" in row:
            builder.pairs.append(_pair(row, asked))
        elif asked is not None:
            left_out["questions without answer"] += 1
    if counts := [f"{count} {what}" for what, count in left_out.items() if count]:
        _log.warning("%s: left out: %s", file, ", ".join(counts))
    yield from (one.sample() for one in found.values())


def _image_names(row: Record, key: str) -> list[Any]:
    images = row.get(key) or []
    if isinstance(images, str | list):
        return [images] if isinstance(images, str) else images
    expected = "a path, or a list of one"
    raise fields.wrong_kind(images, key, where=row.where, expected=expected)


def read_turns(messages: Any, key: str, *, where: str) -> Turns:
    """The turns of a list of messages, with `from` and `value` or `role` and `content`."""
    turns = []
    for place, message in fields.records(messages, where=f"{where}, {key}"):
        who, says = ("role", "content") if "role" in message else ("from", "value")
        role = message.text(who)
        if role not in ROLES:
            raise DataError(
                f"`{who}` has an unknown value",
                where=place,
                expected="one of " + ", ".join(ROLES),
                do="remove turns of tools and functions",
            )
        turns.append((ROLES[role], _content(message, says)))
    return turns


def _content(message: Record, key: str) -> str:
    """The text of a message, without `<image>`; may be empty."""
    content = fields.field(message, key, where=message.where)
    if isinstance(content, list):  # parts, as chat templates have them
        parts = [one for _, one in fields.records(content, where=f"{message.where}, {key}")]
        texts = [one.text("text") for one in parts if one.get("type", "text") == "text"]
        content = "\n".join(texts)
    return fields.string(content, key, where=message.where).replace(_IMAGE, "").strip()


def _add(builder: SampleBuilder, turns: Turns, row: Record, left_out: Counter[str]) -> str | None:
    """Adds each question with its answer, and answers to the image alone as captions; returns the
    last question if it has no answer.
    """
    id = {"id": row.identifier("id")} if row.get("id") is not None else {}
    asked: str | None = None
    answered = 0
    for speaker, text in turns:
        if speaker == SYSTEM:
            left_out["system messages"] += 1
        elif speaker == USER:
            left_out["questions without answer"] += asked is not None
            asked = text
        elif asked is None:
            left_out["answers without question"] += 1
        else:
            answer = fields.text(text, "answer", where=row.where)
            answered += 1
            left_out["earlier turns of later questions"] += answered > 1
            if asked:
                turn = {"turn": str(answered)} if answered > 1 else {}
                builder.questions.append(Question("", asked, (answer,), id | turn))
            else:
                builder.captions.append(answer)
            asked = None
    return asked


def _pair(row: Record, asked: str | None) -> Pair:
    if asked is None:
        raise DataError(
            "a pair after an answer",
            where=row.where,
            expected="a conversation that ends with the user's turn",
            do="remove the answer, or `chosen` and `rejected`",
        )
    chosen, rejected = (_answer(row, key) for key in ("chosen", "rejected"))
    require_different(chosen, rejected, where=row.where)
    id = {"id": row.identifier("id")} if row.get("id") is not None else {}
    return Pair("", asked or None, chosen, rejected, id)


def _answer(row: Record, key: str) -> str:
    """The text of a half of a pair: a message of the assistant, a list of one, or a text."""
    value: Any = fields.field(row, key, where=row.where)
    if isinstance(value, dict | list):
        turns = read_turns(value if isinstance(value, list) else [value], key, where=row.where)
        if [speaker for speaker, _ in turns] != [ASSISTANT]:
            given = f"`{key}` is not one message of the assistant"
            raise DataError(given, where=row.where, do='write {"from": "gpt", "value": "..."}')
        value = turns[0][1]
    return fields.text(value, key, where=row.where)


LLAVA = Format("llava", "LLaVA's conversations, each turn as a question", read, IMAGE_OPTIONS)
SHAREGPT = Format(
    "sharegpt",
    "ShareGPT conversations or chat messages with images (LLaMA-Factory)",
    read,
    IMAGE_OPTIONS,
)
