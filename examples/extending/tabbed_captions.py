"""A dataset format: one image and one caption per line, with a tab between them."""

from collections.abc import Iterator
from pathlib import Path

from qvft.data.formats import Format
from qvft.data.sample import ImageFile, Sample
from qvft.errors import DataError


def read(path: Path, *, images: Path | None = None) -> Iterator[Sample]:
    """Samples of a file in the order of its lines; image names are relative to `images`."""
    folder = images or path.parent
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        name, tab, caption = line.partition("\t")
        if not (name and tab and caption):
            raise DataError(
                f"{line[:40]!r}", where=f"{path}:{number}", expected="IMAGE, a tab, CAPTION"
            )
        yield Sample(id=name, image=ImageFile(folder / name), captions=(caption,))


FORMAT = Format("tabbed_captions", "one image and one caption per line", read, ("images",))
