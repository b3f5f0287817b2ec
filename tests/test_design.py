"""docs/design.md names files and rooms that exist."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TEXT = (ROOT / "docs" / "design.md").read_text()
LOOKUPS = re.findall(r"^\| (Where [^|]*) \| ([^|]*) \|$", TEXT, re.MULTILINE)


def test_every_lookup_names_a_file() -> None:
    assert len(LOOKUPS) > 10
    for question, answer in LOOKUPS:
        files = re.findall(r"`([\w/]+\.py)`", answer)
        assert files, question
        assert [name for name in files if not (ROOT / "qvft" / name).is_file()] == [], question


def test_every_file_that_the_text_names_exists() -> None:
    named = set(re.findall(r"`([\w/]+/\w+\.py)`", TEXT))
    roots = (ROOT / "qvft", ROOT)
    assert sorted(n for n in named if not any((root / n).is_file() for root in roots)) == []


def test_every_room_is_in_the_table() -> None:
    rooms = {path.parent.name for path in (ROOT / "qvft").glob("*/__init__.py")}
    assert rooms == set(re.findall(r"^\| `(\w+)/` \|", TEXT, re.MULTILINE))
