"""examples/extending: each row named from a recipe, as a package outside of qvft would be."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import Blip2ForConditionalGeneration, Starcoder2Config

from qvft.adapters.checkpoint import OBJECTIVES as OBJECTIVES_FILE
from qvft.adapters.manifest import read_manifest
from qvft.data.formats import FORMATS
from qvft.errors import RecipeError
from qvft.eval import main as evaluate
from qvft.evaluation.metric_table import METRICS
from qvft.merge import main as merge
from qvft.models.decoders import DECODERS
from qvft.models.families import FAMILIES
from qvft.recipe.load import load_recipe
from qvft.train import main as train
from qvft.training.objectives.alignment_losses import LossSum
from qvft.training.objectives.custom import CustomLoss, Objective
from qvft.training.objectives.objective_table import (
    OBJECTIVES,
    custom_objectives,
    register_objective,
)
from qvft.training.prepare_training import prepare_training
from tools.tiny_blip2.geometry import PAD_ID, VOCABULARY_SIZE, tiny_config

FOLDER = Path(__file__).resolve().parents[1] / "examples" / "extending"
LENGTH = "objectives={lm: 1.0, target_length.OBJECTIVE: 0.5}"


@pytest.fixture(autouse=True, scope="module")
def _outside() -> Iterator[None]:
    tables: tuple[dict[str, Any], ...] = (FORMATS, METRICS, DECODERS, FAMILIES, OBJECTIVES)
    before = [dict(table) for table in tables]
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(FOLDER)
        yield
    for table, rows in zip(tables, before, strict=True):
        table.clear()
        table.update(rows)


@pytest.fixture(scope="module")
def tabbed(shapes: Path) -> Path:
    rows = map(json.loads, (shapes / "train.jsonl").read_text().splitlines())
    lines = [f"{row['image']}\t{row['captions'][0]}" for row in rows if row.get("captions")]
    (shapes / "train.tsv").write_text("\n".join(lines))
    return shapes / "train.tsv"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, recipe_file: Path, tabbed: Path) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "extended"
    assert train([str(recipe_file), *given(tabbed), f"run.dir={folder}"]) == 0
    return folder


def given(tabbed: Path) -> list[str]:
    data = [f"data.train.path={tabbed}", "data.train.format=tabbed_captions.FORMAT"]
    return [*data, LENGTH, "train.max_steps=4"]


def test_a_run_with_a_format_and_an_objective_from_outside(run: Path) -> None:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    for line in (line for line in lines if "loss_target_length" in line):
        # Both are means of one step; the loss is logged in four digits.
        combined = line["loss_lm"] + 0.5 * line["loss_target_length"]
        assert line["loss"] == pytest.approx(combined, rel=1e-3)
    assert sum("loss_target_length" in line for line in lines) == 4
    weights = load_file(run / "adapter" / OBJECTIVES_FILE)
    assert set(weights) == {"target_length.head.weight", "target_length.head.bias"}


def test_a_metric_from_outside_is_reported(run: Path, tmp_path: Path) -> None:
    metrics = "eval.metrics=[auto,word_overlap.METRIC]"
    assert evaluate([str(run), metrics, "eval.blind=false", "--out", str(tmp_path / "e")]) == 0
    report = json.loads((tmp_path / "e" / "report.json").read_text())
    assert {"exact_match", "word_overlap"} <= report["metrics"].keys()
    assert report["units"]["word_overlap"] == "percent"
    assert "word overlap" in (tmp_path / "e" / "report.html").read_text()


def test_a_resumed_run_has_the_weights_of_the_objective(
    run: Path, recipe_file: Path, tabbed: Path, tmp_path: Path
) -> None:
    """Bit by bit those of the run that was not interrupted."""
    cut = shutil.copytree(run, tmp_path / "cut")
    shutil.rmtree(cut / "adapter")
    shutil.rmtree(cut / "checkpoints" / "0" / "checkpoint-4")
    assert train([str(recipe_file), *given(tabbed), f"run.dir={cut}", "train.resume=auto"]) == 0
    whole, resumed = (load_file(one / "adapter" / OBJECTIVES_FILE) for one in (run, cut))
    assert whole.keys() == resumed.keys()
    assert all(torch.equal(value, resumed[name]) for name, value in whole.items())


def test_another_objective_does_not_take_a_checkpoint(run: Path, recipe_file: Path) -> None:
    from qvft.adapters.checkpoint import restore_objectives
    from qvft.errors import CheckpointError

    assert "objectives" in read_manifest(run / "adapter")
    with pytest.raises(CheckpointError, match="target_length.head"):
        restore_objectives(run / "adapter", {})


def test_the_sum_over_small_batches_is_that_of_a_large_one(recipe_file: Path) -> None:
    work = prepare_training(load_recipe(recipe_file, [LENGTH]))
    plan = work.plans[0]
    work.counts(plan)
    rows = work.rows(plan, work.train, training=True)[:6]
    module, collate = work.objective(plan, rows)
    numbered = list(enumerate(rows))
    found = []
    for size in (6, 2):
        parts = [collate(numbered[i : i + size]) for i in range(0, 6, size)]
        total = module.counts(parts)["target_length"]
        for part in parts:
            part.pop("row_index")
        losses = [module(**part)["losses"]["target_length"] for part in parts]
        assert total == sum(int(loss.count) for loss in losses) == 6
        found.append(float(sum(loss.total.detach() for loss in losses)))
    assert found[0] == pytest.approx(found[1], rel=1e-5)  # float32, six terms of size 1


def test_a_run_starts_from_the_weights_of_an_objective_from_outside(
    recipe_file: Path, tmp_path: Path
) -> None:
    given = [str(recipe_file), LENGTH, "train.preflight=false"]
    one, two, lm = (tmp_path / name for name in ("one", "two", "lm"))
    assert train([*given, f"run.dir={one}", "train.max_steps=2"]) == 0
    still = [f"train.from={one}", "train.max_steps=1", "train.learning_rate=0"]
    assert train([*given, f"run.dir={two}", *still]) == 0
    name = "objectives.safetensors"
    here, there = (load_file(run / "adapter" / name) for run in (two, one))
    assert here and here.keys() == there.keys()
    assert all(torch.equal(here[key], there[key]) for key in there)
    assert train([str(recipe_file), f"run.dir={lm}", *still]) == 0
    assert not (lm / "adapter" / name).exists()


def test_a_decoder_from_outside_is_trained_and_merged(
    recipe_file: Path, tiny_folder: Path, tmp_path: Path
) -> None:
    text = Starcoder2Config(
        vocab_size=VOCABULARY_SIZE, hidden_size=64, intermediate_size=160, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=256,
        bos_token_id=2, eos_token_id=2, pad_token_id=PAD_ID, sliding_window=None,
    )  # fmt: skip
    base = shutil.copytree(tiny_folder, tmp_path / "base")
    (base / "model.safetensors").unlink()
    config = type(tiny_config()).from_dict(
        tiny_config().to_dict() | {"text_config": text.to_dict()}
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        Blip2ForConditionalGeneration(config).save_pretrained(base)
    given = [str(recipe_file), f"model.id={base}", f"run.dir={tmp_path / 'run'}"]
    given += ["train.max_steps=2", "data.augmentations_per_image=0", "train.preflight=false"]
    assert train(given) == 2
    assert train([*given, "model.decoder_type=starcoder2.DECODER"]) == 0
    assert merge([str(tmp_path / "run"), str(tmp_path / "merged")]) == 0


def test_a_family_from_outside_is_trained_merged_and_evaluated(
    recipe_file: Path, tiny_folder: Path, tmp_path: Path
) -> None:
    from mlp_projection import MlpBlip2, MlpBlip2Config

    base = shutil.copytree(tiny_folder, tmp_path / "base")
    (base / "model.safetensors").unlink()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        MlpBlip2(MlpBlip2Config.from_dict(tiny_config().to_dict())).save_pretrained(base)
    given = [str(recipe_file), f"model.id={base}", f"run.dir={tmp_path / 'run'}"]
    given += ["train.max_steps=2", "model.family=mlp_projection.FAMILY"]
    assert train(given) == 0
    weights = load_file(tmp_path / "run" / "adapter" / "bridge.safetensors")
    assert {"language_projection.0.weight", "language_projection.2.weight"} <= weights.keys()
    again = [f"train.from={tmp_path / 'run'}", f"run.dir={tmp_path / 'again'}"]
    assert train([*given, *again]) == 0
    assert merge([str(tmp_path / "run"), str(tmp_path / "merged")]) == 0
    assert evaluate([str(tmp_path / "run"), "eval.blind=false", "--out", str(tmp_path / "e")]) == 0


@pytest.mark.parametrize(
    ("overrides", "where"),
    [
        (["objectives={no_such_package.LOSS: 1.0}"], "objectives.custom"),
        (["objectives={json.dumps: 1.0}"], "objectives.custom"),
        (["objectives.custom={target_lenght: 1.0}"], "objectives.custom"),
        (["model.decoder_type=json.dumps"], "model.decoder_type"),
        ([LENGTH, "model.text_branch=fresh"], "objectives.custom"),
    ],
)
def test_what_is_no_row_is_refused(recipe_file: Path, overrides: list[str], where: str) -> None:
    with pytest.raises(RecipeError) as refusal:
        prepare_training(load_recipe(recipe_file, overrides))
    assert refusal.value.where == where


def test_names_of_objectives(recipe_file: Path) -> None:
    class Nothing(CustomLoss):
        def forward(self, model, batch, *, features, states) -> LossSum:
            return LossSum(states.sum() * 0, torch.tensor(1))

    for name in ("itc", "a.b"):
        with pytest.raises(ValueError, match="name"):
            Objective(name, lambda model: Nothing())
    own = register_objective(Objective("nothing", lambda model: Nothing()))
    assert register_objective(own) is own
    with pytest.raises(ValueError, match="already"):
        register_objective(Objective("nothing", lambda model: Nothing()))
    base = prepare_training(load_recipe(recipe_file)).loaded.base
    assert custom_objectives({"nothing": 1.0}, base) == {"nothing": (own, 1.0)}
    with pytest.raises(RecipeError, match="second"):
        custom_objectives({"target_length.OBJECTIVE": 1.0, "target_length:OBJECTIVE": 1.0}, base)
    recipe = load_recipe(recipe_file, ["objectives={lm: 0.0, itc.LOSS: 0.5}"])
    assert recipe.objectives.further == {"itc.LOSS": 0.5}
