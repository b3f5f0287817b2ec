"""`train.from`: a run that starts from the weights of another run."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch.nn import Dropout

from qvft.adapters.manifest import read_manifest
from qvft.api.evaluate import evaluate
from qvft.check import main as check
from qvft.checking.check_run import check_run
from qvft.errors import CheckpointError, RecipeError, UserError
from qvft.files import sha256_file
from qvft.recipe.load import load_recipe, parse_recipe
from qvft.recipe.recipe_lock import read_lock
from qvft.setup.start_run import start_run
from qvft.train import main
from qvft.training.prepare_training import prepare_training
from tests.models.decoder_models import TEXT, write_model

FILES = ("bridge.safetensors", "adapter_model.safetensors")
STILL = ("train.learning_rate=0", "train.max_steps=1", "train.preflight=false")
"""Overrides of a run whose optimizer changes nothing: AdamW's decay is scaled by the rate too."""


def train(recipe: Path, folder: Path, *overrides: str) -> Path:
    assert main([str(recipe), f"run.dir={folder}", *overrides]) == 0
    return folder


def weights(adapter: Path) -> dict[str, torch.Tensor]:
    found = {}
    for name in FILES:
        if (adapter / name).is_file():
            found |= load_file(adapter / name)
    return found


def digests(run: Path) -> list[str]:
    return [sha256_file(run / "adapter" / name) for name in FILES]


def assert_equal(here: dict[str, torch.Tensor], there: dict[str, torch.Tensor]) -> None:
    assert here.keys() == there.keys()
    assert all(torch.equal(here[name], there[name]) for name in there)


@pytest.fixture(scope="module")
def continued(tmp_path_factory: pytest.TempPathFactory, recipe_file: Path, tiny_run: Path) -> Path:
    folder = tmp_path_factory.mktemp("continued") / "run"
    return train(recipe_file, folder, f"train.from={tiny_run}", "train.resume=auto")


def test_a_run_starts_from_the_weights_of_another(
    recipe_file: Path, tiny_run: Path, tmp_path: Path
) -> None:
    still = train(recipe_file, tmp_path / "still", f"train.from={tiny_run}", *STILL)
    assert digests(still) == digests(tiny_run)


def test_optimizer_and_schedule_begin_anew(continued: Path, tiny_run: Path) -> None:
    lines = [json.loads(line) for line in (continued / "metrics.jsonl").read_text().splitlines()]
    first = next(line for line in lines if "loss" in line)
    before = [json.loads(line) for line in (tiny_run / "metrics.jsonl").read_text().splitlines()]
    assert first["step"] == 1
    rates = [[line["learning_rate"] for line in each if "loss" in line] for each in (lines, before)]
    assert rates[0] == rates[1]
    assert digests(continued) != digests(tiny_run)


def test_the_start_is_recorded(continued: Path, tiny_run: Path) -> None:
    recorded = read_manifest(continued / "adapter")["started_from"]
    assert recorded["path"] == str(tiny_run)
    assert recorded["recipe_sha256"] == read_manifest(tiny_run / "adapter")["recipe_sha256"]
    assert read_lock(continued).train.from_ == str(tiny_run)
    assert "started_from" not in read_manifest(tiny_run / "adapter")


@pytest.mark.parametrize(
    "frozen", [("qformer", "query_tokens", "language_projection"), ("decoder",)], ids=str
)
def test_what_is_frozen_keeps_the_weights_of_the_start(
    frozen: tuple[str, ...], recipe_file: Path, tiny_run: Path, tmp_path: Path
) -> None:
    freeze = [f"trainable.{part}=frozen" for part in frozen]
    run = train(recipe_file, tmp_path / "run", f"train.from={tiny_run}", *STILL, *freeze)
    assert_equal(weights(run / "adapter"), weights(tiny_run / "adapter"))


def test_the_decoder_may_be_quantised_now(
    recipe_file: Path, tiny_run: Path, tmp_path: Path
) -> None:
    nf4 = "model.quantization.load_in_4bit=true"
    run = train(recipe_file, tmp_path / "run", f"train.from={tiny_run}", *STILL, nf4)
    assert digests(run) == digests(tiny_run)


def test_frozen_lora_layers_of_the_start_have_no_dropout(
    make_run: Callable[..., Path], tmp_path: Path
) -> None:
    start = make_run(tmp_path / "start", trainable={"lora": {"lora_dropout": 0.5}})
    given = [f"train.from={start}", f"run.dir={tmp_path / 'run'}", "trainable.decoder=frozen"]
    recipe = read_lock(start, given)
    work = prepare_training(recipe)
    rates = {name: m.p for name, m in work.loaded.model.named_modules() if isinstance(m, Dropout)}
    assert any("lora_dropout" in name for name in rates)
    assert {rate for name, rate in rates.items() if "lora_dropout" in name} == {0.0}


