"""Samples for the parity check of a written checkpoint.

Shape letters: T text tokens.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from PIL import Image
from torch import Tensor

from qvft.data.collate import Collator
from qvft.data.images.decoding import decode
from qvft.data.rows import Row

PROBES = 8
"""Number of rows compared: both kinds of text, different images."""


@dataclass(frozen=True)
class Probe:
    """One row as qvft prepares it, and the inputs of a plain processor.

    Attributes:
        row_id: the row's id.
        image: the decoded image. prompt: the prompt for a plain processor.
        prompt_ids: qvft's tokens of image and prompt.
        target_ids: tokens of the target and the stop token.
        pixel_values: (1, 3, height, width), from qvft's collator.
        read: the Q-Former's text inputs, (1, T) each; empty if it reads none.
        rows: what the model reads of prompt and target, from `Collator.token_batch`.
        decoder_ids: what an encoder-decoder's decoder reads of these; empty in other models.
    """

    row_id: str
    image: Image.Image
    prompt: str
    prompt_ids: tuple[int, ...]
    target_ids: tuple[int, ...]
    pixel_values: Tensor
    read: Mapping[str, Tensor] = field(default_factory=dict)
    rows: Mapping[str, Tensor] = field(default_factory=dict)
    decoder_ids: tuple[int, ...] = ()


def make_probes(collator: Collator, rows: Sequence[Row]) -> list[Probe]:
    """Samples for the parity check; truncated rows are left out.

    A plain processor does not truncate.
    """
    template = collator.template
    probes = []
    for row in rows:
        whole = template.encode(row.kind, question=row.question, target=row.target)
        if whole.cut_tokens:
            continue
        prompt = template.prompt_text(row.kind, row.question)
        rows_read = collator.token_batch([whole], [0], [prompt])
        probes.append(
            Probe(
                row_id=row.id,
                image=decode(row.sample.image, max_pixels=collator.max_image_pixels),
                prompt=template.written_prompt(row.kind, row.question),
                prompt_ids=whole.ids[: whole.target_start],
                target_ids=whole.ids[whole.target_start :],
                pixel_values=collator.pixels([row.sample.image]),
                read=collator.read([prompt]),
                rows=rows_read,
                decoder_ids=()
                if template.start_id is None
                else tuple(rows_read["input_ids"][0].tolist()),
            )
        )
    return probes
