"""A run can be had again, byte by byte, from its recipe or its lock, and holds no secret."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from ruamel.yaml import YAML

SECRETS = {
    "HF_TOKEN": "hf_PlantedInTheEnvironment0123456789",
    "WANDB_API_KEY": "0123planted4567in89abthecdenvironment",
    "AWS_SECRET_ACCESS_KEY": "planted/in/the/environment+0123456789",
}
FIRST, LATER = 40 * "a", 40 * "b"
HUB_ID = "somebody/tiny"


@pytest.fixture
def hub(tmp_path: Path, tiny_folder: Path) -> Path:
    """A local copy of a hub that holds the tiny model under `HUB_ID`, as one commit."""
    home = tmp_path / "hub" / f"models--{HUB_ID.replace('/', '--')}"
    shutil.copytree(tiny_folder, home / "snapshots" / FIRST)
    (home / "refs").mkdir()
    (home / "refs" / "main").write_text(FIRST)
    return home


def run(hub: Path, hash_seed: str, *arguments: str) -> str:
    """Output of a process of its own, which draws the order of its sets anew."""
    environment = {
        **os.environ,
        **SECRETS,
        "HF_HUB_CACHE": str(hub.parent),
        "PYTHONHASHSEED": hash_seed,
    }
    done = subprocess.run(
        [sys.executable, "-m", *arguments],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout + done.stderr


def test_a_lock_runs_again_to_the_same_bytes_and_no_file_holds_a_secret(
    hub: Path, recipe_file: Path, tmp_path: Path
) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    steps = ["train.max_steps=3", "train.save_steps=2"]
    said = run(
        hub, "1", "qvft.train", str(recipe_file), f"model.id={HUB_ID}", f"run.dir={one}", *steps
    )
    lock = one / "recipe.lock.yaml"
    assert YAML(typ="safe").load(lock.read_text())["model"]["revision"] == FIRST

    # The hub goes on; the lock does not.
    (hub / "snapshots" / LATER).mkdir()
    (hub / "refs" / "main").write_text(LATER)
    said += run(hub, "2", "qvft.train", str(lock), f"run.dir={two}")
    said += run(hub, "2", "qvft.eval", str(two))

    written = {path.name for path in (one / "adapter").iterdir()}
    assert written == {
        "adapter_config.json", "adapter_model.safetensors", "bridge.safetensors", "manifest.json",
    }  # fmt: skip
    for name in written:
        # Bit-equal: the same operations in the same order, on one thread.
        assert (one / "adapter" / name).read_bytes() == (two / "adapter" / name).read_bytes(), name

    files = [path for folder in (one, two) for path in folder.rglob("*") if path.is_file()]
    assert len(files) > 15
    for name, value in SECRETS.items():
        assert value not in said
        assert [path for path in files if value.encode() in path.read_bytes()] == [], name


def test_a_token_in_train_arguments_is_refused_before_anything_is_written(
    recipe_file: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    from qvft.train import main

    folder = tmp_path / "run"
    planted = f"train.arguments={{hub_token: {SECRETS['HF_TOKEN']}}}"
    assert main([str(recipe_file), f"run.dir={folder}", planted]) == 2
    said = capfd.readouterr()
    assert "train.arguments.hub_token" in said.err
    assert SECRETS["HF_TOKEN"] not in said.out + said.err
    assert not folder.exists()
