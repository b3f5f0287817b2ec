"""Replaces class numbers (`ClassLabel`) with class names in rows of a Hugging Face dataset."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from qvft.errors import DataError


def with_class_names(
    row: Mapping[str, Any],
    features: Mapping[str, Any] | None,
    columns: Iterable[str],
    *,
    where: str,
) -> dict[str, Any]:
    """The row with class names instead of `ClassLabel` numbers, also inside lists and objects.

    Args:
        features: features of the dataset; None if a stream does not know them.
        columns: the columns to convert.

    Raises:
        DataError: a number without class, such as -1, which `datasets` uses for "no label".
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
            do="leave out rows without a class",
        )
    return feature.names[value]
