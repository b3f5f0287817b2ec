"""Shards: what went in comes out, and what is damaged never does."""

from __future__ import annotations

import json
import pickle
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from qvft.data.features.cache_spec import FeatureSpec
from qvft.data.features.folders import INDEX, RECORDS, shard_names
from qvft.data.features.listing import verified_shard
from qvft.data.features.shards import new_shard, write_shards
from qvft.data.features.store import Store, open_store
from qvft.errors import DataError, SpaceError

Filled = Callable[..., tuple[Store, dict[bytes, torch.Tensor]]]


@pytest.mark.parametrize("stored", ["float32", "bfloat16"])
def test_features_come_back_bit_by_bit(filled: Filled, tmp_path: Path, stored: str) -> None:
    written, given = filled(tmp_path, stored_dtype=stored)
    for store in (written, open_store(tmp_path, written.space)):
        assert len(store) == len(given) == 6
        for key, features in given.items():
            found = store.features(key)
            assert found.dtype == features.dtype
            assert torch.equal(found.view(torch.uint8), features.view(torch.uint8))


def test_every_bit_pattern_of_bfloat16_comes_back(space: FeatureSpec, tmp_path: Path) -> None:
    store = open_store(tmp_path, replace(space, stored_dtype="bfloat16", patches=256, width=256))
    every = torch.arange(-(2**15), 2**15, dtype=torch.int16).view(torch.bfloat16).view(256, 256)
    key = store.key("every")
    (index,) = write_shards(store.folder, store.space, iter([[(key, every)]]), records=1, seconds=9)
    store.include(index)
    assert torch.equal(store.features(key).view(torch.int16), every.view(torch.int16))


def test_int8_is_off_by_half_a_step_of_its_token_at_most(
    space: FeatureSpec, tmp_path: Path
) -> None:
    store = open_store(tmp_path, replace(space, stored_dtype="int8", patches=65, width=301))
    spread = torch.logspace(-6, 6, 65)[:, None]
    features = torch.randn(65, 301, generator=torch.Generator().manual_seed(1)) * spread
    features[7] = 0
    key = store.key("one")
    list(write_shards(store.folder, store.space, iter([[(key, features)]]), records=1, seconds=9))
    store.refresh()
    found = store.features(key)
    step = features.double().abs().amax(1, keepdim=True) / 127
    error = (found.double() - features.double()).abs()
    # Quotient, scale and product are each rounded by at most 2^-24 of values up to 127 steps:
    # 3 * 127 * 2^-24 < 2^-15 steps on top of the half.
    assert bool((error <= step * (0.5 + 2**-15)).all())
    assert float((error / step.clamp_min(1e-30)).max()) > 0.49  # the bound is reached
    assert torch.equal(found[7], torch.zeros(301))


def test_int8_of_whole_steps_is_exact(space: FeatureSpec, tmp_path: Path) -> None:
    store = open_store(tmp_path, replace(space, stored_dtype="int8", patches=1, width=255))
    steps = torch.arange(-127, 128)[None].float() / 4
    key = store.key("one")
    list(write_shards(store.folder, store.space, iter([[(key, steps)]]), records=1, seconds=9))
    store.refresh()
    assert torch.equal(store.features(key), steps)


def test_records_are_views_of_one_map_and_leave_the_file_alone(
    filled: Filled, tmp_path: Path
) -> None:
    store, given = filled(tmp_path, shard=6)
    (name,) = shard_names(store.folder)
    before = (store.folder / f"{name}{RECORDS}").read_bytes()
    first, second = (store.features(key) for key in list(given)[:2])
    assert first.untyped_storage().data_ptr() == second.untyped_storage().data_ptr()
    assert second.data_ptr() - first.data_ptr() == store.space.record_bytes == 64
    copied = store.stacked(list(given)[:2])
    assert copied.untyped_storage().data_ptr() != first.untyped_storage().data_ptr()
    first.zero_()
    assert (store.folder / f"{name}{RECORDS}").read_bytes() == before


