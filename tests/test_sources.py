"""Training and evaluation on lists of sources: weights, prompts, answers, resume, reports."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

import qvft
from qvft.data.rows import training_rows
from qvft.eval import main as evaluate
from qvft.recipe.load import load_recipe, parse_recipe
from qvft.setup import resolve_model
from qvft.setup.data import read_split, read_texts
from qvft.train import main as train
from qvft.training.batches.numbered_rows import RowDataset

OWN = {"caption": "it shows", "question": "Q: {question} A:"}


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory, shapes: Path) -> Path:
    """`many.jsonl` of 18 and `few.jsonl` of 6 of the shapes, whose ids are equal."""
    folder = tmp_path_factory.mktemp("sources") / "data"
    shutil.copytree(shapes, folder)
    lines = (folder / "train.jsonl").read_text().splitlines()
    for name, part in (("many", lines[:18]), ("few", lines[18:])):
        numbered = [{**json.loads(line), "id": str(n)} for n, line in enumerate(part)]
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(one) + "\n" for one in numbered))
    return folder


def listed(folder: Path, *more: dict[str, Any], key: str = "data.train") -> str:
    """An override that names `many` and `few`, with more keys of each."""
    given = [{"path": str(folder / f"{name}.jsonl")} for name in ("many", "few")]
    both = [{**one, **two} for one, two in zip(given, more or ({}, {}), strict=True)]
    return f"{key}={json.dumps(both)}"


def losses(run: Path) -> list[float]:
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [row["loss"] for row in rows if "loss" in row]


def same_weights(one: Path, other: Path) -> bool:
    files = [load_file(run / "adapter" / "bridge.safetensors") for run in (one, other)]
    return all((files[0][key] == files[1][key]).all() for key in files[0])


def test_a_list_without_weights_trains_as_one_file_of_all_texts(
    tiny_run: Path, recipe_file: Path, sources: Path, tmp_path: Path
) -> None:
    prompt = {"caption": "", "question": "Question: {question} Answer:"}
    given = listed(sources, {"prompt": prompt}, {})
    assert train([str(recipe_file), given, f"run.dir={tmp_path / 'run'}"]) == 0
    assert losses(tmp_path / "run") == losses(tiny_run)
    assert same_weights(tmp_path / "run", tiny_run)


@pytest.fixture(scope="module")
def mixed(
    tmp_path_factory: pytest.TempPathFactory, recipe_file: Path, sources: Path
) -> tuple[Path, list[str]]:
    """A run on both sources with weights over several epochs, and its arguments."""
    run = tmp_path_factory.mktemp("mixed") / "run"
    arguments = [
        str(recipe_file),
        listed(
            sources,
            {"weight": 0.5, "texts": "questions", "answers": "sampled"},
            {"weight": 0.5, "prompt": OWN},
        ),
        listed(sources, {"limit": 3}, {"limit": 3, "prompt": OWN}, key="data.eval"),
        "train.batch_tokens=400",
        "train.eval_steps=3",
        "train.texts_per_image=2",
    ]
    assert train([*arguments, f"run.dir={run}"]) == 0
    return run, arguments


def test_a_mixture_resumes_where_it_stopped(mixed: tuple[Path, list[str]], tmp_path: Path) -> None:
    run, arguments = mixed
    cut = tmp_path / "cut"
    shutil.copytree(run, cut)
    shutil.rmtree(cut / "adapter")
    for step in (4, 6):
        shutil.rmtree(cut / "checkpoints" / "0" / f"checkpoint-{step}")
    assert train([*arguments, f"run.dir={cut}", "train.resume=auto"]) == 0
    assert losses(cut) == losses(run)
    assert same_weights(cut, run)


def test_sources_are_named_with_their_share(mixed: tuple[Path, list[str]]) -> None:
    manifest = json.loads((mixed[0] / "adapter" / "manifest.json").read_text())
    assert manifest["sources"] == {
        "train": [
            {"name": "many", "images": 18, "texts": 36, "share": 0.5, "prompt": {}},
            {"name": "few", "images": 6, "texts": 18, "share": 0.5, "prompt": OWN},
        ]
    }
    lock = (mixed[0] / "recipe.lock.yaml").read_text()
    assert "# phase train, source few: 6 images, 18 texts, 50.0 % of an epoch" in lock
    logged = [json.loads(line) for line in (mixed[0] / "metrics.jsonl").read_text().splitlines()]
    means = next(row for row in logged if "eval_token_loss" in row)
    assert (
        min(means["eval_many_token_loss"], means["eval_few_token_loss"])
        < (means["eval_token_loss"])
        < max(means["eval_many_token_loss"], means["eval_few_token_loss"])
    )


def test_each_evaluation_source_has_a_report(
    mixed: tuple[Path, list[str]], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    run = tmp_path / "run"
    shutil.copytree(mixed[0], run)
    assert evaluate([str(run), "eval.blind=false"]) == 0
    assert capsys.readouterr().out.count("report.html") == 2
    found = {
        path.parent.name: json.loads(path.read_text()) for path in run.glob("eval/*/report.json")
    }
    assert {name: report["n"] for name, report in found.items()} == {"many": 9, "few": 9}
    assert found["few"]["decode"]["prompt"] == OWN
    assert found["many"]["decode"]["prompt"] != OWN
    assert [one["name"] for one in found["few"]["phases"][0]["sources"]] == ["many", "few"]
    ids = (run / "eval" / "few" / "predictions.jsonl").read_text().splitlines()
    assert json.loads(ids[0])["id"] == "0"
    with pytest.raises(qvft.errors.RecipeError, match="evaluate_each"):
        qvft.Run(run).evaluate()
    assert list(qvft.Run(run).evaluate_each(**{"eval.blind": False})) == ["many", "few"]


def test_sources_share_one_loaded_model_and_get_the_texts_of_separate_evaluations(
    mixed: tuple[Path, list[str]], sources: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = []
    load = resolve_model.load_resolved
    monkeypatch.setattr(
        resolve_model, "load_resolved", lambda opened: (loaded.append(opened), load(opened))[1]
    )
    run, settings = str(mixed[0]), ["eval.blind=false", f"--out={tmp_path / 'both'}"]
    assert evaluate([run, *settings]) == 0
    assert len(loaded) == 1
    few = {"path": str(sources / "few.jsonl"), "limit": 3, "prompt": OWN}
    alone = f"data.eval={json.dumps(few)}"
    assert evaluate([run, alone, "eval.blind=false", f"--out={tmp_path / 'alone'}"]) == 0
    one, other = tmp_path / "both" / "few", tmp_path / "alone"
    assert (one / "predictions.jsonl").read_text() == (other / "predictions.jsonl").read_text()


def test_each_source_is_scored_by_the_named_metrics_that_fit_it(
    mixed: tuple[Path, list[str]], sources: Path, tmp_path: Path
) -> None:
    kinds = [
        {"path": str(sources / "few.jsonl"), "limit": 2, "texts": kind, "name": kind}
        for kind in ("captions", "questions")
    ]
    given = [str(mixed[0]), f"data.eval={json.dumps(kinds)}", "eval.blind=false"]
    out = tmp_path / "out"
    assert evaluate([*given, "eval.metrics=[captions, answers]", f"--out={out}"]) == 0
    for kind, own, other in (
        ("captions", "CIDEr", "exact_match"),
        ("questions", "exact_match", "CIDEr"),
    ):
        metrics = json.loads((out / kind / "report.json").read_text())["metrics"]
        assert own in metrics and other not in metrics
    assert evaluate([*given, "eval.metrics=[captions, answers, vqa_2017]"]) == 2


def test_two_sources_of_one_name_are_refused(
    recipe_file: Path, sources: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = listed(sources, {"name": "one"}, {"name": "one"})
    assert train([str(recipe_file), given]) == 2
    assert "data.train.1.name" in capsys.readouterr().err


def test_ids_prompts_and_texts_are_those_of_the_source(recipe_file: Path, sources: Path) -> None:
    recipe = load_recipe(recipe_file, [listed(sources, {"texts": "captions"}, {"prompt": OWN})])
    split = read_split(recipe, "train")
    assert split.name == "many+few" and split.source.texts == "all"
    rows = training_rows(split.samples)
    assert [sum(row.id.startswith(name) for row in rows) for name in ("many/", "few/")] == [18, 18]
    assert {row.prompt for row in rows if row.id.startswith("many/")} == {None}
    assert {row.prompt for row in rows if row.id.startswith("few/")} == set(OWN.values())
    assert [one.id for one in read_texts(recipe, "train.1")][:2] == ["0", "1"]


def test_answers_are_chosen_as_the_source_says(tmp_path: Path) -> None:
    answers = ["no", *["yes"] * 5, *["maybe"] * 4]
    question = {"question": "Is it?", "answers": answers}
    (tmp_path / "d.jsonl").write_text(json.dumps({"image": "x.png", "questions": [question]}))

    def dataset(rule: str, seed: int = 0) -> RowDataset:
        source = {"path": str(tmp_path / "d.jsonl"), "answers": rule}
        content = {"name": "x", "model": {"id": "m"}, "data": {"train": source}}
        return RowDataset(training_rows(read_texts(parse_recipe(content), "train")), seed=seed)

    for rule, target in (("most_frequent", "yes"), ("first", "no")):
        assert dataset(rule)[0][1].target == target and not dataset(rule).varies
    drawn = dataset("sampled")
    assert drawn.varies
    found = [drawn[epoch][1].target for epoch in range(400)]
    # 400 draws of 0.5: a share's standard deviation is 0.025, five of which are 0.125.
    assert abs(found.count("yes") / 400 - 0.5) < 0.125
    assert abs(found.count("maybe") / 400 - 0.4) < 0.125
    assert found == [dataset("sampled")[epoch][1].target for epoch in range(400)]
    assert found != [dataset("sampled", seed=1)[epoch][1].target for epoch in range(400)]
