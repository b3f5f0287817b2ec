"""Filling: everything once, whoever does it and however often it is killed."""

from __future__ import annotations

import json
import os
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import programs
import pytest
import torch
from PIL import Image

from qvft.data.features.cache_spec import FeatureSpec
from qvft.data.features.fill import CacheEntry, cache_entries, features_bytes, fill, require_room
from qvft.data.features.folders import SHARD, shard_files
from qvft.data.features.shards import read_keys
from qvft.data.features.store import Cached, Store, open_store
from qvft.data.images.content_hash import pixel_ids
from qvft.data.images.decoding import decode
from qvft.data.sample import ImageFile, ImageSource
from qvft.errors import FailedError, ImageError, RecipeError, SpaceError

IMAGES = 40


def read(source: ImageSource, view: int) -> torch.Tensor:
    """Pixels (3, 8, 8); a view is brighter."""
    data = torch.frombuffer(bytearray(decode(source).tobytes()), dtype=torch.uint8)
    return data.view(8, 8, 3).permute(2, 0, 1).float() / 255 + view


def encode(pixels: torch.Tensor) -> torch.Tensor:
    """Features (I, 3, 5) that depend on which images are encoded together, as kernels' may."""
    weights = torch.sin(torch.arange(192 * 15.0)).view(192, 15)
    each = pixels.flatten(1) @ weights
    return (each + each.mean(0)).view(-1, 3, 5)


def sources_in(folder: Path) -> list[ImageFile]:
    return [ImageFile(path) for path in sorted(folder.glob("*.png"))]


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pictures")
    for number in range(IMAGES):
        Image.new("RGB", (8, 8), (number, 255 - number, 7)).save(folder / f"{number:02d}.png")
    return folder


def entries(store: Store, sources: list[ImageFile], **given: Any) -> list[CacheEntry]:
    return cache_entries(store.spec, sources, pixel_ids(sources), **given)


def held(store: Store, folder: Path) -> torch.Tensor:
    """All features, in the order of the files."""
    sources = sources_in(folder)
    return Cached(store, pixel_ids(sources))(sources)


@pytest.fixture
def whole(spec: FeatureSpec, pictures: Path, tmp_path: Path) -> torch.Tensor:
    """What an undisturbed pass in batches of 4 gives."""
    expected = [
        encode(torch.stack([read(source, 0) for source in sources_in(pictures)[start : start + 4]]))
        for start in range(0, IMAGES, 4)
    ]
    return torch.cat(expected)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_pass_stores_what_the_encoder_gives(
    spec: FeatureSpec, pictures: Path, whole: torch.Tensor, tmp_path: Path, workers: int
) -> None:
    store = open_store(tmp_path, spec)
    items = entries(store, sources_in(pictures))
    given = {"batch_size": 4, "workers": workers, "shard_images": 8}
    assert fill(store, items, encode, read=read, **given) == {}
    assert len(store) == IMAGES and len(shard_files(store.folder)) == 5
    assert torch.equal(held(store, pictures), whole)
    assert torch.equal(held(open_store(tmp_path, spec), pictures), whole)


def test_what_is_there_is_not_computed_again(
    spec: FeatureSpec, pictures: Path, tmp_path: Path
) -> None:
    store, seen = open_store(tmp_path, spec), []

    def counted(pixels: torch.Tensor) -> torch.Tensor:
        seen.append(len(pixels))
        return encode(pixels)

    items = entries(store, sources_in(pictures))
    fill(store, items[:10], counted, read=read, batch_size=4)
    assert seen == [4, 4, 2]
    fill(open_store(tmp_path, spec), items[:14], counted, read=read, batch_size=4)
    assert seen[3:] == [2, 2]  # chunks 8-11 and 12-13


