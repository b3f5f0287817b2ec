"""What training and evaluation say of their data: what is cut, or worth little."""

from __future__ import annotations

from collections.abc import Sequence

from qvft.data.collate import Collator
from qvft.data.data_warnings import evaluation_doubts, training_doubts
from qvft.data.prompt import PromptTemplate
from qvft.data.rows import Row
from qvft.data.truncation import cut_rows, cut_warnings, too_long
from qvft.setup.alignment_heads import TextBranch
from qvft.setup.data import Split


def training_warnings(split: Split, rows: Sequence[Row], collator: Collator) -> list[str]:
    """Sentences on the texts that are trained on, of a stream on its first ones."""
    doubts = training_doubts(rows, images=len(split.samples), prompt=collator.template)
    return _named(split, [*cut_warnings(rows, collator.template, collator.reader), *doubts])


def evaluation_warnings(split: Split, rows: Sequence[Row], collator: Collator) -> list[str]:
    """Sentences on the texts that a model is asked for."""
    doubts = evaluation_doubts(rows, images=len(split.samples), prompt=collator.template)
    return _named(
        split, [*cut_warnings(rows, collator.template, collator.reader, asked=True), *doubts]
    )


def alignment_warnings(split: Split, texts: Sequence[str], branch: TextBranch) -> list[str]:
    """A sentence on captions that are too long for the text branch, which cuts their end."""
    limit = branch.saved.max_text_tokens
    cut = too_long(texts, branch.tokenizer, limit)
    if not cut:
        return []
    return _named(
        split,
        [
            f"the text branch of itc, itm and itg reads {limit} tokens: it does not see the end of "
            f"{cut:,} of {len(texts):,} captions"
        ],
    )


def cut_counts(rows: Sequence[Row], template: PromptTemplate) -> dict[str, float]:
    """What `data.max_text_tokens` cuts of evaluation data, for a report's counts."""
    cut = cut_rows(rows, template, asked=True)
    return {"prompts_cut": cut.prompts, "targets_cut": cut.targets}


def _named(split: Split, sentences: Sequence[str]) -> list[str]:
    return [f"{split.name}: {sentence}" for sentence in sentences]
