"""Thumbs up and down as preference data: pairs in the custom JSONL, and trl's unpaired rows."""

from __future__ import annotations

import json
import shutil
import threading
from collections import defaultdict
from collections.abc import Iterable, Mapping
from itertools import product
from pathlib import Path
from typing import NamedTuple

from qvft.errors import DataError
from qvft.files import require_writable, sha256_file, write_text
from qvft.json_files import read_jsonl

PAIRS, THUMBS, IMAGES = "pairs.jsonl", "thumbs.jsonl", "images"
NAMES = ("image", "prompt", "completion", "label")


class Judged(NamedTuple):
    """A text about an image; `prompt` is the question, empty for a caption."""

    image: str
    prompt: str
    completion: str


class Thumbs:
    """Thumbs of a folder, also those of earlier times.

    `thumbs.jsonl` has a row per thumb, with the columns of trl's unpaired preference data.
    `pairs.jsonl`, in the custom JSONL format, pairs each text with a thumb up with each text with a
    thumb down about the same image and question. `images/` holds the judged images, by digest.

    Raises:
        DataError: the folder is not writable, or its `thumbs.jsonl` is another file.
    """

    def __init__(self, folder: Path) -> None:
        require_writable(folder, folder=True)
        self.folder = folder
        self.labels: dict[Judged, bool] = {}
        self._lock = threading.Lock()
        path = folder / THUMBS
        for number, row in read_jsonl(path) if path.exists() else ():
            if set(row) != set(NAMES) or not isinstance(row["label"], bool):
                raise DataError(
                    f"a row of {', '.join(row)}",
                    where=f"{path}:{number}",
                    expected=f"{', '.join(NAMES)}, as qvft demo writes it",
                    do="name another folder with --out",
                )
            self.labels[Judged(row["image"], row["prompt"], row["completion"])] = row["label"]

    def give(self, image: Path, question: str | None, text: str, *, up: bool) -> None:
        """Writes a thumb; it replaces an earlier one of the same text.

        Raises:
            OSError: it cannot be written, or the image is gone.
        """
        with self._lock:
            kept = self._keep(image)
            self.labels[Judged(kept, question or "", text)] = up
            rows = [{**judged._asdict(), "label": label} for judged, label in self.labels.items()]
            write_text(self.folder / THUMBS, _lines(rows))
            pairs = [{"image": image, "pairs": own} for image, own in self.pairs().items()]
            write_text(self.folder / PAIRS, _lines(pairs))

    def pairs(self) -> dict[str, list[dict[str, str | None]]]:
        """The pairs of each image that has any."""
        judged: dict[tuple[str, str], dict[bool, list[str]]] = {}
        for (image, prompt, text), up in self.labels.items():
            judged.setdefault((image, prompt), {True: [], False: []})[up].append(text)
        pairs: dict[str, list[dict[str, str | None]]] = defaultdict(list)
        for (image, prompt), texts in judged.items():
            for chosen, rejected in product(texts[True], texts[False]):
                pair = {"question": prompt or None, "chosen": chosen, "rejected": rejected}
                pairs[image].append(pair)
        return pairs

    @property
    def said(self) -> str:
        """How many thumbs and pairs there are, and where."""
        pairs = sum(map(len, self.pairs().values()))
        return f"thumbs: {len(self.labels)}, pairs: {pairs} ({self.folder / PAIRS})"

    def _keep(self, image: Path) -> str:
        """Copies an image, its bytes unchanged; returns its path in the folder."""
        name = f"{IMAGES}/{sha256_file(image)[:16]}{image.suffix.lower()}"
        kept = self.folder / name
        if not kept.exists():
            kept.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(image, kept)
        return name


def _lines(rows: Iterable[Mapping[str, object]]) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
