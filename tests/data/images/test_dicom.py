"""DICOM as it is shown: window, rescale, VOI LUT, MONOCHROME1, first frame, colours; and HEIC."""

from __future__ import annotations

import io
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dicom_files import dicom_content
from PIL import Image

from qvft.data.images import dicom
from qvft.data.images.decoding import check, decode
from qvft.data.images.listing import images_among
from qvft.data.sample import EncodedImage, ImageFile
from qvft.errors import ImageError

HEADER = b"\0" * 128 + b"DICM"


@pytest.fixture
def pydicom() -> Any:
    return pytest.importorskip("pydicom", reason="needs qvft[dicom]")


def written(path: Path, pixels: np.ndarray, **elements: Any) -> ImageFile:
    path.write_bytes(dicom_content(pixels, **elements))
    return ImageFile(path)


def grey(source: ImageFile) -> list[list[int]]:
    """The red channel; the three are equal."""
    shown = np.asarray(decode(source))
    assert (shown[..., :1] == shown).all()
    return shown[..., 0].tolist()


def test_a_window_is_applied_after_the_rescale(pydicom: Any, tmp_path: Path) -> None:
    """CT of 16 bits: 1024 + Hounsfield units; centre 40, width 400 is -160 to 239 (PS3.3
    C.11.2.1.2.1), so that 1263 becomes white, and its middle 39.5 would be 127.5."""
    scan = np.array([[0, 864, 1064], [1263, 1264, 4000]], "<i2")
    elements = {"RescaleSlope": 1, "RescaleIntercept": -1024}
    window = {"WindowCenter": [40, -600], "WindowWidth": [400, 1500]}
    source = written(tmp_path / "a.dcm", scan, **elements, **window)
    assert grey(source) == [[0, 0, 128], [255, 255, 255]]


def _linear(x: float, centre: float, width: float) -> float:
    """PS3.3 C.11.2.1.2.1, for an output from 0 to 255."""
    if x <= centre - 0.5 - (width - 1) / 2:
        return 0
    if x > centre - 0.5 + (width - 1) / 2:
        return 255
    return ((x - (centre - 0.5)) / (width - 1) + 0.5) * 255


def _exact(x: float, centre: float, width: float) -> float:
    """PS3.3 C.11.2.1.3.2."""
    if x <= centre - width / 2:
        return 0
    return 255 if x > centre + width / 2 else ((x - centre) / width + 0.5) * 255


def _sigmoid(x: float, centre: float, width: float) -> float:
    """PS3.3 C.11.2.1.3.1."""
    return 255 / (1 + math.exp(min(-4 * (x - centre) / width, 700)))  # e^710 overflows


@pytest.mark.parametrize("width", [1.0, 100.0, 377.0])
@pytest.mark.parametrize(
    ("function", "formula"),
    [("LINEAR", _linear), ("LINEAR_EXACT", _exact), ("SIGMOID", _sigmoid)],
)
def test_each_function_of_a_window_gives_the_standards_values(
    function: str, formula: Any, width: float, pydicom: Any, tmp_path: Path
) -> None:
    scan = np.arange(-400, 600, 7, dtype="<i2").reshape(1, -1)
    window = {"WindowCenter": 50.5, "WindowWidth": width, "VOILUTFunction": function}
    source = written(tmp_path / "a.dcm", scan, **window)
    shown = np.array(grey(source))
    expected = np.array([[formula(float(x), 50.5, width) for x in scan[0]]])
    assert np.abs(shown - expected).max() <= 0.5 + 1e-9  # levels are integers
    header = pydicom.dcmread(source.path)
    signed = pydicom.pixels.apply_windowing(scan, header)  # from -32768 to 32767
    reference = (signed + 32768) / 65535 * 255
    assert np.abs(shown - reference).max() <= 0.5 + 1e-9


@pytest.mark.parametrize("bits", [8, 16])
def test_a_palette_gives_its_colours(bits: int, pydicom: Any, tmp_path: Path) -> None:
    """PS3.3 C.7.6.3.1.5: values up to the first mapped one take the first colour, values beyond
    the table the last."""
    colours = {"Red": [0, 255, 128, 9], "Green": [10, 20, 30, 8], "Blue": [250, 0, 7, 1]}
    elements: dict[str, Any] = {"PhotometricInterpretation": "PALETTE COLOR"}
    for name, entries in colours.items():
        elements[f"{name}PaletteColorLookupTableDescriptor"] = [4, 1, bits]
        table = np.array(entries, "u1") if bits == 8 else np.array(entries, "<u2") * 257
        elements[f"{name}PaletteColorLookupTableData"] = table.tobytes()
    source = written(tmp_path / "a.dcm", np.array([[0, 1, 2, 3, 4, 9]], "u1"), **elements)
    first, second, third, last = zip(*colours.values(), strict=True)
    shown = [tuple(one) for one in np.asarray(decode(source))[0].tolist()]
    assert shown == [first, first, second, third, last, last]


def test_without_a_window_the_range_is_that_of_the_values(pydicom: Any, tmp_path: Path) -> None:
    scan = np.array([[-2000, 100], [200, 300]], "<i2")
    assert grey(written(tmp_path / "a.dcm", scan, PixelPaddingValue=-2000)) == [[0, 0], [128, 255]]


def test_monochrome1_is_inverted(pydicom: Any, tmp_path: Path) -> None:
    scan = np.array([[0, 1000, 65535]], "<u2")
    shown = grey(written(tmp_path / "a.dcm", scan, PhotometricInterpretation="MONOCHROME1"))
    assert shown == [[255, 251, 0]]