@pytest.mark.skipif(sys.platform != "linux", reason="asks /proc what is in memory")
def test_reading_a_record_does_not_load_its_shard(filled: Filled, tmp_path: Path) -> None:
    store, given = filled(tmp_path, count=64, shard=64, patches=256, width=256)  # 16.8 MB
    (name,) = shard_names(store.folder)
    store.features(next(iter(given)))
    lines = iter(Path("/proc/self/smaps").read_text().splitlines())
    assert any(f"{name}{RECORDS}" in line for line in lines)
    sizes = dict(line.split(":", 1) for line in (next(lines) for _ in range(5)))
    assert int(sizes["Size"].split()[0]) == 16_384
    # One record is 256 kB; the kernel maps neighbouring pages along, 64 kB by default.
    assert 256 <= int(sizes["Rss"].split()[0]) <= 1024


def damage_records(path: Path, change: Callable[[bytearray], None]) -> None:
    content = bytearray(path.read_bytes())
    change(content)
    path.write_bytes(content)


@pytest.mark.parametrize("bit", [0, 7, 8 * 59, 8 * 64, 8 * 64 + 479])
def test_a_flipped_bit_is_never_returned_and_is_found(
    filled: Filled, tmp_path: Path, bit: int
) -> None:
    store, given = filled(tmp_path, count=2)  # records of 60 bytes, 64 apart
    (name,) = shard_names(store.folder)

    def flip(content: bytearray) -> None:
        content[bit // 8] ^= 1 << bit % 8

    damage_records(store.folder / f"{name}{RECORDS}", flip)
    hit, whole = list(given) if bit < 8 * 64 else list(given)[::-1]
    again = open_store(tmp_path, store.space)
    with pytest.raises(DataError, match="damaged: record"):
        again.features(hit)
    assert torch.equal(again.features(whole), given[whole])
    assert "not what was written" in str(verified_shard(store.folder, name).error)


def test_a_flipped_bit_between_records_is_found(filled: Filled, tmp_path: Path) -> None:
    store, _ = filled(tmp_path, count=2)
    (name,) = shard_names(store.folder)
    assert verified_shard(store.folder, name).error is None

    def flip(content: bytearray) -> None:
        content[62] ^= 1

    damage_records(store.folder / f"{name}{RECORDS}", flip)
    assert verified_shard(store.folder, name).error is not None


def test_records_that_changed_places_are_never_returned(filled: Filled, tmp_path: Path) -> None:
    store, given = filled(tmp_path, count=2)
    (name,) = shard_names(store.folder)

    def swap(content: bytearray) -> None:
        content[:64], content[64:] = content[64:], content[:64]

    damage_records(store.folder / f"{name}{RECORDS}", swap)
    again = open_store(tmp_path, store.space)
    for key in given:
        with pytest.raises(DataError, match="damaged"):
            again.features(key)


@pytest.mark.parametrize("change", [-1, 1, -64, 64])
def test_a_shard_of_another_length_counts_as_missing(
    filled: Filled, tmp_path: Path, change: int, caplog: pytest.LogCaptureFixture
) -> None:
    store, given = filled(tmp_path, count=4)
    name = shard_names(store.folder)[0]
    path = store.folder / f"{name}{RECORDS}"
    content = path.read_bytes()
    path.write_bytes(content[:change] if change < 0 else content + b"\0" * change)
    again = open_store(tmp_path, store.space)
    assert len(again) == 2
    assert f"damaged: {128 + change} bytes; expected 128" in caplog.text
    assert verified_shard(store.folder, name).error is not None
    for key in given:
        if key in again:
            assert torch.equal(again.features(key), given[key])


def test_a_shard_cut_after_it_was_listed_is_refused(filled: Filled, tmp_path: Path) -> None:
    written, given = filled(tmp_path, count=2)
    store = open_store(tmp_path, written.space)
    path = store.folder / f"{shard_names(store.folder)[0]}{RECORDS}"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(DataError, match="expected a file of 128 bytes"):
        store.features(next(iter(given)))


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"keys": ["zz"], "crc32": [1]}'])
def test_a_damaged_index_counts_as_missing(filled: Filled, tmp_path: Path, text: str) -> None:
    store, _ = filled(tmp_path, count=4)
    (store.folder / f"{shard_names(store.folder)[0]}{INDEX}").write_text(text)
    assert len(open_store(tmp_path, store.space)) == 2


