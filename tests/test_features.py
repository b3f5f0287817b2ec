"""`qvft.features`: what it lists and removes."""

from __future__ import annotations

import json
import os
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from qvft.data.features.cache_spec import FeatureSpec
from qvft.data.features.folders import SHARD, default_cache, shard_files
from qvft.data.features.shards import stored as tensors_of
from qvft.data.features.store import Store, open_store
from qvft.features import main

SPEC = FeatureSpec("vit-g [base]", "ab" * 32, {"processor": "P"}, "float32", "float32", 3, 5)
OTHER = replace(SPEC, vit="another", stored_dtype="bfloat16")
OLD = "0" * 64
"""The name of a space of format 1, as qvft wrote it before."""


def stored(cache: Path, spec: FeatureSpec, *, count: int = 6) -> Store:
    """A store of `count` images in shards of two."""
    store = open_store(cache, spec)
    for n in range(0, count, 2):
        keys = [spec.key(str(n)), spec.key(str(n + 1))]
        store.add(keys, [tensors_of(spec, torch.full((2, 3, 5), float(n)))])
    return store


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    """Two spaces: three shards and one."""
    stored(tmp_path, SPEC)
    stored(tmp_path, OTHER, count=2)
    return tmp_path


@pytest.fixture
def old(cache: Path) -> Path:
    """The folder of a third, of format 1."""
    folder = cache / OLD
    folder.mkdir()
    described = {"vit": "old", "layout": 1, "stored_dtype": "float32", "patches": 3, "width": 5}
    (folder / "space.json").write_text(json.dumps(described))
    (folder / "00000-ab.features").write_bytes(b"x" * 64)
    (folder / "00000-ab.index.json").write_text("{}")
    return folder


def size(cache: Path) -> int:
    return sum(path.stat().st_size for path in cache.rglob("*") if path.is_file())


def age(folder: Path, days: float, pattern: str = "*") -> None:
    then = time.time() - days * 86400
    for path in folder.glob(pattern):
        os.utime(path, (then, then))


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


def rows(shown: str) -> dict[str, str]:
    """The lines of a table by their first cell."""
    return {line.split("│")[1].strip(): line for line in shown.splitlines() if "│" in line}


def test_list_shows_each_space(cache: Path, capsys: pytest.CaptureFixture) -> None:
    shown = said(capsys, "list", "--cache", str(cache))
    found = rows(shown)
    assert set(found) == {SPEC.id[:12], OTHER.id[:12]}
    for part in ("vit-g [base]", "float32", "3 x 5", " 6 ", time.strftime("%Y-")):
        assert part in found[SPEC.id[:12]]
    assert "bfloat16" in found[OTHER.id[:12]] and " 2 " in found[OTHER.id[:12]]
    assert shown.splitlines()[-1].startswith("2 spaces, 0.00 MB in")


def test_list_of_nothing_is_no_error(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    shown = said(capsys, "list", "--cache", str(tmp_path / "absent"))
    assert shown == f"0 spaces, 0.00 MB in {tmp_path / 'absent'}\n"


def test_list_counts_damaged_shards(cache: Path, capsys: pytest.CaptureFixture) -> None:
    path = shard_files(cache / SPEC.id)[0]
    path.write_bytes(path.read_bytes()[:-1])
    (cache / OTHER.id / "space.json").write_text("{}")
    found = rows(said(capsys, "list", "--cache", str(cache)))
    assert "4, 1 shards damaged" in found[SPEC.id[:12]]
    assert "space.json is damaged" in found[OTHER.id[:12]]


def test_list_says_how_much_an_older_format_takes(
    cache: Path, old: Path, capsys: pytest.CaptureFixture
) -> None:
    (old / "00000-ab.features").write_bytes(bytes(3_000_000))
    last = said(capsys, "list", "--cache", str(cache)).splitlines()[-1]
    assert last.startswith("1 of them (3.00 MB)") and "prune --old-format" in last


def test_prune_removes_an_older_format_alone(
    cache: Path, old: Path, capsys: pytest.CaptureFixture
) -> None:
    before = size(cache)
    shown = said(capsys, "prune", "--old-format", "--cache", str(cache))
    assert {path.name for path in cache.iterdir()} == {SPEC.id, OTHER.id}
    assert shown == f"freed {before - size(cache)} bytes in {cache}: 1 spaces\n"


@pytest.mark.parametrize("length", [12, 64])
def test_prune_of_a_space_removes_its_folder(
    cache: Path, capsys: pytest.CaptureFixture, length: int
) -> None:
    before = size(cache)
    shown = said(capsys, "prune", "--space", SPEC.id[:length], "--cache", str(cache))
    assert [path.name for path in cache.iterdir()] == [OTHER.id]
    assert f"freed {before - size(cache)} bytes" in shown


def test_prune_of_all_leaves_what_is_not_the_caches(
    cache: Path, old: Path, capsys: pytest.CaptureFixture
) -> None:
    (cache / SPEC.id / "notes.txt").write_text("mine")
    (cache / "pictures").mkdir()
    (cache / "pictures" / "a.png").write_text("mine too")
    being_written = cache / OTHER.id / f".a{SHARD}.17.partial"
    being_written.write_text("another process's")
    (cache / OTHER.id / ".fill-0.lock").write_text("17\nhost\n")
    said(capsys, "prune", "--all", "--cache", str(cache))
    left = {path.name for path in cache.rglob("*") if path.is_file()}
    assert left == {"notes.txt", "a.png", being_written.name}


def test_prune_of_unused_spaces_goes_by_their_last_use(
    cache: Path, old: Path, capsys: pytest.CaptureFixture
) -> None:
    for folder in cache.iterdir():
        age(folder, 10)
    store = open_store(cache, SPEC)
    assert store.features(SPEC.key("2"))[0, 0] == 2  # used now
    assert "2 spaces" in said(capsys, "prune", "--unused-days", "9", "--cache", str(cache))
    assert [path.name for path in cache.iterdir()] == [SPEC.id]
    assert len(open_store(cache, SPEC)) == 6


def test_choices_of_prune_are_all_kept_to(
    cache: Path, old: Path, capsys: pytest.CaptureFixture
) -> None:
    age(cache / SPEC.id, 10)
    said(capsys, "prune", "--space", OTHER.id, "--unused-days", "9", "--cache", str(cache))
    said(capsys, "prune", "--old-format", "--unused-days", "9", "--cache", str(cache))
    assert {path.name for path in cache.iterdir()} == {SPEC.id, OTHER.id, OLD}


def test_a_dry_run_says_the_same_and_removes_nothing(
    cache: Path, capsys: pytest.CaptureFixture
) -> None:
    before = size(cache)
    arguments = ["prune", "--space", SPEC.id, "--cache", str(cache)]
    would = said(capsys, *arguments, "--dry-run")
    assert size(cache) == before
    assert would.replace("would free", "freed") == said(capsys, *arguments)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ([], "nothing to prune"),
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


@pytest.mark.parametrize("text", ["{", "[]", '{"vit": "x"}'])
def test_a_damaged_description_is_rewritten_by_the_next_run(cache: Path, text: str) -> None:
    path = cache / SPEC.id / "space.json"
    before = path.read_text()
    path.write_text(text)
    assert len(open_store(cache, SPEC)) == 6
    assert path.read_text() == before
