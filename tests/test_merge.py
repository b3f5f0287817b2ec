"""`qvft.merge` from the command line: what it prints, what bad input gets."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

import qvft.files
from qvft.files import sha256_file
from qvft.merge import main
from tools.tiny_blip2.geometry import tiny_config

FEW = {"data": {"eval": {"format": "drawn", "path": "seed=2,count=1", "texts": "captions"}}}


@pytest.fixture(scope="module")
def run(make_run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("runs") / "few", **FEW)


@pytest.fixture
def own_run(run: Path, tmp_path: Path) -> Path:
    """A copy of the run that a test may damage."""
    return Path(shutil.copytree(run, tmp_path / "run"))


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The one message of a call that must end with status 2."""
    assert main(list(arguments)) == 2
    message = capsys.readouterr().err
    assert message.count("qvft: ") == 1
    assert "Traceback" not in message
    return message


def test_a_summary_is_printed_and_the_record_is_whole(run: Path, tmp_path: Path, capsys) -> None:
    out = tmp_path / "out"
    assert main([str(run), str(out), "--shard-size", "4MB"]) == 0
    printed = capsys.readouterr().out
    assert "replaced by trained weights" in printed
    assert f"{3 * tiny_config().text_config.num_hidden_layers} with LoRA added" in printed
    assert "1 of 1 texts equal" in printed
    record = json.loads((out / "merge.json").read_text())
    assert record["prompt"]["question"] == "Question: {question} Answer:"
    assert len(list(out.glob("*.safetensors"))) > 1
    assert {path.stat().st_mode for path in out.iterdir()} == {(out / "config.json").stat().st_mode}
    files = {path.name for path in out.iterdir()} - {"merge.json"}
    assert {"README.md", "config.json", "model.safetensors.index.json"} < files
    assert record["files"] == {name: sha256_file(out / name) for name in sorted(files)}


def test_json_takes_overrides_after_options(run: Path, tmp_path: Path, capsys) -> None:
    arguments = [str(run), str(tmp_path / "out"), "--json", "--dtype", "bfloat16"]
    assert main([*arguments, "data.eval.path=seed=5,count=1"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert record["dtype"] == "bfloat16"
    assert record["base"]["weights_sha256"]


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path, capsys) -> None:
    assert "recipe.lock.yaml" in refused(capsys, str(tmp_path), str(tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_a_run_without_an_adapter_is_refused(own_run: Path, tmp_path: Path, capsys) -> None:
    shutil.rmtree(own_run / "adapter")
    assert "training has not finished" in refused(capsys, str(own_run), str(tmp_path / "out"))


def test_an_output_that_exists_is_left_alone(run: Path, tmp_path: Path, capsys) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    assert "exists already" in refused(capsys, str(run), str(tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_another_base_is_refused(own_run: Path, tiny_folder: Path, tmp_path: Path, capsys) -> None:
    from tools.tiny_blip2.geometry import init_tiny

    other = Path(shutil.copytree(tiny_folder, tmp_path / "other"))
    init_tiny(1).save_pretrained(other)
    message = refused(capsys, str(own_run), str(tmp_path / "out"), f"model.id={other}")
    assert "expected the base it was trained on" in message


@pytest.mark.parametrize("name", ["bridge.safetensors", "adapter_model.safetensors"])
def test_a_cut_file_is_refused(own_run: Path, tmp_path: Path, capsys, name: str) -> None:
    path = own_run / "adapter" / name
    path.write_bytes(path.read_bytes()[:1000])
    assert name in refused(capsys, str(own_run), str(tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_a_full_disk_is_noticed_before_anything_is_written(
    run: Path, tmp_path: Path, capsys, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = shutil.disk_usage(tmp_path)._replace(free=10_000)
    monkeypatch.setattr(qvft.files.shutil, "disk_usage", lambda _: full)
    assert "expected at least 0.07 GB" in refused(capsys, str(run), str(tmp_path / "out"))
    assert list(tmp_path.iterdir()) == []


def test_a_size_without_unit_is_refused(run: Path, tmp_path: Path, capsys) -> None:
    assert "5GB" in refused(capsys, str(run), str(tmp_path / "out"), "--shard-size", "5")
