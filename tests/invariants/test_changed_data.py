"""A run does not go on with other data than it began with, and its check says so."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from PIL import Image

from qvft.check import main as check
from qvft.train import main as train


@dataclass(frozen=True)
class Trained:
    """A finished run, its data, and the command that trained it."""

    run: Path
    data: Path
    command: tuple[str, ...]


@pytest.fixture(scope="module")
def trained(recipe_file: Path, shapes: Path, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    folder = tmp_path_factory.mktemp("changed")
    data = folder / "data"
    shutil.copytree(shapes, data)
    # Both files have the same name, so that nothing but their role tells them apart.
    (folder / "other").mkdir()
    shutil.copy(data / "test.jsonl", folder / "other" / "train.jsonl")
    command = (
        str(recipe_file),
        f"run.dir={folder / 'run'}",
        f"data.train.path={data / 'train.jsonl'}",
        f"data.eval.path={folder / 'other' / 'train.jsonl'}",
        f"data.eval.images={data}",
        "data.eval.name=null",
        "train.max_steps=2",
        "train.save_steps=1",
        "train.eval_steps=1",
    )
    assert train(list(command)) == 0
    return Trained(folder / "run", data, command)


@pytest.fixture
def restored(trained: Trained, tmp_path: Path) -> Iterator[None]:
    """Puts run and data back after the test."""
    home = trained.run.parent
    kept = tmp_path / "kept"
    shutil.copytree(home, kept)
    yield
    shutil.rmtree(home)
    shutil.copytree(kept, home)


pytestmark = pytest.mark.usefixtures("restored")


def edit_text(trained: Trained) -> str:
    file = trained.data / "train.jsonl"
    file.write_text(file.read_text().replace("a red picture", "a rosy picture", 1))
    return f"data.train: {file}: other texts than the run in {trained.run}"


def edit_eval(trained: Trained) -> str:
    file = trained.run.parent / "other" / "train.jsonl"
    file.write_text("\n".join(file.read_text().splitlines()[:-1]))
    return f"data.eval: {file}: other texts than the run in {trained.run}"


def edit_image(trained: Trained) -> str:
    Image.new("RGB", (40, 32), (1, 2, 3)).save(trained.data / "train3.png")
    return f"data.train: {trained.data / 'train.jsonl'}: other images than the run in {trained.run}"


def unfinished(trained: Trained) -> None:
    """Takes the run back to its first checkpoint."""
    shutil.rmtree(trained.run / "adapter")
    shutil.rmtree(trained.run / "checkpoints" / "0" / "checkpoint-2")


@pytest.mark.parametrize("edit", [edit_text, edit_eval, edit_image])
@pytest.mark.parametrize("finished", [True, False])
def test_resuming_on_changed_data_is_refused_with_the_file(
    trained: Trained, edit: Callable[[Trained], str], finished: bool, capsys
) -> None:
    if not finished:
        unfinished(trained)
    message = edit(trained)
    assert train([*trained.command, "train.resume=auto"]) == 2
    err = capsys.readouterr().err
    assert message in err
    assert "or train anew with run.dir=PATH" in err


def test_resuming_on_the_same_data_goes_on(trained: Trained) -> None:
    unfinished(trained)
    assert train([*trained.command, "train.resume=auto"]) == 0
    assert (trained.run / "adapter" / "manifest.json").is_file()


def test_a_finished_run_needs_its_data_no_more(trained: Trained) -> None:
    (trained.data / "train.jsonl").unlink()
    assert train([*trained.command, "train.resume=auto"]) == 0


@pytest.mark.parametrize(
    ("edit", "what"),
    [
        (edit_text, ["data train (train)"]),
        (edit_eval, ["data train (eval)", "images of data.eval"]),
        (edit_image, ["images of data.train"]),
        (lambda trained: "", []),
    ],
)
@pytest.mark.parametrize("finished", [True, False])
def test_the_check_of_a_run_names_what_has_changed(
    trained: Trained,
    edit: Callable[[Trained], str],
    what: list[str],
    finished: bool,
    tmp_path: Path,
) -> None:
    if not finished:
        unfinished(trained)
    edit(trained)
    file = tmp_path / "found.json"
    assert check([str(trained.run), "--json", str(file)]) == (1 if what else 0)
    states = {one["what"]: one["state"] for one in json.loads(file.read_text())["verified"]}
    assert [name for name, state in states.items() if state != "ok"] == what
