"""What training and evaluation say of their data: what is left out, cut, or worth little."""

from __future__ import annotations

from collections.abc import Sequence

from qvft.assembly.data import Split
from qvft.data.cut import cut_rows
from qvft.data.doubts import evaluation_doubts, training_doubts
from qvft.data.prompt import PromptTemplate
from qvft.data.rows import Row


def training_warnings(split: Split, rows: Sequence[Row], template: PromptTemplate) -> list[str]:
    """Sentences on the texts that are trained on, of a stream on its first ones."""
    cut = cut_rows(rows, template).warning(template.max_text_tokens)
    doubts = training_doubts(rows, images=len(split.samples), prompt=template)
    return [f"{split.name}: {sentence}" for sentence in [*cut, *doubts]]


def evaluation_warnings(split: Split, rows: Sequence[Row], template: PromptTemplate) -> list[str]:
    """Sentences on the texts that a model is asked for."""
    cut = cut_rows(rows, template, asked=True).warning(template.max_text_tokens)
    doubts = evaluation_doubts(rows, images=len(split.samples), prompt=template)
    return [*split.remarks, *(f"{split.name}: {sentence}" for sentence in [*cut, *doubts])]


def cut_counts(rows: Sequence[Row], template: PromptTemplate) -> dict[str, float]:
    """What `data.max_text_tokens` cuts of evaluation data, for a report's counts."""
    cut = cut_rows(rows, template, asked=True)
    return {"prompts_cut": cut.prompts, "targets_cut": cut.targets}
