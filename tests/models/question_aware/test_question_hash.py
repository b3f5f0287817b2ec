"""The hash of a model's weights from two checkpoints does not depend on where their folders are."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from qvft.files import sha256_file
from qvft.json_files import sha256_json
from qvft.models.base_checkpoint import BaseCheckpoint, find_checkpoint
from qvft.models.weight_files import weights_hash


@pytest.fixture
def placed(tmp_path: Path, blip2_folder: Path, retrieval_folder: Path) -> list[BaseCheckpoint]:
    """The same two checkpoints, the BLIP-2 first and last by path."""
    found = []
    for place, names in (("one", ("a", "b")), ("other", ("b", "a"))):
        folders = [tmp_path / place / name for name in names]
        for source, folder in zip((blip2_folder, retrieval_folder), folders, strict=True):
            shutil.copytree(source, folder)
        found.append(find_checkpoint(str(folders[0]), text_branch=str(folders[1])))
    return found


def hash_of_0_1_0(base: BaseCheckpoint) -> str:
    """Names numbered by path, as 0.1.0 computed it."""
    assert base.graft is not None
    files = sorted(file for files in base.graft.files.values() for file in files)
    hashes = {f"{number} {file.name}": sha256_file(file) for number, file in enumerate(files)}
    return sha256_json(hashes | {"drawn": f"{base.graft.origins.summary()} {base.graft.seed}"})


def test_it_is_the_same_wherever_the_folders_are(placed: list[BaseCheckpoint]) -> None:
    first, last = placed
    assert weights_hash(first) == weights_hash(last) == hash_of_0_1_0(first)


def test_the_hash_of_a_run_of_0_1_0_is_known_again(placed: list[BaseCheckpoint]) -> None:
    first, last = placed
    recorded = hash_of_0_1_0(last)
    assert recorded != weights_hash(first)
    assert {weights_hash(base, recorded=recorded) for base in placed} == {recorded}
    assert weights_hash(first, recorded="0" * 64) == weights_hash(first)
