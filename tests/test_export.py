"""`qvft.export` from the command line."""

from __future__ import annotations

import json
from pathlib import Path

from qvft.export import main


def test_the_peft_folder_is_loaded_and_agrees(drawn_run: Path, tmp_path: Path, capsys) -> None:
    out = tmp_path / "out"
    assert main([str(drawn_run), str(out), "--to", "peft"]) == 0
    assert "texts equal" in capsys.readouterr().out
    names = {path.name for path in out.iterdir()}
    assert {"adapter_config.json", "adapter_model.safetensors", "bridge.safetensors"} < names
    record = json.loads((out / "export.json").read_text())
    # The very same operations in the same order.
    assert record["verification"]["largest_error"] == 0.0


def test_an_unknown_form_is_refused(drawn_run: Path, tmp_path: Path, capsys) -> None:
    assert main([str(drawn_run), str(tmp_path / "out"), "--to", "gguf"]) == 2
    assert '"gguf"; expected one of peft' in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_run_without_lora_has_no_adapter_to_export(make_run, tmp_path: Path, capsys) -> None:
    run = make_run(tmp_path / "run", trainable={"decoder": "frozen"})
    assert main([str(run), str(tmp_path / "out"), "--to", "peft"]) == 2
    assert "trained no LoRA" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
