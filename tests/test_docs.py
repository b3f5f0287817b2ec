"""What the documents quote works as it stands there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from PIL import Image

PROJECT = Path(__file__).resolve().parents[1]
DOCUMENTS = [PROJECT / "README.md", *sorted((PROJECT / "docs").glob("*.md"))]
WITH_PYTHON = [path for path in DOCUMENTS if "```python" in path.read_text()]


def test_documents_with_python_are_found() -> None:
    assert {"README.md", "prediction.md", "python.md"} <= {path.name for path in WITH_PYTHON}


@pytest.mark.parametrize("document", WITH_PYTHON, ids=lambda path: path.name)
def test_python_blocks_run(
    document: Path, merged: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a folder that holds `merged/mine`, `recipes`, `a.jpg` and `b.jpg`."""
    if document.stem == "trl":
        pytest.importorskip("trl", reason="needs qvft[trl]")
    (tmp_path / "merged").mkdir()
    (tmp_path / "merged" / "mine").symlink_to(merged)
    (tmp_path / "recipes").symlink_to(PROJECT / "recipes")
    for name, colour in (("a.jpg", "teal"), ("b.jpg", "coral")):
        Image.new("RGB", (40, 30), colour).save(tmp_path / name)
    monkeypatch.chdir(tmp_path)
    for block in re.findall(r"```python\n(.*?)```", document.read_text(), flags=re.DOTALL):
        exec(compile(block, str(document), "exec"), {})


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_between_documents_lead_somewhere(document: Path) -> None:
    targets = re.findall(r"\]\((?!https?:|#)([^)#]+)", document.read_text())
    missing = [target for target in targets if not (document.parent / target).exists()]
    assert not missing
