"""The metrics as `evaluate` modules: no network, the same figures as the functions."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

import pytest

from qvft.errors import DataError
from qvft.evaluation.metrics.captions import score_captions
from qvft.evaluation.modules import NAMES, load, module_path

PROJECT = Path(__file__).resolve().parents[2]
ANSWERS = {
    "predictions": ["yes", "it is the left lung", "no"],
    "references": [["yes"], ["left lung"], ["yes"]],
}
INPUTS: dict[str, dict[str, Any]] = {
    "captions": {
        "predictions": ["a black dog runs", "two people eat"],
        "references": [["a black dog runs"], ["people eat lunch", "two people at a table"]],
    },
    "vqa_accuracy": {
        "predictions": ["yes", "red"],
        "references": [["yes"] * 10, ["red"] * 2 + ["blue"] * 8],
    },
    "medical_vqa": ANSWERS,
    "llava_med": ANSWERS,
    "multimedeval": ANSWERS,
    "retrieval": {
        "predictions": [[0.1, 0.9, 0.2], [0.3, 0.4, 0.2]],
        "references": [[1, 0], [2]],
    },
}


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever asks for an address or a connection fails."""

    def refused(*_: object, **__: object) -> NoReturn:
        raise AssertionError("a module reaches for the network")

    monkeypatch.setattr(socket, "getaddrinfo", refused)
    monkeypatch.setattr(socket.socket, "connect", refused)


