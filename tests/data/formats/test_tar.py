"""Tar shards as lists and as passes."""

from __future__ import annotations

import json
import tarfile
from collections import Counter
from pathlib import Path

import pytest
from tar_shards import png, write_shards, write_tar

from qvft.data.formats import read_samples
from qvft.data.formats.tar import stream
from qvft.data.images.decoding import decode
from qvft.data.sample import Sample
from qvft.data.stream import Part
from qvft.errors import DataError

RED = png((200, 0, 0))


def problems(path: Path) -> list[str]:
    found = stream(path).samples(Part(0, 0, 0, 1))
    return [str(one) for one in found if isinstance(one, DataError)]


def names(path: Path, part: Part) -> list[str]:
    return [one.id for one in stream(path).samples(part) if isinstance(one, Sample)]


def test_a_record_is_a_line_of_the_custom_jsonl_without_its_image(tmp_path: Path) -> None:
    row = {
        "id": 7,
        "image": "1.png",
        "captions": ["a red picture"],
        "questions": [{"question": "Is it red?", "answers": ["yes"], "meta": {"kind": "colour"}}],
        "meta": {"organ": "none"},
    }
    write_tar(tmp_path / "a.tar", {"x/1.png": RED, "x/1.json": json.dumps(row).encode()})
    (tmp_path / "1.png").write_bytes(RED)
    (tmp_path / "a.jsonl").write_text(json.dumps(row))
    (packed,) = read_samples("tar", str(tmp_path / "a.tar"))
    (plain,) = read_samples("jsonl", str(tmp_path / "a.jsonl"))
    assert packed.id == "a/x/1"
    assert packed.captions == plain.captions
    assert packed.meta == {"organ": "none", "id": "7"}
    (asked,), (same,) = packed.questions, plain.questions
    assert (asked.id, asked.text, asked.answers, asked.meta) == (
        "a/x/1#1",
        same.text,
        same.answers,
        same.meta,
    )
    assert decode(packed.image).tobytes() == decode(plain.image).tobytes()


def test_facts_beside_a_caption_in_a_text_are_read_past(tmp_path: Path) -> None:
    """As img2dataset packs them."""
    facts = json.dumps({"url": "http://a", "caption": "of the page", "status": "success"}).encode()
    members = {"1.jpg": RED, "1.json": facts, "1.txt": b"a red picture\n"}
    (sample,) = read_samples("tar", str(write_tar(tmp_path / "a.tar", members)))
    assert sample.captions == ("a red picture",)


@pytest.mark.parametrize("world", [1, 2, 3, 5])
def test_the_parts_of_a_pass_hold_each_record_once(tmp_path: Path, world: int) -> None:
    write_shards(tmp_path, [5, 1, 4, 3])  # two processes take shards, three and five records
    everything = [f"train-{s}/{n:03}" for s, size in enumerate([5, 1, 4, 3]) for n in range(size)]
    for number in range(3):
        parts = [names(tmp_path, Part(number, 11, rank, world)) for rank in range(world)]
        assert sorted(sum(parts, [])) == everything


def test_each_pass_has_an_order_of_shards_of_its_own(tmp_path: Path) -> None:
    write_shards(tmp_path, [1] * 8)
    orders = [names(tmp_path, Part(number, 3, 0, 1)) for number in (0, 1, 0)]
    assert orders[0] != orders[1]
    assert orders[0] == orders[2]
    assert Counter(orders[0]) == Counter(orders[1])


def test_a_shard_that_is_cut_off_gives_its_records_and_one_problem(tmp_path: Path) -> None:
    (shard,) = write_shards(tmp_path, [4])
    content = shard.read_bytes()
    third = content.index(b"002.png")
    shard.write_bytes(content[: third + 700])
    assert names(tmp_path, Part(0, 0, 0, 1)) == ["train-0/000", "train-0/001"]
    (cut,) = problems(tmp_path)
    assert "train-0.tar, behind '002.png': cannot be read as a tar" in cut


def test_a_broken_header_is_not_taken_for_the_end(tmp_path: Path) -> None:
    """tarfile stops there without a word."""
    (shard,) = write_shards(tmp_path, [4])
    content = bytearray(shard.read_bytes())
    third = content.index(b"002.png")
    content[third : third + 4] = b"\xff\xff\xff\xff"
    shard.write_bytes(content)
    (broken,) = problems(tmp_path)
    assert "train-0.tar, behind '001.json': cannot be read as a tar (a broken header" in broken


