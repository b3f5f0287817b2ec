"""From signatures to sample ids, within a split and across two."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from qvft.data.quality.duplicates import NearPair, duplicates
from qvft.data.quality.near_duplicates import MOST_DIFFERENCE
from qvft.data.sample import ImageFile, Sample
from qvft.data.validate_images import validate_and_sign


def write(folder: Path, name: str, seed: int, *, size: int = 128) -> None:
    noise = np.random.default_rng(seed).integers(0, 256, (12, 12), dtype=np.uint8)
    Image.fromarray(noise).resize((size, size), Image.Resampling.BICUBIC).save(folder / name)


def test_copies_are_named_by_sample(tmp_path: Path) -> None:
    write(tmp_path, "one.png", 1)
    write(tmp_path, "again.png", 1)
    write(tmp_path, "small.png", 1, size=96)
    write(tmp_path, "two.png", 2)
    write(tmp_path, "three.png", 3)

    def samples(**files: str) -> list[Sample]:
        return [Sample(name, ImageFile(tmp_path / f"{file}.png")) for name, file in files.items()]

    train = samples(a="one", b="again", c="two", d="small", e="two")
    evaluation = samples(c="three", x="small", y="two", z="one")
    _, skipped, signatures = validate_and_sign([*train, *evaluation])
    found = duplicates(train, evaluation, signatures)
    assert skipped == []
    assert found.exact == {"train": (("a", "b"), ("c", "e")), "eval": ()}
    (pair,) = found.near["train"]
    assert (pair.first, pair.second) == ("a", "d")
    assert 0 <= pair.difference <= MOST_DIFFERENCE
    assert [{one.first, one.second} for one in found.near["eval"]] == [{"x", "z"}]
    assert found.overlap is not None
    partners = [(one.first, one.second, one.difference) for one in found.overlap.exact]
    assert partners == [("x", "d", 0), ("y", "c", 0), ("z", "a", 0)]
    assert len({found.group(sample) for sample in (*train, *evaluation)}) == 3
    assert found.overlap.near == ()
    assert found.overlap.id_only == ("c",)


def test_a_smaller_copy_in_the_training_data_is_found(tmp_path: Path) -> None:
    write(tmp_path, "one.png", 1)
    write(tmp_path, "small.jpg", 1, size=96)
    write(tmp_path, "two.png", 2)
    train = [Sample(n, ImageFile(tmp_path / f"{n}.png")) for n in ("two", "one")]
    evaluation = [Sample("test", ImageFile(tmp_path / "small.jpg"))]
    _, _, signatures = validate_and_sign([*train, *evaluation])
    overlap = duplicates(train, evaluation, signatures).overlap
    assert overlap is not None
    (pair,) = overlap.near
    assert pair == NearPair("test", "one", pair.difference)
    assert (overlap.exact, overlap.id_only) == ((), ())


def test_copies_of_jpegs_that_are_decoded_smaller_are_found(tmp_path: Path) -> None:
    for seed in range(4):
        write(tmp_path, f"{seed}.jpg", seed, size=800)
        write(tmp_path, f"half{seed}.jpg", seed, size=400)
    files = [
        ImageFile(tmp_path / f"{name}{seed}.jpg") for name in ("", "half") for seed in range(4)
    ]
    train = [Sample(file.path.stem, file) for file in files]
    found = duplicates(train, None, validate_and_sign(train)[2])
    assert {(one.first, one.second) for one in found.near["train"]} == {
        (str(seed), f"half{seed}") for seed in range(4)
    }


def test_images_without_a_signature_are_told_by_name(tmp_path: Path) -> None:
    train = [Sample("a", ImageFile(tmp_path / "one")), Sample("b", ImageFile(tmp_path / "two"))]
    found = duplicates(train, [Sample("x", ImageFile(tmp_path / "two"))], {})
    assert found.overlap is not None
    assert found.overlap.exact == (NearPair("x", "b", 0),)


def test_one_split_has_no_overlap(tmp_path: Path) -> None:
    assert duplicates([Sample("a", ImageFile(tmp_path / "one"))], None, {}).overlap is None
