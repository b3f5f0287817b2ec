"""Classes by prompts: `qvft.predict --classes`, and accuracy in a report."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from qvft.data.formats import read_samples
from qvft.data.predict_inputs import read_names
from qvft.eval import main as evaluate
from qvft.evaluation.rows import PredictionRow
from qvft.evaluation.zero_shot import rows_of_class
from qvft.models.alignment.scoring import class_embeddings, similarity
from qvft.predict import main
from qvft.setup.alignment_model import AlignmentModel

NAMES = ["circle", "square", "star"]
PROMPTS = "a {}|one {} here"


@pytest.fixture
def images(tmp_path: Path) -> Path:
    folder = tmp_path / "images"
    folder.mkdir()
    for index, sample in enumerate(read_samples("drawn", "seed=6,count=5,size=48")):
        sample.image.open().save(folder / f"{index}.png")
    return folder


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def asked(run: Path, images: Path | str, out: Path, *further: str) -> list[str]:
    given = [str(run), str(images), "--out", str(out), "--workers", "0"]
    return [*given, "--classes", ",".join(NAMES), "--prompts", PROMPTS, *further]


def test_each_image_gets_the_nearest_class_and_the_cosine_of_all(
    aligned_run: Path, aligned: AlignmentModel, images: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out.jsonl"
    assert main(asked(aligned_run, images, out, "--batch-size", "2")) == 0
    from PIL import Image

    pictures = [Image.open(images / f"{index}.png") for index in range(5)]
    vectors = aligned.image_vectors(aligned.loaded.collator.normalise(pictures))
    classes = class_embeddings(NAMES, PROMPTS.split("|"), embed=aligned.text_vectors)
    cosines = similarity(vectors, classes)
    rows = lines(out)
    assert [row["image"] for row in rows] == [str(images / f"{i}.png") for i in range(5)]
    for row, expected in zip(rows, cosines, strict=True):
        assert set(row) == {"image", "text", "scores"}
        assert row["text"] == NAMES[int(expected.argmax())]
        assert list(row["scores"]) == NAMES
        # Six decimals are written; batches of other sizes differ by float32's rounding.
        assert list(row["scores"].values()) == pytest.approx(expected.tolist(), abs=1e-5)
    assert json.loads((tmp_path / "out.jsonl.settings.json").read_text())["finished"]


def test_classes_may_stand_in_a_file(aligned_run: Path, images: Path, tmp_path: Path) -> None:
    file, out = tmp_path / "classes.txt", tmp_path / "out.jsonl"
    file.write_text("traffic light, red\n\n  Käse \n", encoding="utf-8")
    assert read_names(str(file)) == ("traffic light, red", "Käse")
    assert read_names("cat, dog") == ("cat", "dog")
    assert len(read_names(",".join(f"class {number}" for number in range(100)))) == 100
    given = [str(aligned_run), str(images / "0.png"), "--out", str(out), "--classes", str(file)]
    assert main(given) == 0
    (row,) = lines(out)
    assert list(row["scores"]) == ["traffic light, red", "Käse"]


def test_rows_keep_their_names_and_an_unusable_image_is_an_error(
    aligned_run: Path, images: Path, tmp_path: Path, capsys
) -> None:
    (images / "broken.png").write_bytes(b"no image")
    rows = images / "rows.jsonl"
    listed = [
        {"image": "0.png", "id": "a"},
        {"image": "broken.png"},
        {"image": "1.png", "question": "Which shape?"},
        {"image": "0.png", "id": "b"},
    ]
    rows.write_text("".join(json.dumps(row) + "\n" for row in listed))
    out = tmp_path / "out.jsonl"
    assert main(asked(aligned_run, rows, out)) == 0
    first, broken, third, again = lines(out)
    assert (first["id"], again["id"], third["question"]) == ("a", "b", "Which shape?")
    assert first["scores"] == again["scores"] != third["scores"]
    assert set(broken) == {"image", "error"}
    assert "1 with an error" in capsys.readouterr().err


def test_a_stopped_file_goes_on_and_another_job_does_not_mix_in(
    aligned_run: Path, images: Path, tmp_path: Path, capsys
) -> None:
    out = tmp_path / "out.jsonl"
    assert main(asked(aligned_run, images, out)) == 0
    whole = lines(out)
    beside = tmp_path / "out.jsonl.settings.json"
    settings = json.loads(beside.read_text())
    beside.write_text(json.dumps({**settings, "finished": False}))
    out.write_text("".join(json.dumps(row) + "\n" for row in whole[:2]) + '{"ima')
    assert main(asked(aligned_run, images, out)) == 2
    assert "--resume" in capsys.readouterr().err
    other = [*asked(aligned_run, images, out, "--resume"), "--classes", "cat,dog"]
    assert main(other) == 2
    assert "another classes" in capsys.readouterr().err
    assert main(asked(aligned_run, images, out, "--resume")) == 0
    found = lines(out)
    assert found[:2] == whole[:2] and len(found) == 5
    for row, expected in zip(found, whole, strict=True):
        # The batches have other sizes after a stop: float32's rounding, then six decimals.
        assert row["scores"] == pytest.approx(expected["scores"], abs=1e-5)
    assert main(asked(aligned_run, images, out, "--resume")) == 0
    assert "5 of them before" in capsys.readouterr().err


def test_lines_go_to_standard_output_without_a_file(
    aligned_run: Path, images: Path, capsys
) -> None:
    given = [str(aligned_run), str(images / "0.png"), "--classes", "circle,square"]
    assert main([*given, "--workers", "0"]) == 0
    row = json.loads(capsys.readouterr().out)
    assert row["text"] == max(row["scores"], key=row["scores"].get)


@pytest.mark.parametrize(
    ("further", "said"),
    [
        (["--question", "Which?"], "--question"),
        (["--num_beams", "3"], "--num_beams"),
        (["--classes", "cat,cat"], "2 classes; expected one or more, each once"),
        (["--classes", "cat,"], "a class without a name"),
        (["--prompts", "a picture"], "template `a picture`"),
    ],
)
def test_what_makes_no_sense_is_refused(
    aligned_run: Path, images: Path, tmp_path: Path, capsys, further: list[str], said: str
) -> None:
    out = tmp_path / "out.jsonl"
    assert main(asked(aligned_run, images, out, *further)) == 2
    assert said in capsys.readouterr().err
    assert not out.exists()


def test_prompts_without_classes_are_refused(aligned_run: Path, images: Path, capsys) -> None:
    assert main([str(aligned_run), str(images), "--prompts", "a {}"]) == 2
    assert "--prompts: has no --classes" in capsys.readouterr().err


def test_a_model_without_contrast_heads_is_refused(
    tiny_run: Path, merged: Path, images: Path, tmp_path: Path, capsys
) -> None:
    out = tmp_path / "out.jsonl"
    assert main(asked(tiny_run, images, out)) == 2
    message = capsys.readouterr().err
    assert "has no contrast heads" in message and "itc among its objectives" in message
    assert main(asked(merged, images, out)) == 2
    assert "has no contrast heads" in capsys.readouterr().err
    assert main([str(tiny_run), str(images), "--classes", "cat"]) == 2
    assert not out.exists()


def row(kind: str, *references: str) -> PredictionRow:
    question = None if kind == "caption" else "Which?"
    return PredictionRow("i", "i.png", kind, question, "", references)


def test_rows_count_whose_reference_is_one_class() -> None:
    rows = [
        row("question", "Red.", "red"),
        row("question", "red", "blue"),
        row("question", "yes"),
        row("caption", "blue"),
        row("question", "red", "crimson"),
    ]
    assert rows_of_class(rows, ["red", "Blue"]) == {0: "red", 3: "Blue"}


def test_the_report_holds_the_accuracy_of_classes(
    aligned_run: Path, shapes: Path, tmp_path: Path, capsys
) -> None:
    run = Path(shutil.copytree(aligned_run, tmp_path / "run"))
    data = f"data.eval={{path: '{shapes / 'test.jsonl'}', name: shapes-test}}"
    given = [str(run), data, "eval.blind=false", "eval.classes=[red, green, blue]"]
    prompts = "eval.class_prompts=['a {} picture']"
    assert evaluate([*given, prompts]) == 0
    folder = run / "eval" / "shapes-test"
    report = json.loads((folder / "report.json").read_text())
    # Eight images, of whose two questions one asks for the colour.
    assert report["n_by_group"]["zero_shot"] == 8
    assert "nearest to the prompts" in report["definitions"]["zero_shot_accuracy"]
    assert report["decode"]["classes"] == ["red", "green", "blue"]
    out = tmp_path / "out.jsonl"
    files = [str(shapes / f"test{index}.png") for index in range(8)]
    asked_alike = ["--classes", "red,green,blue", "--prompts", "a {} picture", "--out", str(out)]
    assert main([str(run), *files, *asked_alike, "--workers", "0"]) == 0
    right = [row["text"] == NAMED[index % 3] for index, row in enumerate(lines(out))]
    assert report["metrics"]["zero_shot_accuracy"] == pytest.approx(100 * sum(right) / 8)
    capsys.readouterr()
    assert evaluate([*given[:3], "eval.classes=[cat, dog]"]) == 0
    assert "no text's reference is one of them" in capsys.readouterr().err
    (apart,) = (path for path in folder.parent.iterdir() if path != folder)
    report = json.loads((apart / "report.json").read_text())
    assert "zero_shot_accuracy" not in report["metrics"]


NAMED = ["red", "green", "blue"]
