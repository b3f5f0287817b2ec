"""The disk: names come after contents, half-written things stay unseen, failures are told apart."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
from safetensors import SafetensorError

from qvft.disk import disk_failure, name_whole, remove_whole, replaced_folder, saving
from qvft.errors import FailedError, UserError
from qvft.files import new_folder, write_text


@pytest.fixture
def order(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What reaches the disk and what is renamed, in order: `sync NAME` and `name NAME`."""
    seen: list[str] = []
    sync, replace = os.fsync, os.replace

    def synced(descriptor: int) -> None:
        seen.append(f"sync {Path(os.readlink(f'/proc/self/fd/{descriptor}')).name}")
        sync(descriptor)

    def named(source: Path, target: Path) -> None:
        seen.append(f"name {Path(target).name}")
        replace(source, target)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "replace", named)
    return seen


def test_a_text_is_on_the_disk_before_it_has_its_name(tmp_path: Path, order: list[str]) -> None:
    write_text(tmp_path / "a.txt", "new")
    assert order == [f"sync .a.txt.{os.getpid()}.partial", "name a.txt", f"sync {tmp_path.name}"]


def test_all_of_a_folder_is_on_the_disk_before_it_has_its_name(
    tmp_path: Path, order: list[str]
) -> None:
    partial = tmp_path / "partial"
    (partial / "inner").mkdir(parents=True)
    (partial / "inner" / "a").write_text("a")
    (partial / "b").write_text("b")
    name_whole(partial, tmp_path / "whole")
    named = order.index("name whole")
    assert set(order[:named]) == {"sync a", "sync inner", "sync b", "sync partial"}
    assert order[named + 1 :] == [f"sync {tmp_path.name}"]


def test_an_error_keeps_the_folder_that_was_to_be_replaced(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "old").write_text("old")
    with pytest.raises(KeyboardInterrupt), replaced_folder(tmp_path / "out") as partial:
        (partial / "new").write_text("half")
        raise KeyboardInterrupt
    assert [path.name for path in tmp_path.rglob("*")] == ["out", "old"]


def test_a_folder_that_a_kill_left_aside_is_taken_back(tmp_path: Path) -> None:
    """Between two names there is a moment without any; what is aside is whole."""
    (tmp_path / ".out.replaced").mkdir()
    (tmp_path / ".out.replaced" / "old").write_text("old")
    with pytest.raises(ValueError), replaced_folder(tmp_path / "out"):
        raise ValueError
    assert (tmp_path / "out" / "old").read_text() == "old"


def test_what_a_killed_process_left_is_written_over(tmp_path: Path) -> None:
    (tmp_path / ".out.partial").mkdir()
    (tmp_path / ".out.partial" / "torn").write_text("half")
    with new_folder(tmp_path / "out") as partial:
        (partial / "a").write_text("a")
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["a", "out"]


def test_a_folder_that_is_removed_is_never_half_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import shutil

    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "a").write_text("a")
    found: list[bool] = []
    monkeypatch.setattr(
        shutil, "rmtree", lambda *given, **options: found.append((tmp_path / "old").exists())
    )
    remove_whole(tmp_path / "old")
    assert found[-1] is False


@pytest.mark.parametrize("name", ["ENOSPC", "EDQUOT", "EFBIG", "EROFS", "EIO", "ESTALE"])
def test_what_the_disk_says_is_told_from_defects(name: str) -> None:
    number = getattr(errno, name)
    said = os.strerror(number)
    assert disk_failure(OSError(number, said)) == said
    words = SafetensorError(f"Error while serializing: I/O error: {said} (os error {number})")
    assert disk_failure(words) == said


@pytest.mark.parametrize(
    "error",
    [
        FileNotFoundError(errno.ENOENT, "gone"),
        SafetensorError("Error while deserializing header"),
        RuntimeError("PytorchStreamReader failed reading zip archive"),
        ValueError(),
    ],
    ids=repr,
)
def test_other_errors_are_not_the_disks(error: Exception) -> None:
    assert disk_failure(error) is None


def test_a_failed_save_says_what_is_safe_and_defects_pass(tmp_path: Path) -> None:
    says = pytest.raises(FailedError, match=r"x: cannot be written \(No such .*\); all is well\.")
    with says, saving(tmp_path / "x", kept="all is well"):
        (tmp_path / "gone" / "x").write_text("")
    with pytest.raises(KeyError), saving(tmp_path, kept=""):
        raise KeyError
    with pytest.raises(UserError), saving(tmp_path, kept=""):
        raise UserError("is for the user already")
