"""`qvft init`: data files, a recipe that works, and commands, or one message and nothing."""

from __future__ import annotations

import json
import re
import shlex
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from qvft.data.formats import read_samples
from qvft.init import main
from qvft.models.model_path import TINY_ID
from qvft.new_project import fitting_base
from qvft.recipe.load import load_recipe
from qvft.setup.data import read_texts


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder, on a machine without a GPU."""
    monkeypatch.setattr(fitting_base, "gpu_memory", lambda: None)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def picture(path: Path, number: int) -> str:
    """An image unlike those of other numbers; returns its name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 8), (number % 256, number // 256, 7)).save(path)
    return path.name


@pytest.fixture
def pets(folder: Path) -> Path:
    """Class folders of 20 cats and 10 dogs, no two images equal."""
    for number in range(30):
        picture(folder / "pets" / ("cat" if number < 20 else "dog") / f"{number}.png", number)
    return folder / "pets"


@pytest.fixture
def scans(folder: Path) -> Path:
    """A CSV file of 40 scans of 10 patients."""
    lines = ["scan,question,answer,patient"]
    for number in range(40):
        name = picture(folder / "scans" / "img" / f"{number}.png", number)
        lines.append(f"img/{name},Is it broken?,{'yes' if number % 3 else 'no'},p{number % 10}")
    (folder / "scans" / "all.csv").write_text("\n".join(lines) + "\n")
    return folder / "scans" / "all.csv"


def parts(out: Path) -> dict[str, list[dict[str, Any]]]:
    return {
        file.stem: [json.loads(line) for line in file.read_text().splitlines()]
        for file in sorted(out.glob("*.jsonl"))
    }


def test_class_folders_become_files_with_all_classes(pets: Path, folder: Path) -> None:
    assert main([str(pets), "--question", "Which animal?"]) == 0
    written = parts(folder / "pets_qvft")
    assert {name: len(rows) for name, rows in written.items()} == {"train": 24, "val": 3, "test": 3}
    for name, cats in (("train", 16), ("val", 2), ("test", 2)):
        assert sum(row["meta"]["class"] == "cat" for row in written[name]) == cats
    (question,) = written["val"][0]["questions"]
    assert (question["question"], question["answers"][0]) == ("Which animal?", "cat")
    assert len({row["id"] for rows in written.values() for row in rows}) == 30


def test_the_recipe_reads_what_was_written(pets: Path, folder: Path) -> None:
    assert main([str(pets), "--caption", "a photo of a {class}"]) == 0
    recipe = load_recipe("pets_qvft/recipe.yaml")
    assert (recipe.name, recipe.model.id) == ("pets", TINY_ID)
    assert recipe.data.prompt.caption == ""
    train, val = read_texts(recipe, "train"), read_texts(recipe, "eval")
    assert (len(train), len(val)) == (24, 3)
    assert train[0].captions == ("a photo of a cat",)
    assert all(one.image.path.exists() for one in (*train, *val))


def test_the_printed_commands_name_what_was_written(
    pets: Path, folder: Path, capsys: pytest.CaptureFixture
) -> None:
    assert main([str(pets), "--out", "my pets"]) == 0
    said = capsys.readouterr().out
    commands = [shlex.split(line) for line in said.splitlines() if line.startswith("  qvft ")]
    assert [one[1] for one in commands] == ["check", "train", "eval"]
    recipe = load_recipe(commands[1][2])
    assert commands[2][2] == f"runs/{recipe.name}"
    load_recipe(commands[1][2], commands[2][3:])
    assert len(said.splitlines()) < 25


def test_copies_make_a_folder_that_can_be_moved(pets: Path, folder: Path) -> None:
    assert main([str(pets), "--copy-images", "--out", "one"]) == 0
    (folder / "one").rename(folder / "other")
    assert len(read_samples("jsonl", "other/train.jsonl")) == 24
    files = [one.image.path for one in read_samples("jsonl", "other/train.jsonl")]
    assert all((folder / "other").resolve() in one.resolve().parents for one in files)


def test_a_group_is_in_one_file(scans: Path, folder: Path) -> None:
    given = [str(scans), "--columns", "image=scan", "--group", "patient"]
    assert main([*given, "--split", "60,20,20"]) == 0
    patients = {
        name: {row["questions"][0]["meta"]["patient"] for row in rows}
        for name, rows in parts(folder / "all_qvft").items()
    }
    assert {name: len(found) for name, found in patients.items()} == {
        "train": 6,
        "val": 2,
        "test": 2,
    }
    assert len(set.union(*patients.values())) == 10


def test_equal_images_are_in_one_file(folder: Path) -> None:
    for number in range(40):
        for name in ("a", "b"):
            picture(folder / "pets" / name / f"{number // 2}_{number}.png", number // 2)
    assert main([str(folder / "pets")]) == 0
    found = [
        {Path(row["id"]).name.split("_")[0] for row in rows}
        for rows in parts(folder / "pets_qvft").values()
    ]
    assert len(found) == 3 and sum(map(len, found)) == len(set.union(*found)) == 20


@pytest.mark.parametrize(
    ("typed", "question"), [("Which animal?", "Which animal?"), ("", "What is it?")]
)
def test_a_person_is_asked_for_the_question(
    typed: str, question: str, pets: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for stream in (sys.stdin, sys.stdout):
        monkeypatch.setattr(stream, "isatty", lambda: True)
    monkeypatch.setattr("builtins.input", lambda prompt: typed)
    assert main([str(pets)]) == 0
    rows = parts(folder / "pets_qvft")["train"]
    assert {row["questions"][0]["question"] for row in rows} == {question}


def test_a_table_of_classes_is_split_class_by_class(folder: Path) -> None:
    lines = ["image,label"]
    for number in range(30):
        name = picture(folder / "t" / f"{number}.png", number)
        lines.append(f"{name},{'cat' if number < 20 else 'dog'}")
    (folder / "t" / "t.csv").write_text("\n".join(lines))
    assert main(["t/t.csv", "--question", "Which animal?"]) == 0
    (questions, *_), *_ = [row["questions"] for row in parts(folder / "t_qvft")["train"]]
    assert questions["question"] == "Which animal?"
    for name, cats in (("train", 16), ("val", 2), ("test", 2)):
        rows = parts(folder / "t_qvft")[name]
        assert sum(row["questions"][0]["answers"] == ["cat"] for row in rows) == cats


def test_a_seed_is_a_split(pets: Path) -> None:
    for out, seed in (("a", "1"), ("b", "1"), ("c", "2")):
        assert main([str(pets), "--out", out, "--seed", seed]) == 0
    first, second, other = (parts(Path(out)) for out in "abc")
    assert first == second
    assert first != other


def test_splits_of_the_data_stay(pets: Path, folder: Path) -> None:
    pets.rename(folder / "train")
    for number in range(30, 34):
        picture(folder / "data" / "test" / ("cat" if number < 32 else "dog") / "x.png", number)
    (folder / "train").rename(folder / "data" / "train")
    assert main(["data", "--split", "90,10,0"]) == 0
    written = parts(folder / "data_qvft")
    assert {name: len(rows) for name, rows in written.items()} == {"train": 27, "val": 3, "test": 2}


def test_images_that_the_data_has_in_two_splits_are_counted(
    folder: Path, capsys: pytest.CaptureFixture
) -> None:
    """VQA-RAD's official split is by question: `drawn1.jpg` is asked about in both."""
    source = Path(__file__).resolve().parents[1] / "data_formats" / "vqa_rad"
    assert main([str(source), "--split", "50,50,0"]) == 0
    written = parts(folder / "vqa_rad_qvft")
    images = {name: {row["image"] for row in rows} for name, rows in written.items()}
    assert len(images["train"] & images["test"]) == 1
    assert "1 images of test.jsonl are in train.jsonl too" in capsys.readouterr().out
    assert not images["train"] & images["val"]


def test_images_are_found_beside_the_texts(folder: Path) -> None:
    rows = [{"image": picture(folder / "d" / "images" / f"{n}.png", n)} for n in range(10)]
    for row in rows:
        row["conversations"] = [
            {"from": "human", "value": "<image>\nWhat?"},
            {"from": "gpt", "value": "it"},
        ]
    (folder / "d" / "llava.json").write_text(json.dumps(rows))
    assert main(["d"]) == 0
    assert len(parts(folder / "d_qvft")["train"]) == 8


def test_one_missing_image_is_left_to_the_check(folder: Path) -> None:
    names = [f"{number}.png" for number in range(11)]
    for number, name in enumerate(names[1:]):
        picture(folder / name, number)
    (folder / "t.csv").write_text("\n".join(["image,caption", *(f"{one},x" for one in names)]))
    assert main(["t.csv"]) == 0
    assert sum(map(len, parts(folder / "t_qvft").values())) == 11


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--group", "patient"], "no value of `patient`.*class"),
        (["--split", "50,50"], "--split: 50,50; expected three percentages"),
        (["--split", "100,0,0"], "expected three percentages"),
        (["--limit", "2"], "val would be empty"),
        (["--caption", "a photo"], "`caption` without {class}"),
        (["--columns", "image=x"], "`columns` is set for format class_folders"),
        (["--format", "nothing"], "unknown format `nothing`"),
        (["--format", "csv"], "no file of any split"),
    ],
)
def test_what_does_not_work_is_one_message_and_writes_nothing(
    options: list[str], message: str, pets: Path, folder: Path, capsys: pytest.CaptureFixture
) -> None:
    before = sorted(folder.rglob("*"))
    assert main([str(pets), *options]) == 2
    assert re.search(message, capsys.readouterr().err)
    assert sorted(folder.rglob("*")) == before


def test_nothing_is_overwritten(pets: Path, folder: Path, capsys: pytest.CaptureFixture) -> None:
    (folder / "pets_qvft").mkdir()
    (folder / "pets_qvft" / "mine.txt").write_text("x")
    assert main([str(pets)]) == 2
    assert "nothing is overwritten" in capsys.readouterr().err
    assert [one.name for one in (folder / "pets_qvft").iterdir()] == ["mine.txt"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("notes.txt", "x", "expected a folder, or .csv"),
        ("a.json", '{"x": 1}', "JSON of an unknown layout"),
        ("a.csv", "image,caption\nno.png,x\n", "no.png: no such file.*--images"),
        ("a.jsonl", '{"image": "no.png", "caption": "x"}\n', "no such file.*--images"),
    ],
)
def test_unusable_sources_are_named(
    name: str, content: str, message: str, folder: Path, capsys: pytest.CaptureFixture
) -> None:
    (folder / name).write_text(content)
    assert main([name]) == 2
    assert re.search(message, capsys.readouterr().err)


def test_pairs_alone_are_not_trained_on(folder: Path, capsys: pytest.CaptureFixture) -> None:
    names = [picture(folder / f"{number}.png", number) for number in range(3)]
    rows = [{"image": name, "chosen": "a", "rejected": "b"} for name in names]
    (folder / "p.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert main(["p.jsonl"]) == 2
    assert "no captions and no questions" in capsys.readouterr().err
