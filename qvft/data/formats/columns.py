"""Maps columns of a table to image, texts and pairs of texts. Imports no dataset library."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any

from qvft.data.formats import fields, preference_columns
from qvft.data.sample import Question
from qvft.errors import DataError

DEFAULTS: dict[str, tuple[str, ...]] = {
    "image": ("image", "images", "img", "jpg", "png", "image_path"),
    "caption": ("caption", "text"),
    "captions": ("captions", "sentences"),
    "question": ("question",),
    "answer": ("answer",),
    "answers": ("answers",),
    "id": ("id", "question_id"),
    "answer_type": ("answer_type",),
    "question_type": ("question_type",),
    **{key: (key,) for key in preference_columns.KEYS},
}
"""Keys of `columns`, each with the column names tried for it, in order."""

_FLAG = "of qvft.init and qvft.convert: `--columns"
_CAPTION_KEYS = ("caption", "captions")
_QUESTION_KEYS = ("question", "answer", "answers")
_PAIRED, _UNPAIRED = preference_columns.PAIRED, preference_columns.UNPAIRED
_PAIR_KEYS = preference_columns.KEYS
_GROUPS = (_CAPTION_KEYS, _QUESTION_KEYS, _PAIR_KEYS)
_SINGULAR = {"captions": "caption", "answers": "answer"}
_OTHER_NUMBER = _SINGULAR | {one: several for several, one in _SINGULAR.items()}


def resolve(
    columns: Mapping[str, str],
    present: Iterable[str],
    *,
    where: str,
    defaults: Mapping[str, tuple[str, ...]] = DEFAULTS,
) -> dict[str, str]:
    """The column of each key that has one; `defaults` are the names tried for each key.

    `columns` takes precedence; an empty name leaves the key without a column. Once it names a
    column of captions, of questions or of pairs, defaults do not add another kind of text, nor
    `answers` to a named `answer`. Of defaults, `captions` and `answers` win over `caption` and
    `answer`, `chosen` and `rejected` over `completion` and `label`. The prompt of pairs is
    `prompt`, else `question`.

    Raises:
        DataError: an unknown key, a missing column, no image column, no text column, questions
            without answers, or half of the columns of pairs.
    """
    names = tuple(present)
    fields.known_keys(columns, defaults, where=f"{where}, columns")
    for key, name in columns.items():
        if name:
            require_column(key, name, names, where=where)
    found = {key: name for key, name in columns.items() if name}
    named = {key for key in found if any(key in keys for keys in _GROUPS)}
    for key in ("captions", "answers", *defaults):
        group = next((keys for keys in _GROUPS if key in keys), ())
        other_kind_named = bool(group) and bool(named) and not named & set(group)
        covered = _OTHER_NUMBER.get(key) in found
        default = next((name for name in defaults[key] if name in names), None)
        if key not in columns and default and not other_kind_named and not covered:
            found[key] = default
    listed = ", ".join(names) or "none"
    found = _of_pairs(found, named, listed, where=where)
    _require_image_and_text(found, listed, defaults["image"], where=where)
    return found


def require_column(key: str, name: str, names: Collection[str], *, where: str) -> None:
    """Raises DataError unless the column that `columns.{key}` names is among `names`."""
    if name not in names:
        raise DataError(
            f"`columns.{key}` names the column `{name}`",
            where=where,
            expected="one of " + ", ".join(map(str, names)),
            do=fields.nearest(name, map(str, names)),
        )


def _of_pairs(
    found: Mapping[str, str], named: Collection[str], listed: str, *, where: str
) -> dict[str, str]:
    """The columns without those that make no pairs; raises DataError if one of them was named."""
    has_other_texts = bool(found.keys() & {*_CAPTION_KEYS, "answer", "answers"})
    form = next((keys for keys in (_PAIRED, _UNPAIRED) if found.keys() >= set(keys)), None)
    halves = (_PAIRED, _PAIRED[::-1], _UNPAIRED, _UNPAIRED[::-1])
    for half, other in halves if form is None else ():
        is_meant = half in named or (half != "label" and not has_other_texts)
        if half in found and is_meant:
            raise DataError(
                f"a column `{found[half]}` but none for `{other}` (columns: {listed})",
                where=where,
                do=f"set `columns.{other}`",
            )
    kept = dict(found)
    for key in _PAIR_KEYS:
        if key in kept and (form is None or (key != "prompt" and key not in form)):
            if key in named:
                raise DataError(
                    f"`columns.{key}` beside columns that make no pair with it",
                    where=where,
                    expected="`chosen` and `rejected`, or `completion` and `label`, with `prompt`",
                )
            del kept[key]
    if form is not None and "question" in kept:
        kept.setdefault("prompt", kept["question"])
        if not kept.keys() & {"answer", "answers"}:
            del kept["question"]
    return kept


def _require_image_and_text(
    found: Mapping[str, str], listed: str, image_names: Collection[str], *, where: str
) -> None:
    if "image" not in found:
        raise DataError(
            f"no image column (columns: {listed})",
            where=where,
            expected="one of " + ", ".join(image_names),
            do=f"set `columns.image` ({_FLAG} image=NAME`)",
        )
    if not found.keys() & {*_CAPTION_KEYS, "question", "chosen", "completion"}:
        raise DataError(
            f"no column of captions or questions (columns: {listed})",
            where=where,
            do="set `columns.caption`, or `columns.question` and `columns.answer` "
            f"({_FLAG} caption=NAME`)",
        )
    if "question" in found and not found.keys() & {"answer", "answers"}:
        raise DataError(
            f"a column of questions but none of answers (columns: {listed})",
            where=where,
            do=f"set `columns.answer` ({_FLAG} answer=NAME`)",
        )


def captions(row: Mapping[str, Any], columns: Mapping[str, str], *, where: str) -> list[str]:
    """The captions of a row; a cell may hold one or a list. Raises DataError as `fields.text`."""
    texts = []
    for column in (columns[key] for key in _CAPTION_KEYS if key in columns):
        cell = row[column]
        for one in cell if isinstance(cell, list) else [cell]:
            texts.append(fields.text(one, column, where=where))
    return texts


def question(
    row: Mapping[str, Any], columns: Mapping[str, str], *, id: str, where: str
) -> Question | None:
    """The question of a row, None if there is no column of questions.

    A cell of answers may hold one, a list, or a list of objects with `answer` (VQA v2).
    """
    if "question" not in columns:
        return None
    key = columns["answers" if "answers" in columns else "answer"]
    cell = row[key]
    if isinstance(cell, list):
        plain = [one.get("answer") if isinstance(one, dict) else one for one in cell]
        answers = fields.answers(plain, key, where=where)
    else:
        answers = (fields.answer(cell, key, where=where),)
    types = [name for name in ("answer_type", "question_type") if name in columns]
    return Question(
        id,
        fields.text(row[columns["question"]], columns["question"], where=where),
        answers,
        {name: fields.answer(row[columns[name]], columns[name], where=where) for name in types},
    )


def with_class_names(
    row: Mapping[str, Any],
    features: Mapping[str, Any] | None,
    columns: Iterable[str],
    *,
    where: str,
) -> dict[str, Any]:
    """The row with class names instead of `ClassLabel` numbers, also inside lists and objects.
    Raises DataError for a number without class, such as -1, which `datasets` uses for "no label".
    """
    converted = dict(row)
    for column in columns:
        if features is not None and column in features:
            converted[column] = _named(row[column], features[column], f"`{column}`", where)
    return converted


def _named(value: Any, feature: Any, column: str, where: str) -> Any:
    if value is None:
        return None
    if isinstance(feature, dict):
        return {key: _named(value.get(key), one, column, where) for key, one in feature.items()}
    items = getattr(feature, "feature", None)  # of a list
    if items is not None and isinstance(value, list):
        return [_named(one, items, column, where) for one in value]
    if not hasattr(feature, "int2str") or isinstance(value, str):
        return value
    if not 0 <= value < len(feature.names):
        raise DataError(
            f"{column} is class {value}",
            where=where,
            expected=f"a class from 0 to {len(feature.names) - 1}",
            do="remove rows without a class",
        )
    return feature.names[value]
