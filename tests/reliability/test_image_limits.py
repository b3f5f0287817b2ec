"""Images that lie or swell are refused by what they say, and memory stays bounded."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest
from bombs import BOMBS, HEAVY
from PIL import Image

from qvft.data.images.decoding import check, decode
from qvft.data.sample import ImageFile
from qvft.errors import ImageError

MEASURE = """
import sys
from pathlib import Path
from qvft.data.images.decoding import check, decode
from qvft.data.sample import ImageFile
from qvft.errors import ImageError
def peak():  # of this program alone: getrusage counts what its parent had, too
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1])
before = peak()
for path in sorted(Path(sys.argv[1]).iterdir()):
    for read in (check, decode):
        try:
            read(ImageFile(path))
            print("taken", path.name)
        except ImageError:
            print("refused", path.name)
print("MB", (peak() - before) / 1000)
"""

ALLOWED_MB = 150
"""Peak above an idle process. The largest is the GIF of 65,535 pixels a side or the 64 MB that
Pillow lets all texts of a PNG have; one image of the limit itself, 64 million pixels, takes 256."""


def outcomes(folder: Path) -> tuple[set[tuple[str, str]], float]:
    """What a process of its own makes of every file, and its peak memory above the start, in MB."""
    told = subprocess.run(
        [sys.executable, "-c", MEASURE, str(folder)],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (4 * 2**30,) * 2),
    )
    *lines, last = told.stdout.splitlines()
    assert told.stderr == ""
    return {tuple(line.split(" ", 1)) for line in lines}, float(last.split()[1])


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads Linux's /proc")
@pytest.mark.parametrize(("files", "end"), [(BOMBS, "refused"), (HEAVY, "taken")])
def test_peak_memory_of_a_set_of_bombs_is_bounded(files, end: str, tmp_path: Path) -> None:
    for name, make in files.items():
        (tmp_path / name).write_bytes(make())
    found, peak_mb = outcomes(tmp_path)
    assert found == {(end, name) for name in files}
    assert peak_mb < ALLOWED_MB


def test_a_file_beyond_the_limit_is_not_opened(tmp_path: Path) -> None:
    path = tmp_path / "large.png"
    Image.new("L", (10, 10)).save(path)
    os.truncate(path, 17 * 2**20)  # a hole: no room is taken
    decode(ImageFile(path))
    for read in (check, decode):
        with pytest.raises(ImageError, match=r"a file of 17,825,792 bytes.*data\.max_image_pixels"):
            read(ImageFile(path), max_pixels=100)


def test_a_pipe_and_a_device_are_not_opened(tmp_path: Path) -> None:
    """Opening a pipe would wait for its writer."""
    os.mkfifo(tmp_path / "pipe.png")
    for path in (tmp_path / "pipe.png", Path("/dev/zero")):
        for read in (check, decode):
            with pytest.raises(ImageError, match="a device or a pipe"):
                read(ImageFile(path))


@pytest.mark.parametrize("kind", ["EPS", "ICNS", "PDF", "SPIDER"])
def test_other_readers_never_see_a_file(kind: str, tmp_path: Path, monkeypatch) -> None:
    path = tmp_path / "a.png"
    image = Image.new("F" if kind == "SPIDER" else "RGB", (128, 128))
    # Pillow takes the ending that a SPIDER image is saved under for SPIDER's ever after.
    own = path.with_suffix(f".{kind.lower()}")
    image.save(own, kind)
    own.rename(path)

    def opened(*_args: object) -> None:
        raise AssertionError(f"the reader of {kind} was asked")

    if kind in Image.OPEN:
        monkeypatch.setitem(Image.OPEN, kind, (opened, Image.OPEN[kind][1]))
    with pytest.raises(ImageError, match=f"{kind}|not an image"):
        decode(ImageFile(path))
