from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import pytest

from qvft.errors import DataError, FailedError, MissingToolError, UserError
from qvft.evaluation.metrics import meteor as meteor_module
from qvft.evaluation.metrics.meteor import meteor, meteor_command

# The jar prints doubles in full, so its scores arrive unrounded.
EXACT = 1e-15


@pytest.fixture(scope="module")
def jar() -> None:
    try:
        meteor_command()
    except MissingToolError as error:
        pytest.skip(str(error))


@pytest.fixture
def no_java(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))


def test_corpus_and_items_equal_the_toolkit_on_real_captions(jar: None, shared_data: Path) -> None:
    folder = shared_data / "caption_metrics" / "aac_metrics"
    with (folder / "example_1.csv").open(encoding="utf-8", newline="") as stream:
        rows = list(csv.reader(stream))[1:]
    official = json.loads((folder / "official_scores_computed.json").read_text())
    per_item = json.loads((folder / "example_1_per_item.json").read_text())["per_image"]
    corpus, items = meteor(
        {str(i): row[1:] for i, row in enumerate(rows)},
        {str(i): row[0] for i, row in enumerate(rows)},
    )
    assert corpus == pytest.approx(official["example_1.csv"]["scores"]["METEOR"], abs=EXACT)
    assert list(items.values()) == pytest.approx(per_item["METEOR"], abs=EXACT)


def test_corpus_and_images_equal_the_toolkit_on_awkward_captions(
    jar: None, shared_data: Path
) -> None:
    folder = shared_data / "reference" / "captions"
    annotations = json.loads((folder / "annotations.json").read_text(encoding="utf-8"))
    results = json.loads((folder / "predictions.json").read_text(encoding="utf-8"))
    expected = json.loads((folder / "expected.json").read_text())
    known: dict[str, list[str]] = {str(image["id"]): [] for image in annotations["images"]}
    for row in annotations["annotations"]:
        known[str(row["image_id"])].append(row["caption"])
    said = {str(row["image_id"]): row["caption"] for row in results}
    corpus, items = meteor(known, {key: said[key] for key in known})
    assert corpus == pytest.approx(expected["totals"]["METEOR"], abs=EXACT)
    assert items == pytest.approx(
        {key: image["METEOR"] for key, image in expected["images"].items()}, abs=EXACT
    )


def test_a_letter_is_the_same_composed_and_decomposed(jar: None) -> None:
    references = {"x": ["l'\u00e9glise ferm\u00e9e"]}
    composed = meteor(references, {"x": "l'\u00e9glise ferm\u00e9e"})
    assert composed == meteor(references, {"x": "l'e\u0301glise ferme\u0301e"})
    assert composed[0] == 1.0


def test_equals_nlg_evals_published_score_in_any_locale(
    jar: None, shared_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # German writes 0,5 for 0.5, and the jar reads its statistics in the language it runs under.
    monkeypatch.setenv("JAVA_TOOL_OPTIONS", "-Duser.language=de -Duser.country=DE")
    folder = shared_data / "caption_metrics" / "nlg_eval"
    texts = {n: (folder / f"{n}.txt").read_text().splitlines() for n in ("hyp", "ref1", "ref2")}
    published = json.loads((folder / "published_scores.json").read_text())["files_hyp_ref1_ref2"]
    corpus, _ = meteor(
        {str(i): pair for i, pair in enumerate(zip(texts["ref1"], texts["ref2"], strict=True))},
        {str(i): text for i, text in enumerate(texts["hyp"])},
    )
    # Published with six digits.
    assert corpus == pytest.approx(published["METEOR"], abs=5e-7)


def test_awkward_captions_are_scored_each_in_its_place(jar: None) -> None:
    texts = {"pipes": "a ||| b", "lines": "two\nred dogs", "accents": "un café", "twice": "a dog"}
    references = {key: [text] for key, text in texts.items()}
    references["empty"] = references["no words"] = ["a dog"]
    predictions = texts | {"empty": "", "no words": "...", "twice": "six cats"}
    corpus, items = meteor(references, predictions)
    assert list(items) == list(predictions)
    assert (items["empty"], items["no words"], items["twice"]) == (0.0, 0.0, 0.0)
    assert min(items["pipes"], items["lines"], items["accents"]) > 0.9
    assert 0.0 < corpus < 1.0


def test_a_program_that_hangs_is_ended(jar: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(meteor_module, "_most_seconds", lambda items: 0.01)
    with pytest.raises(FailedError, match="did not end in time"):
        meteor({"x": ["a dog"]}, {"x": "a dog"})


def test_without_java_one_message_says_what_to_install(no_java: None) -> None:
    with pytest.raises(UserError) as caught:
        meteor({"x": ["a dog"]}, {"x": "a dog"})
    assert "METEOR cannot be computed: no `java` on the PATH" in str(caught.value)
    assert "install a Java runtime" in str(caught.value)
    assert "leave METEOR out" in str(caught.value)


def test_without_the_package_the_message_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingToolError, match=r"no package pycocoevalcap.*qvft\[java\]"):
        meteor({"x": ["a dog"]}, {"x": "a dog"})


def test_nothing_to_score_needs_no_java(no_java: None) -> None:
    assert meteor({}, {}) == (0.0, {})


def test_prediction_for_an_unknown_id_is_an_error() -> None:
    with pytest.raises(DataError, match="'z'"):
        meteor({"x": ["a dog"]}, {"z": "a dog"})
