"""DICOM images as Pillow images: window, VOI LUT, MONOCHROME1, first frame (extra `dicom`)."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import PurePath
from typing import Any, BinaryIO

import numpy as np
from PIL import Image

from qvft.data.images.grey import grey_levels
from qvft.data.images.suppress_warnings import quiet_pillow
from qvft.data.sample import ImageFile, ImageSource
from qvft.errors import ImageError

SUFFIXES = (".dcm", ".dicom")
_MAGIC_BYTES = slice(128, 132)
_META_BYTES = 4096  # preamble and file meta information
_DEFLATED = b"1.2.840.10008.1.2.1.99"
_FUNCTIONAL_GROUPS = ("FrameVOILUTSequence", "PixelValueTransformationSequence")


def is_dicom(head: bytes) -> bool:
    """Whether a file that begins with `head` (132 bytes or more) is DICOM."""
    return head[_MAGIC_BYTES] == b"DICM"


def read_header(file: BinaryIO, *, name: str) -> Any:
    """The pydicom dataset of a DICOM file before its pixels, with the first frame's window.

    Raises:
        ImageError: without pydicom, of deflated files (which pydicom inflates without a limit), and
            of files without an image, such as reports.
    """
    if find_spec("pydicom") is None:
        raise ImageError(
            "a DICOM file, and the package pydicom is not installed",
            where=name,
            do="run pip install 'qvft[dicom]', or convert it to PNG",
        )
    import pydicom

    if _DEFLATED in file.read(_META_BYTES):
        raise ImageError("a deflated DICOM file", where=name, do="store it uncompressed or as JPEG")
    file.seek(0)
    header = pydicom.dcmread(file, stop_before_pixels=True)
    if not header.get("Rows") or not header.get("Columns"):
        kind = getattr(header.get("SOPClassUID"), "name", "unknown class")
        raise ImageError(f"a DICOM file without an image ({kind})", where=name, do="remove it")
    for groups in ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"):
        for group in list(header.get(groups) or ())[:1]:
            for key in _FUNCTIONAL_GROUPS:
                for item in group.get(key) or ():
                    header.update(item)
    return header


def read_pixels(file: BinaryIO, header: Any) -> Image.Image:
    """The first frame as grey or RGB of 8 bits.

    Grey values go through the modality LUT or rescale, then the first VOI LUT or else the first
    window; without either they are scaled from their smallest to their largest value, padding left
    out. MONOCHROME1 is inverted. Colours of more than 8 bits keep their upper 8.

    Source: DICOM PS3.3 C.11.1, C.11.2, C.7.6.3.
    """
    from pydicom import pixels

    file.seek(0)
    frame = pixels.pixel_array(file, index=0)
    kind = header.get("PhotometricInterpretation", "")
    if kind == "PALETTE COLOR":
        colours = pixels.apply_color_lut(frame, header)[..., :3]
        return Image.fromarray(_upper_bits(colours, 8 * colours.dtype.itemsize))
    if frame.ndim == 3:
        return Image.fromarray(_upper_bits(frame, int(header.get("BitsStored", 8))))
    values = pixels.apply_modality_lut(frame, header)
    if _has_lut(header):
        bits = int(header.VOILUTSequence[0].LUTDescriptor[2])
        values, low, high = pixels.apply_voi(values, header), 0.0, 2.0**bits - 1
    elif (window := _window(header)) is not None:
        values, low, high = _windowed(values, *window, header.get("VOILUTFunction", "LINEAR"))
    else:
        padding = header.get("PixelPaddingValue")
        shown = values[np.isfinite(values) & (frame != padding)] if padding is not None else values
        low, high = (float(shown.min()), float(shown.max())) if shown.size else (0.0, 0.0)
    inverted = kind == "MONOCHROME1"
    return Image.fromarray(grey_levels(values, low, high, inverted=inverted, hidden=None))


def dicom_remarks(sources: Iterable[ImageSource]) -> list[str]:
    """One sentence that counts the DICOM files and how they are shown; none without such files."""
    found: Counter[str] = Counter()
    for name, source in {one.name: one for one in sources}.items():
        if isinstance(source, ImageFile) and PurePath(name).suffix.lower() in ("", *SUFFIXES):
            with quiet_pillow(), source.path.open("rb") as file:
                if is_dicom(file.read(132)):
                    file.seek(0)
                    found.update(["all", *_shown_by(read_header(file, name=name))])
    if not found:
        return []
    how = ", ".join(f"{count:,} {one}" for one, count in found.items() if one != "all")
    return [f"{found['all']:,} DICOM images: {how}"]


def _shown_by(header: Any) -> Iterable[str]:
    kind = str(header.get("PhotometricInterpretation", ""))
    if not kind.startswith("MONOCHROME"):
        yield f"in colour ({kind})"
    elif _has_lut(header):
        yield "by their VOI LUT"
    else:
        yield "by their window" if _window(header) else "from smallest to largest value (no window)"
    if kind == "MONOCHROME1":
        yield "inverted (MONOCHROME1)"
    if int(header.get("NumberOfFrames") or 1) > 1:
        yield "with several frames, of which the first is read"


def _has_lut(header: Any) -> bool:
    return bool(header.get("VOILUTSequence")) and "LUTData" in header.VOILUTSequence[0]


def _window(header: Any) -> tuple[float, float] | None:
    """Centre and width of the first window; None if there is no usable one."""
    ends = [np.ravel(header.get(key)).tolist()[:1] for key in ("WindowCenter", "WindowWidth")]
    if any(one in ([], [None]) for one in ends):
        return None
    centre, width = (float(one) for (one,) in ends)
    return (centre, width) if width > 0 and math.isfinite(centre + width) else None


def _windowed(
    values: np.ndarray, centre: float, width: float, function: str
) -> tuple[np.ndarray, float, float]:
    """Values, and those that become black and white. Source: DICOM PS3.3 C.11.2.1.2 and .3."""
    if function == "SIGMOID":
        return np.tanh(2 * (values - centre) / width), -1.0, 1.0  # the logistic without overflow
    if function == "LINEAR_EXACT":
        return values, centre - width / 2, centre + width / 2
    low, high = centre - 0.5 - (width - 1) / 2, centre - 0.5 + (width - 1) / 2
    return values, low, max(high, low + 1e-6)  # a width of 1 is a threshold


def _upper_bits(colours: np.ndarray, bits: int) -> np.ndarray:
    return (colours >> max(0, bits - 8)).astype(np.uint8)
