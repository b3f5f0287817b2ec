"""Log-probabilities of texts, and candidates ranked by them."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import qvft
from qvft.data.rows import Row, evaluation_rows
from qvft.errors import DataError
from qvft.inference import log_probs as ranking
from qvft.inference.log_probs import LogProb, Scoring, ranked
from qvft.inference.predict import outcomes
from qvft.predict import main
from qvft.recipe.load import load_recipe
from qvft.setup.data import read_split
from qvft.setup.model import Loaded, base_model, base_of
from qvft.training.objectives.language import LanguageModelling
from tests.models.decoder_models import TEXT, write_decoder, write_model
from tests.models.qvision_models import write_tower

CANDIDATES = ("yes", "no", "yes it is", "a red and a green picture")
CLOSE = 1e-3
"""Sums of up to ten log-probabilities of size 5 in float32, whose masks add in another order."""


def plain(loaded: Loaded, row: Row, text: str) -> float:
    """Log-probability of a text as the target of a row of its own, by the training loss."""
    batch = loaded.collator([(0, replace(row, target=text))])
    batch.pop("row_index")
    with torch.no_grad():
        return -float(LanguageModelling(loaded.model).eval()(**batch)["loss_sum"])


@pytest.fixture(
    scope="module",
    params=["tiny", "blip2-t5", "blip2_question-llama", "blip2_question-t5"]
    + ["qvision-gpt2", "qvision-gpt_neo"],
)
def loaded(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    tiny_folder: Path,
    recipe_file: Path,
) -> Loaded:
    family, _, kind = request.param.partition("-")
    folder = tmp_path_factory.mktemp(family)
    given = [f"model.id={tiny_folder}"]
    if family == "qvision":
        tower = write_tower(folder / "tower", "clip_vision_model")
        decoder = write_decoder(folder / kind, tiny_folder, TEXT[kind])
        given = [f"model.id={tower}", f"model.decoder={decoder}", "data.max_text_tokens=40"]
    elif kind:
        base = write_model(folder / kind, tiny_folder, TEXT[kind], family=family)
        given = [f"model.id={base}"]
    recipe = load_recipe(recipe_file, given)
    return base_model(recipe, base_of(recipe))


@pytest.fixture(scope="module")
def rows(recipe_file: Path) -> list[Row]:
    found = evaluation_rows(read_split(load_recipe(recipe_file), "eval").samples[:2])
    return [replace(row, candidates=CANDIDATES) for row in found]


def found_in(loaded: Loaded, rows: list[Row], scoring: Scoring, **settings: Any) -> list[Any]:
    fields = {"max_new_tokens": 4, "do_sample": False, "num_beams": 1, **settings}
    generation = dict.fromkeys(("caption", "question"), fields)
    torch.manual_seed(0)
    listed = outcomes(
        loaded.model,
        loaded.collator,
        rows,
        generation=generation,
        batch_size=4,
        workers=0,
        scoring=scoring,
    )
    return sorted(listed, key=lambda one: one.number)


def test_candidates_have_the_log_probability_of_a_pass_of_their_own(
    loaded: Loaded, rows: list[Row], monkeypatch: pytest.MonkeyPatch
) -> None:
    for tokens in (ranking.PASS_TOKENS, 200):  # together, and in several packed rows and passes
        monkeypatch.setattr(ranking, "PASS_TOKENS", tokens)
        monkeypatch.setattr(ranking, "ROW_TOKENS", tokens // 4)
        for row, outcome in zip(
            rows, found_in(loaded, rows, Scoring(rank_by="sum", generate=False)), strict=True
        ):
            assert {one.text for one in outcome.candidates} == set(CANDIDATES)
            for one in outcome.candidates:
                expected = plain(loaded, row, one.text)
                assert one.log_prob.sum == pytest.approx(expected, abs=CLOSE)
            sums = [one.log_prob.sum for one in outcome.candidates]
            assert sums == sorted(sums, reverse=True)
            assert outcome.texts == (outcome.candidates[0].text,)


@pytest.mark.parametrize(
    "settings",
    [{}, {"do_sample": True, "temperature": 3.0}, {"num_beams": 3, "num_return_sequences": 2}],
    ids=["greedy", "sampled", "beams"],
)
def test_a_generated_text_has_the_log_probability_of_a_teacher_forced_pass(
    loaded: Loaded, rows: list[Row], settings: dict[str, Any]
) -> None:
    for row, outcome in zip(
        rows, found_in(loaded, rows, Scoring(log_probs=True), **settings), strict=True
    ):
        assert len(outcome.log_probs) == len(outcome.texts)
        for text, one in zip(outcome.texts, outcome.log_probs, strict=True):
            if text:  # an empty target would be a blank
                assert one.sum == pytest.approx(plain(loaded, row, text), abs=CLOSE)
                assert one.mean == one.sum / one.tokens


def test_a_hundred_candidates_cost_one_prompt(recipe_file: Path, rows: list[Row]) -> None:
    recipe = load_recipe(recipe_file)
    loaded = base_model(recipe, base_of(recipe))
    passes: list[tuple[int, ...]] = []
    block = loaded.model.language_model.get_decoder().layers[0].self_attn.q_proj
    block.register_forward_pre_hook(lambda _module, given: passes.append(tuple(given[0].shape)))
    many = replace(rows[1], candidates=tuple(f"number {n}" for n in range(100)))
    found_in(loaded, [many], Scoring(rank_by="sum", generate=False))
    ids = loaded.template.encode("question", question=many.question).ids
    targets = loaded.template.encode_targets("question", "a", many.candidates)
    common = 2  # a blank with "number", which the candidates share, is one token or two
    tokens = sum(map(len, targets)) + len(ids)
    assert len(passes) == 1 and passes[0][0] == 1
    assert tokens - common * 100 <= passes[0][1] <= tokens


def test_ranking_by_sum_and_by_mean() -> None:
    values = [LogProb(-2.0, 1), LogProb(-3.0, 3), LogProb(-2.0, 1)]
    by_sum = ranked(["a", "b", "c"], values)
    assert [one.text for one in by_sum] == ["a", "c", "b"]  # of equal ones the first
    total = 2 * math.exp(-2) + math.exp(-3)
    assert by_sum[0].probability == pytest.approx(math.exp(-2) / total)
    assert [one.text for one in ranked(["a", "b", "c"], values, by="mean")] == ["b", "a", "c"]


@pytest.fixture
def ask(
    tiny_run: Path, shapes: Path, tmp_path: Path
) -> Callable[..., tuple[int, list[dict[str, Any]]]]:
    def call(*arguments: str) -> tuple[int, list[dict[str, Any]]]:
        out = tmp_path / "rows.jsonl"
        given = [str(tiny_run), str(shapes / "test0.png"), *arguments]
        status = main([*given, "--out", str(out), "--workers", "0"])
        lines = out.read_text().splitlines() if status == 0 else []
        return status, [json.loads(line) for line in lines]

    return call


def test_predict_writes_scores_and_abstains(ask) -> None:
    _, (row,) = ask("--scores", "--question", "Is it red?")
    assert row["probability"] == pytest.approx(math.exp(row["log_prob"]), abs=1e-5)  # rounded
    assert row["log_prob"] < row["mean_log_prob"] < 0
    assert "abstained" not in row
    _, (low,) = ask("--abstain-below", "0", "--question", "Is it red?")
    _, (high,) = ask("--abstain-below", "1", "--question", "Is it red?")
    assert (low["abstained"], high["abstained"]) == (False, True)
    assert low["text"] == high["text"] == row["text"]


def test_predict_ranks_candidates(ask) -> None:
    _, (row,) = ask("--candidates", "yes, no", "--question", "Is it red?")
    assert {one["text"] for one in row["candidates"]} == {"yes", "no"}
    assert row["text"] == row["candidates"][0]["text"]
    assert sum(one["probability"] for one in row["candidates"]) == pytest.approx(1, abs=1e-5)
    assert ask("--candidates", "yes,no", "--num_beams", "2")[0] == 2  # nothing is generated


def test_a_caption_goes_on_from_a_prompt_of_its_own(ask, tiny_run: Path, shapes: Path) -> None:
    model, image = qvft.load_model(tiny_run), shapes / "test0.png"
    _, (without,) = ask("--scores")
    _, (row,) = ask("--scores", "--prompt", "this is: a")
    assert row["log_prob"] != without["log_prob"]
    assert model.caption(image, prompt="this is: a") == row["text"]
    (found,) = model.log_probs(image, row["text"], prompt="this is: a")
    assert found.sum == pytest.approx(row["log_prob"], abs=CLOSE)
    assert ask("--prompt", "a", "--question", "Is it red?")[0] == 2


def test_a_seed_draws_other_texts(ask) -> None:
    drawn = [
        ask("--do_sample", "true", "--temperature", "5.0", "--seed", seed)[1][0]["text"]
        for seed in ("1", "1", "2")
    ]
    assert drawn[0] == drawn[1] != drawn[2]


def test_python_ranks_candidates_of_questions(tiny_run: Path, shapes: Path) -> None:
    model, images = qvft.load_model(tiny_run), [shapes / "test0.png", shapes / "test1.png"]
    found = model.rank(images, ["yes", "no"], "Is it red?")
    for image, order in zip(images, found, strict=True):
        values = model.log_probs([image] * 2, [one.text for one in order], "Is it red?")
        assert values[0].sum > values[1].sum
        close = [pytest.approx(one.log_prob.sum, abs=CLOSE) for one in order]
        assert [one.sum for one in values] == close
    with pytest.raises(DataError):
        model.rank(images, [])
