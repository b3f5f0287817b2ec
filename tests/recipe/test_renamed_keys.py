"""Recipe keys of version 0.1.0: locks are translated, recipes refused with the new name."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from qvft.errors import CheckpointError, RecipeError
from qvft.recipe.command_line import RecipeParser
from qvft.recipe.load import load_recipe, parse_recipe
from qvft.recipe.recipe_lock import LOCK_NAME, lock_hash, read_lock, recipe_hash, write_lock
from qvft.recipe.renamed_keys import RENAMED, current_keys
from qvft.recipe.yaml_text import yaml_file_value
from qvft.training.run_folder import check_folder

OLD_LOCK = """\
name: x
model: {id: m, attention: eager, quantize: {scheme: fp4, double: false}}
data:
  train: {path: a.jsonl, allow_outside: true}
  eval: {path: b.jsonl, allow_outside: true}
  workers: 0
  views: 2
tune:
  decoder: lora
  decoder_frozen: 0.0
  lora: {r: 4, alpha: 8, dropout: 0.1, targets: [fc1], dora: true, rslora: true}
train:
  batch_size: 3
  accumulation: 5
  lr: {qformer: 1.0e-4}
  clip: 2.0
  warmup: 7
  schedule: linear
  precision: fp32
  checkpointing: true
  compile: true
  keep: 4
  keep_best: true
  eval_steps: 2
  early_stopping: 6
  log_steps: 8
phases:
  - {name: a, tune: {qformer: frozen}, train: {lr: 1.0e-3, batch_size: 9}}
