"""What `import qvft` offers: the list, its place, its documentation."""

from __future__ import annotations

import re
import subprocess
import sys
import typing
from pathlib import Path

import pytest

import qvft
from qvft import _MODULES as PUBLIC

PAGE = Path(__file__).resolve().parents[1] / "docs" / "python.md"
NAMES = {
    "EmbeddingModel", "Recipe", "Run", "VisionLanguageModel", "__version__", "errors", "fit",
    "load_embedding_model", "load_model",
}  # fmt: skip


def test_the_public_names_are_these() -> None:
    assert set(qvft.__all__) == NAMES | {name for name in PUBLIC if name.startswith("register_")}
    assert set(PUBLIC) == set(qvft.__all__) - {"__version__", "errors"}


@pytest.mark.parametrize("name", qvft.__all__)
def test_a_public_name_is_there_shown_and_documented(name: str) -> None:
    assert getattr(qvft, name) is not None
    assert name in dir(qvft)
    assert re.search(rf"`(qvft\.)?{name}\b", PAGE.read_text())


@pytest.mark.parametrize("name", PUBLIC)
def test_a_public_object_is_explained(name: str) -> None:
    assert getattr(qvft, name).__doc__


def test_programs_are_not_shadowed() -> None:
    import qvft.eval
    import qvft.merge
    import qvft.train

    assert callable(qvft.fit) and callable(qvft.train.main) and callable(qvft.eval.main)


def test_an_unknown_name_is_no_attribute() -> None:
    with pytest.raises(AttributeError, match="fitt"):
        qvft.fitt  # noqa: B018


def test_importing_and_listing_take_no_torch() -> None:
    code = (
        "import qvft, sys; dir(qvft); qvft.Recipe; qvft.Run; qvft.fit; qvft.__version__; "
        "assert not {'torch', 'transformers', 'datasets'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_types_are_shipped() -> None:
    assert (Path(qvft.__file__).parent / "py.typed").is_file()
    assert typing.get_type_hints(qvft.Recipe)["name"] is not None
