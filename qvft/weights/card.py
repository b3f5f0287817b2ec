"""Model cards of merged checkpoints and of adapters, as Markdown from model_card.md.j2."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined

from qvft.data.rows import Row
from qvft.models.base_checkpoint import BaseCheckpoint
from qvft.models.decoders import is_encoder_decoder
from qvft.models.model_path import TINY_ID
from qvft.recipe.schema import Recipe
from qvft.weights.card_metadata import front_matter
from qvft.weights.card_scores import common_question, measured, read_scores, samples
from qvft.weights.card_text import inline_code, named, plain, quoted

SAMPLES_BEGIN, SAMPLES_END = "<!-- samples -->", "<!-- end of samples -->"
"""Around the predictions of a card, which `qvft push` leaves out."""
_TUNED = (
    "epochs", "max_steps", "per_device_train_batch_size", "batch_tokens",
    "gradient_accumulation_steps", "weight_decay", "betas", "max_grad_norm", "warmup_steps",
    "lr_scheduler_type", "min_lr_rate", "mixed_precision",
)  # fmt: skip


def model_card(
    recipe: Recipe,
    run_dir: Path,
    base: BaseCheckpoint,
    *,
    library: str,
    folder: str,
    manifest: Mapping[str, Any],
    adapter_sha256: Mapping[str, str],
    template: Any,
    rows: Sequence[Row] = (),
    sources: Sequence[str] = (),
    **facts: Any,
) -> str:
    """The card as Markdown, with the scores of `run_dir`/eval/*/report.json.

    Args:
        library: `transformers` for a merged model, `peft` for an adapter.
        folder: name of the folder that the card is in.
        manifest: of the adapter.
        adapter_sha256: hashes of the adapter's files by name. A report of other weights is named
            but not included.
        template: the prompt template, which writes the example's prompt.
        rows: some rows of the data, whose most common question the example asks.
        sources: a line on each source of the training data, if there are several.
        facts: further values for a merged model; a missing one raises `jinja2.UndefinedError`.
    """
    scores = read_scores(run_dir, adapter_sha256)
    asked = [(row.question, row.sample.id) for row in rows if row.question]
    is_caption = bool(rows) and not asked
    question = common_question(scores, asked) or "What is shown?"
    decode = recipe.eval.caption if is_caption else recipe.eval.answer
    values = {
        "metadata": front_matter(recipe, base, library=library, scores=scores),
        "library": library,
        "folder": folder,
        "name": recipe.name,
        "base_id": base.id,
        "base_revision": base.revision,
        "bundled": base.id == TINY_ID,
        "model_class": base.family.model_class,
        "encoder_decoder": is_encoder_decoder(base.config),
        "prompt": template.written_prompt(
            "caption" if is_caption else "question", None if is_caption else question
        ),
        "new_tokens": decode.max_new_tokens,
        "caption": recipe.data.prompt.caption,
        "question": recipe.data.prompt.question,
        "chat": recipe.data.prompt.chat_template,
        "cleaned": recipe.data.text == "blip2",
        "recipe_sha256": manifest["recipe_sha256"],
        "started_from": manifest.get("started_from"),
        "sources": sources,
        "hyperparameters": _hyperparameters(recipe),
        "measured": measured(scores),
        "excluded": scores.excluded,
        "samples": samples(scores),
        "samples_begin": SAMPLES_BEGIN,
        "samples_end": SAMPLES_END,
    }
    return card_text("model_card.md.j2", values | facts)


def card_text(template: str, values: Mapping[str, Any]) -> str:
    """A template of this folder with its values; a missing one raises `jinja2.UndefinedError`."""
    environment = Environment(undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {"plain": plain, "code": inline_code, "quoted": quoted, "named": named}
    text = Path(__file__).with_name(template).read_text(encoding="utf-8")
    return environment.from_string(text).render(values) + "\n"


def _hyperparameters(recipe: Recipe) -> dict[str, Any]:
    """Training keys of the recipe and their values."""
    train, trainable = recipe.train.model_dump(), recipe.trainable
    idle = "epochs" if recipe.train.max_steps > 0 else "max_steps"
    keys = [key for key in _TUNED if key != idle and train[key] is not None]
    values = {f"train.{key}": train[key] for key in keys}
    has = {"adapters": bool(trainable.lora_parts), "decoder": trainable.decoder == "full"}
    for part, rate in recipe.train.rates.items():
        if has.get(part, getattr(trainable, part, "full") == "full"):
            values[f"train.learning_rate.{part}"] = rate
    if trainable.lora_parts:
        values["trainable.lora"] = trainable.lora.model_dump()
    for phase in recipe.phases:
        changed = {"objective": phase.objective, **phase.trainable, **phase.train}
        values[f"phases.{phase.name}"] = changed
    return {**values, "run.seed": recipe.run.seed}
