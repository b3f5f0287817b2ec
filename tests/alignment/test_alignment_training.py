"""Alignment beside generation through `qvft.train`: heads, logs, resuming, processes, refusals."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from qvft.adapters.checkpoint import ALIGNMENT, BRIDGE, PREFIX
from qvft.adapters.manifest import read_manifest
from qvft.recipe.load import load_recipe
from qvft.train import main

ALL = "objectives={lm: 1.0, itc: 0.5, itm: 0.5, itg: 0.25}"
# Decay alone would move a weight that no objective reaches.
FOUR_STEPS = ["train.max_steps=4", "train.weight_decay=0.0"]


@pytest.fixture(scope="module")
def aligned(recipe_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of four steps with every objective, a checkpoint after two."""
    run = tmp_path_factory.mktemp("runs") / "aligned"
    assert main([str(recipe_file), f"run.dir={run}", ALL, *FOUR_STEPS]) == 0
    return run


def test_the_heads_are_saved_beside_the_bridge_and_described(aligned: Path) -> None:
    entry = read_manifest(aligned / "adapter")["alignment"]
    assert entry["objectives"] == ["itc", "itm", "itg"]
    assert entry["text_generation"] is True
    state = load_file(aligned / "adapter" / ALIGNMENT)
    assert state.keys() == entry["weights"].keys()
    assert all(name.startswith(PREFIX) and state[name].dtype == torch.float32 for name in state)
    assert not any(name.startswith(PREFIX) for name in load_file(aligned / "adapter" / BRIDGE))


def test_every_head_is_trained(aligned: Path) -> None:
    # From the third step on they differ from the second's, whatever they began with.
    before = load_file(aligned / "checkpoints" / "0" / "checkpoint-2" / ALIGNMENT)
    after = load_file(aligned / "adapter" / ALIGNMENT)
    assert [name for name in after if torch.equal(before[name], after[name])] == []


def test_each_objective_is_logged_and_the_loss_is_their_weighted_sum(aligned: Path) -> None:
    lines = [json.loads(line) for line in (aligned / "metrics.jsonl").read_text().splitlines()]
    logged = [line for line in lines if "loss" in line]
    assert len(logged) == 4
    for line in logged:
        expected = line["loss_lm"] + 0.5 * (line["loss_itc"] + line["loss_itm"])
        # float32 sums in another order.
        assert line["loss"] == pytest.approx(expected + 0.25 * line["loss_itg"], rel=1e-5)