@pytest.mark.parametrize("kind", ["question_aware", "new_decoder", "t5", "geometry"])
def test_every_family_starts_from_a_run(
    kind: str, make_run: Callable[..., Path], tiny_folder: Path, language_folder: Path,
    tmp_path: Path,
) -> None:  # fmt: skip
    lora = {"lora": {"target_modules": "all-linear"}}
    changes: dict[str, Any] = {"model": {"text_branch": "fresh"}}
    if kind == "new_decoder":
        changes = {"model": {"decoder": str(language_folder)}, "trainable": lora}
    elif kind == "t5":
        folder = write_model(tmp_path / "model", tiny_folder, TEXT["t5"])
        changes = {"model": {"id": str(folder)}, "trainable": lora}
    elif kind == "geometry":
        changes = {"model": {"query_tokens": 4, "image_size": 60}}
    start = make_run(tmp_path / "start", **changes)
    recipe = Path(shutil.copyfile(start / "recipe.lock.yaml", tmp_path / "recipe.yaml"))
    run = train(recipe, tmp_path / "run", f"train.from={start}", *STILL)
    assert_equal(weights(run / "adapter"), weights(start / "adapter"))


def test_a_start_may_be_a_checkpoint_or_an_adapter_folder(
    recipe_file: Path, tiny_run: Path, tmp_path: Path
) -> None:
    adapter = Path(shutil.copytree(tiny_run / "adapter", tmp_path / "elsewhere"))
    run = train(recipe_file, tmp_path / "run", f"train.from={adapter}", *STILL)
    assert digests(run) == digests(tiny_run)
    checkpoint = tiny_run / "checkpoints" / "0" / "checkpoint-4"
    run = train(recipe_file, tmp_path / "earlier", f"train.from={checkpoint}", *STILL)
    assert_equal(weights(run / "adapter"), weights(checkpoint))


def test_a_resumed_run_ends_as_an_uninterrupted_one(
    continued: Path, recipe_file: Path, tiny_run: Path, tmp_path: Path
) -> None:
    halfway = Path(shutil.copytree(continued, tmp_path / "halfway"))
    shutil.rmtree(halfway / "adapter")
    shutil.rmtree(halfway / "checkpoints" / "0" / "checkpoint-6")
    train(recipe_file, halfway, f"train.from={tiny_run}", "train.resume=auto")
    assert digests(halfway) == digests(continued)


