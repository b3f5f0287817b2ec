"""Members of archives: plain files that stay inside."""

from __future__ import annotations

import tarfile

import pytest

from qvft.data.archive_members import inner_name, tar_member
from qvft.errors import DataError


def member(name: str, kind: bytes = tarfile.REGTYPE, size: int = 10) -> tarfile.TarInfo:
    found = tarfile.TarInfo(name)
    found.type, found.size = kind, size
    return found


@pytest.mark.parametrize("name", ["a.png", "deep/er/a.png", "./a.png", "ä b.png", "..a/b..png"])
def test_a_plain_file_inside_keeps_its_name(name: str) -> None:
    assert tar_member(member(name), where="a.tar") == name


def test_a_folder_is_no_file() -> None:
    assert tar_member(member("deep/", tarfile.DIRTYPE), where="a.tar") is None


@pytest.mark.parametrize(
    "name",
    [
        "/etc/passwd",
        "../a",
        "a/../../b",
        "..",
        "",
        ".",
        "c:/a",
        "a\\..\\b",
        "a\0b",
        "a\nb",
        "\x1b[1m",
    ],
)
def test_a_name_that_leads_out_or_is_no_name_is_refused(name: str) -> None:
    with pytest.raises(DataError, match="a.tar: a member is called"):
        inner_name(name, where="a.tar")


@pytest.mark.parametrize(
    "kind",
    [
        tarfile.SYMTYPE,
        tarfile.LNKTYPE,
        tarfile.CHRTYPE,
        tarfile.BLKTYPE,
        tarfile.FIFOTYPE,
        tarfile.GNUTYPE_SPARSE,
    ],
)
def test_links_devices_and_sparse_files_are_refused(kind: bytes) -> None:
    with pytest.raises(DataError, match="is a link, a device or sparse"):
        tar_member(member("a.png", kind), where="a.tar")


@pytest.mark.parametrize("size", [101, -1])
def test_a_size_beyond_the_limit_is_refused(size: int) -> None:
    assert tar_member(member("a.png", size=100), where="a.tar", max_bytes=100) == "a.png"
    with pytest.raises(DataError, match="expected at most 100"):
        tar_member(member("a.png", size=size), where="a.tar", max_bytes=100)
