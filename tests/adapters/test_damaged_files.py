"""Adapter folders that are damaged or lie: hashes, manifests, headers, settings."""

from __future__ import annotations

import json
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

from qvft import merge, predict
from qvft.adapters.checkpoint import BRIDGE, read_bridge
from qvft.adapters.lora_config import CONFIG, WEIGHTS, read_lora_config, require_fitting_lora
from qvft.adapters.manifest import MANIFEST, READ, fingerprints, read_manifest, require_untouched
from qvft.errors import CheckpointError
from qvft.files import sha256_file


@pytest.fixture
def adapter(drawn_run: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(drawn_run / "adapter", tmp_path / "adapter"))


def change(path: Path, how: Callable[[dict[str, Any]], object]) -> None:
    content = json.loads(path.read_text())
    how(content)
    path.write_text(json.dumps(content))


def flip(path: Path, place: int) -> None:
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)


def test_a_run_of_qvisions_old_function_is_refused(adapter: Path) -> None:
    """Its weights would mean something else in the Q-Former that has the published function."""
    entry = {"component": "qformer", "shape": [2], "dtype": "float32"}
    change(
        adapter / MANIFEST,
        lambda manifest: manifest["bridge"].update({"qformer.text_reader.norm.weight": entry}),
    )
    with pytest.raises(CheckpointError, match="qvft 0.1.0, whose QVision computed another"):
        read_manifest(adapter)


def test_the_manifest_holds_the_hash_of_every_other_file(adapter: Path) -> None:
    names = {path.name for path in adapter.iterdir()} - {MANIFEST}
    assert read_manifest(adapter)["files"] == {name: sha256_file(adapter / name) for name in names}
    assert names <= set(READ)
    assert fingerprints(adapter) == read_manifest(adapter)["files"]


@pytest.mark.parametrize("name", [CONFIG, WEIGHTS, BRIDGE])
def test_a_flipped_bit_is_refused_by_predict_and_merge(
    name: str, drawn_run: Path, tmp_path: Path, capsys
) -> None:
    """The last byte of a file of weights is part of a number: nothing else would notice."""
    run = Path(shutil.copytree(drawn_run, tmp_path / "run"))
    flip(run / "adapter" / name, -1)
    for program, arguments in ((predict, [__file__]), (merge, [str(tmp_path / "out")])):
        assert program.main([str(run), *arguments]) == 2
        message = capsys.readouterr().err
        assert name in message and "Traceback" not in message
    assert not (tmp_path / "out").exists()


def test_a_missing_and_a_surplus_file_are_told_apart(adapter: Path) -> None:
    manifest = read_manifest(adapter)
    shutil.copy(adapter / BRIDGE, adapter / "alignment.safetensors")
    with pytest.raises(CheckpointError, match="alignment.safetensors is there and the manifest"):
        require_untouched(adapter, manifest)
    (adapter / "alignment.safetensors").unlink()
    (adapter / WEIGHTS).unlink()
    with pytest.raises(CheckpointError, match=f"no {WEIGHTS}; copy the whole folder again"):
        require_untouched(adapter, manifest)


def test_a_manifest_of_an_earlier_version_has_no_hashes_and_is_read(adapter: Path) -> None:
    change(adapter / MANIFEST, lambda content: content.pop("files"))
    manifest = read_manifest(adapter)
    require_untouched(adapter, manifest)
    assert "query_tokens" in read_bridge(adapter, manifest)


@pytest.mark.parametrize(
    ("how", "message"),
    [
        (lambda m: m.update(format=2), "format 2; expected format 1; it is of a later qvft"),
        (lambda m: m.pop("bridge"), "no `bridge`"),
        (lambda m: m.update(bridge=[]), "`bridge` is .*expected a valid dictionary"),
        (lambda m: m.update(base_id=None), "`base_id` is .*expected a valid string"),
        (
            lambda m: m["bridge"].update(query_tokens={"shape": "x"}),
            "`bridge.query_tokens.shape` is .*expected a valid list",
        ),
        (lambda m: m.update(alignment={}), "no `alignment.objectives`"),
        (lambda m: m.update(files={"../../x": "aa"}), "`files(.../../x)?` is "),
        (lambda m: m.update(files=[]), "`files(.../../x)?` is "),
    ],
)
def test_a_manifest_of_another_form_is_refused(adapter: Path, how, message: str) -> None:
    change(adapter / MANIFEST, how)
    with pytest.raises(CheckpointError, match=message):
        read_manifest(adapter)


