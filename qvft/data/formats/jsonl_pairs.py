"""Pairs of a chosen and a rejected text in the custom JSONL: `pairs`, or one pair per line."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from qvft.data.formats import fields
from qvft.data.formats.fields import Record
from qvft.data.sample import Pair
from qvft.errors import DataError

PAIR_KEYS = ("id", "question", "chosen", "rejected", "meta")

_OTHER_HALF = {"chosen": "rejected", "rejected": "chosen"}
_OTHER_TEXTS = ("caption", "answer", "answers")


def is_pair(row: Mapping[str, Any]) -> bool:
    """Whether a line has a pair of its own, so that its id and meta are the pair's."""
    return "chosen" in row or "rejected" in row


def pair(row: Record, meta: Mapping[str, Any]) -> Pair:
    """The pair of a line, or of an object in `pairs`; its id is empty if none is given.

    Args:
        row: `chosen`, `rejected` and, unless both are captions, `question`.
        meta: the validated meta of `row`.

    Raises:
        DataError: a half is missing or no text, both are equal, or `row` has another text too.
    """
    for half, other in _OTHER_HALF.items():
        if half not in row:
            raise DataError(
                f"a pair without `{half}`",
                where=row.where,
                expected="`chosen` and `rejected`",
                do=f"add `{half}`, or remove `{other}`" if other in row else "add both",
            )
    for key in _OTHER_TEXTS:
        if key in row:
            raise DataError(
                f"`{key}` beside a pair",
                where=row.where,
                expected="only `question` with `chosen` and `rejected`",
                do=f"move `{key}` to a line of its own",
            )
    chosen, rejected = row.answer("chosen"), row.answer("rejected")
    if chosen == rejected:
        raise DataError(
            "`chosen` and `rejected` are equal",
            where=row.where,
            expected="two different texts",
            do="correct one of them, or remove the pair",
        )
    return Pair(
        row.identifier("id") if "id" in row else "",
        row.text("question") if row.get("question") is not None else None,
        chosen,
        rejected,
        {key: fields.answer(one, f"meta.{key}", where=row.where) for key, one in meta.items()},
    )
