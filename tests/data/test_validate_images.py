"""Checking a split's images up front."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from qvft.data.sample import ImageFile, Sample
from qvft.data.validate_images import Skipped, validate_images
from qvft.errors import ImageError


@pytest.fixture
def samples(tmp_path: Path) -> list[Sample]:
    Image.new("RGB", (4, 4)).save(tmp_path / "good.png")
    (tmp_path / "bad.png").write_bytes(b"not a picture")
    names = ["good", "bad", "gone", "bad", "good"]
    return [Sample(f"s{n}", ImageFile(tmp_path / f"{name}.png")) for n, name in enumerate(names)]


def test_error_names_the_first_bad_image_and_counts_all(samples: list[Sample]) -> None:
    with pytest.raises(ImageError, match=r"bad\.png: not an image.*2 of 3 images are unusable"):
        validate_images(samples, on_error="error")


def test_skip_keeps_the_rest_in_order_and_lists_what_is_left_out(samples: list[Sample]) -> None:
    kept, skipped = validate_images(samples, on_error="skip")
    assert [sample.id for sample in kept] == ["s0", "s4"]
    assert [(one.id, Path(one.path).name) for one in skipped] == [
        ("s1", "bad.png"),
        ("s2", "gone.png"),
        ("s3", "bad.png"),
    ]
    assert skipped[1] == Skipped(
        "s2",
        "no such file",
        samples[2].image.name,
        "an image that decodes without errors",
        "replace the file, or set data.on_bad_image: skip",
    )


def test_skip_may_leave_nothing(samples: list[Sample]) -> None:
    kept, skipped = validate_images(samples[1:3], on_error="skip")
    assert (kept, [one.id for one in skipped]) == ([], ["s1", "s2"])


def test_an_image_of_several_samples_is_decoded_once() -> None:
    opened = []

    class Counting:
        name = "one"

        def open(self) -> Image.Image:
            opened.append(self.name)
            return Image.new("RGB", (2, 2))

    kept, _ = validate_images([Sample(str(n), Counting()) for n in range(5)], on_error="error")
    assert (len(kept), opened) == (5, ["one"])


def test_the_pixel_limit_holds(tmp_path: Path) -> None:
    Image.new("RGB", (20, 20)).save(tmp_path / "large.png")
    with pytest.raises(ImageError, match="20 x 20 pixels"):
        validate_images(
            [Sample("a", ImageFile(tmp_path / "large.png"))], on_error="error", max_pixels=399
        )


def test_an_empty_split_is_left_as_it_is() -> None:
    assert validate_images([], on_error="skip") == ([], [])


def test_all_images_of_vqa_rad_decode(shared_data: Path) -> None:
    files = sorted((shared_data / "vqa_rad" / "VQA_RAD Image Folder").glob("*.jpg"))
    kept, skipped = validate_images(
        [Sample(file.stem, ImageFile(file)) for file in files], on_error="skip"
    )
    assert (len(kept), skipped) == (315, [])


def test_images_that_are_all_absent_name_where_the_first_was_looked_for(tmp_path: Path) -> None:
    absent = [Sample(str(n), ImageFile(tmp_path / f"{n}.png")) for n in range(3)]
    with pytest.raises(ImageError, match=f"^{tmp_path}/0.png: no such file .3 of 3 .*`images`"):
        validate_images(absent, on_error="error")