def test_a_resumed_run_ends_with_the_weights_of_an_undisturbed_one(
    aligned: Path, recipe_file: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    arguments = [str(recipe_file), f"run.dir={run}", ALL, *FOUR_STEPS]
    checkpoint = aligned / "checkpoints" / "0" / "checkpoint-2"
    copied = run / "checkpoints" / "0" / "checkpoint-2"
    copied.parent.mkdir(parents=True)
    shutil.copytree(checkpoint, copied)
    shutil.copy(aligned / "recipe.lock.yaml", run)
    assert main([*arguments, "train.resume=auto"]) == 0
    for file in (ALIGNMENT, BRIDGE, "adapter_model.safetensors"):
        alone, resumed = load_file(aligned / "adapter" / file), load_file(run / "adapter" / file)
        assert alone.keys() == resumed.keys()
        for key in alone:
            assert torch.equal(alone[key], resumed[key]), key


def test_accumulated_batches_equal_one(recipe_file: Path, tmp_path: Path) -> None:
    # Without contrast and matching, which have fewer negatives in a smaller batch.
    weights = ["objectives={lm: 1.0, itg: 0.25}", "train.max_steps=1", "train.save_steps=null"]
    states = []
    for size, batches in ((8, 1), (4, 2)):
        run = tmp_path / f"{batches}"
        cut = [
            f"train.per_device_train_batch_size={size}",
            f"train.gradient_accumulation_steps={batches}",
        ]
        assert main([str(recipe_file), f"run.dir={run}", *weights, *cut]) == 0
        states.append(load_file(run / "adapter" / ALIGNMENT))
    for key, alone in states[0].items():
        # As below; one step.
        difference = (alone - states[1][key]).abs()
        assert difference.median() < 1e-6, key
        assert difference.max() < 2.1e-3, key


def test_two_processes_equal_one(recipe_file: Path, tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    steps = ["train.max_steps=2", "train.save_steps=null", "train.texts_per_image=3"]
    assert main([str(recipe_file), f"run.dir={one}", ALL, *steps]) == 0
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2"]
    command += ["--master_port=0", "--rdzv_backend=c10d", "--rdzv_endpoint=localhost:0"]
    command += [
        "-m",
        "qvft.train",
        str(recipe_file),
        f"run.dir={two}",
        ALL,
        "train.per_device_train_batch_size=4",
    ]
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(
        [*command, *steps], env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-3000:]
    for file in (ALIGNMENT, BRIDGE, "adapter_model.safetensors"):
        alone, both = load_file(one / "adapter" / file), load_file(two / "adapter" / file)
        assert alone.keys() == both.keys()
        for key in alone:
            # As in tests/invariants/test_processes.py: a step of Adam moves a weight by about the
            # learning rate, 1e-3, whatever its gradient's size; a gradient near zero may differ
            # in sign. Two such steps at most.
            # Keys' biases move by nothing else, since softmax takes no notice of them.
            difference = (alone[key] - both[key]).abs()
            assert difference.median() < 1e-6 or key.endswith("key.bias"), key
            assert difference.max() < 4.1e-3, key


def test_alignment_alone_trains_no_decoder(recipe_file: Path, tmp_path: Path, capsys) -> None:
    alone = ["objectives={lm: 0.0, itc: 1.0}", "train.max_steps=1", "train.save_steps=null"]
    run = tmp_path / "run"
    assert main([str(recipe_file), f"run.dir={run}", *alone]) != 0
    assert "adapters" in capsys.readouterr().err
    frozen = ["trainable.decoder=frozen", "trainable.language_projection=frozen"]
    assert main([str(recipe_file), f"run.dir={run}", *alone, *frozen]) == 0
    line = json.loads((run / "metrics.jsonl").read_text().splitlines()[-2])
    assert line["loss"] == pytest.approx(line["loss_itc"], rel=1e-6)
    assert "loss_lm" not in line


def test_a_recipe_without_objectives_has_no_heads(tiny_run: Path) -> None:
    assert "alignment" not in read_manifest(tiny_run / "adapter")
    assert not (tiny_run / "adapter" / ALIGNMENT).exists()


def test_a_family_that_cannot_be_aligned_is_refused(
    recipe_file: Path, tmp_path: Path, capsys
) -> None:
    run = tmp_path / "run"
    question = ["model.family=blip2_question", "model.text_branch=fresh"]
    assert main([str(recipe_file), f"run.dir={run}", *question, "objectives.itc=1.0"]) == 2
    assert "itc with family blip2_question" in capsys.readouterr().err


def test_data_without_captions_is_refused(recipe_file: Path, tmp_path: Path, capsys) -> None:
    overrides = [f"run.dir={tmp_path / 'run'}", "data.train.texts=questions", "objectives.itc=1.0"]
    assert main([str(recipe_file), *overrides]) == 2
    assert "holds no caption" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("objectives.lm=0.0", "above 0"),
        ("objectives.itc=-1.0", "greater than or equal to 0"),
        ("objectives.text_branch=x", "text_branch needs"),
    ],
)
def test_objectives_that_say_nothing_are_refused(
    recipe_file: Path, given: str, message: str
) -> None:
    from qvft.errors import RecipeError

    with pytest.raises(RecipeError, match=message):
        load_recipe(recipe_file, [given])


@pytest.mark.parametrize("name", ["nobody/has-it", "./not-there"])
def test_a_text_branch_that_is_not_there_is_named_with_its_key(
    name: str, recipe_file: Path, tmp_path: Path, capsys, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    given = ["objectives.itc=1.0", f"objectives.text_branch={name}", f"run.dir={tmp_path / 'run'}"]
    assert main([str(recipe_file), *given]) == 2
    said = capsys.readouterr().err
    assert f"objectives.text_branch={name}: " in said and "model.id" not in said


def test_a_run_starts_from_the_heads_of_another(
    aligned: Path, recipe_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    start = f"train.from={aligned}"
    still = ["train.max_steps=1", "train.learning_rate=0", "train.preflight=false"]
    run = tmp_path / "run"
    assert main([str(recipe_file), f"run.dir={run}", ALL, start, *still]) == 0
    for name in (ALIGNMENT, BRIDGE):
        here, there = load_file(run / "adapter" / name), load_file(aligned / "adapter" / name)
        assert here.keys() == there.keys()
        assert all(torch.equal(here[key], there[key]) for key in there)
    # Without alignment objectives the heads stay behind, and what they trained comes along.
    assert main([str(recipe_file), f"run.dir={tmp_path / 'lm'}", start, *still]) == 0
    assert not (tmp_path / "lm" / "adapter" / ALIGNMENT).exists()
    capsys.readouterr()
    other = "objectives={lm: 1.0, itc: 0.5, itm: 0.5}"
    assert main([str(recipe_file), f"run.dir={tmp_path / 'other'}", other, start]) == 2
    assert "objectives.itg" in capsys.readouterr().err