def test_a_shard_without_its_end_is_a_problem(tmp_path: Path) -> None:
    (shard,) = write_shards(tmp_path, [1])
    with tarfile.open(shard) as archive:
        last = archive.getmembers()[-1]
    end = last.offset_data + 512 * -(-last.size // 512)
    shard.write_bytes(shard.read_bytes()[:end])
    assert len(problems(tmp_path)) == 1


@pytest.mark.parametrize("name", ["a.png", "deep/er/a.png", "./a.png", "ä b.png", "..a/b.png"])
def test_a_plain_file_inside_keeps_its_name(tmp_path: Path, name: str) -> None:
    (record,) = read_samples(
        "tar", str(write_tar(tmp_path / "a.tar", {name: RED, f"{_stem(name)}.txt": b"red"}))
    )
    assert record.image.name == f"{tmp_path}/a.tar, {name}"


def _stem(name: str) -> str:
    folder, slash, base = name.rpartition("/")
    return folder + slash + base.partition(".")[0]


@pytest.mark.parametrize(
    "name",
    ["/etc/passwd", "../a", "a/../../b", "..", ".", "c:/a", "a\\..\\b", "a\nb", "\x1b[1m"],
)
def test_a_name_that_leads_out_or_is_no_name_is_a_problem(tmp_path: Path, name: str) -> None:
    (says,) = problems(write_tar(tmp_path / "a.tar", {name: RED}))
    assert f"a member is called {name!r}" in says


@pytest.mark.parametrize(
    "kind",
    [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE],
)
def test_links_and_devices_are_problems_and_folders_are_passed_over(
    tmp_path: Path, kind: bytes
) -> None:
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w") as archive:
        for name, type in (("deep", tarfile.DIRTYPE), ("deep/1.png", kind)):
            member = tarfile.TarInfo(name)
            member.type, member.linkname = type, "/etc/passwd"
            archive.addfile(member)
    (says,) = problems(path)
    assert "is a link, a device" in says


def test_a_member_beyond_the_limit_is_a_problem(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("qvft.data.formats.tar.MAX_MEMBER_BYTES", len(RED) - 1)
    (says,) = problems(write_tar(tmp_path / "a.tar", {"1.png": RED}))
    assert "above 400 MB" in says


def test_an_image_is_read_where_it_lies(tmp_path: Path) -> None:
    write_shards(tmp_path, [3])
    first, second, _ = read_samples("tar", str(tmp_path))
    assert decode(first.image).getpixel((0, 0)) == (30, 0, 200)
    assert decode(second.image).getpixel((0, 0)) == (199, 0, 30)


@pytest.mark.parametrize(
    ("path", "count"),
    [("", 3), ("train-{0..2}.tar", 3), ("train-{1..2}.tar", 2), ("train-[01].tar", 2)],
)
def test_a_path_means_a_folder_a_range_or_a_pattern(tmp_path: Path, path: str, count: int) -> None:
    write_shards(tmp_path, [1, 1, 1])
    assert len(stream(tmp_path / path).shards) == count


def test_a_split_of_a_folder_is_the_beginning_of_its_shards_names(tmp_path: Path) -> None:
    write_shards(tmp_path, [2, 1])
    write_tar(tmp_path / "val.tar", {"1.png": RED, "1.txt": b"a red picture"})
    assert len(read_samples("tar", str(tmp_path), split="train")) == 3
    (of_val,) = read_samples("tar", str(tmp_path), split="val")
    assert of_val.id == "val/1"
    with pytest.raises(DataError, match="one of the splits: train, val"):
        read_samples("tar", str(tmp_path), split="test")


def test_a_range_keeps_its_zeros_and_misses_no_shard(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"a-008\.tar: no such file"):
        stream(tmp_path / "a-{008..011}.tar")
    with pytest.raises(DataError, match="the range"):
        stream(tmp_path / "a-{9..1}.tar")
    with pytest.raises(DataError, match="the range"):
        stream(tmp_path / "a-{0..99999999}.tar")


def test_the_hash_follows_names_and_sizes(tmp_path: Path) -> None:
    first, _ = write_shards(tmp_path, [1, 1])
    before = stream(tmp_path).sha256
    assert stream(tmp_path).sha256 == before
    first.write_bytes(first.read_bytes() + bytes(512))
    assert stream(tmp_path).sha256 != before
