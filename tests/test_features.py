"""`qvft.features`: what it shows, names and removes."""

from __future__ import annotations

import os
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from qvft.data.features.cache_spec import FeatureSpec
from qvft.data.features.folders import INDEX, RECORDS, default_cache, shard_names
from qvft.data.features.shards import write_shards
from qvft.data.features.store import Store, open_store
from qvft.features import main

SPACE = FeatureSpec("vit-g [base]", "ab" * 32, {"processor": "P"}, "float32", "float32", 3, 5)
OTHER = replace(SPACE, vit="another", stored_dtype="bfloat16")


def stored(cache: Path, space: FeatureSpec, *, count: int = 6) -> Store:
    """A store of `count` records in shards of two."""
    store = open_store(cache, space)
    chunks = iter([[(store.key(str(n)), torch.full((3, 5), float(n)))] for n in range(count)])
    list(write_shards(store.folder, space, chunks, records=2, seconds=60))
    return store


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    """Two spaces: three shards and one."""
    stored(tmp_path, SPACE)
    stored(tmp_path, OTHER, count=2)
    return tmp_path


def size(cache: Path) -> int:
    return sum(path.stat().st_size for path in cache.rglob("*") if path.is_file())


def spoil(cache: Path, number: int = 0) -> Path:
    """Flips a bit of a shard of `SPACE` and returns its file."""
    folder = cache / SPACE.id
    path = folder / f"{shard_names(folder)[number]}{RECORDS}"
    content = bytearray(path.read_bytes())
    content[3] ^= 4
    path.write_bytes(content)
    return path


def age(folder: Path, name: str, days: float) -> None:
    then = time.time() - days * 86400
    os.utime(folder / f"{name}{INDEX}", (then, then))


def said(capsys: pytest.CaptureFixture, *arguments: str, status: int = 0) -> str:
    assert main(list(arguments)) == status
    captured = capsys.readouterr()
    return captured.err if status else captured.out


