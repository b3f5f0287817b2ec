"""Training from Python: `qvft.fit` does what the program does, with data in memory too."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
from PIL import Image
from transformers import TrainerCallback

import qvft
from qvft.adapters.manifest import fingerprints, read_manifest
from qvft.errors import CheckpointError, DataError, RecipeError, UserError
from qvft.eval import main as evaluate
from qvft.recipe.model import Model
from qvft.train import main as train

Rows = dict[str, list[dict[str, Any]]]


class Steps(TrainerCallback):
    """Counts the steps it is told of."""

    def __init__(self) -> None:
        self.seen = 0

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.seen = state.global_step


def test_a_list_trains_the_same_weights_as_its_jsonl(
    recipe: qvft.Recipe, recipe_file: Path, rows: Rows, tmp_path: Path
) -> None:
    steps = Steps()
    run = qvft.fit(recipe, train=rows["train"], eval=rows["test"], callbacks=[steps])
    assert steps.seen == 2
    other = tmp_path / "program"
    assert train([str(recipe_file), "train.max_steps=2", f"run.dir={other}"]) == 0
    assert fingerprints(run.folder / "adapter") == fingerprints(other / "adapter")
    made, same = (read_manifest(one / "adapter") for one in (run.folder, other))
    assert [*made["data_sha256"].values()] == [*same["data_sha256"].values()]
    assert made["images_sha256"] == same["images_sha256"]
    one, two = ([{**row, "seconds": 0} for row in qvft.Run(f).metrics] for f in (run.folder, other))
    assert [row.get("loss") for row in one] == [row.get("loss") for row in two]


def test_without_data_the_recipe_names_it(recipe: qvft.Recipe, tiny_run: Path) -> None:
    run = qvft.fit(recipe)
    assert run.recipe.data == qvft.Run(tiny_run).recipe.data
    assert run.is_finished and "finished=True" in repr(run)


def test_the_lock_says_memory_and_programs_say_how_to_name_data(
    recipe: qvft.Recipe,
    rows: Rows,
    shapes: Path,
    capsys: pytest.CaptureFixture,
) -> None:
    run = qvft.fit(recipe, train=rows["train"], eval=rows["test"])
    assert (run.recipe.data.train.format, run.recipe.data.eval.format) == ("memory", "memory")
    assert run.recipe.data.eval.name is None  # the recipe's is that of its file
    assert train([str(run.folder / "recipe.lock.yaml"), "run.dir=elsewhere"]) == 2
    assert "data.train.format=jsonl data.train.path=" in capsys.readouterr().err
    assert evaluate([str(run.folder)]) == 2
    said = capsys.readouterr().err
    assert "data.eval.format=jsonl data.eval.path=" in said
    again = ["data.eval.format=jsonl", f"data.eval.path={shapes / 'test.jsonl'}"]
    assert evaluate([str(run.folder), *again, "eval.blind=false"]) == 0
    with pytest.raises(RecipeError, match=r"data\.eval"):
        qvft.Run(run.folder).evaluate()


def test_a_finished_run_is_not_trained_again(recipe: qvft.Recipe, rows: Rows) -> None:
    first = qvft.fit(recipe, train=rows["train"])
    before = fingerprints(first.folder / "adapter")
    with pytest.raises(CheckpointError, match=r"train\.resume"):
        qvft.fit(recipe, train=rows["train"])
    resumed = recipe.model_copy(
        update={"train": recipe.train.model_copy(update={"resume": "auto"})}
    )
    assert fingerprints(qvft.fit(resumed, train=rows["train"]).folder / "adapter") == before
    with pytest.raises(CheckpointError, match="texts"):
        qvft.fit(resumed, train=rows["train"][:-1])


def test_images_in_memory_train_and_evaluate_and_merge(
    recipe: qvft.Recipe, rows: Rows, tmp_path: Path
) -> None:
    given = []
    for number, row in enumerate(rows["train"][:8]):
        image = Image.open(row["image"])
        kinds = [image, np.asarray(image), Path(row["image"]).read_bytes(), Path(row["image"])]
        given.append({"image": kinds[number % 4], "captions": row["captions"]})
    run = qvft.fit(recipe, train=given, eval=given[:4])
    report = run.evaluate(**{"eval.blind": False})
    assert report.n == 4 and report.data.images_sha256
    merged = run.merge(tmp_path / "merged")
    image = given[0]["image"]
    assert qvft.load_model(merged).caption(image) == run.model().caption(image)


def test_a_dataset_trains_as_its_rows_do(recipe: qvft.Recipe, rows: Rows, tmp_path: Path) -> None:
    plain = [
        {"image": r["image"], "caption": r["captions"][0], "id": r["id"]} for r in rows["train"]
    ]
    table = datasets.Dataset.from_list(
        [{"picture": row["image"], "said": row["caption"], "id": row["id"]} for row in plain]
    )
    table = table.cast_column("picture", datasets.Image())
    one = qvft.fit(recipe, train=table, columns={"image": "picture", "caption": "said"})
    moved = recipe.model_copy(
        update={"run": recipe.run.model_copy(update={"dir": str(tmp_path / "b")})}
    )
    two = qvft.fit(moved, train=plain)
    assert fingerprints(one.folder / "adapter") == fingerprints(two.folder / "adapter")


def test_a_recipe_whose_data_is_to_be_filled_in_needs_no_eval_data(
    recipe_file: Path, rows: Rows, tmp_path: Path
) -> None:
    blank = {"data.train.path": None, "data.eval.path": None, "run.dir": tmp_path / "run"}
    recipe = qvft.Recipe.load(recipe_file, **blank, **{"train.max_steps": 1})
    run = qvft.fit(recipe, train=rows["train"][:4])
    assert run.recipe.data.eval is None
    assert run.merge(tmp_path / "merged").is_dir()  # proven on the training data
    assert run.evaluate(rows["test"], **{"eval.blind": False}).n == 24


@pytest.mark.parametrize(
    ("given", "where"),
    [
        ([], "train"),
        ([3], "train, row 0"),
        ([{"image": "a.png", "capt": "x"}], "train, row 0"),
        ([{"caption": "x"}], "train, row 0"),
        ([{"image": 3, "caption": "x"}], "train, row 0, image"),
        ("rows.jsonl", "train"),
        ({"image": "a.png"}, "train"),
    ],
    ids=["empty", "number", "unknown_key", "no_image", "no_picture", "path", "dict"],
)
def test_wrong_rows_are_named(given: Any, where: str, recipe: qvft.Recipe) -> None:
    with pytest.raises(DataError) as caught:
        qvft.fit(recipe, train=given)
    assert caught.value.where == where


def test_a_missing_image_is_an_exception(recipe: qvft.Recipe) -> None:
    with pytest.raises(DataError, match=r"absent\.png"):
        qvft.fit(recipe, train=[{"image": "absent.png", "caption": "x"}])


def test_a_callback_hears_of_every_phase(recipe_file: Path, rows: Rows, tmp_path: Path) -> None:
    class Phases(TrainerCallback):
        begun = 0

        def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            self.begun += 1

    changes = {"phases": [{"name": "one"}, {"name": "two"}], "train.max_steps": 1}
    recipe = qvft.Recipe.load(recipe_file, **changes, **{"run.dir": tmp_path / "run"})
    heard = Phases()
    qvft.fit(recipe, train=rows["train"][:4], callbacks=[heard])
    assert heard.begun == 2


def test_a_callback_that_is_none_is_refused(recipe: qvft.Recipe, rows: Rows) -> None:
    with pytest.raises(UserError, match="TrainerCallback"):
        qvft.fit(recipe, train=rows["train"], callbacks=[print])


def test_a_recipe_built_in_python_is_checked_as_a_file(tmp_path: Path) -> None:
    built = qvft.Recipe(name="x", model=Model(id="absent/folder/here"))
    assert built.run_dir == "runs/x"
    with pytest.raises(UserError):
        qvft.fit(built)


@pytest.mark.parametrize(
    ("overrides", "key"),
    [({"train.epoch": 1}, "train.epoch"), ({"train.epochs": {1}}, "train.epochs")],
)
def test_a_wrong_override_is_named(overrides: dict, key: str, recipe_file: Path) -> None:
    with pytest.raises(RecipeError, match=key):
        qvft.Recipe.load(recipe_file, **overrides)


def test_overrides_are_python_values(recipe_file: Path) -> None:
    values = {
        "run.seed": 7,
        "data.train.path": Path("~x") / "a b.jsonl",
        "eval.caption.length_penalty": 1e-5,
    }
    recipe = qvft.Recipe.load(
        recipe_file, **values, **{"eval.metrics": ["caption"], "run.dir": None}
    )
    assert (recipe.run.seed, recipe.eval.caption.length_penalty) == (7, 1e-5)
    assert recipe.data.train.path == "~x/a b.jsonl"
    assert recipe.eval.metrics == ["caption"] and recipe.run.dir is None
