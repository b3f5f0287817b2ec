"""Merges a run's LoRA and other trained weights into a checkpoint, and verifies it."""

from __future__ import annotations

import gc
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from transformers import AutoProcessor

from qvft.data.rows import Row
from qvft.files import new_folder, write_text
from qvft.json_files import write_json
from qvft.log import get_logger
from qvft.models.decoders import is_encoder_decoder
from qvft.models.load import model_class
from qvft.models.qvision.model_code import write_code
from qvft.setup.data import source_name
from qvft.setup.hashes import trained_files
from qvft.setup.model import processor_of, versions
from qvft.weights.card import CardFacts, model_card
from qvft.weights.merge_inputs import Ingredients, origin, read_ingredients
from qvft.weights.merge_plan import MergePlan, make_plan
from qvft.weights.open_base import base_weights
from qvft.weights.parity import Comparison, compare, require_equal
from qvft.weights.probe_outputs import plain_outputs
from qvft.weights.run_probes import reference_outputs, require_rows
from qvft.weights.shard_size import check_shard_size
from qvft.weights.shards import write_shards
from qvft.weights.verify import verify_weights
from qvft.weights.write import (
    file_hashes,
    require_room,
    write_settings,
    written_config,
)

logger = get_logger("qvft.merge")


def merge_run(
    run_dir: Path,
    out: Path,
    *,
    dtype: str | None = None,
    shard_size: str = "5GB",
    overrides: Sequence[str] = (),
) -> dict[str, Any]:
    """Merges a run's checkpoint into its unquantized base; `out` appears only after verification.

    Args:
        dtype: dtype of the written weights; None: that of most base weights.
        shard_size: maximum file size.
        overrides: recipe overrides, e.g. the data's current path.

    Returns:
        The content of merge.json.

    Raises:
        UserError: the run, the base or the adapter does not fit, `out` exists, the disk is full.
        VerificationError: written weights or outputs differ from base and adapter.
    """
    check_shard_size(shard_size)
    with new_folder(out) as folder:
        ingredients = read_ingredients(run_dir, dtype=dtype, overrides=overrides)
        require_room(out.parent, ingredients.weights, ingredients.written)
        rows = require_rows(ingredients.recipe, ingredients.base)
        plan = _write(folder, ingredients, shard_size=shard_size)
        logger.info("written; comparing every weight with the plan")
        weights = verify_weights(folder, base_weights(ingredients)[1], plan)
        gc.collect()
        behaviour, quantized = _verify_behaviour(run_dir, folder, ingredients, plan, rows)
        card = model_card(
            _facts(ingredients, out.name),
            run_dir,
            adapter_sha256=trained_files(run_dir / "adapter"),
        )
        write_text(folder / "README.md", card)
        content = {
            **origin(run_dir, ingredients),
            "keys": plan.counts(),
            "verification": {
                "weights": weights,
                "behaviour": behaviour.figures(),
                "quantized": quantized.figures() if quantized else None,
            },
            "files": file_hashes(folder),
        }
        if "alignment" in ingredients.manifest:
            content["left_out"] = "the alignment heads; qvft.export --to retrieval writes them"
        write_json(folder / "merge.json", content)
    return content


def _write(folder: Path, ingredients: Ingredients, *, shard_size: str) -> MergePlan:
    base = ingredients.base
    model, weights = base_weights(ingredients)
    plan = make_plan(
        model,
        bridge=ingredients.bridge,
        lora=ingredients.lora,
        dtype=ingredients.written,
    )
    logger.info("%s: %s", base.id, plan.counts())
    processor = processor_of(ingredients.recipe, base)
    stop_text = base.family.stop_text(base.config)
    stop = processor.tokenizer(stop_text, add_special_tokens=False) if stop_text else None
    config = written_config(
        base.config,
        model_class=base.family.model_class,
        dtype=ingredients.written,
        stop_ids=[*(stop["input_ids"] if stop else []), processor.tokenizer.eos_token_id],
    )
    write_shards(folder, weights, plan, parameters=model.num_parameters(), shard_size=shard_size)
    write_settings(folder, processor, config=config)
    if not base.family.image_tokens:
        write_code(folder)  # transformers has no class of this family
    del model, weights
    gc.collect()
    return plan


def _verify_behaviour(
    run_dir: Path, folder: Path, ingredients: Ingredients, plan: MergePlan, rows: Sequence[Row]
) -> tuple[Comparison, Comparison | None]:
    """Compares outputs with the unquantized reference, and with the quantized one if there is one.

    One model is in memory at a time.
    """
    recipe, written = ingredients.recipe, ingredients.written
    logger.info("asking base and adapter about real samples")
    ask = partial(
        reference_outputs,
        run_dir,
        recipe,
        rows=rows,
        weights=ingredients.weights,
        written=written,
    )
    reference = ask(quantized=False, rounded=plan.rounded(ingredients.stored))
    was_quantized = recipe.model.quantization.scheme != "none"
    trained_on = ask(quantized=True, rounded=None) if was_quantized else None
    logger.info("asking what was written")
    model = model_class(ingredients.base.family).from_pretrained(
        folder, dtype=reference.computed, use_safetensors=True
    )
    said = plain_outputs(
        model.to(reference.place).eval(),
        AutoProcessor.from_pretrained(folder, trust_remote_code=False),
        reference.template,
        reference.probes,
    )
    del model
    gc.collect()
    assert reference.tolerance is not None
    behaviour = compare(reference.outputs, said, reference.tolerance)
    require_equal(behaviour, what="the merged model", reference="base and adapter")
    if trained_on is None:
        return behaviour, None
    return behaviour, compare(trained_on.outputs, said, reference.tolerance)


def _facts(ingredients: Ingredients, folder: str) -> CardFacts:
    recipe, manifest = ingredients.recipe, ingredients.manifest
    parts = sorted({entry["component"] for entry in manifest["bridge"].values()})
    trained = [part.replace("_", " ") for part in parts]
    if ingredients.lora:
        rank = next(iter(ingredients.lora.values())).a.shape[0]
        trained.append(f"LoRA of rank {rank} on {len(ingredients.lora)} decoder layers")
    return CardFacts(
        name=recipe.name,
        folder=folder,
        base_id=ingredients.base.id,
        base_revision=ingredients.base.revision,
        model_class=ingredients.base.family.model_class,
        dtype=str(ingredients.written).removeprefix("torch."),
        data=[source_name(recipe.data.train)] if recipe.data.train else [],
        trained=trained,
        caption=recipe.data.prompt.caption,
        question=recipe.data.prompt.question,
        cleaned=recipe.data.text == "blip2",
        recipe_sha256=manifest["recipe_sha256"],
        quantized=recipe.model.quantization.scheme,
        encoder_decoder=is_encoder_decoder(ingredients.base.config),
        qvft_version=versions().get("qvft", "unknown"),
    )
