"""What a launcher may ask for, what is refused under FSDP, and files for the launcher."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from accelerate.commands.config.config_args import load_config_from_file

from qvft.assembly.training import training_work
from qvft.errors import RecipeError
from qvft.recipe.load import load_recipe
from qvft.training.sharding import asked_to_shard

CONFIGS = sorted((Path(__file__).resolve().parents[2] / "recipes" / "accelerate").glob("*.yaml"))
FSDP = {"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2"}


@pytest.fixture
def launcher(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """The environment of a launcher, put back afterwards whatever reads it."""
    for variable in (*FSDP, "QVFT_SHARDS_WEIGHTS", "FSDP_OFFLOAD_PARAMS"):
        monkeypatch.setenv(variable, "false")
    return monkeypatch


def test_the_files_for_accelerate_are_read_by_it() -> None:
    read = {path.stem: load_config_from_file(str(path)) for path in CONFIGS}
    assert {name: one.distributed_type.value for name, one in read.items()} == {
        "ddp": "MULTI_GPU",
        "fsdp": "FSDP",
        "zero": "DEEPSPEED",
    }
    assert read["fsdp"].fsdp_config["fsdp_version"] == 2
    assert read["zero"].deepspeed_config["zero_stage"] == 2


def test_fsdp_is_noticed_once_and_hidden_from_accelerate(launcher: pytest.MonkeyPatch) -> None:
    assert not asked_to_shard()
    for variable, value in FSDP.items():
        launcher.setenv(variable, value)
    assert asked_to_shard()
    assert "ACCELERATE_USE_FSDP" not in os.environ
    assert asked_to_shard()


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({**FSDP, "FSDP_VERSION": "1"}, "FSDP 1"),
        ({**FSDP, "FSDP_OFFLOAD_PARAMS": "true"}, "CPU's memory"),
    ],
)
def test_other_ways_of_sharding_are_refused(
    launcher: pytest.MonkeyPatch, variables: dict[str, str], said: str
) -> None:
    for variable, value in variables.items():
        launcher.setenv(variable, value)
    with pytest.raises(RecipeError, match=said):
        asked_to_shard()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("phases=[{name: a}, {name: b}]", "2 phases under FSDP"),
        ("objectives={lm: 1.0, itc: 0.5}", "itc under FSDP"),
        ("model.quantize.scheme=nf4", "nf4 under FSDP"),
    ],
)
def test_what_cannot_be_cut_is_refused(
    launcher: pytest.MonkeyPatch, recipe_file: Path, change: str, said: str
) -> None:
    for variable, value in FSDP.items():
        launcher.setenv(variable, value)
    with pytest.raises(RecipeError, match=said):
        training_work(load_recipe(recipe_file, [change]))