eval: {grid: 1}
run: {dir: null, threads: null}
"""
NEW = {
    "name": "x",
    "model": {
        "id": "m",
        "attn_implementation": "eager",
        "quantization": {
            "load_in_4bit": True,
            "bnb_4bit_quant_type": "fp4",
            "bnb_4bit_use_double_quant": False,
        },
    },
    "data": {
        "train": {"path": "a.jsonl", "allow_paths_outside_root": True},
        "eval": {"path": "b.jsonl", "allow_paths_outside_root": True},
        "num_workers": 0,
        "augmentations_per_image": 2,
    },
    "trainable": {
        "decoder": "lora",
        "frozen_decoder_fraction": 0.0,
        "lora": {
            "r": 4,
            "lora_alpha": 8,
            "lora_dropout": 0.1,
            "target_modules": ["fc1"],
            "use_dora": True,
            "use_rslora": True,
        },
    },
    "train": {
        "per_device_train_batch_size": 3,
        "gradient_accumulation_steps": 5,
        "learning_rate": {"qformer": 1e-4},
        "max_grad_norm": 2.0,
        "warmup_steps": 7,
        "lr_scheduler_type": "linear",
        "mixed_precision": "no",
        "gradient_checkpointing": True,
        "torch_compile": True,
        "save_total_limit": 4,
        "load_best_model_at_end": True,
        "eval_steps": 2,
        "early_stopping_patience": 6,
        "logging_steps": 8,
    },
    "phases": [
        {
            "name": "a",
            "trainable": {"qformer": "frozen"},
            "train": {"learning_rate": 1e-3, "per_device_train_batch_size": 9},
        }
    ],
    "eval": {"report_images": 1},
    "run": {"dir": None, "threads": None},
}
MINIMAL = "name: x\nmodel: {id: m}\n"
PHASES = "phases: [{name: a}, {name: b}]\n"


def write(folder: Path, text: str) -> Path:
    path = folder / "r.yaml"
    path.write_text(text)
    return path


def leaf_paths(content: Any, path: str = "") -> Iterator[str]:
    if isinstance(content, dict):
        for key, value in content.items():
            yield from leaf_paths(value, f"{path}.{key}" if path else key)
    yield path


def test_an_old_lock_is_the_recipe_that_its_new_names_make(tmp_path: Path) -> None:
    assert read_lock(old_lock(tmp_path / "run")) == parse_recipe(NEW)


def test_the_example_above_has_every_renamed_key() -> None:
    old = yaml_file_value(OLD_LOCK, where="example")
    assert current_keys(old) == NEW
    paths = set(leaf_paths(old))
    assert {key for key in RENAMED if key not in paths} == set()
    assert "trainable" not in old  # the argument is not altered


def test_new_names_are_keys_of_the_schema_and_old_ones_are_not() -> None:
    source = {"path": "a"}
    content = {"name": "x", "model": {"id": "m"}, "data": {"train": source, "eval": source}}
    known = set(leaf_paths(parse_recipe(content).model_dump()))
    assert set(RENAMED.values()) <= known
    assert not set(RENAMED) & known


@pytest.mark.parametrize(
    ("text", "overrides", "named"),
    [
        ("train: {lr: 1.0e-4}\n", [], "train.lr.*learning_rate"),
        ("tune: {decoder: full}\n", [], "tune.*trainable"),
        ("phases: [{name: a, train: {keep: 1}}]\n", [], "phases.0.train.*keep.*save_total_limit"),
        ("", ["eval.grid=1"], "eval.grid.*report_images"),
        (PHASES, ["phases.1.train.clip=3.0"], "clip.*max_grad_norm"),
    ],
)
def test_a_recipe_with_an_old_name_is_refused_with_the_new_one(
    tmp_path: Path, text: str, overrides: list[str], named: str
) -> None:
    with pytest.raises(RecipeError, match=named):
        load_recipe(write(tmp_path, MINIMAL + text), overrides)


def test_a_further_argument_of_the_trainer_keeps_its_name() -> None:
    given = {
        "train": {"arguments": {"lr": 1, "keep": 2}},
        "data": {"train": {"columns": {"workers": "a"}}},
    }
    assert current_keys(given) == given


SAME_RUN = {
    "train": {"resume": "auto", "log_steps": 99, "save_steps": 2, "keep": 99},
    "data": {"workers": 9, "cache_images": False},
}


def old_lock(folder: Path, **changes: dict[str, Any]) -> Path:
    """A run folder with the lock of an earlier version."""
    content = yaml_file_value(OLD_LOCK, where="example")
    for section, keys in changes.items():
        content[section] |= keys
    folder.mkdir()
    (folder / LOCK_NAME).write_text(json.dumps(content))
    return folder


def test_the_hash_of_an_old_lock_leaves_out_what_it_did(tmp_path: Path) -> None:
    first = lock_hash(old_lock(tmp_path / "a"))
    assert lock_hash(old_lock(tmp_path / "b", **SAME_RUN)) == first
    assert lock_hash(old_lock(tmp_path / "c", train={"clip": 9.0})) != first


def test_an_old_lock_with_keep_best_depends_on_the_evaluation_data(tmp_path: Path) -> None:
    eval_data = {"eval": {"path": "other.jsonl"}}
    chosen = [old_lock(tmp_path / "a"), old_lock(tmp_path / "b", data=eval_data)]
    assert lock_hash(chosen[0]) != lock_hash(chosen[1])
    last = {"keep_best": False}
    free = [
        old_lock(tmp_path / "c", train=last),
        old_lock(tmp_path / "d", train=last, data=eval_data),
    ]
    assert lock_hash(free[0]) == lock_hash(free[1])


@pytest.mark.parametrize("further", [[], ["train.max_grad_norm=3.0"]])
def test_a_run_of_an_earlier_version_goes_on_with_its_recipe_alone(
    tmp_path: Path, further: list[str]
) -> None:
    run = old_lock(tmp_path / "run")
    done = run / "checkpoints" / "0" / "done.json"
    done.parent.mkdir(parents=True)
    done.write_text("{}")
    again = ["train.resume=auto", f"run.dir={run}", "data.eval.path=b.jsonl", *further]
    recipe = load_recipe(write(tmp_path, json.dumps(NEW)), again)
    if further:
        with pytest.raises(CheckpointError, match=r"train\.max_grad_norm is 2\.0 there and 3\.0"):
            check_folder(recipe)
    else:
        assert check_folder(recipe) == run


def test_a_lock_that_is_written_anew_has_the_new_names(tmp_path: Path) -> None:
    recipe = read_lock(old_lock(tmp_path / "run"))
    write_lock(recipe, tmp_path / "run")
    assert read_lock(tmp_path / "run") == recipe
    assert lock_hash(tmp_path / "run") == recipe_hash(recipe)
    assert "max_grad_norm" in (tmp_path / "run" / LOCK_NAME).read_text()


@pytest.mark.parametrize(
    ("option", "named"),
    [
        ("--lr", "train.learning_rate=3"),
        ("--batch-size", "train.per_device_train_batch_size=3"),
        ("--grid", "eval.report_images=3"),
    ],
)
def test_an_option_with_an_old_name_is_told_the_override(
    option: str, named: str, capsys: pytest.CaptureFixture
) -> None:
    with pytest.raises(SystemExit):
        RecipeParser(prog="qvft.train").parse_args([option, "3"])
    assert named in capsys.readouterr().err
