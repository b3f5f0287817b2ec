"""`qvft.check RUN`: whether a finished run still is what its hashes say."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from qvft.check import main


@pytest.fixture(scope="module")
def home(recipe_file: Path, shapes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with data of its own, and a run on it that was evaluated."""
    from qvft.eval import main as evaluate
    from qvft.train import main as train

    folder = tmp_path_factory.mktemp("verified")
    shutil.copytree(shapes, folder / "data")
    data = [f"data.{which}.path={folder / 'data' / file}.jsonl" for which, file in
            (("train", "train"), ("eval", "test"))]  # fmt: skip
    steps = ["train.max_steps=1", "train.save_steps=null"]
    assert train([str(recipe_file), f"run.dir={folder / 'run'}", *data, *steps]) == 0
    assert evaluate([str(folder / "run")]) == 0
    return folder


@pytest.fixture
def run(home: Path, tmp_path: Path) -> Path:
    """A copy of the run that a test may damage; its data stays where it is."""
    return Path(shutil.copytree(home / "run", tmp_path / "run"))


@pytest.fixture
def checked(run: Path, tmp_path: Path) -> Callable[[int], dict[str, str]]:
    """Checks the copy; states by what was looked at."""

    def check(status: int) -> dict[str, str]:
        file = tmp_path / "found.json"
        assert main([str(run), "--json", str(file)]) == status
        found: dict[str, Any] = json.loads(file.read_text())
        return {one["what"]: one["state"] for one in found["verified"]}

    return check


def test_a_run_that_nobody_touched_matches_in_everything(
    checked: Callable[[int], dict[str, str]],
) -> None:
    states = checked(0)
    assert set(states.values()) == {"ok"}
    report = "eval/shapes-test"
    for what in (
        "recipe.lock.yaml", "adapter/adapter_config.json", "adapter/adapter_model.safetensors",
        "adapter/bridge.safetensors", "data train",
        f"{report}: adapter/bridge.safetensors", f"{report}: recipe", f"{report}: base",
        f"{report}: data", f"{report}: images",
    ):  # fmt: skip
        assert what in states
    assert any(what.startswith("base ") for what in states)


def wrong(states: dict[str, str], state: str = "differs") -> list[str]:
    return [what for what, found in states.items() if found == state]


def test_a_flipped_bit_is_found_in_the_file_and_against_the_report(
    run: Path, checked: Callable[[int], dict[str, str]], capsys: pytest.CaptureFixture[str]
) -> None:
    path = run / "adapter" / "bridge.safetensors"
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)
    name = "adapter/bridge.safetensors"
    assert wrong(checked(1)) == [name, f"eval/shapes-test: {name}"]
    assert "2 of" in (said := capsys.readouterr().err) and f"do not match: {name}" in said


def test_a_missing_file_is_said(run: Path, checked: Callable[[int], dict[str, str]]) -> None:
    (run / "adapter" / "adapter_model.safetensors").unlink()
    assert "adapter/adapter_model.safetensors" in wrong(checked(1), "missing")


def test_another_recipe_is_found(run: Path, checked: Callable[[int], dict[str, str]]) -> None:
    lock = run / "recipe.lock.yaml"
    lock.write_text(lock.read_text().replace("max_grad_norm: 1.0", "max_grad_norm: 2.0"))
    assert wrong(checked(1)) == ["recipe.lock.yaml"]


def test_a_report_with_an_item_less_is_found(
    run: Path, checked: Callable[[int], dict[str, str]]
) -> None:
    predictions = run / "eval" / "shapes-test" / "predictions.jsonl"
    predictions.write_text("".join(predictions.read_text().splitlines(keepends=True)[1:]))
    assert wrong(checked(1)) == ["eval/shapes-test"]


@pytest.mark.parametrize(
    ("file", "old", "new", "expected"),
    [
        ("train.jsonl", "a red picture", "a blue picture", ["data train"]),
        ("test.jsonl", "a red picture", "a blue picture", ["eval/shapes-test: data"]),
    ],
)
def test_changed_texts_are_found(
    home: Path,
    checked: Callable[[int], dict[str, str]],
    file: str,
    old: str,
    new: str,
    expected: list[str],
) -> None:
    path = home / "data" / file
    before = path.read_text()
    try:
        path.write_text(before.replace(old, new, 1))
        assert wrong(checked(1)) == expected
    finally:
        path.write_text(before)


def test_a_changed_image_of_an_evaluation_is_found(
    home: Path, checked: Callable[[int], dict[str, str]]
) -> None:
    path = home / "data" / "test0.png"
    before = path.read_bytes()
    try:
        path.write_bytes((home / "data" / "test1.png").read_bytes())
        assert wrong(checked(1)) == ["eval/shapes-test: images"]
    finally:
        path.write_bytes(before)


def test_a_base_that_is_not_here_is_said(
    run: Path, checked: Callable[[int], dict[str, str]]
) -> None:
    lock = run / "recipe.lock.yaml"
    text = lock.read_text()
    start = text.index("  id: ")
    line = text[start : text.index("\n", start)]
    lock.write_text(text.replace(line, "  id: /nowhere/model"))
    states = checked(1)
    assert wrong(states) == ["recipe.lock.yaml"]
    assert [what.split()[0] for what in wrong(states, "missing")] == ["base"]


def test_a_manifest_without_hashes_is_accepted_and_it_is_said(
    run: Path, checked: Callable[[int], dict[str, str]]
) -> None:
    path = run / "adapter" / "manifest.json"
    manifest = json.loads(path.read_text())
    del manifest["files"]
    path.write_text(json.dumps(manifest))
    assert wrong(checked(0), "not recorded") == [
        "adapter/adapter_config.json", "adapter/adapter_model.safetensors",
        "adapter/bridge.safetensors",
    ]  # fmt: skip


def test_no_run_and_an_unfinished_one_are_the_users_mistake(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty").mkdir()
    assert main([str(tmp_path / "empty")]) == 2
    shutil.rmtree(run / "adapter")
    assert main([str(run)]) == 2
    assert "training has not finished" in capsys.readouterr().err
    with pytest.raises(SystemExit) as refused:
        main([str(run), "train.epochs=2"])
    assert refused.value.code == 2


def test_an_evaluation_of_another_file_of_the_same_name_is_no_failure(
    run: Path, checked: Callable[[int], dict[str, str]], shapes: Path, tmp_path: Path
) -> None:
    """It stands beside the recipe's own, and has as many images."""
    from qvft.eval import main as evaluate

    other = Path(shutil.copytree(shapes, tmp_path / "other"))
    rows = (other / "test.jsonl").read_text().replace("a red picture", "a picture in red")
    (other / "test.jsonl").write_text(rows)
    assert evaluate([str(run), f"data.eval.path={other / 'test.jsonl'}"]) == 0
    states = checked(0)
    assert states["eval/shapes-test: data"] == "ok"
    assert states["eval/shapes-test-other: data"] == "not recorded"
