"""ShareGPT conversations and chat messages with `images`, as LLaMA-Factory has them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from qvft.data.formats import fields
from qvft.data.formats.conversations import ASSISTANT, ImageTexts, read_turns, records_of
from qvft.data.formats.fields import Record
from qvft.data.formats.format import IMAGE_OPTIONS, Format
from qvft.data.formats.path_guard import PathGuard
from qvft.data.formats.sample_builder import require_different
from qvft.data.sample import Pair, Sample
from qvft.errors import DataError


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

    Source: github.com/hiyouga/LLaMA-Factory, data/README.md.

    Args:
        path: the file, or a folder that holds `{split}.json` or `{split}.jsonl`.
    """
    file, rows = records_of(path, split=split)
    guard = PathGuard(images or file.parent, allow_paths_outside_root=allow_paths_outside_root)
    found = ImageTexts(file, guard)
    for row in rows:
        image_key = "images" if "images" in row else "image"
        usual = "messages" if image_key == "images" else "conversations"
        key = next((one for one in ("messages", "conversations") if one in row), usual)
        messages = fields.field(row, key, where=row.where)
        builder = found.builder(row, row.get(image_key), image_key)
        if builder is None:
            continue
        turns = read_turns(messages, key, where=row.where)
        found.left_out["system messages"] += bool(row.get("system"))
        asked = found.add(builder, turns, row)
        if "chosen" in row or "rejected" in row:
            builder.pairs.append(_pair(row, asked))
        elif asked is not None:
            found.left_out["questions without answer"] += 1
    yield from found.samples()


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


FORMAT = Format(
    "sharegpt",
    "ShareGPT conversations or chat messages with images (LLaMA-Factory)",
    read,
    IMAGE_OPTIONS,
)
