"""Nothing that can execute is loaded: by reading qvft's own code, and by folders that try."""

from __future__ import annotations

import ast
import json
import os
import pickle
import shutil
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
import torch

from qvft import predict, train
from qvft.errors import CheckpointError, ModelError, UserError
from qvft.models.base_checkpoint import find_checkpoint
from qvft.models.load import load_model, load_processor
from qvft.training.checkpoints import require_plain_states

PACKAGE = Path(__file__).resolve().parents[2] / "qvft"
FILES = sorted(PACKAGE.rglob("*.py"))

MODULES = {"pickle", "cPickle", "dill", "cloudpickle", "marshal", "shelve", "joblib", "runpy"}
CALLS = {"eval", "exec", "compile", "__import__", "system", "popen", "execfile"}
ONE_HOME = {
    # A checkpoint's optimizer and random states, and LAVIS' files: tensors and numbers alone.
    "torch.load": {"training/checkpoints.py", "weights/export_lavis.py"},
    # The official METEOR, with a list of arguments.
    # `qvft sweep` starts a program per run, `qvft bench --whole` and `--serve` whole commands.
    "subprocess": {
        "benchmark/commands.py",
        "evaluation/metrics/meteor.py",
        "experiments/run_combinations.py",
    },
}


@cache
def parsed() -> list[tuple[str, ast.AST]]:
    """Every import and call of the package, with its file."""
    return [
        (path.relative_to(PACKAGE).as_posix(), node)
        for path in FILES
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Import | ast.ImportFrom | ast.Call)
    ]


def nodes(kind: type) -> Iterator[tuple[str, ast.AST]]:
    return ((file, node) for file, node in parsed() if isinstance(node, kind))


def called(node: ast.Call) -> str:
    """`torch.load` of `torch.load(...)`, `eval` of `eval(...)`."""
    return ast.unparse(node.func)


def test_the_package_is_read() -> None:
    assert len(FILES) > 200


def test_no_module_that_runs_what_it_reads_is_imported() -> None:
    found = {
        (file, name.split(".")[0])
        for kind in (ast.Import, ast.ImportFrom)
        for file, node in nodes(kind)
        for name in (
            [node.module or ""]
            if isinstance(node, ast.ImportFrom)
            else [alias.name for alias in node.names]
        )
    }
    assert not {(file, name) for file, name in found if name in MODULES}
    users = {file for file, name in found if name == "subprocess"}
    assert users == ONE_HOME["subprocess"]


def test_nothing_is_evaluated_or_run_in_a_shell() -> None:
    for file, node in nodes(ast.Call):
        name = called(node)
        assert name not in CALLS, (file, node.lineno)
        assert name not in ("os.system", "os.popen", "yaml.load", "numpy.load", "np.load")
        options = {keyword.arg: keyword.value for keyword in node.keywords}
        assert "shell" not in options, (file, node.lineno)
        assert "allow_pickle" not in options, (file, node.lineno)


def test_torch_load_reads_weights_only() -> None:
    loads = [(file, node) for file, node in nodes(ast.Call) if called(node) == "torch.load"]
    assert {file for file, _ in loads} == ONE_HOME["torch.load"]
    for _, node in loads:
        options = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
        assert options["weights_only"] == "True"


def test_remote_code_is_never_trusted_and_auto_classes_are_told_so() -> None:
    """Where transformers is not told, it asks on a terminal whether to run the code."""
    for file, node in nodes(ast.Call):
        options = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
        assert options.get("trust_remote_code", "False") == "False", (file, node.lineno)
        name = called(node)
        loaded = ast.unparse(node.args[0]) if name == "load_part" else name
        if name.endswith((".from_pretrained", "load_part")) and loaded.startswith("Auto"):
            assert "trust_remote_code" in options, (file, node.lineno)


def test_yaml_is_read_by_the_safe_loader_alone() -> None:
    made = [(file, node) for file, node in nodes(ast.Call) if called(node).endswith("YAML")]
    assert made
    for file, node in made:
        options = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
        assert options.get("typ") == "'safe'", (file, node.lineno)


