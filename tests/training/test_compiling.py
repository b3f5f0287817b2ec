"""Compiled blocks: the same files, and the same training."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from qvft.errors import RecipeError
from qvft.recipe.load import load_recipe
from qvft.train import main
from qvft.training.compiling import compile_blocks, require_compiler
from qvft.training.prepare_training import prepare_training

FILES = ("adapter_model.safetensors", "bridge.safetensors")


def calls_compiled(block: nn.Module) -> bool:
    return block._compiled_call_impl is not None


def test_blocks_are_compiled_in_place_and_back(recipe_file: Path) -> None:
    work = prepare_training(load_recipe(recipe_file, []))
    model, family = work.loaded.model, work.loaded.base.family
    names = list(model.state_dict())
    compile_blocks(model, family, True)
    blocks = model.language_model.get_decoder().layers
    assert all(calls_compiled(block) for block in blocks)
    assert not calls_compiled(model) and not calls_compiled(model.qformer)
    assert list(model.state_dict()) == names
    compile_blocks(model, family, False)
    assert not any(calls_compiled(block) for block in blocks)


def test_a_run_with_compiled_blocks_is_stopped_resumed_and_saved_like_any(
    recipe_file: Path, tiny_run: Path, tmp_path: Path
) -> None:
    """Blocks pass through torch.compile's entry, which is told to call them as they are: the
    arithmetic, and with it every byte, is that of the run without."""
    given = [str(recipe_file), f"run.dir={tmp_path}", "train.torch_compile=true"]
    with torch.compiler.set_stance("force_eager"):
        assert main(given) == 0
        shutil.rmtree(tmp_path / "adapter")
        shutil.rmtree(tmp_path / "checkpoints" / "0" / "checkpoint-6")
        assert main([*given, "train.resume=auto"]) == 0
    for name in FILES:
        assert (tmp_path / "adapter" / name).read_bytes() == (
            tiny_run / "adapter" / name
        ).read_bytes()
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(files) > 10
    assert not [path for path in files if b"_orig_mod" in path.read_bytes()]


@pytest.mark.slow
def test_a_compiled_run_learns_what_the_other_learns(
    recipe_file: Path, tiny_run: Path, tmp_path: Path
) -> None:
    given = [str(recipe_file), f"run.dir={tmp_path}", "train.torch_compile=true"]
    assert main(given) == 0
    for name in FILES:
        found, expected = (load_file(run / "adapter" / name) for run in (tmp_path, tiny_run))
        assert found.keys() == expected.keys()
        for key, value in expected.items():
            # AdamW moves a weight by up to its rate, 1e-3, whatever the size of its gradient, so
            # that where gradients are near zero rounding decides the direction, in six steps.
            torch.testing.assert_close(found[key], value, rtol=0, atol=6 * 2e-3, msg=key)
            torch.testing.assert_close(found[key].mean(), value.mean(), rtol=0, atol=2e-4, msg=key)


def test_without_a_compiler_it_is_said_before_anything_begins(
    recipe_file: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    run = tmp_path / "run"
    assert main([str(recipe_file), f"run.dir={run}", "train.torch_compile=true"]) == 2
    message = capsys.readouterr().err
    assert "train.torch_compile: true, but there is no C++ compiler" in message
    assert not run.exists()


def test_a_gpu_compiles_with_triton(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(RecipeError, match="Triton"):
        require_compiler(torch.device("cuda"))
