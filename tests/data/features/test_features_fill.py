"""Filling: everything once, whoever does it and however often it is killed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image

from qvft.data.features import orphaned_files as leftovers
from qvft.data.features.cache_spec import FeatureSpec, space_json
from qvft.data.features.content import contents_of
from qvft.data.features.fill import fill
from qvft.data.features.folders import RECORDS, shard_names
from qvft.data.features.size import features_bytes, require_room
from qvft.data.features.store import Cached, Store, open_store
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


def held(store: Store, folder: Path) -> torch.Tensor:
    """All features, in the order of the files."""
    sources = sources_in(folder)
    return Cached(store, contents_of(sources))(sources)


@pytest.fixture
def whole(space: FeatureSpec, pictures: Path, tmp_path: Path) -> torch.Tensor:
    """What an undisturbed pass in batches of 4 gives."""
    expected = [
        encode(torch.stack([read(source, 0) for source in sources_in(pictures)[start : start + 4]]))
        for start in range(0, IMAGES, 4)
    ]
    return torch.cat(expected)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_pass_stores_what_the_encoder_gives(
    space: FeatureSpec, pictures: Path, whole: torch.Tensor, tmp_path: Path, workers: int
) -> None:
    store = open_store(tmp_path, space)
    done = fill(
        store, sources_in(pictures), encode, read=read, batch_size=4, workers=workers,
        shard_records=8,
    )  # fmt: skip
    assert (done.written, done.present, done.unusable) == (IMAGES, 0, {})
    assert len(shard_names(store.folder)) == 5
    assert torch.equal(held(store, pictures), whole)
    assert torch.equal(held(open_store(tmp_path, space), pictures), whole)


def test_what_is_there_is_not_computed_again(
    space: FeatureSpec, pictures: Path, tmp_path: Path
) -> None:
    store, seen = open_store(tmp_path, space), []

    def counted(pixels: torch.Tensor) -> torch.Tensor:
        seen.append(len(pixels))
        return encode(pixels)

    sources = sources_in(pictures)
    fill(store, sources[:10], counted, read=read, batch_size=4)
    assert seen == [4, 4, 2]
    done = fill(open_store(tmp_path, space), sources[:14], counted, read=read, batch_size=4)
    assert seen[3:] == [2, 2]  # chunks 8-11 and 12-13
    assert (done.written, done.present) == (4, 10)


def test_images_of_equal_content_are_encoded_once(space: FeatureSpec, tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        Image.new("RGB", (8, 8), "red").save(tmp_path / f"{name}.png")
    store = open_store(tmp_path / "cache", space)
    assert fill(store, sources_in(tmp_path), encode, read=read).written == 1
    assert len(held(store, tmp_path)) == 3


def test_unusable_images_are_named_and_stop_no_other(space: FeatureSpec, tmp_path: Path) -> None:
    for number in range(3):
        Image.new("RGB", (8, 8), (number, 0, 0)).save(tmp_path / f"{number}.png")
    (tmp_path / "1.png").write_bytes(b"no image")
    (tmp_path / "3.png").mkdir()
    store, sources = open_store(tmp_path / "cache", space), sources_in(tmp_path)
    done = fill(store, sources, encode, read=read, batch_size=2)
    assert done.written == 2
    assert {Path(name).name for name in done.unusable} == {"1.png", "3.png"}
    cached = Cached(store, done.contents)
    assert cached([sources[0], sources[2]]).shape == (2, 3, 5)
    with pytest.raises(ImageError, match="no features of view 0"):
        cached([sources[1]])
    with pytest.raises(ImageError, match="a folder"):
        cached([sources[3]])


def test_views_are_kept_apart_and_the_plain_one_is_shared(
    space: FeatureSpec, pictures: Path, tmp_path: Path
) -> None:
    store, sources = open_store(tmp_path, space), sources_in(pictures)[:1]
    fill(store, sources, encode, read=read)
    done = fill(store, sources, encode, read=read, views=3, augmentation={"seed": 1}, batch_size=1)
    assert (done.written, done.present) == (2, 1)
    cached = Cached(store, done.contents, augmentation={"seed": 1})
    for view in range(3):
        expected = encode(read(sources[0], view)[None])
        assert torch.equal(cached(sources, [view]), expected)
    other = Cached(store, done.contents, augmentation={"seed": 2})
    assert torch.equal(other(sources), cached(sources))
    with pytest.raises(ImageError, match="view 1"):
        other(sources, [1])


def test_features_that_are_no_numbers_are_refused_by_name(
    space: FeatureSpec, pictures: Path, tmp_path: Path
) -> None:
    def overflowing(pixels: torch.Tensor) -> torch.Tensor:
        features = encode(pixels)
        features[1, 0, 0] = torch.inf
        return features

    store = open_store(tmp_path, space)
    with pytest.raises(FailedError, match=r"01\.png: 1 of 15 ViT features are not finite"):
        fill(store, sources_in(pictures), overflowing, read=read, batch_size=4)
    assert len(open_store(tmp_path, space)) == 0


def test_shares_are_apart_and_the_same_bits_as_one_process(
    space: FeatureSpec, pictures: Path, whole: torch.Tensor, tmp_path: Path
) -> None:
    sources, counts = sources_in(pictures), []
    for rank in range(3):
        store = open_store(tmp_path, space)
        share = {"rank": rank, "world": 3, "batch_size": 4}
        counts.append(fill(store, sources, encode, read=read, **share).written)
    assert counts == [16, 12, 12]
    assert torch.equal(held(open_store(tmp_path, space), pictures), whole)


# A process of its own, which forks: it has no threads yet when it does.
SCRIPT = """
import json, os, signal, sys, time
from pathlib import Path
sys.path.insert(0, {tests!r})
import torch
torch.set_num_threads(1)
from qvft.data.features.folders import shard_names
from qvft.data.features.cache_spec import space_of
from test_features_fill import encode, fill, open_store, read, sources_in
mode, cache, pictures, description = sys.argv[1:]
space = space_of(json.loads(description), where="argument")
sources = sources_in(Path(pictures))

