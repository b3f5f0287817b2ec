"""The notebooks in docs run from top to bottom without a network, and are stored without results.

Cells are executed as a notebook would, in order and in one namespace, but in this process.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import pytest
import torch

matplotlib.use("Agg")
import matplotlib.pyplot as plt

DOCS = Path(__file__).resolve().parents[1] / "docs"
NOTEBOOKS = sorted(DOCS.glob("*.ipynb"))
SETTINGS = ("QVISION_MODEL", "QVISION_IMAGES")


@dataclass(frozen=True)
class Executed:
    """What a notebook left behind: its names, and how many images each of its figures shows."""

    space: dict[str, Any]
    figures: list[int]


def code_cells(notebook: Path) -> list[dict[str, Any]]:
    content = json.loads(notebook.read_text(encoding="utf-8"))
    return [cell for cell in content["cells"] if cell["cell_type"] == "code"]


def execute(notebook: Path, folder: Path, *, drawn: bool = True, **settings: Path) -> Executed:
    """Executes all code cells in `folder`, where temporary files go too.

    `drawn`: figures are rendered too, which is slow. `settings` are environment variables; those of
    `SETTINGS` that are not given are unset.
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
            exec(compile(source, f"{notebook.name}, {cell['id']}", "exec"), space)
    assert not plt.get_fignums()
    return Executed(space, figures)


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Executed]:
    """The QVision notebook with nothing set."""
    yield execute(DOCS / "qvision.ipynb", tmp_path_factory.mktemp("notebook"))


def test_the_notebooks_are_found() -> None:
    assert [path.name for path in NOTEBOOKS] == ["qvision.ipynb"]


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
    assert all(space["captions"]) and len(set(space["captions"])) > 1
    assert space["captions"][0] == space["caption"]


def test_qvision_draws_its_attention(alone: Executed) -> None:
    space, words = alone.space, len(alone.space["words"])
    queries, patches = 16 + 1, 7 * 7
    assert space["text_attention"].shape == (len(space["row"].ids), queries)
    assert [block.shape for block in space["query_attentions"]] == 2 * [(queries, patches)]
    # The batch; words by queries; a map a query token; the image, then it and a map for each word;
    # similarity. A colour bar is drawn as a mesh and does not count.
    assert alone.figures == [6, 1, queries, 1 + 2 * words, 1]
    # Products of shares that sum to 1, in float32.
    shares = space["word_maps"].sum(dim=(1, 2))
    torch.testing.assert_close(shares, torch.ones(words), atol=1e-5, rtol=0)


def test_the_words_of_qvision_are_those_of_its_caption(alone: Executed) -> None:
    space = alone.space
    assert space["words"] == space["caption"].split()
    used = [position for _, positions in space["named"] for position in positions]
    assert used == list(range(space["row"].target_start, len(space["row"].ids) - 1))


def test_qvision_takes_a_model_and_images_by_name(alone: Executed, tmp_path: Path) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    for number, image in enumerate(alone.space["images"][:2]):
        image.save(folder / f"{number}.png")
    model = alone.space["model_folder"]
    named = execute(
        DOCS / "qvision.ipynb", tmp_path, drawn=False, QVISION_MODEL=model, QVISION_IMAGES=folder
    ).space
    assert not named["is_random"]
    assert [image.tobytes() for image in named["images"]] == [
        image.tobytes() for image in alone.space["images"][:2]
    ]
    assert len(named["captions"]) == 2
    assert torch.equal(named["states"], alone.space["states"])
