"""Preview of training rows as one self-contained HTML page."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Literal

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

from qvft.files import write_text

CUT_SHOWN = 40
Role = Literal["start", "prompt", "target", "stop"]


@dataclass(frozen=True)
class Token:
    """One token.

    Attributes:
        id: token id.
        text: its text, with visible spaces and line breaks.
        role: only `target` and `stop` have loss.
        cut: truncated by `data.max_text_tokens`.
    """

    id: int
    text: str
    role: Role
    cut: bool = False


@dataclass(frozen=True)
class PreviewRow:
    """A training row.

    Attributes:
        id: id of the row.
        kind: `caption` or `question`.
        why: reason of its selection, e.g. `longest`; empty for the spread over the split.
        png: the preprocessed image, denormalised; None if unreadable.
        size: its width and height.
        image_tokens: number of leading `<image>` tokens.
        tokens: the rest of the row, in order.
    """

    id: str
    kind: str
    why: str
    png: bytes | None
    size: tuple[int, int]
    image_tokens: int
    tokens: tuple[Token, ...]

    @property
    def shown(self) -> Iterator[Token | int]:
        """The tokens; of consecutive truncated ones the first CUT_SHOWN, then their number."""
        for cut, run in groupby(self.tokens, key=lambda token: token.cut):
            run_tokens = list(run)
            shown = CUT_SHOWN if cut else len(run_tokens)
            yield from run_tokens[:shown]
            if len(run_tokens) > shown:
                yield len(run_tokens) - shown


def write_preview(path: Path, rows: Sequence[PreviewRow], *, title: str, lead: str) -> None:
    """Writes the page; every text in it is escaped.

    Args:
        path: the file; an existing one is replaced.
        rows: in the order of the page.
        title: title of the page.
        lead: one sentence below it.
    """
    environment = Environment(
        loader=PackageLoader("qvft.checking", "."),
        autoescape=select_autoescape(default=True),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["data_uri"] = _data_uri
    page = environment.get_template("preview.html.j2")
    text = page.render(rows=rows, title=title, lead=lead)
    write_text(path, text.encode(errors="replace").decode())  # half pairs, in names of files


def _data_uri(png: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(png).decode("ascii")