def test_a_start_that_has_changed_is_refused_at_resume(
    continued: Path, recipe_file: Path, drawn_run: Path, tiny_run: Path, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    start = Path(shutil.copytree(tiny_run, tmp_path / "start"))
    run = train(recipe_file, tmp_path / "run", f"train.from={start}", *STILL, "train.save_steps=1")
    shutil.rmtree(run / "adapter")
    shutil.rmtree(start / "adapter")
    shutil.copytree(tiny_run / "checkpoints" / "0" / "checkpoint-4", start / "adapter")
    again = [f"run.dir={run}", f"train.from={start}", *STILL, "train.save_steps=1"]
    assert main([str(recipe_file), *again, "train.resume=auto"]) == 2
    assert "train.from" in capsys.readouterr().err


def test_frozen_vision_weights_of_the_start_are_saved_although_features_are_cached(
    make_run: Callable[..., Path], tmp_path: Path
) -> None:
    start = make_run(tmp_path / "start", trainable={"vision": "full"})
    lock = start / "recipe.lock.yaml"
    recipe = Path(shutil.copyfile(lock, tmp_path / "recipe.yaml"))
    run = train(recipe, tmp_path / "run", f"train.from={start}", *STILL, "trainable.vision=frozen")
    assert_equal(weights(run / "adapter"), weights(start / "adapter"))


@pytest.mark.parametrize(
    ("overrides", "key"),
    [
        (["trainable.lora.r=8"], "trainable.lora.r"),
        (["trainable.lora.lora_alpha=4"], "trainable.lora.lora_alpha"),
        (["trainable.lora.use_dora=true"], "trainable.lora.use_dora"),
        (["trainable.lora.target_modules=[q_proj]"], "trainable.lora.target_modules"),
        (["trainable.qformer=lora"], "trainable.qformer"),
        (["trainable.decoder=full"], "trainable.decoder"),
        (["model.query_tokens=1"], "train.from"),
        (["model.id=qvft/tiny-blip2"], "model.id"),
        (["model.family=qvision"], "train.from"),
    ],
)
def test_what_does_not_fit_is_refused_with_its_key(
    overrides: list[str], key: str, recipe_file: Path, tiny_run: Path, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    folder = tmp_path / "run"
    given = [str(recipe_file), f"run.dir={folder}", f"train.from={tiny_run}", *overrides]
    assert main(given) == 2
    said = capsys.readouterr().err
    assert key in said and "Traceback" not in said
    assert not folder.exists()


def test_another_seed_is_named_where_it_draws_weights_of_the_base(
    make_run: Callable[..., Path], language_folder: Path, tmp_path: Path
) -> None:
    start = make_run(
        tmp_path / "start",
        model={"decoder": str(language_folder)},
        trainable={"lora": {"target_modules": "all-linear"}},
    )
    given = [f"train.from={start}", f"run.dir={tmp_path / 'run'}", "run.seed=1"]
    with pytest.raises(CheckpointError, match=r"run\.seed"):
        prepare_training(read_lock(start, given))


def test_folders_without_weights_are_refused(
    recipe_file: Path, tiny_run: Path, tmp_path: Path
) -> None:
    unfinished = tmp_path / "unfinished"
    unfinished.mkdir()
    shutil.copyfile(tiny_run / "recipe.lock.yaml", unfinished / "recipe.lock.yaml")
    for folder in (tmp_path / "none", tmp_path, unfinished):
        with pytest.raises(CheckpointError, match=r"train\.from"):
            start_run(load_recipe(recipe_file, [f"train.from={folder}"]))
    (tmp_path / "config.json").touch()
    with pytest.raises(CheckpointError, match=r"model\.id"):
        start_run(load_recipe(recipe_file, [f"train.from={tmp_path}"]))
    for own in (tiny_run, tiny_run / "adapter"):
        with pytest.raises(RecipeError, match=r"train\.from"):
            start_run(load_recipe(recipe_file, [f"run.dir={tiny_run}", f"train.from={own}"]))


def test_a_phase_does_not_start_from_a_run(recipe_file: Path) -> None:
    content = load_recipe(recipe_file).model_dump()
    phases = [{"name": "one", "train": {"from": "runs/other"}}]
    with pytest.raises(UserError, match=r"train\.from"):
        parse_recipe({**content, "phases": phases})


def test_a_recipe_without_start_has_none(recipe_file: Path) -> None:
    assert start_run(load_recipe(recipe_file)) is None
    assert load_recipe(recipe_file).model_dump()["train"]["from"] is None


def test_evaluation_compares_with_the_start_if_it_was_evaluated(
    continued: Path, tiny_run: Path, tmp_path: Path
) -> None:
    start = Path(shutil.copytree(tiny_run, tmp_path / "start", symlinks=True))
    run = Path(shutil.copytree(continued, tmp_path / "run"))
    lock = run / "recipe.lock.yaml"
    lock.write_text(lock.read_text().replace(f"from: {tiny_run}", f"from: {start}"))
    quick = ["data.eval.limit=2", "eval.blind=false"]
    alone = evaluate(str(run), overrides=quick, out=tmp_path / "alone")
    assert alone.report.against is None
    assert alone.report.model.started_from["path"] == str(tiny_run)
    evaluate(str(start), overrides=quick)
    compared = evaluate(str(run), overrides=quick, out=tmp_path / "compared")
    assert compared.report.against is not None
    assert compared.report.against.folder.startswith(str(start / "eval"))
    assert compared.report.against.settings == []


def test_bases_that_have_moved_do_not_stop_an_evaluation_that_names_the_base(
    continued: Path, tiny_run: Path, tiny_folder: Path, tmp_path: Path
) -> None:
    start = Path(shutil.copytree(tiny_run, tmp_path / "start", symlinks=True))
    run = Path(shutil.copytree(continued, tmp_path / "run"))
    for folder in (start, run):
        lock = folder / "recipe.lock.yaml"
        text = lock.read_text().replace(f"from: {tiny_run}", f"from: {start}")
        lock.write_text(text.replace(f"id: {tiny_folder}", f"id: {tmp_path / 'gone'}"))
    overrides = [f"model.id={tiny_folder}", "data.eval.limit=2", "eval.blind=false"]
    report = evaluate(str(run), overrides=overrides, out=tmp_path / "out").report
    assert report.against is None and report.phases


def test_check_of_a_recipe_knows_the_start(
    recipe_file: Path, tiny_run: Path, tmp_path: Path
) -> None:
    def found(*overrides: str) -> dict[str, Any]:
        file = tmp_path / "check.json"
        named = [str(recipe_file), "--only", "model", "--json", str(file), *overrides]
        assert check(named) == 0
        return json.loads(file.read_text())

    def gpu_bytes(findings: dict[str, Any]) -> int:
        return findings["phases"][0]["memory"][0]["weights"]

    start, frozen = f"train.from={tiny_run}", "trainable.qformer=frozen"
    kept = sum(
        math.prod(entry["shape"])
        for name, entry in read_manifest(tiny_run / "adapter")["bridge"].items()
        if name.startswith("qformer.")
    )
    assert found(start)["recipe"]["started_from"] == str(tiny_run)
    assert gpu_bytes(found(start)) == gpu_bytes(found())
    # Trained before and frozen now: float32 where other frozen weights are bfloat16.
    assert gpu_bytes(found(start, frozen)) == gpu_bytes(found(frozen)) + 2 * kept
    assert check([str(recipe_file), "--only", "model", start, "trainable.lora.r=8"]) == 2


def test_check_of_a_run_compares_the_start(continued: Path, tiny_run: Path, tmp_path: Path) -> None:
    def state(run: Path) -> str:
        return next(one.state for one in check_run(run).verified if one.what.startswith("start "))

    assert state(continued) == "ok"
    moved = Path(shutil.copytree(continued, tmp_path / "moved"))
    lock = moved / "recipe.lock.yaml"
    lock.write_text(lock.read_text().replace(f"from: {tiny_run}", "from: runs/gone"))
    assert state(moved) == "not recorded"
