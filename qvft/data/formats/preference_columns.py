"""Reads the preference columns of trl, paired (chosen, rejected) and unpaired (completion, label).

A text is a string or, in the conversational form, a list of messages with `role` and `content`. One
question and its answers are read: a conversation has one message of the user, then one of the
assistant. Source: trl 1.16, docs/source/dataset_formats.md and trl/data_utils.py.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from qvft.data.formats import fields
from qvft.data.formats.sample_builder import require_different
from qvft.data.sample import Pair
from qvft.errors import DataError
from qvft.log import get_logger

PAIRED = ("chosen", "rejected")
UNPAIRED = ("completion", "label")
KEYS = ("prompt", *PAIRED, *UNPAIRED)

_log = get_logger("qvft.data.formats.hf")


def read_pair(row: Mapping[str, Any], columns: Mapping[str, str], *, id: str, where: str) -> Pair:
    """The pair of a row with `chosen` and `rejected`; an empty prompt makes it one of captions.

    Messages with which both begin are the prompt, as `trl.extract_prompt` has it, unless `prompt`
    holds messages too. Strings are read as they are: without a prompt they are captions.
    """
    prompt = row[columns["prompt"]] if "prompt" in columns else None
    chosen, rejected = (row[columns[key]] for key in PAIRED)
    if isinstance(chosen, list) and isinstance(rejected, list) and not isinstance(prompt, list):
        shared = 0
        while shared < min(len(chosen), len(rejected)) and chosen[shared] == rejected[shared]:
            shared += 1
        if shared or not prompt:
            prompt = chosen[:shared]
        chosen, rejected = chosen[shared:], rejected[shared:]
    better = _completion(chosen, columns["chosen"], where=where)
    worse = _completion(rejected, columns["rejected"], where=where)
    require_different(better, worse, where=where)
    question = _question(prompt, columns.get("prompt", columns["chosen"]), where=where)
    return Pair(id, question, better, worse)


def warn_of_questions_inside(pairs: Iterable[Pair], *, where: str) -> None:
    """Warns of captions that both begin with a question: an implicit prompt of plain texts."""
    listed = list(pairs)
    beginnings = [
        os.path.commonprefix([one.chosen, one.rejected]) for one in listed if one.question is None
    ]
    asked = [text for text in beginnings if "?" in text]
    if asked:
        _log.warning(
            "%s: in %d of %d pairs both texts begin with the same question, which is read as part "
            "of two captions; put it into a column `prompt`",
            where,
            len(asked),
            len(listed),
        )


@dataclass(frozen=True)
class Rated:
    """A text that is labelled as good or bad, of an unpaired row; `id` is the row's, or empty."""

    question: str | None
    text: str
    is_good: bool
    id: str


def read_rated(row: Mapping[str, Any], columns: Mapping[str, str], *, id: str, where: str) -> Rated:
    """The text of a row with `completion` and `label`; raises DataError as `read_pair`."""
    label = row[columns["label"]]
    if label not in (True, False):  # 0 and 1 too
        expected = "true for a good text, false for a bad one"
        raise fields.wrong_kind(label, columns["label"], where=where, expected=expected)
    prompt = row[columns["prompt"]] if "prompt" in columns else None
    return Rated(
        _question(prompt, columns.get("prompt", "prompt"), where=where),
        _completion(row[columns["completion"]], columns["completion"], where=where),
        bool(label),
        id,
    )


def pair_up(texts: Iterable[Rated]) -> tuple[list[Pair], int]:
    """The pairs of an image's rated texts, and the number of texts without partner.

    Of each question the first good text goes with the first bad one, and so on, which undoes
    `trl.unpair_preference_dataset`. Equal texts make no pair.
    """
    by_question: dict[str | None, list[Rated]] = defaultdict(list)
    for one in texts:
        by_question[one.question].append(one)
    pairs, alone = [], 0
    for question, rated in by_question.items():
        good = [one for one in rated if one.is_good]
        bad = [one for one in rated if not one.is_good]
        alone += abs(len(good) - len(bad))
        for chosen, rejected in zip(good, bad, strict=False):
            if chosen.text == rejected.text:
                alone += 2
            else:
                id = chosen.id if chosen.id == rejected.id else ""
                pairs.append(Pair(id, question, chosen.text, rejected.text))
    return pairs, alone


def _question(cell: Any, column: str, *, where: str) -> str | None:
    """The text of a prompt, None if it is empty."""
    if cell is None or cell == []:
        return None
    if isinstance(cell, list):
        cell = _content(cell, "user", column, where=where)
    return fields.string(cell, column, where=where).strip() or None


def _completion(cell: Any, column: str, *, where: str) -> str:
    if isinstance(cell, list):
        cell = _content(cell, "assistant", column, where=where)
    return fields.answer(cell, column, where=where)


def _content(messages: list[Any], role: str, column: str, *, where: str) -> str:
    """The text of the only message, which is of this role; images in it have no text."""
    roles = [one.get("role") if isinstance(one, dict) else None for one in messages]
    if roles != [role]:
        raise DataError(
            f"`{column}` has {len(messages)} messages, of {', '.join(map(str, roles)) or 'nobody'}",
            where=where,
            expected=f"one message of the {role}",
            do="keep the last question and its answers alone",
        )
    content = messages[0].get("content")
    if not isinstance(content, list):
        return fields.string(content, f"{column}.content", where=where)
    parts = [part for part in content if isinstance(part, dict) and part.get("type") != "image"]
    texts = [fields.string(part.get("text"), f"{column}.text", where=where) for part in parts]
    return " ".join(texts)