def test_images_of_equal_content_are_encoded_once(spec: FeatureSpec, tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        Image.new("RGB", (8, 8), "red").save(tmp_path / f"{name}.png")
    store = open_store(tmp_path / "cache", spec)
    fill(store, entries(store, sources_in(tmp_path)), encode, read=read)
    assert len(store) == 1
    assert len(held(store, tmp_path)) == 3


def test_unusable_images_are_named_and_stop_no_other(spec: FeatureSpec, tmp_path: Path) -> None:
    for number in range(3):
        Image.new("RGB", (8, 8), (number, 0, 0)).save(tmp_path / f"{number}.png")
    (tmp_path / "1.png").write_bytes(b"no image")
    (tmp_path / "3.png").mkdir()
    store, sources = open_store(tmp_path / "cache", spec), sources_in(tmp_path)
    ids = pixel_ids(sources)
    unusable = fill(store, cache_entries(spec, sources, ids), encode, read=read, batch_size=2)
    assert len(store) == 2
    assert [Path(name).name for name in unusable] == ["1.png"]
    cached = Cached(store, ids)
    assert cached([sources[0], sources[2]]).shape == (2, 3, 5)
    with pytest.raises(ImageError, match="no features of view 0"):
        cached([sources[1]])
    with pytest.raises(ImageError, match="a folder"):
        cached([sources[3]])


def test_views_are_kept_apart_and_the_plain_one_is_shared(
    spec: FeatureSpec, pictures: Path, tmp_path: Path
) -> None:
    store, sources = open_store(tmp_path, spec), sources_in(pictures)[:1]
    fill(store, entries(store, sources), encode, read=read)
    items = entries(store, sources, views=3, augmentation={"seed": 1})
    assert sum(item.key in store for item in items) == 1
    fill(store, items, encode, read=read, batch_size=1)
    assert len(store) == 3
    cached = Cached(store, pixel_ids(sources), augmentation={"seed": 1})
    for view in range(3):
        expected = encode(read(sources[0], view)[None])
        assert torch.equal(cached(sources, [view]), expected)
    other = Cached(store, pixel_ids(sources), augmentation={"seed": 2})
    assert torch.equal(other(sources), cached(sources))
    with pytest.raises(ImageError, match="view 1"):
        other(sources, [1])


def test_features_that_are_not_finite_are_refused_by_name(
    spec: FeatureSpec, pictures: Path, tmp_path: Path
) -> None:
    def overflowing(pixels: torch.Tensor) -> torch.Tensor:
        features = encode(pixels)
        features[1, 0, 0] = torch.inf
        return features

    store = open_store(tmp_path, spec)
    with pytest.raises(FailedError, match=r"01\.png: 1 of 15 ViT features are not finite"):
        fill(store, entries(store, sources_in(pictures)), overflowing, read=read, batch_size=4)
    assert len(open_store(tmp_path, spec)) == 0


def test_what_came_before_an_error_is_kept(
    spec: FeatureSpec, pictures: Path, tmp_path: Path
) -> None:
    calls = []

    def interrupted(pixels: torch.Tensor) -> torch.Tensor:
        calls.append(len(pixels))
        if len(calls) == 3:
            raise KeyboardInterrupt
        return encode(pixels)

    store = open_store(tmp_path, spec)
    with pytest.raises(KeyboardInterrupt):
        fill(store, entries(store, sources_in(pictures)), interrupted, read=read, batch_size=4)
    assert len(open_store(tmp_path, spec)) == 8


@pytest.mark.parametrize(
    "limits, counts",
    [
        ({"shard_images": 4}, [6, 6, 3]),  # a chunk is never divided
        ({"shard_seconds": 0}, [3, 3, 3, 3, 3]),
    ],
)
def test_a_shard_is_closed_when_it_is_full_or_its_time_is_up(
    spec: FeatureSpec, pictures: Path, tmp_path: Path, limits: dict, counts: list[int]
) -> None:
    store = open_store(tmp_path, spec)
    items = entries(store, sources_in(pictures)[:15])
    fill(store, items, encode, read=read, batch_size=3, **limits)
    found = [len(read_keys(path)) for path in shard_files(store.folder)]
    assert sorted(found, reverse=True) == counts


def test_shares_are_apart_and_the_same_bits_as_one_process(
    spec: FeatureSpec, pictures: Path, whole: torch.Tensor, tmp_path: Path
) -> None:
    counts = []
    for rank in range(3):
        store = open_store(tmp_path, spec)
        items, before = entries(store, sources_in(pictures)), len(store)
        fill(store, items, encode, read=read, rank=rank, world=3, batch_size=4)
        counts.append(len(store) - before)
    assert counts == [16, 12, 12]
    assert torch.equal(held(open_store(tmp_path, spec), pictures), whole)


def test_a_damaged_shard_is_removed_and_its_images_are_computed_again(
    spec: FeatureSpec, pictures: Path, whole: torch.Tensor, tmp_path: Path
) -> None:
    store = open_store(tmp_path, spec)
    items = entries(store, sources_in(pictures))
    fill(store, items, encode, read=read, batch_size=4, shard_images=8)
    path = shard_files(store.folder)[0]
    path.write_bytes(path.read_bytes()[:-1])
    again = open_store(tmp_path, spec)
    assert len(again) == IMAGES - 8
    fill(again, items, encode, read=read, batch_size=4)
    assert not path.exists()
    assert torch.equal(held(again, pictures), whole)


# A process of its own, which forks: it has no threads yet when it does.
SCRIPT = """
import json, os, signal, sys, time
from pathlib import Path
sys.path = {path}
import torch
torch.set_num_threads(1)
from qvft.data.features.cache_spec import FeatureSpec
from qvft.data.features.folders import shard_files
from test_features_fill import encode, entries, fill, open_store, read, sources_in
mode, cache, pictures, description = sys.argv[1:]
spec = FeatureSpec(**json.loads(description))
sources = sources_in(Path(pictures))

def slowly(pixels):
    time.sleep(0.04)
    return encode(pixels)

def child(rank, world):
    pid = os.fork()
    if pid:
        return pid
    store = open_store(Path(cache), spec)
    share = {{"rank": rank, "world": world, "batch_size": 4, "shard_images": 4}}
    fill(store, entries(store, sources), slowly, read=read, **share)
    os._exit(0)

if mode == "kill":
    folder = open_store(Path(cache), spec).folder
    for delay in [0, 0.01, 0.02, 0.03, 0.04]:  # after a shard was finished: anywhere in the next
        finished, pid = len(shard_files(folder)), child(0, 1)
        while len(shard_files(folder)) == finished:
            time.sleep(0.001)
        time.sleep(delay)
        os.kill(pid, signal.SIGKILL)
        if os.waitpid(pid, 0)[1] == signal.SIGKILL:
            print(len(open_store(Path(cache), spec)))
    assert os.waitpid(child(0, 1), 0)[1] == 0
else:
    world = 2 if mode == "share" else 1
    pids = [child(rank % world, world) for rank in range(2)]
    assert [os.waitpid(pid, 0)[1] for pid in pids] == [0, 0]
"""


def run(mode: str, cache: Path, pictures: Path, spec: FeatureSpec) -> list[str]:
    script = cache / "script.py"
    script.write_text(SCRIPT.format(path=sys.path))
    given = [mode, str(cache), str(pictures), json.dumps(asdict(spec))]
    done = programs.run([str(script), *given])
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="kills forked processes")
def test_a_killed_pass_goes_on_and_gives_the_same_bits(
    spec: FeatureSpec, pictures: Path, whole: torch.Tensor, tmp_path: Path
) -> None:
    counts = [int(line) for line in run("kill", tmp_path, pictures, spec)]
    assert len(counts) == 5
    assert counts == sorted(set(counts))  # each pass went on where the one before was killed
    assert 0 < counts[0] < IMAGES  # in the middle
    store = open_store(tmp_path, spec)
    assert len(store) == IMAGES
    assert torch.equal(held(store, pictures), whole)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks processes")
