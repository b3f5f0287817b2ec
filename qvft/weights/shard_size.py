"""Parses the maximum shard size."""

from __future__ import annotations

import re

from qvft.errors import UserError


def check_shard_size(text: str) -> str:
    """Shard size in the format of transformers.

    Raises:
        UserError: not a whole number with KB, MB or GB.
    """
    if not re.fullmatch(r"[1-9][0-9]*(KB|MB|GB)", text):
        raise UserError(f'"{text}"', where="--shard-size", expected="a size such as 5GB or 500MB")
    return text
