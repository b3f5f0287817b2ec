from __future__ import annotations

import shutil
from importlib.machinery import ModuleSpec
from pathlib import Path

import pytest

from qvft.errors import DataError
from qvft.evaluation.metrics.java.official import MissingToolError, java_command
from qvft.evaluation.metrics.java.spice import _JAR, _PARSER, spice


@pytest.fixture
def package_without_parser(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An installed package as it comes: SPICE's jar is there, CoreNLP's are not."""
    (tmp_path / _JAR).parent.mkdir()
    (tmp_path / _JAR).touch()
    spec = ModuleSpec("pycocoevalcap", None)
    spec.submodule_search_locations = [str(tmp_path)]
    monkeypatch.setattr("importlib.util.find_spec", lambda name: spec)
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}")
    return tmp_path


def test_missing_parser_is_named_with_its_size(package_without_parser: Path) -> None:
    with pytest.raises(MissingToolError) as caught:
        spice({"x": ["a dog"]}, {"x": "a dog"})
    message = str(caught.value)
    assert "stanford-corenlp-3.6.0-models.jar" in message
    assert "spice-1.0.jar" not in message
    assert str(package_without_parser) in message
    assert "384 MB" in message


def test_prediction_for_an_unknown_id_is_an_error() -> None:
    with pytest.raises(DataError, match="'z'"):
        spice({"x": ["a dog"]}, {"z": "a dog"})


def test_a_caption_equal_to_its_reference_scores_one() -> None:
    try:
        java_command("SPICE", (_JAR, *_PARSER), do="put them there")
    except MissingToolError as error:
        pytest.skip(str(error))
    texts = {"x": "a brown dog runs on green grass", "y": "two men ride a red bicycle"}
    references = {key: [text] for key, text in texts.items()}
    mean, items = spice(references, texts | {"y": "an airplane"})
    assert items["x"] == 1.0
    assert mean == sum(items.values()) / 2
