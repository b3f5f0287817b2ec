"""`qvft.pairs` from the command line, with the bundled model."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from qvft.data.formats import read_samples
from qvft.data.sample import Pair
from qvft.evaluation.metrics.medical import token_f1
from qvft.evaluation.pairs import sampling
from qvft.models.model_path import TINY_ID
from qvft.pairs import main
from qvft.predict import main as predict
from qvft.recipe.schema import Run
from qvft.train import main as train

FAST = ["--workers", "0", "--batch-size", "32"]


def make(shapes: Path, out: Path, *options: str, metric: str = "token_f1") -> int:
    data = ["--data", str(shapes / "test.jsonl"), "--limit", "3", "--samples", "4"]
    return main([TINY_ID, *data, "--metric", metric, "--out", str(out), *FAST, *options])


@pytest.fixture(scope="module")
def made(shapes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("pairs") / "pairs.jsonl"
    assert make(shapes, out) == 0
    return out


def pairs_of(path: Path) -> list[Pair]:
    samples = read_samples("jsonl", str(path))
    return [pair for sample in samples for pair in sample.pairs]


def test_pairs_are_data_with_better_and_worse_scores(made: Path, shapes: Path) -> None:
    references = {}
    for sample in read_samples("jsonl", str(shapes / "test.jsonl")):
        references[sample.id] = sample.captions
        references |= {question.id: question.answers for question in sample.questions}
    pairs = pairs_of(made)
    assert pairs
    for pair in pairs:
        known = references[pair.id.removesuffix("#pair")]
        high, low = token_f1(pair.chosen, known), token_f1(pair.rejected, known)
        assert high > low
        assert pair.meta == {"chosen_score": f"{high:g}", "rejected_score": f"{low:g}"}


def test_the_same_seed_gives_the_same_file_and_another_gives_others(
    made: Path, shapes: Path
) -> None:
    seed = str(Run().seed)
    assert make(shapes, made.with_name("again.jsonl"), "--seed", seed) == 0
    assert (made.with_name("again.jsonl")).read_bytes() == made.read_bytes()
    assert make(shapes, made.with_name("other.jsonl"), "--seed", "7") == 0
    assert (made.with_name("other.jsonl")).read_bytes() != made.read_bytes()


def test_the_summary_says_what_was_made_and_what_is_next(
    shapes: Path, tmp_path: Path, capsys
) -> None:
    out = tmp_path / "pairs.jsonl"
    assert make(shapes, out, "--copy-images") == 0
    said = capsys.readouterr().out
    count = sum(len(json.loads(line)["pairs"]) for line in out.read_text().splitlines())
    assert f"{count} pairs of 9 rows written to {out}" in said
    command = f"qvft train recipes/medical_vqa_dpo.yaml model.id={TINY_ID} data.train.path={out}"
    assert f"next: {command}\n" in said
    read_samples("jsonl", str(out))


def test_features_come_from_the_cache(shapes: Path, tmp_path: Path, monkeypatch) -> None:
    used: list[Any] = []
    plain = sampling.with_features

    def spied(*arguments: Any) -> Any:
        loaded = plain(*arguments)
        used.append(loaded.collator.features)
        return loaded

    monkeypatch.setattr(sampling, "with_features", spied)
    assert make(shapes, tmp_path / "pairs.jsonl") == 0
    assert used[0] is not None


def test_texts_of_qvft_predict_make_pairs_too(shapes: Path, tmp_path: Path) -> None:
    texts, out = tmp_path / "texts.jsonl", tmp_path / "pairs.jsonl"
    data = str(shapes / "test.jsonl")
    several = ["--num_return_sequences", "3", "--do_sample", "true", "--batch-size", "8"]
    assert predict([TINY_ID, data, "--out", str(texts), "--workers", "0", *several]) == 0
    options = ["--predictions", str(texts), "--data", data, "--metric", "token_f1"]
    assert main([TINY_ID, *options, "--out", str(out)]) == 0
    asked = {pair.question for pair in pairs_of(out)}
    assert asked & {"Which colour is it?", "Is it red?"}


def test_an_own_function_prefers_what_it_likes(shapes: Path, tmp_path: Path, monkeypatch) -> None:
    module = ModuleType("shorter")
    module.score = lambda completions, **_: [-len(text) for text in completions]  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "shorter", module)
    out = tmp_path / "pairs.jsonl"
    assert make(shapes, out, metric="shorter.score") == 0
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    assert all(
        len(pair["chosen"]) < len(pair["rejected"]) for line in lines for pair in line["pairs"]
    )


def test_a_runs_own_data_is_used_and_its_weights_are_what_training_starts_from(
    tiny_run: Path, tmp_path: Path, monkeypatch, capsys
) -> None:
    module = ModuleType("shorter")
    module.score = lambda completions, **_: [-len(text) for text in completions]  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "shorter", module)
    out = tmp_path / "pairs.jsonl"
    options = ["--samples", "2", "--texts", "captions", "--limit", "6", "--max_new_tokens", "40"]
    assert main([str(tiny_run), "--metric", "shorter.score", "--out", str(out), *options]) == 0
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    images = {Path(line["image"]).name for line in lines}
    assert images <= {f"train{number}.png" for number in range(6)}
    assert {pair["question"] for line in lines for pair in line["pairs"]} == {None}
    said = capsys.readouterr().out
    command = shlex.split(next(line for line in said.splitlines() if line.startswith("next: ")))
    assert command[1:3] == ["qvft", "train"]
    monkeypatch.chdir(tmp_path)
    short = ["run.dir=run", "train.max_steps=1"]
    assert train([*command[3:], *short]) == 0
    manifest = json.loads((tmp_path / "run" / "adapter" / "manifest.json").read_text())
    assert str(tiny_run) in json.dumps(manifest)


@pytest.mark.parametrize("option", ["do_sample=false", "num_beams=2"])
def test_decoding_that_gives_too_few_texts_is_refused_by_its_option(
    shapes: Path, tmp_path: Path, capsys, option: str
) -> None:
    assert make(shapes, tmp_path / "pairs.jsonl", f"--{option}") == 2
    name = option.partition("=")[0]
    assert f"command line: --{name}: " in capsys.readouterr().err


def test_unfinished_texts_are_left_out(shapes: Path, tmp_path: Path, capsys) -> None:
    options = ["--texts", "captions", "--max_new_tokens", "1"]
    assert make(shapes, tmp_path / "pairs.jsonl", *options) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert "12 of 12 texts reach max_new_tokens" in said
    assert "no pair: 3 rows with fewer than two different texts" in said
    assert not (tmp_path / "pairs.jsonl").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["m", "--samples", "1"], "--samples: 1; expected 2 or more"),
        (["m", "--temperature", "0"], "--temperature: 0.0; expected above 0"),
        (["m", "--metric", "cidr"], 'did you mean "cider"?'),
        (["m", "--split", "train"], "--split: has no --data"),
        (["m", "--num_return_sequences", "3"], "use --samples"),
        (["m", "--predictions", "f", "--seed", "1"], "--seed: goes with texts that are drawn"),
        (["m", "--predictions", "f", "--top_p", "0.5"], "--top_p: goes with texts that are drawn"),
        ([TINY_ID, "--predictions", "f", "--data", ""], "an empty path"),
        ([TINY_ID, "--data", "d", "--split", ""], "data.train.split"),
        (["no/such/run"], "no such folder"),
        ([TINY_ID], "has no training data of its own; name the data with --data"),
    ],
)
def test_what_cannot_work_is_refused(
    options: list[str], message: str, tmp_path: Path, capsys
) -> None:
    metric = [] if "--metric" in options else ["--metric", "cider"]
    assert main([*options, *metric, "--out", str(tmp_path / "pairs.jsonl")]) == 2
    assert message in " ".join(capsys.readouterr().err.split())


def test_an_existing_file_is_kept(shapes: Path, tmp_path: Path, capsys) -> None:
    out = tmp_path / "pairs.jsonl"
    out.write_text("mine\n")
    assert make(shapes, out) == 2
    assert out.read_text() == "mine\n"