class Trap:
    """Touches a file when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple:
        return os.system, (f"touch '{self.marker}'",)


@pytest.fixture
def marker(tmp_path: Path) -> Path:
    """A file that must never appear; the trap is seen to work first."""
    proof = tmp_path / "proof"
    pickle.loads(pickle.dumps(Trap(proof)))
    assert proof.exists()
    return tmp_path / "executed"


@pytest.fixture
def base(tiny_folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_folder, tmp_path / "base"))


def change_json(path: Path, **changes: object) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_a_pickle_instead_of_safetensors_is_refused(base: Path, marker: Path) -> None:
    (base / "model.safetensors").unlink()
    torch.save(Trap(marker), base / "pytorch_model.bin")
    with pytest.raises(ModelError):
        load_model(find_checkpoint(str(base)), dtype=torch.float32)
    assert not marker.exists()


@pytest.mark.parametrize("shard", ["pytorch_model.bin", "../base/pytorch_model.bin", "/etc/x"])
def test_an_index_names_safetensors_of_its_own_folder(base: Path, marker: Path, shard: str) -> None:
    torch.save(Trap(marker), base / "pytorch_model.bin")
    index = {"metadata": {}, "weight_map": {"query_tokens": shard}}
    (base / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(ModelError, match="names the file"):
        find_checkpoint(str(base))
    assert not marker.exists()


CODE = "import os\nos.system(\"touch '{marker}'\")\nclass Evil:\n    pass\n"


def test_code_that_a_config_names_is_never_run(
    base: Path, marker: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The terminal would say yes to everything."""
    monkeypatch.setattr("builtins.input", lambda *_: "y")
    (base / "evil.py").write_text(CODE.format(marker=marker))
    evil = {f"Auto{name}": "evil.Evil" for name in ("Config", "Model", "Processor", "Tokenizer")}
    evil |= {"AutoModelForImageTextToText": "evil.Evil", "AutoImageProcessor": "evil.Evil"}
    for name in ("config.json", "processor_config.json", "tokenizer_config.json"):
        change_json(base / name, auto_map=evil)
    (base / "custom_generate").mkdir()
    (base / "custom_generate" / "generate.py").write_text(CODE.format(marker=marker))
    found = find_checkpoint(str(base))
    load_model(found, dtype=torch.float32)
    load_processor(found)
    assert not marker.exists()


@pytest.mark.parametrize(
    ("file", "changes"),
    [
        ("config.json", {"model_type": "evil", "auto_map": {"AutoConfig": "evil.Evil"}}),
        ("processor_config.json", {"processor_class": "Evil"}),
        ("tokenizer_config.json", {"tokenizer_class": "Evil"}),
    ],
)
def test_a_class_that_only_the_folder_knows_is_refused_or_passed_over(
    base: Path, marker: Path, monkeypatch: pytest.MonkeyPatch, file: str, changes: dict
) -> None:
    monkeypatch.setattr("builtins.input", lambda *_: "y")
    (base / "evil.py").write_text(CODE.format(marker=marker))
    auto = {"AutoProcessor": "evil.Evil", "AutoTokenizer": ["evil.Evil", "evil.Evil"]}
    change_json(base / file, **{"auto_map": auto, **changes})
    try:
        load_processor(find_checkpoint(str(base)))
    except UserError as error:
        assert "trust_remote_code" not in (error.do or "")
    assert not marker.exists()


def test_a_kernel_of_a_hub_is_refused(base: Path) -> None:
    """transformers would fetch and run it where the package `kernels` is installed."""
    change_json(base / "config.json", attn_implementation="someone/kernel")
    with pytest.raises(ModelError, match="names the kernel someone/kernel, which is code"):
        find_checkpoint(str(base))


STATES = ("optimizer.pt", "scheduler.pt", "rng_state.pth")


@pytest.mark.parametrize("name", STATES)
def test_a_checkpoint_with_code_in_a_state_is_not_resumed(
    tiny_run: Path, recipe_file: Path, tmp_path: Path, marker: Path, name: str, capsys
) -> None:
    run = tmp_path / "run"
    shutil.copytree(tiny_run, run)
    shutil.rmtree(run / "adapter")
    shutil.rmtree(run / "checkpoints" / "0" / "checkpoint-6")
    checkpoint = run / "checkpoints" / "0" / "checkpoint-4"
    assert (checkpoint / name).is_file()
    for trapped in (name, "training_args.bin", "pytorch_model.bin"):
        torch.save(Trap(marker), checkpoint / trapped)
    assert train.main([str(recipe_file), f"run.dir={run}", "train.resume=auto"]) == 2
    message = capsys.readouterr().err
    assert name in message
    assert f"remove {checkpoint}" in message
    assert not marker.exists()


def test_a_trainers_own_states_pass_and_a_cut_one_does_not(tiny_run: Path, tmp_path: Path) -> None:
    whole = tiny_run / "checkpoints" / "0" / "checkpoint-6"
    require_plain_states(whole)
    for name in STATES:
        content = (whole / name).read_bytes()
        (tmp_path / name).write_bytes(content[: len(content) // 2])
        with pytest.raises(CheckpointError, match=f"{name}: cannot be read safely"):
            require_plain_states(tmp_path)
        (tmp_path / name).unlink()


def test_an_adapter_config_imports_no_module(
    drawn_run: Path, tmp_path: Path, marker: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    """PEFT imports the module that `megatron_core` names."""
    run = tmp_path / "run"
    shutil.copytree(drawn_run, run)
    (tmp_path / "evil.py").write_text(CODE.format(marker=marker))
    monkeypatch.syspath_prepend(tmp_path)
    manifest = json.loads((run / "adapter" / "manifest.json").read_text())
    del manifest["files"]  # whoever changes the config can change its hash as well
    (run / "adapter" / "manifest.json").write_text(json.dumps(manifest))
    change_json(
        run / "adapter" / "adapter_config.json", megatron_core="evil", megatron_config={"a": 1}
    )
    torch.save(Trap(marker), run / "adapter" / "adapter_model.bin")
    assert predict.main([str(run), __file__]) == 2
    assert "an adapter with megatron_config" in capsys.readouterr().err
    assert not marker.exists()
