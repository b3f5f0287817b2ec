"""Shards: what went in comes out, and damaged files count as missing."""

from __future__ import annotations

import errno
import os
import pickle
import stat
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from qvft.data.features.cache_spec import FeatureSpec
from qvft.data.features.folders import SHARD, shard_files
from qvft.data.features.shards import read_keys, stored, write_shard
from qvft.data.features.store import Store, open_store
from qvft.errors import DataError, SpaceError

Filled = Callable[..., tuple[Store, dict[bytes, torch.Tensor]]]


def add(store: Store, name: str, features: torch.Tensor) -> bytes:
    """Stores features (P, W) of one image in a shard of its own."""
    key = store.spec.key(name)
    store.add([key], [stored(store.spec, features[None])])
    return key


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_features_come_back_bit_by_bit(filled: Filled, tmp_path: Path, dtype: str) -> None:
    written, given = filled(tmp_path, stored_dtype=dtype)
    for store in (written, open_store(tmp_path, written.spec)):
        assert len(store) == len(given) == 6
        for key, features in given.items():
            found = store.features(key)
            assert found.dtype == features.dtype
            assert torch.equal(found.view(torch.uint8), features.view(torch.uint8))


def test_every_bit_pattern_of_bfloat16_comes_back(spec: FeatureSpec, tmp_path: Path) -> None:
    store = open_store(tmp_path, replace(spec, stored_dtype="bfloat16", patches=256, width=256))
    every = torch.arange(-(2**15), 2**15, dtype=torch.int16).view(torch.bfloat16).view(256, 256)
    key = add(store, "every", every)
    assert torch.equal(store.features(key).view(torch.int16), every.view(torch.int16))


def test_int8_is_off_by_half_a_step_of_its_token_at_most(spec: FeatureSpec, tmp_path: Path) -> None:
    store = open_store(tmp_path, replace(spec, stored_dtype="int8", patches=65, width=301))
    spread = torch.logspace(-6, 6, 65)[:, None]
    features = torch.randn(65, 301, generator=torch.Generator().manual_seed(1)) * spread
    features[7] = 0
    found = store.features(add(store, "one", features))
    step = features.double().abs().amax(1, keepdim=True) / 127
    error = (found.double() - features.double()).abs()
    # Quotient, scale and product are each rounded by at most 2^-24 of values up to 127 steps:
    # 3 * 127 * 2^-24 < 2^-15 steps on top of the half.
    assert bool((error <= step * (0.5 + 2**-15)).all())
    assert float((error / step.clamp_min(1e-30)).max()) > 0.49  # the bound is reached
    assert torch.equal(found[7], torch.zeros(301))


def test_int8_of_whole_steps_is_exact(spec: FeatureSpec, tmp_path: Path) -> None:
    store = open_store(tmp_path, replace(spec, stored_dtype="int8", patches=1, width=255))
    steps = torch.arange(-127, 128)[None].float() / 4
    assert torch.equal(store.features(add(store, "one", steps)), steps)


def test_a_shard_is_a_plain_safetensors_file(filled: Filled, tmp_path: Path) -> None:
    store, given = filled(tmp_path, shard=6)
    (path,) = shard_files(store.folder)
    assert torch.equal(load_file(path)["features"], torch.stack(list(given.values())))
    assert read_keys(path) == list(given)
    umask = os.umask(0)
    os.umask(umask)
    assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~umask  # others may share the cache


def test_features_are_views_of_one_map_and_leave_the_file_alone(
    filled: Filled, tmp_path: Path
) -> None:
    store, given = filled(tmp_path, shard=6)
    (path,) = shard_files(store.folder)
    before = path.read_bytes()
    first, second = (store.features(key) for key in list(given)[:2])
    assert first.untyped_storage().data_ptr() == second.untyped_storage().data_ptr()
    first.zero_()
    assert path.read_bytes() == before


