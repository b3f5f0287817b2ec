from __future__ import annotations

import re
import sys
import unicodedata

from qvft.evaluation.metrics.unicode_letters import RUN, composed


def test_every_combining_mark_of_unicode_goes_on_with_a_word() -> None:
    marks = [c for c in map(chr, range(sys.maxunicode + 1)) if unicodedata.category(c)[0] == "M"]
    run = re.compile(RUN)
    assert len(marks) > 2000
    assert [hex(ord(mark)) for mark in marks if not run.fullmatch(f"a{mark}b")] == []


def test_a_mark_without_a_letter_is_no_word() -> None:
    assert re.findall(RUN, "\u0301 \u2764\ufe0f _ -") == []


def test_a_letter_is_written_in_one_way_only() -> None:
    assert composed("e\u0301") == composed("\u00e9") == "\u00e9"
