"""LLaVA's conversations: `image` and `conversations` of `human` and `gpt`, in JSON or JSONL."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from qvft.data.formats import fields
from qvft.data.formats.conversations import ImageTexts, read_turns, records_of
from qvft.data.formats.format import IMAGE_OPTIONS, Format
from qvft.data.formats.path_guard import PathGuard
from qvft.data.sample import Sample


def read(
    path: Path,
    *,
    split: str | None = None,
    images: Path | None = None,
    allow_paths_outside_root: bool | None = None,
) -> Iterator[Sample]:
    """Samples in order of first appearance of their images; each turn is a question of its own.

    A turn of `<image>` alone makes its answer a caption. Records without image or with several,
    system messages, and turns without their other half are left out and counted. A question's
    default id is its image as written and its number; its meta has the record's `id`, and its
    `turn` from the second on.

    Source: github.com/haotian-liu/LLaVA, docs/Finetune_Custom_Data.md.

    Args:
        path: the file, or a folder that holds `{split}.json` or `{split}.jsonl`.
    """
    file, rows = records_of(path, split=split)
    guard = PathGuard(images or file.parent, allow_paths_outside_root=allow_paths_outside_root)
    found = ImageTexts(file, guard)
    for row in rows:
        messages = fields.field(row, "conversations", where=row.where)
        builder = found.builder(row, row.get("image"), "image")
        if builder is None:
            continue
        turns = read_turns(messages, "conversations", where=row.where)
        if found.add(builder, turns, row) is not None:
            found.left_out["questions without answer"] += 1
    yield from found.samples()


FORMAT = Format("llava", "LLaVA's conversations, each turn as a question", read, IMAGE_OPTIONS)