def test_a_key_altered_in_an_index_is_found_and_reads_nothing(
    filled: Filled, tmp_path: Path
) -> None:
    store, _ = filled(tmp_path, count=2)
    (name,) = shard_names(store.folder)
    path = store.folder / f"{name}{INDEX}"
    content = json.loads(path.read_text())
    content["keys"][0] = "00" * 32
    path.write_text(json.dumps(content))
    assert verified_shard(store.folder, name).error is not None
    with pytest.raises(DataError, match="damaged"):
        open_store(tmp_path, store.space).features(bytes(32))


def test_a_shard_is_not_there_before_it_is_whole(space: FeatureSpec, tmp_path: Path) -> None:
    store = open_store(tmp_path, space)
    with new_shard(store.folder, space, "one") as shard:
        shard.add(store.key("a"), torch.ones(3, 5))
        assert len(open_store(tmp_path, space)) == 0
    assert len(open_store(tmp_path, space)) == 1


def test_records_without_an_index_are_not_there(filled: Filled, tmp_path: Path) -> None:
    store, _ = filled(tmp_path, count=4)
    (store.folder / f"{shard_names(store.folder)[0]}{INDEX}").unlink()
    assert len(open_store(tmp_path, store.space)) == 2


def test_what_came_before_an_error_is_kept(space: FeatureSpec, tmp_path: Path) -> None:
    store = open_store(tmp_path, space)

    def chunks() -> Iterator[list[tuple[bytes, torch.Tensor]]]:
        yield [(store.key("a"), torch.ones(3, 5)), (store.key("b"), torch.ones(3, 5))]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        list(write_shards(store.folder, space, chunks(), records=9, seconds=60))
    assert len(open_store(tmp_path, space)) == 2


def test_a_chunk_is_never_divided(space: FeatureSpec, tmp_path: Path) -> None:
    store = open_store(tmp_path, space)
    chunks = iter([[(store.key(f"{c}{n}"), torch.ones(3, 5)) for n in range(3)] for c in range(5)])
    written = list(write_shards(store.folder, space, chunks, records=4, seconds=60))
    assert [len(index.keys) for index in written] == [6, 6, 3]


def test_an_open_shard_is_closed_when_its_time_is_up(space: FeatureSpec, tmp_path: Path) -> None:
    store = open_store(tmp_path, space)
    chunks = iter([[(store.key(str(n)), torch.ones(3, 5))] for n in range(3)])
    written = list(write_shards(store.folder, space, chunks, records=99, seconds=0))
    assert [len(index.keys) for index in written] == [1, 1, 1]


def test_a_full_disk_is_said_and_leaves_no_half_shard(
    space: FeatureSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import errno
    import os

    from qvft.data.features import shards

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    store = open_store(tmp_path, space)
    monkeypatch.setattr(shards.os, "fsync", full)
    chunks = iter([[(store.key("a"), torch.ones(3, 5))]])
    with pytest.raises(SpaceError, match="it goes on where it stopped"):
        list(write_shards(store.folder, space, chunks, records=1, seconds=60))
    assert [path.name for path in store.folder.iterdir()] == ["space.json"]


def test_a_store_handed_to_another_process_maps_anew(filled: Filled, tmp_path: Path) -> None:
    store, given = filled(tmp_path)
    key, features = next(iter(given.items()))
    store.features(key)
    sent = pickle.dumps(store)
    assert torch.equal(pickle.loads(sent).features(key), features)
    assert features.numpy().tobytes() not in sent


def test_features_of_another_space_are_not_found(filled: Filled, tmp_path: Path) -> None:
    store, given = filled(tmp_path)
    other = open_store(tmp_path, replace(store.space, vit_sha256="cd" * 32))
    assert len(other) == 0
    moved = shard_names(store.folder)[0]
    for ending in (INDEX, RECORDS):  # even if somebody copies them over
        name = f"{moved}{ending}"
        (other.folder / name).write_bytes((store.folder / name).read_bytes())
    other.refresh()
    assert not {other.key(f"0-{n}") for n in range(6)} & set(given)
    assert not any(other.key(f"0-{n}") in other for n in range(6))
