"""Preview of training rows as one self-contained HTML page: image and tokens of each."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import Literal

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from PIL import Image

from qvft.data.collate import Collator
from qvft.data.pixels import denormalised
from qvft.data.prompt import PromptTemplate
from qvft.data.rows import Row, choose_rows
from qvft.data.token_stats import TokenStats, encode
from qvft.files import write_text

ROWS = 20
CUT_SHOWN = 40
Role = Literal["start", "prompt", "target", "stop"]


@dataclass(frozen=True)
class Token:
    """One token; `text` has visible spaces and line breaks, only `target` and `stop` have loss, and
    `cut` ones are truncated by `data.max_text_tokens`.
    """

    id: int
    text: str
    role: Role
    cut: bool = False


@dataclass(frozen=True)
class PreviewRow:
    """A training row.

    Attributes:
        why: reason of its selection, e.g. `longest`; empty for the spread over the split.
        png: the preprocessed image, denormalised, of this `size`.
        image_tokens: number of leading `<image>` tokens.
        rejected: tokens of the rejected text of a pair, with its prompt; empty for other rows.
    """

    id: str
    kind: str
    why: str
    png: bytes | None
    size: tuple[int, int]
    image_tokens: int
    tokens: tuple[Token, ...]
    rejected: tuple[Token, ...] = ()

    @property
    def shown(self) -> Iterator[tuple[str, Iterator[Token | int]]]:
        """The texts with their names, empty for a single one: tokens, of consecutive truncated ones
        the first CUT_SHOWN, then their number.
        """
        yield "chosen" if self.rejected else "", self._listed(self.tokens)
        if self.rejected:
            yield "rejected", self._listed(self.rejected)

    def _listed(self, tokens: Sequence[Token]) -> Iterator[Token | int]:
        for cut, run in groupby(tokens, key=lambda token: token.cut):
            run_tokens = list(run)
            shown = CUT_SHOWN if cut else len(run_tokens)
            yield from run_tokens[:shown]
            if len(run_tokens) > shown:
                yield len(run_tokens) - shown


def write_preview(path: Path, rows: Sequence[PreviewRow], *, title: str, lead: str) -> None:
    """Writes the page with a title and a sentence below it; every text in it is escaped."""
    environment = Environment(
        loader=PackageLoader("qvft.checking", "."),
        autoescape=select_autoescape(default=True),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["data_uri"] = lambda png: (
        "data:image/png;base64," + base64.b64encode(png).decode("ascii")
    )
    page = environment.get_template("preview.html.j2")
    text = page.render(rows=rows, title=title, lead=lead)
    write_text(path, text.encode(errors="replace").decode())  # half pairs, in names of files


def preview(
    path: Path, rows: Sequence[Row], stats: TokenStats, collator: Collator, *, name: str
) -> None:
    """Writes the HTML preview of a split of this name; `rows` are its training rows."""
    chosen = _choose(rows, stats, count=ROWS)
    lead = (
        f"{len(chosen)} of {len(rows):,} rows, spread over the split, with its extremes first: the "
        "image after preprocessing, then the tokens the decoder gets."
    )
    if any(row.rejected is not None for row in rows):
        lead += " Of a pair both texts are shown, the chosen one first."
    if collator.template.text == "blip2":
        lead += " Captions and questions are cleaned as data.text: blip2 says."
    shown = [_shown(row, why, collator) for row, why in chosen]
    write_preview(path, shown, title=f"{name} as the model sees it", lead=lead)


def _choose(rows: Sequence[Row], stats: TokenStats, *, count: int) -> list[tuple[Row, str]]:
    """Selected rows with the reason: the longest, the most truncated, then an even spread. Captions
    and questions alternate, and no row is chosen twice.
    """
    extremes = {stats.longest_id: "longest"}
    if stats.most_cut_id is not None:
        reasons = [extremes.get(stats.most_cut_id), "most tokens cut"]
        extremes[stats.most_cut_id] = ", ".join(filter(None, reasons))
    chosen = [(row, extremes[row.id]) for row in rows if row.id in extremes]
    rest = [row for row in rows if row.id not in extremes]
    return [*chosen, *((row, "") for row in choose_rows(rest, count - len(chosen), spread=True))]


def _shown(row: Row, why: str, collator: Collator) -> PreviewRow:
    template = collator.template
    pixels = denormalised(collator.pixels([row.sample.image])[0], collator.image_processor)
    image = Image.fromarray((pixels * 255).round().astype(np.uint8))
    stream = io.BytesIO()
    image.save(stream, "PNG")
    return PreviewRow(
        id=row.id,
        kind=row.kind,
        why=why,
        png=stream.getvalue(),
        size=image.size,
        image_tokens=template.num_query_tokens,
        tokens=_row_tokens(row, template),
        rejected=()
        if row.rejected is None
        else _row_tokens(replace(row, target=row.rejected), template),
    )


def _row_tokens(row: Row, template: PromptTemplate) -> tuple[Token, ...]:
    """Text tokens of a row, including truncated ones, which are marked."""
    kept = encode(row, template)
    whole = encode(row, replace(template, max_text_tokens=len(kept.ids) + kept.cut_tokens))
    head = template.num_query_tokens + 1
    lost_prompt = whole.target_start - kept.target_start
    kept_target = len(kept.ids) - kept.target_start - 1
    tokens = [_token(template, whole.ids[head - 1], "start")]
    for place, token_id in enumerate(whole.ids[head : whole.target_start]):
        tokens.append(_token(template, token_id, "prompt", cut=place < lost_prompt))
    for place, token_id in enumerate(whole.ids[whole.target_start : -1]):
        tokens.append(_token(template, token_id, "target", cut=place >= kept_target))
    return (*tokens, _token(template, whole.ids[-1], "stop"))


def _token(template: PromptTemplate, token_id: int, role: Role, *, cut: bool = False) -> Token:
    tokenizer = template.tokenizer
    text = tokenizer.decode([token_id], clean_up_tokenization_spaces=False)
    if "\ufffd" in text:  # a part of a character: show the vocabulary's entry instead
        text = tokenizer.convert_ids_to_tokens(token_id)
    return Token(token_id, text.replace(" ", "·").replace("\n", "↵"), role, cut)
