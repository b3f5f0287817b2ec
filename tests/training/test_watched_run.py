"""A run that is watched: bounded evaluations, generated texts, the best checkpoint, its page."""

from __future__ import annotations

import io
import shutil
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest
from safetensors.torch import load_file

from qvft import load_model
from qvft.evaluation import scoring
from qvft.evaluation.report.progress_page import drawn
from qvft.inference.sampled import Sampled
from qvft.json_files import complete_lines
from qvft.recipe.recipe_lock import read_lock
from qvft.train import main

WATCHED = ["train.eval_steps=2", "train.eval_limit=7", "train.eval_completions=3"]
BEST = ["train.load_best_model_at_end=true", "train.metric_for_best_model=CIDEr"]
CIDER = (1.0, 3.0, 2.0)
"""At steps 2, 4 and 6."""


def weights(folder: Path) -> dict[str, list]:
    files = ("bridge.safetensors", "adapter_model.safetensors")
    return {f: {k: v.tolist() for k, v in load_file(folder / f).items()} for f in files}


@pytest.fixture(scope="module")
def said() -> dict[str, str]:
    return {}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, recipe_file: Path, said: dict[str, str]) -> Path:
    """A run of at most twelve steps that CIDEr stops after six; CIDEr is given."""
    folder = tmp_path_factory.mktemp("runs") / "watched"
    values, seen = iter(CIDER), []

    def scores(texts: Sequence[Sampled]) -> dict[str, float]:
        seen.append(len(texts))
        return {"CIDEr": 0.0 if len(seen) == 1 else next(values)}  # the first: references

    limits = ["train.max_steps=12", "train.early_stopping_patience=1", "train.save_total_limit=9"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scoring, "text_scores", scores)
        patch.setattr(sys, "stderr", stream := io.StringIO())
        patch.setattr(sys, "stdout", out := io.StringIO())
        given = [str(recipe_file), *WATCHED, *BEST, *limits, f"run.dir={folder}"]
        assert main(given) == 0, stream.getvalue()
    said["stderr"], said["stdout"] = stream.getvalue(), out.getvalue()
    said["seen"] = str(seen)
    return folder


def test_it_ends_with_the_checkpoint_of_the_best_score(run: Path) -> None:
    logged = complete_lines(run / "metrics.jsonl")
    steps = {row["step"]: row["eval_generated/CIDEr"] for row in logged if "eval_loss" in row}
    assert steps == {2: 1.0, 4: 3.0, 6: 2.0}  # patience 1: stopped after the first worse one
    assert weights(run / "adapter") == weights(run / "checkpoints" / "0" / "checkpoint-4")


def test_looking_changes_no_weight(run: Path, recipe_file: Path, tmp_path: Path) -> None:
    unwatched = tmp_path / "run"
    still = ["train.max_steps=12", "train.save_total_limit=9", f"run.dir={unwatched}"]
    assert main([str(recipe_file), *still]) == 0
    ends = [weights(one / "checkpoints" / "0" / "checkpoint-6") for one in (run, unwatched)]
    assert ends[0] == ends[1]


def test_an_evaluation_is_bounded_and_scores_the_same_images(run: Path, said: dict) -> None:
    # Three texts per image (captions are one) of eight images; two images fit into seven texts.
    assert said["seen"] == "[24, 6, 6, 6]"
    assert "6 of 24 texts" in said["stderr"]


def test_the_same_texts_are_generated_from_before_the_first_step_on(run: Path) -> None:
    lines = complete_lines(run / "completions.jsonl")
    by_step = {step: [one["id"] for one in lines if one["step"] == step] for step in (0, 2, 4, 6)}
    assert sum(map(len, by_step.values())) == len(lines) == 4 * 3
    assert len({tuple(ids) for ids in by_step.values()}) == 1
    assert all(line["references"] and line["phase"] == "train" for line in lines)


def test_a_generated_text_is_what_the_model_answers(run: Path) -> None:
    model = load_model(run)  # of step 4
    lines = [one for one in complete_lines(run / "completions.jsonl") if one["step"] == 4]
    asked = [one for one in lines if "question" in one]
    assert asked
    for one in asked:
        assert model.answer(one["image"], one["question"]) == one["text"]


def test_a_resumed_run_has_each_text_once(
    run: Path, recipe_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cut = shutil.copytree(run, tmp_path / "cut")
    shutil.rmtree(cut / "adapter")
    shutil.rmtree(cut / "checkpoints" / "0" / "checkpoint-6")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scoring, "text_scores", lambda texts: {"CIDEr": 2.0})
        changed = ["train.max_steps=12", "train.early_stopping_patience=1", "train.resume=auto"]
        more = [*changed, "train.save_total_limit=9", f"run.dir={cut}"]
        assert main([str(recipe_file), *WATCHED, *BEST, *more]) == 0
    assert "resumed from step 4" in capsys.readouterr().err
    counts = Counter((one["step"], one["id"]) for one in complete_lines(cut / "completions.jsonl"))
    assert set(counts.values()) == {1}
    assert {step for step, _ in counts} == {0, 2, 4, 6}
    assert weights(cut / "adapter") == weights(run / "adapter")


def test_what_a_person_reads_are_sentences(run: Path, said: dict) -> None:
    lines = said["stderr"].splitlines()
    assert not [line for line in lines if "{'" in line or "Warning" in line]
    (best,) = [line for line in lines if "best and kept: step 4" in line]
    assert "peak memory" in best and "stopped early" in best
    assert any("step 1 of 12" in line for line in lines)
    assert any("1 process, cpu" in line for line in lines)


def test_the_page_stands_alone_and_reloads_only_while_it_trains(run: Path) -> None:
    page = (run / "progress.html").read_text()
    assert "finished" in page and 'http-equiv="refresh"' not in page
    assert "<svg" in page and "as they changed" in page
    assert "<script" not in page and "//" not in page.replace("<!doctype", "")
    assert 'http-equiv="refresh"' in drawn(run, "step 1 of 2", True)


def test_a_page_of_a_run_that_has_logged_nothing_is_drawn(tmp_path: Path) -> None:
    assert "step 0 of 9" in drawn(tmp_path, "step 0 of 9", True)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["train.metric_for_best_model=CIDEr"], "needs load_best_model_at_end"),
        ([*BEST[:1], "train.metric_for_best_model=cidre"], "CIDEr"),
        ([*BEST[:1], "train.metric_for_best_model=vqa_accuracy_2017"], "exact_match"),
    ],
)
def test_a_score_that_cannot_choose_is_refused_before_training(
    recipe_file: Path,
    given: list[str],
    message: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = tmp_path / "run"
    assert main([str(recipe_file), *WATCHED, *given, f"run.dir={folder}"]) == 2
    said = capsys.readouterr().err
    assert "metric_for_best_model" in said and message in said
    assert not (folder / "metrics.jsonl").exists()


def test_the_lock_records_rates_chosen_by_the_size_of_the_base(
    recipe_file: Path, tmp_path: Path
) -> None:
    text = recipe_file.read_text()
    start = text.index("  learning_rate:")
    own = tmp_path / "recipe.yaml"
    own.write_text(text[:start] + text[text.index("  logging_steps") :])
    short = ["train.max_steps=1", "train.preflight=false", f"run.dir={tmp_path / 'run'}"]
    assert main([str(own), *short]) == 0
    locked = read_lock(tmp_path / "run").train.learning_rate
    assert locked is not None and set(locked.model_dump().values()) == {1e-3}
    # The same recipe finds its finished run, which holds the rates.
    assert main([str(own), *short, "train.resume=auto"]) == 0
