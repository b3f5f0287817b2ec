"""Under which number of processes a run may go on."""

from __future__ import annotations

from pathlib import Path

import pytest

from qvft.errors import CheckpointError
from qvft.recipe.load import load_recipe
from qvft.training.run_folder import processes_of, require_same_step


def run_of(folder: Path, processes: int) -> Path:
    """A run folder whose checkpoint several processes wrote."""
    checkpoint = folder / "checkpoints" / "0" / "checkpoint-2"
    checkpoint.mkdir(parents=True)
    (checkpoint / "trainer_state.json").write_text("{}")
    names = (
        ["rng_state.pth"] if processes == 1 else [f"rng_state_{i}.pth" for i in range(processes)]
    )
    for name in names:
        (checkpoint / name).touch()
    return folder


@pytest.mark.parametrize("processes", [1, 2, 4])
def test_a_checkpoint_says_how_many_processes_wrote_it(tmp_path: Path, processes: int) -> None:
    assert processes_of(run_of(tmp_path, processes)) == processes


@pytest.mark.parametrize(("batch", "accumulation", "world"), [(8, 2, 1), (4, 1, 4), (2, 4, 2)])
def test_the_same_texts_a_step_may_be_cut_otherwise(
    recipe_file: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    batch: int,
    accumulation: int,
    world: int,
) -> None:
    run_of(tmp_path, 2)
    before = load_recipe(recipe_file)  # batches of 8, two processes
    cut = [
        f"train.per_device_train_batch_size={batch}",
        f"train.gradient_accumulation_steps={accumulation}",
    ]
    monkeypatch.setenv("WORLD_SIZE", str(world))
    require_same_step(tmp_path, before, load_recipe(recipe_file, cut))


def test_other_texts_a_step_are_refused_with_both_products(
    recipe_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_of(tmp_path, 2)
    recipe = load_recipe(recipe_file)
    monkeypatch.setenv("WORLD_SIZE", "3")
    with pytest.raises(CheckpointError, match="24 texts per step .* took 16 .*2 processes"):
        require_same_step(tmp_path, recipe, recipe)


def test_batches_by_tokens_are_counted_and_texts_are_not(
    recipe_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_of(tmp_path, 2)
    before = load_recipe(recipe_file, ["train.batch_tokens=100"])
    for changes, world in (
        (["train.per_device_train_batch_size=3"], 2),
        (["train.gradient_accumulation_steps=2"], 1),
    ):
        monkeypatch.setenv("WORLD_SIZE", str(world))
        now = load_recipe(recipe_file, ["train.batch_tokens=100", *changes])
        require_same_step(tmp_path, before, now)
    # As many texts, were they counted: 8 a batch, of two processes.
    changes = [
        "train.batch_tokens=100",
        "train.per_device_train_batch_size=4",
        "train.gradient_accumulation_steps=2",
    ]
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(CheckpointError, match="4 batches per step .* took 2 .*1 x 2 processes"):
        require_same_step(tmp_path, before, load_recipe(recipe_file, changes))
