"""A run can be had again, byte by byte, from its recipe or its lock, and holds no secret."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from qvft.errors import ModelError
from qvft.recipe.load import load_recipe
from qvft.recipe.recipe_lock import write_lock
from qvft.training.run_folder import resolve_revision

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


def run(hash_seed: str, *arguments: str, **environment: str) -> str:
    """Output of a process of its own, which draws the order of its sets anew."""
    done = subprocess.run(
        [sys.executable, "-m", *arguments],
        env={**os.environ, **SECRETS, "PYTHONHASHSEED": hash_seed, **environment},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout + done.stderr


def assert_same_adapter(one: Path, two: Path) -> None:
    written = {path.name for path in (one / "adapter").iterdir()}
    assert written == {
        "adapter_config.json", "adapter_model.safetensors", "bridge.safetensors", "manifest.json",
    }  # fmt: skip
    for name in written:
        # Bit-equal: the same operations in the same order, on one thread.
        assert (one / "adapter" / name).read_bytes() == (two / "adapter" / name).read_bytes(), name


def assert_no_secret(said: str, *folders: Path) -> None:
    files = [path for folder in folders for path in folder.rglob("*") if path.is_file()]
    assert len(files) > 15
    for name, value in SECRETS.items():
        assert value not in said
        assert [path for path in files if value.encode() in path.read_bytes()] == [], name


def test_a_lock_runs_again_to_the_same_bytes_and_no_file_holds_a_secret(
    tiny_run: Path, tmp_path: Path
) -> None:
    again = tmp_path / "again"
    said = run("7", "qvft.train", str(tiny_run / "recipe.lock.yaml"), f"run.dir={again}")
    assert_same_adapter(tiny_run, again)
    assert_no_secret(said, again)
    assert "kernels" not in said  # bitsandbytes would name a package that it found absent


@pytest.mark.slow
def test_a_lock_keeps_the_commit_that_a_hub_id_meant(
    hub: Path, recipe_file: Path, tmp_path: Path
) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    cache = {"HF_HUB_CACHE": str(hub.parent)}
    steps = [f"model.id={HUB_ID}", "train.max_steps=3", "train.save_steps=2"]
    said = run("1", "qvft.train", str(recipe_file), f"run.dir={one}", *steps, **cache)
    move_on(hub)
    lock = one / "recipe.lock.yaml"
    said += run("2", "qvft.train", str(lock), f"run.dir={two}", **cache)
    said += run("2", "qvft.eval", str(two), **cache)
    assert_same_adapter(one, two)
    assert_no_secret(said, one, two)


def move_on(hub: Path) -> None:
    """The hub's main branch becomes another commit, of which nothing is at hand."""
    (hub / "snapshots" / LATER).mkdir()
    (hub / "refs" / "main").write_text(LATER)


def test_a_hub_id_is_pinned_to_its_commit_and_a_run_that_goes_on_keeps_it(
    hub: Path, recipe_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(hub.parent))
    folder = tmp_path / "run"
    recipe = load_recipe(recipe_file, [f"model.id={HUB_ID}", f"run.dir={folder}"])
    first = resolve_revision(recipe)
    assert first.model.revision == FIRST
    write_lock(first, folder)
    move_on(hub)
    with pytest.raises(ModelError):  # without progress the hub's own word counts
        resolve_revision(recipe)
    checkpoint = folder / "checkpoints" / "0" / "checkpoint-2"
    checkpoint.mkdir(parents=True)
    (checkpoint / "trainer_state.json").write_text("{}")
    assert resolve_revision(recipe) == first
    assert resolve_revision(first) == first


def test_a_folder_has_no_commit(recipe_file: Path) -> None:
    recipe = load_recipe(recipe_file)
    assert resolve_revision(recipe) == recipe


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