def slowly(pixels):
    time.sleep(0.04)
    return encode(pixels)

def child(rank, world):
    pid = os.fork()
    if pid:
        return pid
    store = open_store(Path(cache), space)
    fill(store, sources, slowly, read=read, batch_size=4, shard_records=4, rank=rank, world=world)
    os._exit(0)

if mode == "kill":
    folder = open_store(Path(cache), space).folder
    for delay in [0, 0.01, 0.02, 0.03, 0.04]:  # after a shard was finished: anywhere in the next
        finished, pid = len(shard_names(folder)), child(0, 1)
        while len(shard_names(folder)) == finished:
            time.sleep(0.001)
        time.sleep(delay)
        os.kill(pid, signal.SIGKILL)
        if os.waitpid(pid, 0)[1] == signal.SIGKILL:
            print(len(open_store(Path(cache), space)))
    assert os.waitpid(child(0, 1), 0)[1] == 0
else:
    world = 2 if mode == "share" else 1
    pids = [child(rank % world, world) for rank in range(2)]
    assert [os.waitpid(pid, 0)[1] for pid in pids] == [0, 0]
"""


def run(mode: str, cache: Path, pictures: Path, space: FeatureSpec) -> list[str]:
    code = SCRIPT.format(tests=str(Path(__file__).parent))
    given = [mode, str(cache), str(pictures), json.dumps(space_json(space))]
    done = subprocess.run(
        [sys.executable, "-c", code, *given], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="kills forked processes")
def test_a_killed_pass_goes_on_and_gives_the_same_bits(
    space: FeatureSpec, pictures: Path, whole: torch.Tensor, tmp_path: Path
) -> None:
    counts = [int(line) for line in run("kill", tmp_path, pictures, space)]
    assert len(counts) == 5
    assert counts == sorted(set(counts))  # each pass went on where the one before was killed
    assert 0 < counts[0] < IMAGES  # in the middle
    store = open_store(tmp_path, space)
    assert len(store) == IMAGES
    assert torch.equal(held(store, pictures), whole)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks processes")
@pytest.mark.parametrize("mode, records", [("share", IMAGES), ("both", 2 * IMAGES)])
def test_two_processes_at_once_lose_nothing(
    space: FeatureSpec, pictures: Path, whole: torch.Tensor, tmp_path: Path, mode: str, records: int
) -> None:
    run(mode, tmp_path, pictures, space)
    store = open_store(tmp_path, space)
    assert torch.equal(held(store, pictures), whole)
    files = store.folder.glob(f"*{RECORDS}")
    # Two that know nothing of each other do the work twice, and what is there twice is harmless.
    assert sum(path.stat().st_size for path in files) == records * space.record_bytes


def test_files_of_killed_writers_go_once_they_are_old(
    space: FeatureSpec, pictures: Path, tmp_path: Path
) -> None:
    store, hour_ago = open_store(tmp_path, space), time.time() - 3601
    old = store.folder / f".one{RECORDS}.17.partial"
    fresh = store.folder / f".two{RECORDS}.18.partial"
    orphan = store.folder / f"three{RECORDS}"
    foreign = store.folder / "notes.txt"
    for path in (old, fresh, orphan, foreign):
        path.write_bytes(b"x" * 10)
    for path in (old, orphan, foreign):
        os.utime(path, (hour_ago, hour_ago))
    assert leftovers.leftovers(store.folder) == [old, orphan]
    fill(store, sources_in(pictures)[:2], encode, read=read)
    assert not old.exists() and not orphan.exists()
    assert fresh.exists() and foreign.exists()


def test_the_size_is_known_before_anything_is_computed(
    space: FeatureSpec, pictures: Path, tmp_path: Path
) -> None:
    fill(open_store(tmp_path, space), sources_in(pictures), encode, read=read)
    used = sum(path.stat().st_size for path in (tmp_path / space.id).iterdir())
    estimate = features_bytes(space, IMAGES)
    # The estimate leaves out space.json (less than 1 kB) and rounds an index's entry up.
    assert used - 1024 < estimate < used * 1.3


def test_the_size_of_blip2s_features_by_arithmetic(space: FeatureSpec) -> None:
    blip2 = replace(space, patches=257, width=1408, stored_dtype="bfloat16")
    assert blip2.payload_bytes == 257 * 1408 * 2 == 723_712 == blip2.record_bytes
    assert replace(blip2, stored_dtype="float32").record_bytes == 2 * 723_712
    eight = replace(blip2, stored_dtype="int8")
    assert eight.payload_bytes == 257 * 1408 + 257 * 4 == 362_884
    assert eight.record_bytes == 362_944  # the next multiple of 64
    assert features_bytes(blip2, 1000, views=2) == 2000 * (723_712 + 128)


def test_more_than_the_limit_is_refused_before_it_starts(
    space: FeatureSpec, tmp_path: Path
) -> None:
    blip2 = replace(space, patches=257, width=1408, stored_dtype="bfloat16")
    with pytest.raises(RecipeError, match=r"113287 images take 82 GB .* at most 50 GB"):
        require_room(tmp_path, blip2, 113_287, limit_bytes=50_000_000_000)


def test_a_pass_over_its_limit_computes_nothing(
    space: FeatureSpec, pictures: Path, tmp_path: Path
) -> None:
    def never(pixels: torch.Tensor) -> torch.Tensor:
        raise AssertionError("encoded")

    store, limit = open_store(tmp_path, space), features_bytes(space, IMAGES, views=2)
    given = {"read": read, "views": 2, "augmentation": {"seed": 1}}
    with pytest.raises(RecipeError, match="40 images in 2 views each"):
        fill(store, sources_in(pictures), never, limit_bytes=limit - 1, **given)
    assert len(open_store(tmp_path, space)) == 0
    assert fill(store, sources_in(pictures), encode, limit_bytes=limit, **given).written == 80


def test_a_disk_without_room_is_refused_before_it_starts(
    space: FeatureSpec, tmp_path: Path
) -> None:
    with pytest.raises(SpaceError, match="free"):
        require_room(tmp_path, space, 10**15)
    whole = features_bytes(space, 10**15)
    missing = require_room(tmp_path, space, 10**15, present=10**15 - 3)
    assert missing == 3 * (64 + 128) and whole > missing