@pytest.mark.parametrize("mode", ["share", "both"])
def test_two_processes_at_once_compute_each_image_once(
    spec: FeatureSpec, pictures: Path, whole: torch.Tensor, tmp_path: Path, mode: str
) -> None:
    """Two of one program, or two that know nothing of each other."""
    run(mode, tmp_path, pictures, spec)
    store = open_store(tmp_path, spec)
    assert torch.equal(held(store, pictures), whole)
    assert sum(len(read_keys(path)) for path in shard_files(store.folder)) == IMAGES
    assert {path.suffix for path in store.folder.iterdir()} == {SHARD, ".json"}


def test_files_of_killed_writers_go_once_they_are_old(
    spec: FeatureSpec, pictures: Path, tmp_path: Path
) -> None:
    store, hour_ago = open_store(tmp_path, spec), time.time() - 3601
    old = [store.folder / f".one{SHARD}.17.partial", store.folder / ".tmpAb12Cd"]
    fresh = [store.folder / f".two{SHARD}.18.partial", store.folder / ".tmpAb12Ce"]
    foreign = store.folder / "notes.txt"
    for path in (*old, *fresh, foreign):
        path.write_bytes(b"x" * 10)
    for path in (*old, foreign):
        os.utime(path, (hour_ago, hour_ago))
    fill(store, entries(store, sources_in(pictures)[:2]), encode, read=read)
    assert not any(path.exists() for path in old)
    assert all(path.exists() for path in (*fresh, foreign))