@pytest.fixture(scope="module")
def caches(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Fresh caches of `evaluate`, so that nothing is found there.

    One for all tests: Python imports `evaluate_modules` from one folder in a process.
    """
    import evaluate

    folder = tmp_path_factory.mktemp("evaluate")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "path", [*sys.path])  # evaluate.load appends the modules' folder
        patch.setattr(evaluate.config, "HF_METRICS_CACHE", folder / "metrics")
        patch.setattr(evaluate.config, "HF_MODULES_CACHE", folder / "modules")
        yield folder


def own(name: str) -> Any:
    return load(name)


def through_evaluate(name: str) -> Any:
    import evaluate

    return evaluate.load(module_path(name))


@pytest.mark.parametrize("way", [own, through_evaluate])
def test_captions_are_those_of_the_function(caches: Path, way: Callable[[str], Any]) -> None:
    given = INPUTS["captions"]
    expected = score_captions(
        dict(zip("ab", given["references"], strict=True)),
        dict(zip("ab", given["predictions"], strict=True)),
    )
    assert way("captions").compute(**given) == expected.corpus


@pytest.mark.parametrize("way", [own, through_evaluate])
def test_vqa_accuracy_is_the_mean_in_percent(caches: Path, way: Callable[[str], Any]) -> None:
    # Ten and two of ten humans agree: 1 and 0.6.
    found = way("vqa_accuracy").compute(**INPUTS["vqa_accuracy"])
    assert found == {"accuracy": pytest.approx(80.0), "rules": "2017"}


@pytest.mark.parametrize("rules, expected", [(None, 100.0), ("2017", 100.0), ("2021", 0.0)])
def test_the_rules_are_the_configuration(caches: Path, rules: str | None, expected: float) -> None:
    import evaluate

    given = {"predictions": ["Yes."], "references": [["yes"] * 10]}
    for metric in (
        load("vqa_accuracy", rules),
        evaluate.load(module_path("vqa_accuracy"), rules),
    ):
        assert metric.compute(**given) == {"accuracy": expected, "rules": rules or "2017"}


def test_rules_of_another_year_are_refused(caches: Path) -> None:
    with pytest.raises(ValueError, match="expected one of 2017, 2021"):
        load("vqa_accuracy", "2019")


@pytest.mark.parametrize("way", [own, through_evaluate])
def test_medical_figures_are_those_of_the_report(caches: Path, way: Callable[[str], Any]) -> None:
    found = way("medical_vqa").compute(**ANSWERS)
    # One of two closed questions is right; the open answer holds both tokens among its five.
    assert found["closed_accuracy"] == 50.0
    assert found["open_exact_match"] == 0.0
    assert found["open_token_recall"] == 100.0
    assert found["open_token_f1"] == pytest.approx(200 * 0.4 / 1.4)
    assert found["n"] == 3


def test_answer_types_may_be_stated(caches: Path) -> None:
    found = load("medical_vqa").compute(**ANSWERS, answer_types=["closed", "closed", "open"])
    assert (found["closed_accuracy"], found["open_exact_match"]) == (50.0, 0.0)
    with pytest.raises(DataError, match="2 answer types; expected one for each of 3"):
        load("medical_vqa").compute(**ANSWERS, answer_types=["closed", "open"])


@pytest.mark.parametrize("way", [own, through_evaluate])
def test_llava_meds_two_closed_accuracies_stand_side_by_side(
    caches: Path, way: Callable[[str], Any]
) -> None:
    found = way("llava_med").compute(**ANSWERS)
    # "no" for "yes" leaves the first one's denominator.
    assert found["closed_accuracy_llava_med"] == 100.0
    assert found["closed_accuracy_llava_med_v2"] == 50.0
    assert (found["open_recall_llava_med"], found["n"]) == (100.0, 3)
    assert "open_accuracy_llava_med" not in found


@pytest.mark.parametrize("way", [own, through_evaluate])
def test_llava_meds_open_accuracy_chooses_among_candidates(
    caches: Path, way: Callable[[str], Any]
) -> None:
    for candidates, expected in ((["right lung", "left lung"], 100.0), (["lung", "left lung"], 0)):
        found = way("llava_med").compute(**ANSWERS, candidates=candidates)
        assert found["open_accuracy_llava_med"] == expected


@pytest.mark.parametrize("way", [own, through_evaluate])
def test_multimedevals_figures_lie_between_0_and_1(caches: Path, way: Callable[[str], Any]) -> None:
    found = way("multimedeval").compute(**ANSWERS)
    assert (found["closed_accuracy_multimedeval"], found["open_accuracy_multimedeval"]) == (0.5, 1)
    assert found["recall_multimedeval"] == pytest.approx(2 / 3)
    # Each word of two answers is right or wrong; of "it is left lung" half are right.
    assert found["bleu_multimedeval"] == pytest.approx((1 + 0.5 + 0) / 3)


@pytest.mark.parametrize("way", [own, through_evaluate])
def test_retrieval_takes_rows_and_their_texts(caches: Path, way: Callable[[str], Any]) -> None:
    found = way("retrieval").compute(**INPUTS["retrieval"])
    # Image 1 ranks texts 1, 0, 2. Text 0 is nearer to image 1; text 2 is as near to image 0.
    assert found["image_to_text_recall_at_1"] == 50.0
    assert found["image_to_text_recall_at_5"] == 100.0
    assert found["text_to_image_recall_at_1"] == pytest.approx(100 / 3)
    assert (found["tied_images"], found["tied_texts"]) == (0, 1)


@pytest.mark.parametrize(
    "change, says",
    [
        ({"references": [[0], [2]]}, "columns of 2 texts; expected each of 0 to 2"),
        ({"references": [[0, 1], [1, 2]]}, "columns of 4 texts"),
        ({"predictions": [[0.1, 0.9], [0.3, 0.4, 0.2]]}, "rows of 2, 3 similarities"),
    ],
)
def test_what_is_no_matrix_is_refused(caches: Path, change: dict, says: str) -> None:
    with pytest.raises(DataError, match=says):
        load("retrieval").compute(**(INPUTS["retrieval"] | change))


def test_similarities_that_are_nan_are_refused(caches: Path) -> None:
    rows = [[0.1, float("nan"), 0.2], [0.3, 0.4, 0.2]]
    with pytest.raises(ValueError, match="1 similarities are NaN"):
        load("retrieval").compute(predictions=rows, references=[[0, 1], [2]])


@pytest.mark.parametrize("name", NAMES)
def test_items_may_be_added_in_batches(caches: Path, name: str) -> None:
    metric, given = load(name), INPUTS[name]
    metric.add_batch(**{key: rows[:1] for key, rows in given.items()})
    metric.add_batch(**{key: rows[1:] for key, rows in given.items()})
    assert metric.compute() == load(name).compute(**given)


@pytest.mark.parametrize("name", NAMES)
def test_nothing_to_score_is_refused(caches: Path, name: str) -> None:
    with pytest.raises(DataError):
        load(name).compute(predictions=[], references=[])


@pytest.mark.parametrize("name", NAMES)
def test_a_module_says_what_it_computes(caches: Path, name: str) -> None:
    info = load(name).info
    assert info.description
    assert info.citation
    assert info.reference_urls
    assert set(info.features) == {"predictions", "references"}


def test_no_cache_of_hugging_face_is_needed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import evaluate

    (tmp_path / "file").write_text("")
    monkeypatch.setattr(evaluate.config, "HF_METRICS_CACHE", tmp_path / "file" / "metrics")
    assert load("captions").compute(**INPUTS["captions"])["Bleu_1"] > 0.5


def test_an_unknown_name_is_refused() -> None:
    with pytest.raises(ValueError, match="expected one of captions, vqa_accuracy"):
        load("bleu")


def test_every_module_loads_in_a_fresh_process_with_evaluates_own_offline_switch(
    tmp_path: Path,
) -> None:
    """The other tests run under `HF_HUB_OFFLINE=1`, as tests/conftest.py sets it."""
    code = (
        "import evaluate, socket\n"
        "from qvft.evaluation.modules import NAMES, load, module_path\n"
        "def refused(*_, **__): raise SystemExit('network')\n"
        "socket.getaddrinfo = socket.socket.connect = refused\n"
        "print(*(evaluate.load(module_path(n)).name == load(n).name for n in NAMES))"
    )
    kept = {name: value for name, value in os.environ.items() if name != "HF_HUB_OFFLINE"}
    done = subprocess.run(
        [sys.executable, "-W", "error::FutureWarning", "-c", code],
        cwd=PROJECT,
        env={**kept, "HF_EVALUATE_OFFLINE": "1", "HF_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "True " * 5 + "True\n"), done.stderr
