"""The one message of an error."""

from __future__ import annotations

import pytest

from qvft.errors import UserError


@pytest.mark.parametrize(
    ("given", "where", "message"),
    [
        ("wrong.", None, "wrong."),
        ("lies outside ..", "x:1", "x:1: lies outside ..; do this."),
        ("lies outside .", None, "lies outside .; do this."),
        ("is `a.`;", None, "is `a.`; do this."),
    ],
)
def test_a_stop_ends_the_message_once_and_folders_keep_their_dots(
    given: str, where: str | None, message: str
) -> None:
    do = "do this." if "; do" in message else None
    assert str(UserError(given, where=where, do=do)) == message
