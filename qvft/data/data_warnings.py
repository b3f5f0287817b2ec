"""Data warnings: truncated texts, few images, one answer for all, few steps."""

from __future__ import annotations

from collections.abc import Sequence

from qvft.data.collate import Collator
from qvft.data.prompt import PromptTemplate
from qvft.data.rows import Row, single_texts
from qvft.data.truncation import CutRows, cut_rows, cut_warnings

FEW_IMAGES = 10
"""With fewer images, results hold only for these images."""
FEW_STEPS = 10
"""With fewer steps, AdamW's averages (beta2 0.999) and a warm-up are incomplete."""
OFTEN = 0.01
"""Share of texts that repeat the prompt; some captions do so by chance."""


def data_doubts(
    rows: Sequence[Row], prompt: PromptTemplate, *, images: int, training: bool
) -> list[str]:
    """Warnings about a split's texts; `images` is the number of its images."""
    found = _one_text(rows, training=training)
    if images < FEW_IMAGES:
        count = "1 image" if images == 1 else f"{images} images"
        what = "learnt from" if training else "measured on"
        found.append(f"{count}: what is {what} fewer than {FEW_IMAGES} may hold for these alone")
    used = len({row.sample.id for row in rows})
    if used < images:
        found.append(
            f"{images - used:,} of {images:,} images have no text of the kind that is used"
        )
    found += prompts_repeated(rows, prompt)
    return found + _pairs_alike(rows, prompt) if training else found


def data_warnings(
    rows: Sequence[Row],
    collator: Collator,
    *,
    images: int,
    name: str,
    training: bool,
    cut: CutRows | None = None,
) -> list[str]:
    """`data_doubts` and truncation, with the split's name; of a stream for its first rows. `cut` is
    `cut_rows` of the rows, if already counted.
    """
    template = collator.template
    cut = cut or cut_rows(rows, template, asked=not training)
    found = cut_warnings(rows, template, collator.reader, cut=cut)
    found += data_doubts(rows, template, images=images, training=training)
    return [f"{name}: {sentence}" for sentence in found]


def prediction_doubts(texts: Sequence[str]) -> list[str]:
    """Warnings about predicted texts, such as one answer for all."""
    if len(texts) < 2 or len({_plain(text) for text in texts}) > 1:
        return []
    same = "the same text" if _plain(texts[0]) else "empty"
    return [f"all {len(texts):,} predictions are {same}: the model ignores what is asked"]


def few_steps(phase: str, steps: int) -> list[str]:
    """Warning about a phase with too few steps."""
    if steps >= FEW_STEPS:
        return []
    count = "1 optimizer step" if steps == 1 else f"{steps} optimizer steps"
    return [
        f"{phase}: {count} in all; raise train.epochs or train.max_steps, or lower "
        "train.per_device_train_batch_size or train.gradient_accumulation_steps"
    ]


def prompts_repeated(rows: Sequence[Row], prompt: PromptTemplate) -> list[str]:
    """Texts that already contain the words of the prompt."""
    found = []
    for own in dict.fromkeys(row.prompt for row in rows):
        found += _repeated([row for row in rows if row.prompt == own], prompt, own)
    return found


def _repeated(rows: Sequence[Row], prompt: PromptTemplate, own: str | None) -> list[str]:
    """`prompts_repeated` of rows with one prompt: `own`, or None for the template's."""
    captions = [row.target for row in rows if row.kind == "caption"]
    asked = [row for row in rows if row.kind == "question"]
    questions = [row.question or "" for row in asked]
    answers = [row.target for row in asked]
    before, _, after = (prompt.question if own is None else own).partition("{question}")
    found = []
    for noun, texts, place, words, key in (
        ("captions", captions, "begin", prompt.caption if own is None else own, "caption"),
        ("questions", questions, "begin", before, "question"),
        ("questions", questions, "end", after, "question"),
        ("answers", answers, "begin", after, "question"),
    ):
        part = _plain(words)
        repeats = _begins if place == "begin" else _ends
        count = sum(repeats(_plain(text), part) for text in texts) if part else 0
        if count > OFTEN * len(texts):
            writer = f"data.prompt.{key}" if own is None else f"prompt.{key} of its source"
            found.append(
                f"{count:,} of {len(texts):,} {noun} {place} with {words.strip()!r}, which "
                f"{writer} writes too, so that the model reads it twice; take it out of "
                "the texts or of the recipe"
            )
    return found


def _one_text(rows: Sequence[Row], *, training: bool) -> list[str]:
    found = []
    for kind in ("caption", "question"):
        chosen = [row for row in rows if row.kind == kind]
        used = [(row.target,) if training else row.references for row in chosen]
        if len(chosen) > 1 and len({_plain(text) for texts in used for text in texts}) == 1:
            found.append(
                f"all {len(chosen):,} {kind}s have the same text as their "
                f"{'targets' if training else 'references'}: there is nothing to tell apart"
            )
    return found


def _pairs_alike(rows: Sequence[Row], prompt: PromptTemplate) -> list[str]:
    """Pairs whose two texts have the same tokens, as where they differ in what is truncated."""
    pairs = [row for row in rows if row.rejected is not None]
    if not pairs:
        return []
    texts = [(row.kind, row.question, row.target, row.prompt) for row in single_texts(pairs)]
    found = prompt.encode_all(texts)
    alike = [row.id for row in pairs if next(found).ids == next(found).ids]
    return [
        f"{len(alike):,} of {len(pairs):,} pairs have the same tokens in both texts, so that "
        f"nothing is learnt from them, first {', '.join(alike[:1])}; raise data.max_text_tokens or "
        "take them out"
    ] * bool(alike)


def _plain(text: str) -> str:
    return " ".join(text.casefold().split())


def _begins(text: str, part: str) -> bool:
    """Whether `text` begins with the words of `part`."""
    rest = text.removeprefix(part)
    return rest != text and not (part[-1].isalnum() and rest[:1].isalnum())


def _ends(text: str, part: str) -> bool:
    rest = text.removesuffix(part)
    return rest != text and not (part[0].isalnum() and rest[-1:].isalnum())
