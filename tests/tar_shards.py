"""Tar shards for tests: members as given, in order."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

from PIL import Image


def png(colour: tuple[int, int, int]) -> bytes:
    """A small image file."""
    stream = io.BytesIO()
    Image.new("RGB", (40, 32), colour).save(stream, format="PNG")
    return stream.getvalue()


def write_tar(path: Path, members: dict[str, bytes]) -> Path:
    """A tar of these files."""
    with tarfile.open(path, "w") as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def write_shards(folder: Path, sizes: list[int]) -> list[Path]:
    """Shards `train-0.tar`, ... of so many records: a colour each, a caption and two questions."""
    folder.mkdir(parents=True, exist_ok=True)
    shards = []
    for number, size in enumerate(sizes):
        members: dict[str, bytes] = {}
        for place in range(size):
            red = bool(place % 2)
            row = {
                "captions": [f"a {'red' if red else 'blue'} picture"],
                "questions": [
                    {"question": "Is it red?", "answers": ["yes" if red else "no"]},
                    {"question": "Which colour is it?", "answers": ["red" if red else "blue"]},
                ],
            }
            shade = (200 - place, 10 * number, 30) if red else (30, 10 * number, 200 - place)
            members[f"{place:03}.png"] = png(shade)
            members[f"{place:03}.json"] = json.dumps(row).encode()
        shards.append(write_tar(folder / f"train-{number}.tar", members))
    return shards
