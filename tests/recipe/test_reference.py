"""What is generated from the schema is what the schema says now."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from qvft.recipe.reference import (
    REFERENCE_FILE,
    SCHEMA_FILE,
    reference_text,
    schema_text,
    write_reference,
)

PROJECT = Path(__file__).resolve().parents[2]
AGAIN = "run `python -m qvft.recipe.reference`"


@pytest.mark.parametrize(
    ("file", "text"), [(SCHEMA_FILE, schema_text()), (REFERENCE_FILE, reference_text())]
)
def test_the_file_in_the_repository_is_current(file: str, text: str) -> None:
    assert (PROJECT / file).read_text() == text, AGAIN


def test_every_key_is_described() -> None:
    rows = [line for line in reference_text().splitlines() if line.startswith("| `")]
    assert len(rows) > 70  # there are some eighty keys; an empty reference must not pass
    bare = [row for row in rows if row.endswith("|  |")]
    assert bare == []


def test_defaults_made_by_a_function_are_shown() -> None:
    text = reference_text()
    assert '| `target_modules` | list of strings or `all-linear` | `["q_proj", "v_proj"]` |' in text
    assert '| `answer` | section | `{"max_new_tokens": 10}` |' in text


def test_the_schema_forbids_unknown_keys_everywhere() -> None:
    schema = json.loads(schema_text())
    sections = [schema, *schema["$defs"].values()]
    assert all(section["additionalProperties"] is False for section in sections)


def test_writing_it_needs_no_torch(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from qvft.recipe.reference import write_reference\n"
        f"write_reference(Path({str(tmp_path)!r})); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=PROJECT).returncode == 0
    assert len(write_reference(tmp_path)) == 2
    assert (tmp_path / SCHEMA_FILE).read_text() == schema_text()
