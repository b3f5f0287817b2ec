"""The notebooks run from top to bottom without a network, and are stored without results.

Cells are executed as a notebook would, in order and in one namespace, but in this process.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pytest
import torch

matplotlib.use("Agg")
import matplotlib.pyplot as plt

PROJECT = Path(__file__).resolve().parents[1]
DOCS = PROJECT / "docs"
NOTEBOOKS = [path for name in ("docs", "examples") for path in (PROJECT / name).glob("*.ipynb")]
SETTINGS = ("QVISION_MODEL", "QVISION_IMAGES")


@dataclass(frozen=True)
class Executed:
    """What a notebook left behind: its names, and how many images each of its figures shows."""

    space: dict[str, Any]
    figures: list[int]


def code_cells(notebook: Path) -> list[dict[str, Any]]:
    content = json.loads(notebook.read_text(encoding="utf-8"))
    return [cell for cell in content["cells"] if cell["cell_type"] == "code"]


def execute(
    notebook: Path,
    folder: Path,
    *,
    drawn: bool = True,
    last: str = "",
    replaced: Mapping[str, tuple[str, str]] | None = None,
    **settings: Path,
) -> Executed:
    """Executes code cells in `folder`, where temporary files go too.

    `drawn`: figures are rendered too, which is slow. `last`: id of the last cell to execute; all
    unless given. `replaced`: of a cell by id, a part of its source and what to put there; the cell
    called `install` is left out. `settings` are environment variables; those of `SETTINGS` that
    are not given are unset.
    """
    space: dict[str, Any] = {"__name__": "__main__"}
    figures: list[int] = []

    def count_and_close() -> None:
        for number in plt.get_fignums():
            figure = plt.figure(number)
            if drawn:
                figure.canvas.draw()
            figures.append(sum(len(axis.images) for axis in figure.axes))
            plt.close(figure)

    coarse = matplotlib.rc_context({"figure.dpi": 30})  # what is drawn is counted, not looked at
    with pytest.MonkeyPatch.context() as patch, coarse, torch.random.fork_rng():
        patch.chdir(folder)
        patch.setattr("tempfile.tempdir", str(folder))
        patch.setattr(plt, "show", count_and_close)
        for name in SETTINGS:
            patch.delenv(name, raising=False)
        for name, value in settings.items():
            patch.setenv(name, str(value))
        for cell in code_cells(notebook):
            source = "".join(cell["source"])
            if cell["id"] == "install":
                continue
            if old_and_new := (replaced or {}).get(cell["id"]):
                assert old_and_new[0] in source
                source = source.replace(*old_and_new)
            exec(compile(source, f"{notebook.name}, {cell['id']}", "exec"), space)
            if cell["id"] == last:
                break
    assert not plt.get_fignums()
    return Executed(space, figures)


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Executed]:
    """The QVision notebook with nothing set."""
    yield execute(DOCS / "qvision.ipynb", tmp_path_factory.mktemp("notebook"))


def test_the_notebooks_are_found() -> None:
    names = ["finetune_on_colab.ipynb", "qvision.ipynb", "train_from_python.ipynb"]
    assert sorted(path.name for path in NOTEBOOKS) == names


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.name)
def test_a_notebook_is_stored_in_format_4_without_results(notebook: Path) -> None:
    content = json.loads(notebook.read_text(encoding="utf-8"))
    assert (content["nbformat"], content["nbformat_minor"]) == (4, 5)
    names = [cell["id"] for cell in content["cells"]]
    assert len(set(names)) == len(names)
    for cell in code_cells(notebook):
        assert cell["outputs"] == [] and cell["execution_count"] is None


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.name)
def test_a_notebook_names_no_folder_of_a_machine(notebook: Path) -> None:
    absolute = re.compile(r"""["'(\s](/\w|~/|[A-Za-z]:\\)""")
    assert absolute.search('open("/data/a.png")')
    for cell in json.loads(notebook.read_text(encoding="utf-8"))["cells"]:
        assert not absolute.search("".join(cell["source"])), cell["id"]


def test_qvision_captions_one_image_and_a_batch(alone: Executed) -> None:
    space = alone.space
    assert len(space["captions"]) == len(space["images"]) == 6
    assert all(space["captions"])
    assert space["captions"][0] == space["caption"]


def test_qvision_draws_its_attention_and_cosines(alone: Executed) -> None:
    space = alone.space
    explained, words, tokens = space["explained"], len(space["words"]), 64 + 1
    assert explained.queries.shape == (tokens, 7, 7)
    assert all(word.map.shape == (7, 7) for word in explained.words)
    # Products of shares that sum to 1, in float32.
    assert [word.map.sum() for word in explained.words] == pytest.approx(words * [1], abs=1e-5)
    assert space["cosines"].context_to_queries.shape == (tokens - 1,)
    # The batch; words by visual tokens; two maps of cosines. A colour bar is drawn as a mesh and
    # does not count.
    assert alone.figures == [6, 1, 2]
    # Of explain's figure: the image and a map over its grey twin for each word, twins and maps of
    # the visual tokens, similarity, its colour bar, twins and maps of two cosines.
    shown = sum(len(axis.images) for axis in space["drawn"].axes)
    assert shown == 1 + 2 * words + 2 * tokens + 1 + 2 * 2
    assert space["overview"].width > 1000


def test_the_words_of_qvision_are_those_of_its_caption(alone: Executed) -> None:
    assert alone.space["words"] == alone.space["caption"].split()


def test_a_component_of_qvision_does_what_it_does_in_the_whole(alone: Executed) -> None:
    # The same operations in the same order; logits are below 20, so 1e-5 allows for nothing more
    # than another kernel.
    np.testing.assert_allclose(
        alone.space["by_component"].numpy(), alone.space["whole"].numpy(), rtol=0, atol=1e-5
    )


def test_a_qvision_comes_back_from_the_published_layout(alone: Executed) -> None:
    changed = alone.space["changed"]
    assert changed["encoder"] == changed["gpt_decoder"] == []
    assert "cross_scale" in changed["decoder"]
    assert not [key for key in changed["decoder"] if key.startswith("gpt_decoder.")]


def test_qvision_takes_a_model_and_images_by_name(alone: Executed, tmp_path: Path) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    for number, image in enumerate(alone.space["images"][:2]):
        image.save(folder / f"{number}.png")
    # The cells after this one have been executed with this model.
    given = {"QVISION_MODEL": alone.space["published"], "QVISION_IMAGES": folder}
    named = execute(DOCS / "qvision.ipynb", tmp_path, drawn=False, last="cell-16", **given).space
    assert not named["is_tiny"]
    assert [image.tobytes() for image in named["images"]] == [
        image.tobytes() for image in alone.space["images"][:2]
    ]
    assert len(named["captions"]) == 2
    np.testing.assert_array_equal(named["explained"].queries, alone.space["explained"].queries)