@pytest.mark.parametrize("content", [b"\xff", b"[" * 100_000, b"1" * 5000])
def test_a_manifest_that_is_no_json_is_damaged(adapter: Path, content: bytes) -> None:
    (adapter / MANIFEST).write_bytes(content)
    with pytest.raises(CheckpointError, match="damaged"):
        read_manifest(adapter)


def header(content: bytes | dict, *, claimed: int | None = None, data: bytes = b"") -> bytes:
    text = content if isinstance(content, bytes) else json.dumps(content).encode()
    return struct.pack("<Q", len(text) if claimed is None else claimed) + text + data


def entry(start: int, end: int, shape: list[int], dtype: str = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}


LIES = {
    "a header longer than the file": header(b"{}", claimed=2**40),
    "a header of 2^63": header(b"{}", claimed=2**63),
    "a header that is no JSON": header(b"{" * 50),
    "nested headers": header(b'{"a":' * 5000),
    "offsets beyond the file": header({"a": entry(0, 4_000_000, [1_000_000])}),
    "offsets that go backwards": header({"a": entry(8, 0, [2])}, data=bytes(8)),
    "offsets that overlap": header({"a": entry(0, 8, [2]), "b": entry(4, 12, [2])}, data=bytes(12)),
    "a shape larger than its data": header({"a": entry(0, 8, [2**31, 2**31])}, data=bytes(8)),
    "a shape that overflows": header({"a": entry(0, 8, [2**62, 2**62, 16])}, data=bytes(8)),
    "a type of no name": header({"a": entry(0, 8, [2], "X32")}, data=bytes(8)),
    "bytes of nobody": header({"a": entry(0, 8, [2])}, data=bytes(16)),
    "an empty file": b"",
}


@pytest.mark.parametrize("lie", LIES)
def test_a_header_that_lies_is_refused_whatever_the_hash_says(adapter: Path, lie: str) -> None:
    for name in (BRIDGE, WEIGHTS):
        (adapter / name).write_bytes(LIES[lie])
    change(adapter / MANIFEST, lambda content: content.update(files=fingerprints(adapter)))
    with pytest.raises(CheckpointError):
        read_bridge(adapter, read_manifest(adapter))
    with pytest.raises(CheckpointError):
        require_fitting_lora(adapter)


@pytest.mark.parametrize(
    ("how", "message"),
    [
        (lambda t: t * float("nan"), "query_tokens is not finite"),
        (lambda t: t / 0, "query_tokens is not finite"),
        (lambda t: t.half(), "1 keys differ from the manifest, first query_tokens"),
        (lambda t: t[:, :1], "1 keys differ from the manifest, first query_tokens"),
    ],
)
def test_weights_of_another_type_or_size_or_no_number_are_refused(
    adapter: Path, how, message: str
) -> None:
    state = load_file(adapter / BRIDGE)
    state["query_tokens"] = how(state["query_tokens"].abs() + 1).contiguous()
    save_file(state, adapter / BRIDGE)
    with pytest.raises(CheckpointError, match=message):
        read_bridge(adapter, read_manifest(adapter))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"megatron_config": {"a": 1}}, "an adapter with megatron_config"),
        ({"auto_mapping": {"x": 1}, "eva_config": {"a": 1}}, "an adapter with eva_config"),
        ({"a_setting_of_tomorrow": True}, "an adapter with a_setting_of_tomorrow"),
        ({"init_lora_weights": "pissa"}, "`init_lora_weights` is .*expected a valid boolean"),
        ({"target_modules": "(a+)+$"}, "`target_modules` is .*expected a valid list"),
        ({"r": 10**9}, "layers of rank 4; expected .* of rank 1000000000"),
        ({"r": 0}, "`r` is .*expected greater than or equal to 1"),
        ({"r": 4.5}, "`r` is .*expected a valid integer"),
        ({"lora_alpha": float("inf")}, "`lora_alpha` is .*expected a finite number"),
        ({"lora_dropout": 1.0}, "`lora_dropout` is .*expected less than 1"),
    ],
)
def test_settings_that_training_never_writes_do_not_reach_peft(
    adapter: Path, changes: dict, message: str
) -> None:
    change(adapter / CONFIG, lambda content: content.update(changes))
    with pytest.raises(CheckpointError, match=message):
        require_fitting_lora(adapter)


def test_what_training_writes_passes(adapter: Path) -> None:
    require_fitting_lora(adapter)
    assert read_lora_config(adapter)["r"] == 4