@pytest.mark.skipif(sys.platform != "linux", reason="asks /proc what is in memory")
def test_reading_an_image_does_not_load_its_shard(filled: Filled, tmp_path: Path) -> None:
    store, given = filled(tmp_path, count=64, shard=64, patches=256, width=256)  # 16.8 MB
    (path,) = shard_files(store.folder)
    store.features(next(iter(given)))
    lines = iter(Path("/proc/self/smaps").read_text().splitlines())
    assert any(path.name in line for line in lines)
    sizes = dict(line.split(":", 1) for line in (next(lines) for _ in range(5)))
    assert int(sizes["Size"].split()[0]) >= 16_384
    # One image is 256 kB; the kernel maps neighbouring pages along, 64 kB by default.
    assert int(sizes["Rss"].split()[0]) <= 1024


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: content[:-1],
        lambda content: content + b"\0",
        lambda content: content[:20],
        lambda content: b"",
        lambda content: b"\xff" * 8 + content[8:],
        lambda content: content.replace(b'"keys"', b'"kays"'),
        lambda content: content.replace(b"[2,3,5]", b"[3,2,5]"),
    ],
    ids=["cut", "longer", "header cut", "empty", "header length", "no keys", "shape"],
)
def test_a_damaged_shard_is_named_once_and_its_images_are_missing(
    filled: Filled,
    tmp_path: Path,
    damage: Callable[[bytes], bytes],
    caplog: pytest.LogCaptureFixture,
) -> None:
    store, given = filled(tmp_path, count=4)
    path = shard_files(store.folder)[0]
    path.write_bytes(damage(path.read_bytes()))
    again = open_store(tmp_path, store.spec)
    again.refresh()
    assert len(again) == 2 and again.damaged == [path]
    assert caplog.text.count(str(path)) == 1
    for key in given:
        if key in again:
            assert torch.equal(again.features(key), given[key])


@pytest.mark.parametrize("change", ["cut", "gone"])
def test_a_shard_changed_after_it_was_found_is_refused(
    filled: Filled, tmp_path: Path, change: str
) -> None:
    written, given = filled(tmp_path, count=2)
    store = open_store(tmp_path, written.spec)
    (path,) = shard_files(store.folder)
    if change == "cut":
        path.write_bytes(path.read_bytes()[:-20])
    else:
        path.unlink()
    with pytest.raises(DataError, match="cannot be read any more"):
        store.features(next(iter(given)))


@pytest.mark.parametrize("error", ["safetensors", "system"])
def test_a_full_disk_is_said_and_leaves_no_half_shard(
    spec: FeatureSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: str
) -> None:
    def full(*given: object, **named: object) -> None:
        if error == "system":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        raise SafetensorError("I/O error: No space left on device (os error 28)")

    store = open_store(tmp_path, spec)
    place = "safetensors.torch.save_file" if error == "safetensors" else "os.fsync"
    monkeypatch.setattr(place, full)
    with pytest.raises(SpaceError, match="it resumes where it stopped"):
        add(store, "a", torch.ones(3, 5))
    assert [path.name for path in store.folder.iterdir()] == ["space.json"]


def test_a_folder_that_cannot_be_written_to_is_an_error(spec: FeatureSpec, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    parts = [stored(spec, torch.ones(1, 3, 5))]
    with pytest.raises(DataError):
        write_shard(tmp_path / "file", [spec.key("a")], parts)


def test_a_store_handed_to_another_process_maps_anew(filled: Filled, tmp_path: Path) -> None:
    store, given = filled(tmp_path)
    key, features = next(iter(given.items()))
    store.features(key)
    sent = pickle.dumps(store)
    assert torch.equal(pickle.loads(sent).features(key), features)
    assert features.numpy().tobytes() not in sent


def test_features_of_another_space_are_not_found(filled: Filled, tmp_path: Path) -> None:
    store, given = filled(tmp_path)
    other = open_store(tmp_path, replace(store.spec, vit_sha256="cd" * 32))
    assert len(other) == 0
    path = shard_files(store.folder)[0]
    (other.folder / path.name).write_bytes(path.read_bytes())  # even if somebody copies them over
    other.refresh()
    assert len(other) == 2
    assert not any(other.spec.key(f"0-{n}") in other for n in range(6))


def test_files_without_features_are_damaged(spec: FeatureSpec, tmp_path: Path) -> None:
    store = open_store(tmp_path, spec)
    path = store.folder / f"foreign{SHARD}"
    save_file({"weights": torch.ones(2)}, path)
    with pytest.raises(DataError, match="damaged"):
        read_keys(path)