def test_a_complete_cache_may_be_read_only(
    spec: FeatureSpec, pictures: Path, whole: torch.Tensor, tmp_path: Path
) -> None:
    store = open_store(tmp_path, spec)
    items = entries(store, sources_in(pictures))
    fill(store, items, encode, read=read, batch_size=4)
    before = {path: path.stat().st_ctime_ns for path in store.folder.iterdir()}
    again = open_store(tmp_path, spec)
    fill(again, items, encode, read=read, batch_size=4)
    assert {path: path.stat().st_ctime_ns for path in store.folder.iterdir()} == before
    assert torch.equal(held(again, pictures), whole)


def test_the_size_is_known_before_anything_is_computed(
    spec: FeatureSpec, pictures: Path, tmp_path: Path
) -> None:
    store = open_store(tmp_path, spec)
    fill(store, entries(store, sources_in(pictures)), encode, read=read)
    used = sum(path.stat().st_size for path in shard_files(store.folder))
    estimate = features_bytes(spec, IMAGES)
    assert used < estimate < used * 1.5  # it rounds up an image's part of the header


def test_the_size_of_blip2s_features_by_arithmetic(spec: FeatureSpec) -> None:
    blip2 = replace(spec, patches=257, width=1408, stored_dtype="bfloat16")
    assert blip2.image_bytes == 257 * 1408 * 2 == 723_712
    assert replace(blip2, stored_dtype="float32").image_bytes == 2 * 723_712
    eight = replace(blip2, stored_dtype="int8")
    assert eight.image_bytes == 257 * 1408 + 257 * 4 == 362_884
    assert features_bytes(blip2, 2000) == 2000 * (723_712 + 128)


def test_more_than_the_limit_is_refused(spec: FeatureSpec, tmp_path: Path) -> None:
    store = open_store(tmp_path, replace(spec, patches=257, width=1408, stored_dtype="bfloat16"))
    keys = [store.spec.key(f"{n}") for n in range(1000)]
    limit = 1000 * (723_712 + 128)
    assert require_room(store, keys, limit_bytes=limit) == limit
    with pytest.raises(RecipeError, match=r"1000 images take 0.724 GB .* at most 0.724 GB"):
        require_room(store, keys, limit_bytes=limit - 1)


def test_a_disk_without_room_is_refused(spec: FeatureSpec, pictures: Path, tmp_path: Path) -> None:
    store = open_store(tmp_path, spec)
    items = entries(store, sources_in(pictures))
    fill(store, items[:30], encode, read=read)
    # What is there takes no more room.
    assert require_room(store, [item.key for item in items]) == 10 * (60 + 128)
    huge = replace(spec, patches=10**9, width=10**6)
    with pytest.raises(SpaceError, match="free"):
        require_room(open_store(tmp_path, huge), [huge.key("one")])
