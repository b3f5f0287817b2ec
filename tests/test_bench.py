"""`qvft.bench` from the command line. What it measures is not judged here: machines are noisy."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from qvft.bench import main
from qvft.benchmark.reward_sides import OneByOne, own_image
from qvft.data.prompt import TokenRow
from qvft.data.rows import FILLER, Row
from qvft.data.sample import ImageFile, Sample
from qvft.training.rewards.collate import LearntText


def test_both_ways_say_the_same_and_the_ratio_is_theirs(recipe_file: Path, tmp_path: Path) -> None:
    out = tmp_path / "bench.json"
    given = [str(recipe_file), "data.eval.limit=2", "--rounds", "2", "--only", "predict"]
    given += ["--json", str(out)]
    assert main(given) == 0
    found = json.loads(out.read_text())["predict"]
    assert (found["texts"], found["images"], found["rounds"]) == (6, 2, 2)
    assert found["equal_texts"] == 6
    plain, ours = found["plain"], found["qvft"]
    assert [len(pace["seconds"]) for pace in (plain, ours)] == [2, 2]
    assert plain["texts_per_second"] == pytest.approx(6 / (sum(plain["seconds"]) / 2))
    assert found["speedup"] == pytest.approx(ours["texts_per_second"] / plain["texts_per_second"])


@pytest.mark.parametrize(
    "branch",
    [
        pytest.param([], id="plain"),
        pytest.param(["model.text_branch=fresh"], id="question", marks=pytest.mark.slow),
    ],
)
def test_every_way_of_training_computes_the_same(
    recipe_file: Path, tmp_path: Path, branch: list[str]
) -> None:
    out, chart = tmp_path / "bench.json", tmp_path / "bench.svg"
    shaped = ["train.per_device_train_batch_size=6", "train.texts_per_image=3", *branch]
    given = [str(recipe_file), *shaped, "--only", "train", "--rounds", "1", "--steps", "1"]
    assert main([*given, "--json", str(out), "--chart", str(chart)]) == 0
    found = json.loads(out.read_text())
    assert (found["texts"], found["images"], found["batches"]) == (6, 2, 1)
    # float32 sums of some thousand terms in another order
    assert found["max_abs_loss_difference"] < 1e-5
    assert found["max_abs_gradient_difference"] < 1e-4 < found["max_abs_gradient"]
    plain, ours = found["plain"], found["qvft"]
    assert found["speedup"] == ours["texts_per_second"] / plain["texts_per_second"]
    assert plain["texts_per_second"] == pytest.approx(6 / plain["seconds"][0])
    work = {name: way["flops_per_text"] for name, way in found["parts"].items()}
    assert plain["flops_per_text"] > work["label_logits"] > work["image_once"]
    if (
        branch
    ):  # nothing is shared, and in rows of a fifth of the width nothing is laid side by side
        assert work["image_once"] == work["packed"]
    else:
        assert work["image_once"] > work["packed"]
    assert work["packed"] > ours["flops_per_text"] > 0
    assert found["promised"] == plain["flops_per_text"] / ours["flops_per_text"]
    assert b"<svg" in chart.read_bytes()


def test_a_caption_is_the_same_with_a_cache_and_by_the_published_loop(
    published_qvision: Path, tmp_path: Path, capsys
) -> None:
    recipe, out = tmp_path / "recipe.yaml", tmp_path / "bench.json"
    recipe.write_text(
        f'name: x\nmodel: {{id: "{published_qvision}"}}\ndata: {{max_text_tokens: 24}}\n'
    )
    given = [str(recipe), "--only", "caption", "--rounds", "3", "--json", str(out)]
    assert main(given) == 0
    found = json.loads(out.read_text())["caption"]
    assert found["equal_tokens"] and (found["tokens"], found["rounds"]) == (20, 3)
    assert found["plain_ms"] == sorted(found["plain_round_ms"])[1]
    assert found["speedup"] == found["plain_ms"] / found["qvft_ms"]
    assert "published loop, no cache" in capsys.readouterr().out


def test_only_a_qvision_captions_by_the_published_loop(recipe_file: Path, capsys) -> None:
    assert main([str(recipe_file), "--only", "caption"]) == 2
    assert "expected a QVision" in capsys.readouterr().err


@pytest.mark.parametrize("given", [["--rounds", "0"], ["--steps", "0"], ["data.eval=null"]])
def test_wrong_input_is_told(recipe_file: Path, capsys, given: list[str]) -> None:
    assert main([str(recipe_file), *given]) == 2
    assert capsys.readouterr().err.count("qvft: ") == 1


def test_preference_tuning_is_measured_against_trls_trainer(
    pairs_recipe: Path, tmp_path: Path
) -> None:
    pytest.importorskip("trl", reason="trl's trainer is the other side")
    out = tmp_path / "bench.json"
    shaped = ["train.per_device_train_batch_size=6", "train.texts_per_image=2"]
    losses = "preference={loss_type: [sigmoid, sft], loss_weights: [1, 0.2]}"
    given = [str(pairs_recipe), *shaped, losses, "--only", "preference", "--rounds", "2"]
    assert main([*given, "--steps", "2", "--json", str(out)]) == 0
    found = json.loads(out.read_text())["preference"]
    assert (found["pairs"], found["batches"], found["rounds"]) == (12, 2, 2)
    # float32 sums of some thousand terms in another order
    assert found["max_abs_gradient_difference"] < 1e-5 < found["max_abs_gradient"]
    theirs, ours = found["trl"], found["qvft"]
    assert theirs["flops_per_pair"] > 3 * ours["flops_per_pair"] > 0
    assert ours["pairs_per_second"] == pytest.approx(12 / (sum(ours["seconds"]) / 2))
    assert found["speedup"] == ours["pairs_per_second"] / theirs["pairs_per_second"]


def test_reward_tuning_is_measured_against_one_row_per_sample(
    recipe_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "bench.json"
    funcs = "reward={funcs: {tests.training.rewards.functions.remainder: 1.0}, num_generations: 3}"
    given = [str(recipe_file), "phases=[{name: a, objective: reward}]", funcs]
    given += ["--only", "reward", "--rounds", "1", "--steps", "2", "--json", str(out)]
    assert main(given) == 0
    found = json.loads(out.read_text())["reward"]
    # float32 sums of 24 texts in another order.
    assert found["max_abs_gradient_difference"] < 1e-5 * found["max_abs_gradient"]
    assert found["promised"] > 1.5
    assert found["plain"]["samples_per_second"] > 0 and found["qvft"]["updates_per_second"] > 0
    assert "gradients differ" in capsys.readouterr().out


def test_rewards_that_do_not_differ_are_refused(
    recipe_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    funcs = "reward={funcs: {tests.training.rewards.functions.one: 1.0}}"
    given = [str(recipe_file), "phases=[{name: a, objective: reward}]", funcs]
    assert main([*given, "--only", "reward", "--rounds", "1", "--steps", "2"]) == 2
    assert "reward.funcs: the samples of each image" in capsys.readouterr().err


def test_a_text_of_a_batch_without_samples_has_its_rows_image() -> None:
    row = Row("x", Sample("x#1", ImageFile(Path("x.png"))), "caption", None, "a", ("a",), {})
    pixels = torch.arange(2.0)
    given = OneByOne({"image_index": torch.tensor([1]), "pixel_values": pixels}, [(0, row)])
    texts = [LearntText(FILLER, row, TokenRow((1,), 1), 0.0)]
    assert given.seen(texts)["pixel_values"].tolist() == [1.0]
    sampled = [LearntText(0, own_image(row, 0, 3), TokenRow((1,), 1), 0.0)]
    assert given.seen(sampled)["pixel_values"].tolist() == [1.0]


@pytest.mark.parametrize("only", ["preference", "reward", "train"])
def test_what_is_measured_must_be_in_the_recipe(
    recipe_file: Path, pairs_recipe: Path, only: str, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = pairs_recipe if only == "train" else recipe_file
    assert main([str(recipe), "--only", only]) == 2
    assert "phases" in capsys.readouterr().err
