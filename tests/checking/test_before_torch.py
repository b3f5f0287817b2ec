"""Mistakes that the recipe and the file system tell are told before torch is imported."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

PROGRAMS = """
import json, os, sys
from importlib.abc import MetaPathFinder

class Refused(MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "transformers", "datasets", "peft", "accelerate"):
            raise AssertionError(f"{name} is imported")

sys.meta_path.insert(0, Refused())
import qvft.api.train, qvft.check, qvft.merge, qvft.setup.data, qvft.train
import qvft.checking.before_torch, qvft.training.run_folder
from qvft.cli import main

for folder, words in json.load(sys.stdin):
    if not (child := os.fork()):
        os.chdir(folder)
        os.dup2(os.open("stderr", os.O_WRONLY | os.O_CREAT), 2)
        sys.exit(main(words))
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    open(os.path.join(folder, "status"), "w").write(str(code))
"""
"""Runs each command in a fork of one process. Any import of a library that takes long is a defect
with a traceback."""


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[int, str]]:
    """Exit status and stderr of each command of `MISTAKES`, each in a folder of its own."""
    cases = []
    for name, (command, _) in MISTAKES.items():
        place = tmp_path_factory.mktemp("place")
        prepare(place)
        if "run.dir=run" in command:
            stand(place, "run")
        if " done " in command or " lora " in command:
            finish(place, command.split()[1])
        cases.append((name, place, words(command)))
    subprocess.run(
        [sys.executable, "-c", PROGRAMS],
        input=json.dumps([(str(place), given) for _, place, given in cases]),
        env={**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])},
        text=True,
        timeout=300,
        check=True,
        stdout=subprocess.DEVNULL,
    )
    return {
        name: (int((place / "status").read_text()), (place / "stderr").read_text())
        for name, place, _ in cases
    }


def prepare(place: Path) -> None:
    """Fills a working folder with a recipe, its data and images."""
    for number in (1, 2):
        Image.new("RGB", (8, 8)).save(place / f"{number}.png")
    (place / "rows.jsonl").write_text('{"image": "1.png", "caption": "black"}\n')
    (place / "broken.jsonl").write_text('{"image": "1.png", "caption": 3}\n')
    (place / "empty").mkdir()
    (place / "r.yaml").write_text(
        "name: r\nmodel: {id: qvft/tiny-blip2}\n"
        "data: {train: {path: rows.jsonl}, eval: {path: rows.jsonl}}\n"
    )
    (place / "gone.yaml").write_text(
        "name: r\nmodel: {id: qvft/tiny-blip2}\ndata: {eval: {path: no.jsonl}}\n"
    )


MISTAKES = {
    "no recipe": ("train none.yaml", "none.yaml: no such recipe file"),
    "no recipe to check": ("check none.yaml", "none.yaml: no such recipe file"),
    "no recipe to measure": ("bench none.yaml", "none.yaml: no such recipe file"),
    "override": ("train r.yaml train.epoch=3", 'did you mean "epochs"'),
    "format": ("train r.yaml data.train.format=jsnl", "unknown format `jsnl`"),
    "format to check": ("check r.yaml data.train.format=jsnl", "unknown format `jsnl`"),
    "format, data alone": ("check r.yaml --only data data.eval.format=x", "unknown format `x`"),
    "no data": ("train r.yaml data.train.path=no.jsonl", "no.jsonl: no such file"),
    "no data to check": ("check r.yaml data.eval.path=no.jsonl", "no.jsonl: no such file"),
    "no data to measure": ("bench r.yaml data.train.path=no.jsonl", "no.jsonl: no such file"),
    "no Hugging Face data": ("train r.yaml data.train={format: hf, path: ./no}", "no such file or"),
    "no shards": ("check r.yaml data.train={format: tar, path: no.tar}", "no.tar: no such file"),
    "no stream": (
        "train r.yaml train.max_steps=1 data.train={format: tar, path: no.tar, stream: true}",
        "no.tar: no such file",
    ),
    "broken row": ("train r.yaml data.train.path=broken.jsonl", "broken.jsonl:1"),
    "no image folder": ("train r.yaml data.train.images=no", "no such folder"),
    "dropout of a phase": (
        "train r.yaml phases=[{name: a, trainable: {decoder_dropout: 0.1}}]",
        "phases.0.trainable.decoder_dropout: 0.1",
    ),
    "phases": (
        "train r.yaml phases=[{name: a, trainable: {decoder: full}}, {name: b}]",
        "phases: phases",
    ),
    "no model": ("train r.yaml model.id=./no", "model.id=./no: no such folder"),
    "no model to check": ("check r.yaml --only model model.id=./no", "no such folder"),
    "no model in it": ("check r.yaml model.id=empty", "no config.json"),
    "no text branch": ("train r.yaml model.text_branch=./no", "model.text_branch=./no"),
    "another run": ("train r.yaml run.dir=run model.dtype=float16", "another recipe's run"),
    "a run that stands": ("train r.yaml run.dir=run", "already holds this recipe's run"),
    "no run to check": ("check empty", "no recipe.lock.yaml"),
    "no model to evaluate": ("eval empty", "empty: neither recipe.lock.yaml nor config.json"),
    "no data to evaluate": (
        "eval qvft/tiny-blip2 --recipe r.yaml data.eval.path=no.jsonl",
        "no.jsonl: no such file",
    ),
    "no run to merge": ("merge empty out", "no recipe.lock.yaml"),
    "no run to export": ("export empty out --to peft", "no recipe.lock.yaml"),
    "misspelt run to merge": ("merge rum out", "rum: no such folder"),
    "misspelt run to export": ("export rum out --to peft", "rum: no such folder"),
    "misspelt run to check": ("check ./rum", "./rum: no such folder"),
    "no image": ("predict qvft/tiny-blip2 no.png", "no.png: matches no image"),
    "no model to ask": ("predict empty 1.png", "neither recipe.lock.yaml nor config.json"),
    "no image to explain": ("explain qvft/tiny-blip2 no.png --out x.png", "matches no image"),
    "no model to explain": ("explain empty 1.png --out x.png", "neither recipe.lock.yaml"),
    "no references": ("score caption --references no --predictions no", "no: no such file"),
    "no questions": (
        "score vqa --questions no --annotations no --predictions no",
        "no: no such file",
    ),
    "nothing to convert": ("convert jsonl no.jsonl out.jsonl", "no.jsonl: no such file"),
    "format to convert": ("convert jsnl no.jsonl out.jsonl", "unknown format `jsnl`"),
    "no space to prune": ("features prune --cache empty --space x", "begin with `x`"),
    "no cache": ("features prune --all --cache no", "--cache no: no such folder"),
    "other texts": (
        "train r.yaml run.dir=run train.resume=auto data.train.path=rows.jsonl",
        "rows.jsonl: other texts than the run in run",
    ),
    "metric": ("eval done eval.metrics=[vqa_201]", 'eval.metrics: "vqa_201"'),
    "metric to train for": ("train r.yaml eval.metrics=[vqa_201]", 'eval.metrics: "vqa_201"'),
    "metric to check": ("check r.yaml eval.metrics=[vqa_201]", 'eval.metrics: "vqa_201"'),
    "metric for other data": ("eval done eval.metrics=[answers]", "data without questions"),
    "metric of another model": ("eval done eval.metrics=[retrieval]", "without contrast heads"),
    "report's place": ("eval done --out rows.jsonl", "rows.jsonl: a file"),
    "nothing to compare with": ("eval done --against ./nope", "./nope: no such folder"),
    "nothing comparable": ("eval done --against empty", "neither a run, a model nor an evaluation"),
    "idle key to merge": (
        "merge done out trainable.lora.r=3",
        "trainable.lora.r: qvft.merge does not read",
    ),
    "idle key to export": ("export done out --to peft train.epochs=9", "train.epochs: qvft.export"),
    "shard size": ("merge done out --shard-size 5XB", "--shard-size"),
    "no data for a proof": ("merge done out data.eval.path=no.jsonl", "no.jsonl: no such file"),
    "no data for a form": (
        "export lora out --to peft data.eval.path=no.jsonl",
        "(the written model is verified on a few samples",
    ),
    "form": ("export done out --to x", '--to: "x"'),
    "form without LoRA": ("export done out --to peft", "trained no LoRA"),
    "form of another family": ("export done out --to qvision", "expected a QVision"),
    "form without heads": ("export done out --to retrieval", "no alignment heads"),
    "figure": ("explain done 1.png --out x.gif", "--out: x.gif"),
    "chart": ("bench r.yaml --chart x.gif", "--chart: x.gif"),
    "images to explain": ("explain done *.png --out x.png", "names 2 images"),
    "a 4-bit decoder in full": (
        "train r.yaml model.quantization.load_in_4bit=true trainable.decoder=full",
        "full with a quantised decoder",
    ),
    "idle argument": ("train r.yaml train.arguments.data_seed=1", "data_seed: would have no"),
    "argument with a key": ("check r.yaml train.arguments.seed=1", "set run.seed instead"),
    "no run folder to check": ("check r.yaml run.dir=rows.jsonl", "rows.jsonl: a file"),
    "no output of a check": ("check r.yaml --json empty", "empty: a folder"),
    "no classes for this model": ("predict done 1.png --classes a,b", "has no contrast heads"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_told_without_torch(name: str, ended: dict[str, tuple[int, str]]) -> None:
    status, stderr = ended[name]
    assert "Traceback" not in stderr, stderr
    assert (status, MISTAKES[name][1] in stderr) == (2, True), stderr


def words(command: str) -> list[str]:
    """The words of a command; a mapping or list of an override is one of them."""
    found, depth = [""], 0
    for character in command:
        depth += (character in "{[") - (character in "}]")
        if character == " " and not depth:
            found.append("")
        else:
            found[-1] += character
    return found


MANIFEST = {
    "format": 1, "base_id": "qvft/tiny-blip2", "base_weights_sha256": "0", "family": "blip2",
    "recipe_sha256": "0", "data_sha256": {"rows": "of other texts"}, "bridge": {},
}  # fmt: skip


def finish(place: Path, name: str) -> None:
    """Makes a folder look like that of this recipe's finished run; `lora` has an adapter."""
    from qvft.recipe.load import load_recipe
    from qvft.recipe.recipe_lock import write_lock

    adapter = place / name / "adapter"
    adapter.mkdir(parents=True)
    (adapter / "manifest.json").write_text(json.dumps(MANIFEST))
    if name == "lora":
        (adapter / "adapter_config.json").write_text("{}")
    write_lock(load_recipe(place / "r.yaml"), place / name)


def stand(place: Path, name: str) -> None:
    """Makes a folder look like that of this recipe's run, with a checkpoint in it."""
    from qvft.recipe.load import load_recipe
    from qvft.recipe.recipe_lock import write_lock

    folder = place / name / "checkpoints" / "0" / "checkpoint-1"
    folder.mkdir(parents=True)
    (folder / "trainer_state.json").write_text(json.dumps({}))
    (folder / "manifest.json").write_text(json.dumps(MANIFEST))
    write_lock(load_recipe(place / "r.yaml", ["run.dir=run"]), place / name)
