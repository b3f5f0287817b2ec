"""Exports a run's checkpoint to other formats and loads each once to verify it."""

from __future__ import annotations

import gc
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import transformers
from safetensors.torch import load_file

from qvft.adapters.checkpoint import BRIDGE
from qvft.adapters.lora import load_lora
from qvft.adapters.lora_weights import CONFIG, WEIGHTS
from qvft.adapters.manifest import alignment_entry
from qvft.errors import CheckpointError, VerificationError
from qvft.files import new_folder, require_space, write_text
from qvft.json_files import write_json
from qvft.log import get_logger
from qvft.models.alignment.retrieval import fill_retrieval
from qvft.models.base_checkpoint import BaseCheckpoint
from qvft.models.t5_head import own_head_expected
from qvft.setup.alignment_heads import saved_branch
from qvft.setup.model import processor_of
from qvft.weights.card import run_card
from qvft.weights.export_qvision import export_published
from qvft.weights.merge_inputs import MergeInputs, origin, read_inputs
from qvft.weights.parity import comparison_line
from qvft.weights.probe_outputs import plain_outputs
from qvft.weights.requirements import require_form
from qvft.weights.run_probes import reference_outputs, require_rows, unmerged_model
from qvft.weights.write import SLACK_BYTES, file_hashes

logger = get_logger("qvft.export")


def require_plain_base(run_dir: Path, base: BaseCheckpoint) -> None:
    """Raises CheckpointError unless transformers and PEFT alone can load the run's adapter."""
    if not (run_dir / "adapter" / CONFIG).is_file():
        raise CheckpointError(
            "the run trained no LoRA", where=str(run_dir), do="qvft.merge writes the whole model"
        )
    if base.graft is not None or base.stored_queries or base.stored_image_size:
        raise CheckpointError(
            "its base is not a plain checkpoint (model.text_branch, model.decoder, "
            "model.query_tokens, model.image_size)",
            where=str(run_dir),
            do="qvft.merge writes the whole model",
        )
    if not hasattr(transformers, base.family.model_class):
        raise CheckpointError(
            f"transformers has no {base.family.model_class}, which PEFT would need",
            where=str(run_dir),
            do="qvft.merge or --to qvision writes the whole model",
        )


def export_run(
    run_dir: Path, out: Path, *, to: str, overrides: Sequence[str] = ()
) -> dict[str, Any]:
    """Exports a run's checkpoint in the form `to`; `out` appears only after verification.

    Returns:
        The content of export.json.

    Raises:
        UserError: no such form, the run has nothing for it, `out` exists, the disk is full.
        VerificationError: the written model differs from base and adapter.
    """
    require_form(run_dir, to)
    inputs = read_inputs(run_dir, overrides=overrides, program="export")
    with new_folder(out) as folder:
        figures = EXPORTS[to](folder, inputs)
        if to == "peft":
            recipe, base = inputs.recipe, inputs.base
            rows = require_rows(recipe, base)
            card = run_card(run_dir, recipe, base, folder=out.name, rows=rows)
            write_text(folder / "README.md", card)
        content = {
            **origin(inputs),
            "form": to,
            "verification": figures,
            "files": file_hashes(folder),
        }
        write_json(folder / "export.json", content)
    return content


def proof_line(content: Mapping[str, Any]) -> str:
    """Result of the verification in export.json, in one line."""
    figures = content["verification"]
    if content["form"] in ("peft", "qvision"):
        return comparison_line(figures)
    return (
        f"{figures['weights']:,} weights equal, scores off by at most "
        f"{figures['largest_difference']:.2g} (allowed {figures['allowed']:.2g})"
    )


def _export_peft(folder: Path, inputs: MergeInputs) -> dict[str, Any]:
    """Files for `peft.PeftModel.from_pretrained`, and the bridge."""
    run_dir, recipe, base = inputs.run_dir, inputs.recipe, inputs.base
    adapter = run_dir / "adapter"
    require_plain_base(run_dir, base)
    names = (CONFIG, WEIGHTS, BRIDGE)
    rows = require_rows(recipe, base)
    require_space(folder, sum((adapter / name).stat().st_size for name in names) + SLACK_BYTES)
    for name in names:
        shutil.copyfile(adapter / name, folder / name)
    logger.info("running base and adapter on real samples")
    reference = reference_outputs(inputs, rows, rounded=(), written=inputs.stored)
    logger.info("running the folder with plain PEFT")
    with own_head_expected(base.config):
        model = getattr(transformers, base.family.model_class).from_pretrained(
            base.location, revision=base.revision, dtype=reference.computed, use_safetensors=True
        )
    surplus = model.load_state_dict(load_file(folder / BRIDGE), strict=False).unexpected_keys
    if surplus:
        raise VerificationError(
            f"{len(surplus)} keys of {BRIDGE} have no place, first {surplus[0]}"
        )
    handle = load_lora(model.to(reference.place), folder)
    template = reference.template
    outputs = plain_outputs(
        handle.eval(),
        processor_of(recipe, base),
        template,
        reference.probes,
        stop_ids=[template.stop_id, template.tokenizer.eos_token_id],
    )
    del model, handle
    gc.collect()
    return reference.require_equal(outputs, what="the exported adapter").figures()


def _export_retrieval(folder: Path, inputs: MergeInputs) -> dict[str, Any]:
    """A folder for plain `Blip2ForImageTextRetrieval`: ViT, Q-Former and alignment heads."""
    adapter = inputs.run_dir / "adapter"
    trained = alignment_entry(adapter, inputs.manifest)["objectives"]
    for name, what in (("itc", "cosines"), ("itm", "matching scores")):
        if name not in trained:
            logger.warning("the run did not train %s: the folder's %s say nothing", name, what)
    loaded = unmerged_model(inputs)
    branch = saved_branch(adapter, inputs.recipe, loaded)
    written = fill_retrieval(
        folder,
        loaded.blip2,
        branch.heads,
        image_processor=loaded.processor.image_processor,
        tokenizer=branch.tokenizer,
        dtype=inputs.written,
    )
    left_out = ["language_model", "language_projection", *written["left_out"]]
    return {"objectives": trained, **written, "left_out": left_out}


EXPORTS: Mapping[str, Callable[[Path, MergeInputs], dict[str, Any]]] = {
    "peft": _export_peft,
    "qvision": export_published,
    "retrieval": _export_retrieval,
}