def test_a_voi_lut_precedes_a_window(pydicom: Any, tmp_path: Path) -> None:
    item = pydicom.Dataset()
    item.LUTDescriptor = [4, 0, 8]
    item.LUTData = np.array([0, 10, 100, 255], "<u2").tobytes()
    scan = np.array([[0, 1, 2, 3, 9]], "<u2")
    elements = {"WindowCenter": 1, "WindowWidth": 2, "VOILUTSequence": [item]}
    assert grey(written(tmp_path / "a.dcm", scan, **elements)) == [[0, 10, 100, 255, 255]]


def test_of_several_frames_the_first_is_shown_by_its_own_window(
    pydicom: Any, tmp_path: Path
) -> None:
    window, group = pydicom.Dataset(), pydicom.Dataset()
    window.WindowCenter, window.WindowWidth = 128, 256
    group.FrameVOILUTSequence = [window]
    scan = np.stack([np.full((2, 2), 51, "u1"), np.full((2, 2), 255, "u1")])
    source = written(tmp_path / "a.dcm", scan, PerFrameFunctionalGroupsSequence=[group, group])
    assert grey(source) == [[51, 51], [51, 51]]


def test_colours_stay(pydicom: Any, tmp_path: Path) -> None:
    scan = np.array([[[255, 0, 7], [1, 2, 3]]], "u1")
    source = written(tmp_path / "a", scan)
    assert np.asarray(decode(source)).tolist() == scan.tolist()
    assert decode(EncodedImage(source.path.read_bytes())).size == (2, 1)
    deep = written(tmp_path / "b", scan.astype("<u2") << 8)
    assert np.asarray(decode(deep)).tolist() == scan.tolist()


@pytest.mark.parametrize("compressed", ["JPEG", "JPEG2000"])
def test_compressed_pixels_are_read(compressed: str, pydicom: Any, tmp_path: Path) -> None:
    scan = np.full((16, 16), 60, "u1")
    scan[8:] = 200
    source = written(
        tmp_path / "a.dcm", scan, compressed=compressed, WindowCenter=128, WindowWidth=256
    )
    assert np.abs(np.asarray(grey(source), int) - scan).max() <= 3  # JPEG is lossy by a few levels


def test_how_files_are_shown_is_counted(pydicom: Any, tmp_path: Path) -> None:
    scan = np.zeros((2, 4, 4), "u1")
    Image.new("L", (4, 4)).save(tmp_path / "d.png")
    sources = [
        written(tmp_path / "a.dcm", scan[0], WindowCenter=5, WindowWidth=9),
        written(tmp_path / "b.dcm", scan, PhotometricInterpretation="MONOCHROME1"),
        written(tmp_path / "c", np.zeros((2, 2, 3), "u1")),
        ImageFile(tmp_path / "d.png"),
    ]
    (said,) = dicom.dicom_remarks([*sources, sources[0]])
    assert said.startswith("3 DICOM images: 1 by their window")
    for part in ("1 inverted", "1 with several frames", "1 in colour", "no window"):
        assert part in said
    assert dicom.dicom_remarks(sources[3:]) == []


def test_unusable_files_are_image_errors(pydicom: Any, tmp_path: Path) -> None:
    whole = written(tmp_path / "a.dcm", np.zeros((64, 64), "<u2"))
    with pytest.raises(ImageError, match="64 x 64 pixels; expected at most 100 "):
        decode(whole, max_pixels=100)
    content = whole.path.read_bytes()
    (tmp_path / "cut.dcm").write_bytes(content[:-5000])
    with pytest.raises(ImageError, match=r"cut\.dcm: cannot be decoded"):
        check(ImageFile(tmp_path / "cut.dcm"))
    deflated = content.replace(b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.1.2.1.99", 1)
    with pytest.raises(ImageError, match="deflated"):
        decode(EncodedImage(deflated))
    report = written(tmp_path / "r.dcm", np.zeros((2, 2), "u1"), Rows=None)
    with pytest.raises(ImageError, match="without an image"):
        decode(report)


def test_without_pydicom_the_message_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dicom, "find_spec", lambda name: None)
    with pytest.raises(ImageError, match=r"qvft\[dicom\]"):
        decode(EncodedImage(HEADER + b"\0" * 8))


def test_files_without_a_suffix_are_listed_by_their_content(tmp_path: Path) -> None:
    for name, content in (("IM0001", HEADER), ("x.dcm", b""), ("y.heic", b""), ("n.txt", b"hi")):
        (tmp_path / name).write_bytes(content)
    images, others = images_among(sorted(tmp_path.iterdir()))
    assert [one.name for one in images] == ["IM0001", "x.dcm", "y.heic"]
    assert [one.name for one in others] == ["n.txt"]


def test_heic_is_read_with_its_extra(tmp_path: Path) -> None:
    pillow_heif = pytest.importorskip("pillow_heif", reason="needs qvft[heic]")
    stream = io.BytesIO()
    pillow_heif.from_pillow(Image.new("RGB", (64, 48), (250, 0, 0))).save(stream)
    (tmp_path / "a.heic").write_bytes(stream.getvalue())
    shown = decode(ImageFile(tmp_path / "a.heic"))
    assert shown.size == (64, 48)
    red, green, blue = shown.getpixel((20, 20))
    assert red > 240 and green < 15 and blue < 15  # HEVC is lossy, by a few levels
    with pytest.raises(ImageError, match="64 x 48 pixels"):
        decode(ImageFile(tmp_path / "a.heic"), max_pixels=1000)
