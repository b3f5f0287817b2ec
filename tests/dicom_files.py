"""DICOM files for tests, written with pydicom."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from PIL import Image


def dicom_content(pixels: np.ndarray, *, compressed: str = "", **elements: Any) -> bytes:
    """A DICOM file of the given pixels: (height, width), (frames, ...) or (..., 3).

    `compressed`: JPEG or JPEG2000, of one frame, written with Pillow.
    """
    import pydicom
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage, generate_uid

    file = Dataset()
    file.file_meta = FileMetaDataset()
    file.file_meta.MediaStorageSOPClassUID = SecondaryCaptureImageStorage
    file.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    file.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    file.SOPClassUID = SecondaryCaptureImageStorage
    file.SOPInstanceUID = file.file_meta.MediaStorageSOPInstanceUID
    in_colour = pixels.shape[-1] == 3 and pixels.ndim > 2
    height, width = pixels.shape[-3:-1] if in_colour else pixels.shape[-2:]
    file.Rows, file.Columns = height, width
    file.SamplesPerPixel = 3 if in_colour else 1
    file.PhotometricInterpretation = "RGB" if in_colour else "MONOCHROME2"
    if in_colour:
        file.PlanarConfiguration = 0
    bits = 8 * pixels.dtype.itemsize
    file.BitsAllocated, file.BitsStored, file.HighBit = bits, bits, bits - 1
    file.PixelRepresentation = int(pixels.dtype.kind == "i")
    if pixels.ndim > (3 if in_colour else 2):
        file.NumberOfFrames = len(pixels)
    for key, value in elements.items():
        setattr(file, key, value)
    file.PixelData = pixels.tobytes()
    if compressed:
        stream = io.BytesIO()
        Image.fromarray(pixels).save(
            stream, compressed, **({"no_jp2": True} if "2" in compressed else {})
        )
        file.PixelData = pydicom.encaps.encapsulate([stream.getvalue()])
        file["PixelData"].VR = "OB"
        uid = pydicom.uid.JPEGBaseline8Bit if compressed == "JPEG" else pydicom.uid.JPEG2000
        file.file_meta.TransferSyntaxUID = uid
    stream = io.BytesIO()
    file.save_as(stream, enforce_file_format=True)
    return stream.getvalue()
