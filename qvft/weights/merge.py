"""Merges a run's LoRA and other trained weights into a checkpoint, and verifies it."""

from __future__ import annotations

import gc
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from transformers import AutoProcessor

from qvft.adapters.manifest import fingerprints
from qvft.data.rows import Row
from qvft.files import new_folder, write_text
from qvft.json_files import write_json
from qvft.log import get_logger
from qvft.models.image_size import positions_of
from qvft.models.load import model_class
from qvft.models.t5_head import own_head_expected
from qvft.setup.mixing import share_text
from qvft.setup.model import processor_of
from qvft.setup.prompt_template import template_of
from qvft.setup.provenance import versions
from qvft.setup.source_names import source_name
from qvft.weights.base_weights import base_weights
from qvft.weights.card import model_card
from qvft.weights.chat_template import chat_template
from qvft.weights.merge_inputs import MergeInputs, origin, read_inputs
from qvft.weights.merge_plan import MergePlan, make_plan
from qvft.weights.parity import Comparison, compare, comparison_line
from qvft.weights.probe_outputs import plain_outputs
from qvft.weights.run_probes import reference_outputs, require_rows
from qvft.weights.write import (
    file_hashes,
    require_room,
    verify_weights,
    write_code,
    write_settings,
    write_shards,
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
    """Merges a run's checkpoint into its unquantized base, and returns the content of merge.json;
    `out` appears only after verification.

    Args:
        dtype: dtype of the written weights; None: that of most base weights.

    Raises:
        UserError: the run, the base or the adapter does not fit, `out` exists, the disk is full.
        VerificationError: written weights or outputs differ from base and adapter.
    """
    with new_folder(out) as folder:
        inputs = read_inputs(run_dir, dtype=dtype, overrides=overrides)
        require_room(out.parent, inputs.weights, inputs.written)
        rows = require_rows(inputs.recipe, inputs.base)
        plan = _write(folder, inputs, shard_size=shard_size)
        logger.info("written; comparing every weight with the plan")
        weights = verify_weights(folder, base_weights(inputs)[1], plan)
        gc.collect()
        behaviour, quantized = _verify_behaviour(folder, inputs, plan, rows)
        write_text(folder / "README.md", _card(inputs, out.name, rows))
        content = {
            **origin(inputs),
            "keys": plan.counts(),
            "verification": {
                "weights": weights,
                "behaviour": behaviour.figures(),
                "quantized": quantized.figures() if quantized else None,
            },
            "files": file_hashes(folder),
        }
        if "alignment" in inputs.manifest:
            content["left_out"] = "the alignment heads; qvft.export --to retrieval writes them"
        write_json(folder / "merge.json", content)
    return content


def _write(folder: Path, inputs: MergeInputs, *, shard_size: str) -> MergePlan:
    base = inputs.base
    model, weights = base_weights(inputs)
    plan = make_plan(model, bridge=inputs.bridge, lora=inputs.lora, dtype=inputs.written)
    logger.info("%s: writing %d weights", base.id, len(plan.actions))
    processor = processor_of(inputs.recipe, base)
    stop_text = base.family.stop_text(base.config)
    stop = processor.tokenizer(stop_text, add_special_tokens=False) if stop_text else None
    config = written_config(
        base.config,
        model_class=base.family.model_class,
        dtype=inputs.written,
        stop_ids=[*(stop["input_ids"] if stop else []), processor.tokenizer.eos_token_id],
    )
    write_shards(folder, weights, plan, parameters=model.num_parameters(), shard_size=shard_size)
    spoken = chat_template(template_of(inputs.recipe, base, processor))
    if spoken is not None:
        processor.tokenizer.chat_template = spoken
    write_settings(folder, processor, config=config)
    if not base.family.image_tokens:
        write_code(folder)  # transformers has no class of this family
    del model, weights
    gc.collect()
    return plan


def _verify_behaviour(
    folder: Path, inputs: MergeInputs, plan: MergePlan, rows: Sequence[Row]
) -> tuple[Comparison, Comparison | None]:
    """Compares outputs with the unquantized reference, and with the quantized one if there is one.

    One model is in memory at a time.
    """
    logger.info("running base and adapter on real samples")
    run = partial(reference_outputs, inputs, rows, written=inputs.written)
    # Position embeddings are interpolated in float32 for the reference, and rounded to be written.
    resized = set()
    if inputs.base.stored_image_size is not None:
        resized = {positions_of(inputs.base.config).key}
    reference = run(rounded=plan.rounded(inputs.stored) | resized)
    was_quantized = inputs.recipe.model.quantization.scheme != "none"
    trained_on = run(quantized=True, rounded=None) if was_quantized else None
    logger.info("running the merged model")
    with own_head_expected(inputs.base.config):
        model = model_class(inputs.base.family).from_pretrained(
            folder, dtype=reference.computed, use_safetensors=True
        )
    outputs = plain_outputs(
        model.to(reference.place).eval(),
        AutoProcessor.from_pretrained(folder, trust_remote_code=False),
        reference.template,
        reference.probes,
    )
    del model
    gc.collect()
    behaviour = reference.require_equal(outputs, what="the merged model")
    if trained_on is None:
        return behaviour, None
    return behaviour, compare(trained_on.outputs, outputs, behaviour.tolerance)


def _card(inputs: MergeInputs, folder: str, rows: Sequence[Row]) -> str:
    recipe, manifest, base = inputs.recipe, inputs.manifest, inputs.base
    parts = sorted({entry["component"] for entry in manifest["bridge"].values()})
    trained = [part.replace("_", " ") for part in parts]
    if inputs.lora:
        rank = next(iter(inputs.lora.values())).a.shape[0]
        for part, count in sorted(Counter(map(base.family.part, inputs.lora)).items()):
            trained.append(f"LoRA of rank {rank} on {count} {part} layers")
    remote_code = not base.family.image_tokens
    own_class = {"model_class": "AutoModelForImageTextToText"} if remote_code else {}
    return model_card(
        recipe,
        inputs.run_dir,
        base,
        library="transformers",
        folder=folder,
        manifest=manifest,
        adapter_sha256=fingerprints(inputs.run_dir / "adapter"),
        template=template_of(recipe, base, processor_of(recipe, base)),
        rows=rows,
        remote_code=remote_code,
        dtype=str(inputs.written).removeprefix("torch."),
        data=[source_name(source) for _, source in recipe.data.sources("train")],
        sources=[
            f"phase {phase}, {share_text(one)}"
            for phase, found in manifest.get("sources", {}).items()
            for one in found
        ],
        trained=trained,
        decoder=recipe.model.decoder,
        quantized=recipe.model.quantization.scheme,
        qvft_version=versions().get("qvft", "unknown"),
        **own_class,
    )


def merge_summary(content: Mapping[str, Any]) -> Iterator[str]:
    """Summary lines: keys per action, and the results of verification."""
    keys, checks = content["keys"], content["verification"]
    yield (
        f"keys: {keys['bridge']} replaced by trained weights, {keys['lora']} with LoRA added, "
        f"{keys['untouched']} untouched, {keys['tied']} tied"
    )
    yield (
        f"weights: {checks['weights']['weights']:,} in {content['dtype']}, each exactly as planned"
    )
    yield f"against base + adapter: {comparison_line(checks['behaviour'])}"
    for tie in checks["behaviour"]["near_ties"]:
        yield (
            f"  {tie['row']} parts at token {tie['token']}, where the two best tokens are "
            f"{tie['margin']:.2g} apart"
        )
    if checks["quantized"]:
        yield (
            f"against the {content['quantized']} base it was trained on (for information): "
            f"{comparison_line(checks['quantized'], judged=False)}"
        )
