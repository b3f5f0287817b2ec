"""Model cards of merged checkpoints and of adapters, as Markdown from model_card.md.j2, with YAML
front matter in the form that the Hugging Face Hub validates.

Source of the metadata: huggingface/hub-docs, modelcard.md; huggingface_hub, repocard_data.py.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCardData
from jinja2 import Environment, StrictUndefined, Template

from qvft.adapters.manifest import fingerprints, read_manifest
from qvft.data.rows import Row
from qvft.models.base_checkpoint import BaseCheckpoint
from qvft.models.checkpoint_files import checkpoint_file
from qvft.models.decoders import is_encoder_decoder
from qvft.models.model_path import TINY_ID, names_folder
from qvft.recipe.schema import Recipe
from qvft.setup.model import processor_of
from qvft.setup.prompt_template import template_of
from qvft.weights.card_scores import (
    TASK,
    Scores,
    common_question,
    eval_results,
    measured,
    read_scores,
    samples,
)
from qvft.weights.card_text import inline_code, named, plain, quoted

SAMPLES_BEGIN, SAMPLES_END = "<!-- samples -->", "<!-- end of samples -->"
"""Around the predictions of a card, which `qvft push` leaves out."""
_LICENSE = re.compile(r"^(license(?:_name|_link)?):[ \t]*['\"]?([^\s'\"#]+)", re.M)
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
        adapter_sha256: hashes of the adapter's files by name. A report of other weights is named
            but not included.
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


def run_card(
    run_dir: Path, recipe: Recipe, base: BaseCheckpoint, *, folder: str, rows: Sequence[Row] = ()
) -> str:
    """The card of a run's adapter as Markdown."""
    return model_card(
        recipe,
        run_dir,
        base,
        library="peft",
        folder=folder,
        manifest=read_manifest(run_dir / "adapter"),
        adapter_sha256=fingerprints(run_dir / "adapter"),
        template=template_of(recipe, base, processor_of(recipe, base)),
        rows=rows,
    )


def card_text(template: str, values: Mapping[str, Any]) -> str:
    """A template of this folder with its values; a missing one raises `jinja2.UndefinedError`."""
    return _template(template).render(values) + "\n"


@cache
def _template(name: str) -> Template:
    environment = Environment(undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {"plain": plain, "code": inline_code, "quoted": quoted, "named": named}
    return environment.from_string(Path(__file__).with_name(name).read_text(encoding="utf-8"))


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


def front_matter(recipe: Recipe, base: BaseCheckpoint, *, library: str, scores: Scores) -> str:
    """Licence, base, datasets and scores as YAML; ids only of what may be on the hub."""
    bases = [name for name in (base.id, recipe.model.decoder) if name and on_hub(name)]
    train: Any = recipe.data.train
    sources = train if isinstance(train, list) else [train] if train else []
    datasets = [one.path for one in sources if one.format == "hf" and on_hub(one.path or "")]
    licence: dict[str, Any] = base_licence(base.location, base.revision)
    return ModelCardData(
        **licence,
        library_name=library,
        pipeline_tag=TASK,
        base_model=bases if len(bases) > 1 else bases[0] if bases else None,
        datasets=datasets or None,
        tags=["blip-2", "qvft"] + (["lora"] if library == "peft" else []),
        model_name=recipe.name,
        eval_results=eval_results(scores) or None,
    ).to_yaml()


def on_hub(name: str) -> bool:
    """Whether a name can be a hub id: no folder, and not the bundled model."""
    named = bool(name) and not names_folder(name) and not Path(name).is_dir()
    return named and name != TINY_ID


def base_licence(location: str, revision: str | None) -> dict[str, str]:
    """`license`, and `license_name` and `license_link` if given, of the base's own card.

    `unknown` if it has no card or the card names none.
    """
    card = checkpoint_file(location, "README.md", revision)
    text = card.read_text(encoding="utf-8", errors="replace") if card else ""
    parts = text.split("---", 2)
    found = dict(_LICENSE.findall(parts[1])) if text.startswith("---") and len(parts) > 2 else {}
    return found if "license" in found else {"license": "unknown"}