def test_the_folder_is_the_environments_or_the_users(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("QVFT_CACHE", str(tmp_path))
    assert default_cache() == tmp_path
    monkeypatch.delenv("QVFT_CACHE")
    monkeypatch.setenv("HOME", "/home/somebody")
    assert default_cache() == Path("/home/somebody/.cache/qvft/features")


def test_list_shows_each_space(cache: Path, capsys: pytest.CaptureFixture) -> None:
    shown = said(capsys, "list", "--cache", str(cache))
    lines = {line.split("│")[1].strip(): line for line in shown.splitlines() if "│" in line}
    assert set(lines) == {SPACE.id[:12], OTHER.id[:12]}
    for part in ("vit-g [base]", "float32", "3 x 5", " 6 ", time.strftime("%Y-")):
        assert part in lines[SPACE.id[:12]]
    assert "bfloat16" in lines[OTHER.id[:12]] and " 2 " in lines[OTHER.id[:12]]
    assert shown.splitlines()[-1].startswith("2 spaces, 0.00 MB in")


def test_list_of_nothing_is_no_error(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    shown = said(capsys, "list", "--cache", str(tmp_path / "absent"))
    assert shown == f"0 spaces, 0.00 MB in {tmp_path / 'absent'}\n"


def test_list_counts_what_can_be_seen_to_be_damaged(
    cache: Path, capsys: pytest.CaptureFixture
) -> None:
    path = spoil(cache)
    path.write_bytes(path.read_bytes()[:-1])
    (cache / OTHER.id / "space.json").write_text("{}")
    shown = said(capsys, "list", "--cache", str(cache))
    assert "4, 1 shards damaged" in shown
    assert "space.json is damaged" in shown


def test_verify_of_a_whole_cache_says_so(cache: Path, capsys: pytest.CaptureFixture) -> None:
    shown = said(capsys, "verify", "--cache", str(cache))
    assert shown.startswith("4 shards, 0.00 MB in") and shown.endswith("as written\n")


def test_verify_names_what_is_damaged_and_fails(cache: Path, capsys: pytest.CaptureFixture) -> None:
    path = spoil(cache, 1)
    (cache / OTHER.id / "space.json").write_text("{}")
    shown = said(capsys, "verify", "--cache", str(cache), status=1)
    assert f"2 damaged in {cache}" in shown
    assert str(path) in shown and "space.json" in shown
    assert shown.count("not what was written") == 1


def test_prune_of_damaged_shards_leaves_the_others(
    cache: Path, capsys: pytest.CaptureFixture
) -> None:
    path, before = spoil(cache), size(cache)
    shown = said(capsys, "prune", "--damaged", "--cache", str(cache))
    assert not path.exists()
    assert len(open_store(cache, SPACE)) == 4
    assert shown.startswith(f"freed {before - size(cache)} bytes in {cache}: 1 shards, 0 whole")
    said(capsys, "verify", "--cache", str(cache))


def test_prune_of_a_space_removes_its_folder(cache: Path, capsys: pytest.CaptureFixture) -> None:
    before = size(cache)
    shown = said(capsys, "prune", "--space", SPACE.id[:12], "--cache", str(cache))
    assert [path.name for path in cache.iterdir()] == [OTHER.id]
    assert f"freed {before - size(cache)} bytes" in shown
    assert "3 shards, 1 whole spaces" in shown


def test_prune_leaves_what_is_not_the_caches(cache: Path, capsys: pytest.CaptureFixture) -> None:
    mine = cache / SPACE.id / "notes.txt"
    mine.write_text("mine")
    (cache / "pictures").mkdir()
    (cache / "pictures" / "a.png").write_text("mine too")
    said(capsys, "prune", "--unused-days", "0", "--cache", str(cache))
    assert {path.name for path in cache.rglob("*") if path.is_file()} == {"notes.txt", "a.png"}


def test_prune_removes_what_killed_writers_left(cache: Path, capsys: pytest.CaptureFixture) -> None:
    then = time.time() - 3601
    for name in (f".one{RECORDS}.17.partial", f"two{RECORDS}"):
        (cache / OTHER.id / name).write_bytes(b"x" * 10)
        os.utime(cache / OTHER.id / name, (then, then))
    shown = said(capsys, "prune", "--damaged", "--cache", str(cache))
    assert shown.startswith("freed 20 bytes") and "0 shards, 0 whole spaces, 2 left-over" in shown
    assert len(list((cache / OTHER.id).iterdir())) == 3  # space.json and a shard


def test_prune_of_unused_shards_goes_by_their_last_use(
    cache: Path, capsys: pytest.CaptureFixture
) -> None:
    folder = cache / SPACE.id
    for name in shard_names(folder):
        age(folder, name, days=10)
    store = open_store(cache, SPACE)
    assert store.features(store.key("3"))[0, 0] == 3  # the second shard is used now
    assert "2 shards" in said(capsys, "prune", "--unused-days", "9", "--cache", str(cache))
    left = open_store(cache, SPACE)
    assert {n for n in range(6) if left.key(str(n)) in left} == {2, 3}


def test_prune_of_all_shards_of_a_space_removes_it(
    cache: Path, capsys: pytest.CaptureFixture
) -> None:
    for name in shard_names(cache / OTHER.id):
        age(cache / OTHER.id, name, days=10)
    shown = said(capsys, "prune", "--unused-days", "9", "--cache", str(cache))
    assert "1 shards, 1 whole spaces" in shown
    assert not (cache / OTHER.id).exists() and (cache / SPACE.id).exists()


def test_a_dry_run_says_the_same_and_removes_nothing(
    cache: Path, capsys: pytest.CaptureFixture
) -> None:
    before = size(cache)
    arguments = ["prune", "--space", SPACE.id, "--cache", str(cache)]
    would = said(capsys, *arguments, "--dry-run")
    assert size(cache) == before
    assert would.replace("would free", "freed") == said(capsys, *arguments)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ([], "nothing says what is to go"),
        (["--space", "nothing"], "0 spaces begin with `nothing`"),
        (["--space", ""], "2 spaces begin with ``"),
    ],
)
def test_prune_asks_for_a_choice(
    cache: Path, capsys: pytest.CaptureFixture, arguments: list[str], message: str
) -> None:
    before = size(cache)
    shown = said(capsys, "prune", *arguments, "--cache", str(cache), status=2)
    assert shown.startswith("qvft: ") and message in shown
    assert size(cache) == before


def test_a_damaged_description_is_written_anew_by_whoever_fills(cache: Path) -> None:
    (cache / SPACE.id / "space.json").write_text("{")
    store = open_store(cache, SPACE)
    assert len(store) == 6
    assert main(["verify", "--cache", str(cache)]) == 0
