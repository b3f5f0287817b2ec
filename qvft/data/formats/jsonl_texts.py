"""Reads questions, and pairs of a chosen and a rejected text, from a line of the custom JSONL."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from qvft.data.formats import fields
from qvft.data.formats.fields import Record
from qvft.data.formats.sample_builder import require_different
from qvft.data.sample import Pair, Question
from qvft.errors import DataError

QUESTION_KEYS = ("id", "question", "answer", "answers", "candidates", "meta")
PAIR_KEYS = ("id", "question", "chosen", "rejected", "meta")

_LIST_HINTS = {
    "candidates": 'write ["yes", "no"]',
    "captions": 'write ["..."], or use `caption` for a single one',
    "questions": 'write [{"question": "...", "answers": ["..."]}]',
    "pairs": 'write [{"question": "...", "chosen": "...", "rejected": "..."}]',
}
_OTHER_HALF = {"chosen": "rejected", "rejected": "chosen"}
_OTHER_TEXTS = ("caption", "answer", "answers")


def is_pair(row: Mapping[str, Any]) -> bool:
    """Whether a line has a pair of its own, so that its id and meta are the pair's."""
    return "chosen" in row or "rejected" in row


def read_pair(row: Record) -> Pair:
    """The pair of a line, or of an object in `pairs`; its id is empty if none is given."""
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
    require_different(chosen, rejected, where=row.where)
    return Pair(
        row.identifier("id") if "id" in row else "",
        row.text("question") if row.get("question") is not None else None,
        chosen,
        rejected,
        _text_meta(row),
    )


def read_list(row: Record, key: str) -> list[Any]:
    """The list under a key, empty without the key; raises DataError for another type."""
    value = row.get(key, [])
    if not isinstance(value, list):
        do = _LIST_HINTS[key] if value is not None else f"remove `{key}` if there are none"
        raise fields.wrong_kind(value, key, where=row.where, expected="a list", do=do)
    return value


def read_objects(row: Record, key: str, keys: tuple[str, ...]) -> Iterator[Record]:
    """The objects of a list, each with known keys."""
    for n, values in enumerate(read_list(row, key)):
        place = f"{row.where}, {key}[{n}]"
        if not isinstance(values, dict):
            do = _LIST_HINTS[key].replace("[{", "{").replace("}]", "}")
            raise DataError(fields.kind(values), where=place, expected="an object", do=do)
        fields.known_keys(values, keys, where=place)
        yield Record(values, place)


def read_question(row: Record) -> Question:
    """The question of a line, or of an object in `questions`; its id is empty if none is given."""
    if ("answer" in row) == ("answers" in row):
        raise DataError(
            "both `answer` and `answers`" if "answer" in row else "a question without answers",
            where=row.where,
            expected="either `answer` or `answers`",
            do="remove one" if "answer" in row else "add the answer, or remove the question",
        )
    if "answers" in row:
        answers = fields.answers(row["answers"], "answers", where=row.where)
    else:
        answers = (row.answer("answer"),)
    return Question(
        row.identifier("id") if "id" in row else "",
        row.text("question"),
        answers,
        _text_meta(row),
        read_candidates(row),
    )


def read_candidates(row: Record) -> tuple[str, ...]:
    """The answers of `candidates`, without repetitions; raises DataError if one is no text."""
    listed = enumerate(read_list(row, "candidates"))
    found = [fields.answer(one, f"candidates[{n}]", where=row.where) for n, one in listed]
    return tuple(dict.fromkeys(found))


def add_meta(meta: dict[str, Any], row: Record) -> None:
    """Adds the `meta` of a row; raises DataError if it is no object or contradicts `meta`."""
    added = row.get("meta", {})
    if not isinstance(added, dict):
        do = 'write {"name": "value"}, or remove `meta`'
        raise fields.wrong_kind(added, "meta", where=row.where, expected="an object", do=do)
    for key, value in added.items():
        if key in meta and meta[key] != value:
            raise DataError(
                f"`meta.{key}` differs from what an earlier line says of the image",
                where=row.where,
                expected="one value per image",
                do="correct one of the lines",
            )
        fields.valid_unicode({key: value}, f"meta.{key}", where=row.where)
        meta[key] = value


def _text_meta(row: Record) -> dict[str, str]:
    """The `meta` of a question or a pair, its values as texts."""
    meta: dict[str, Any] = {}
    add_meta(meta, row)
    return {key: fields.answer(one, f"meta.{key}", where=row.where) for key, one in meta.items()}
