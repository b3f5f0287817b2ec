"""Files that promise, hold or unpack to far more than they should: each with a name, as bytes."""

from __future__ import annotations

import functools
import io
import struct
import zlib
from collections.abc import Callable, Mapping

import numpy as np
from PIL import Image


def saved(image: Image.Image, kind: str, **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(width: int, height: int, data: bytes, *, depth: int = 8, colour: int = 2) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    parts = (chunk(b"IHDR", header), chunk(b"IDAT", data), chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


@functools.cache
def zeros(count: int) -> bytes:
    """`count` zero bytes, packed."""
    return zlib.compress(bytes(count), 1)


def with_chunk(added: bytes) -> bytes:
    """A good small PNG with a chunk ahead of its pixels."""
    whole = saved(Image.new("L", (2, 2)), "PNG")
    return whole[:33] + added + whole[33:]


def tiff(tags: list[tuple[int, int, int, int]], tail: bytes) -> bytes:
    """A little-endian TIFF of one directory; a value of -1 is where the tail begins."""
    start = 8 + 2 + 12 * len(tags) + 4
    entries = (
        struct.pack("<HHII", tag, kind, count, start if value < 0 else value)
        for tag, kind, count, value in tags
    )
    head = b"II*\0" + struct.pack("<IH", 8, len(tags))
    return head + b"".join(entries) + bytes(4) + tail


def plain_tags(width: int, height: int, size: int) -> list[tuple[int, int, int, int]]:
    return [
        (256, 4, 1, width),
        (257, 4, 1, height),
        (258, 3, 1, 8),
        (259, 3, 1, 1),
        (262, 3, 1, 1),
        (273, 4, 1, -1),
        (277, 3, 1, 1),
        (278, 4, 1, height),
        (279, 4, 1, size),
    ]


def sharing_tags() -> bytes:
    """2,000 tags that all hold the same million bytes."""
    shared = [(40_000 + number, 7, 1_000_000, -1) for number in range(2_000)]
    return tiff(plain_tags(4, 4, 16) + shared, bytes(1_000_000))


def many_frames(kind: str, count: int) -> bytes:
    frames = [Image.new("P", (32, 32), number % 2) for number in range(count)]
    return saved(frames[0], kind, save_all=True, append_images=frames[1:], duration=20)


def animated_webp_header() -> bytes:
    """An animation whose canvas has 16,384 x 16,384 pixels, and no frame."""
    canvas = 2 * (16_383).to_bytes(3, "little")
    vp8x = b"VP8X" + struct.pack("<I", 10) + bytes([2, 0, 0, 0]) + canvas
    anim = b"ANIM" + struct.pack("<I", 6) + bytes(6)
    body = b"WEBP" + vp8x + anim
    return b"RIFF" + struct.pack("<I", len(body)) + body


def bmp_lie() -> bytes:
    """40 bytes of header that promise 2^31 - 1 pixels a side."""
    return struct.pack("<2sIHHI", b"BM", 54, 0, 0, 54) + struct.pack(
        "<IiiHHIIiiII", 40, 2**31 - 1, 2**31 - 1, 1, 24, 0, 0, 0, 0, 0, 0
    )


BOMBS: Mapping[str, Callable[[], bytes]] = {
    "png of 30,000 x 30,000 zeros.png": lambda: png(30_000, 30_000, zeros(30_000_000)),
    "png of 2^31 - 1 pixels a side.png": lambda: png(2**31 - 1, 2**31 - 1, b""),
    "png of one row of 400 million.png": lambda: png(400_000_000, 1, zeros(2**22), colour=0),
    "png of 16 bits, 12,000 x 12,000.png": lambda: png(12_000, 12_000, b"", depth=16, colour=0),
    "png with a text of 30 MB.png": lambda: with_chunk(
        chunk(b"zTXt", b"k\0\0" + zeros(30_000_000))
    ),
    "png with a profile of 30 MB.png": lambda: with_chunk(
        chunk(b"iCCP", b"k\0\0" + zeros(30_000_000))
    ),
    "png with 3,000 texts of 1 MB.png": lambda: with_chunk(
        b"".join(chunk(b"zTXt", b"k%d\0\0" % n + zeros(1_000_000)) for n in range(3_000))
    ),
    "gif of 65,535 a side.gif": lambda: (
        b"GIF89a" + struct.pack("<HHBBB", 65_535, 65_535, 0, 0, 0) + b"\x2c" + bytes(9) + b"\x3b"
    ),
    "bmp of 2^31 - 1 a side.bmp": bmp_lie,
    "webp canvas of 16,384 a side.webp": animated_webp_header,
    "tiff of 100,000 a side.tif": lambda: tiff(plain_tags(100_000, 100_000, 16), bytes(16)),
    "tiff strip of 4 GB.tif": lambda: tiff(plain_tags(64, 64, 2**32 - 1), bytes(16)),
    "ppm of 100,000 a side.ppm": lambda: b"P6 100000 100000 255\n" + bytes(16),
    "qoi of 50,000 a side.qoi": lambda: b"qoif" + struct.pack(">IIBB", 50_000, 50_000, 3, 0),
    "tga of 65,535 a side.tga": lambda: struct.pack(
        "<BBBHHBHHHHBB", 0, 0, 10, 0, 0, 0, 0, 0, 65_535, 65_535, 24, 0
    ),
    "jpeg of 65,500 a side.jpg": lambda: saved(Image.new("L", (8, 8)), "JPEG").replace(
        struct.pack(">BHH", 8, 8, 8), struct.pack(">BHH", 8, 65_500, 65_500)
    ),
}
"""What must be refused."""

HEAVY: Mapping[str, Callable[[], bytes]] = {
    "gif of 3,000 frames.gif": lambda: many_frames("GIF", 3_000),
    "webp of 300 frames.webp": lambda: many_frames("WEBP", 300),
    "png of 1,000 frames.png": lambda: many_frames("PNG", 1_000),
    "tiff of 1,000 pages.tif": lambda: many_frames("TIFF", 1_000),
    "tiff of 2,000 tags that share a megabyte.tif": sharing_tags,
    "png with 16 bits, 2,000 x 2,000.png": lambda: saved(
        Image.fromarray(np.arange(4_000_000, dtype=np.uint16).reshape(2_000, 2_000)), "PNG"
    ),
}
"""What may be decoded, and must cost no more than its first picture."""
