"""Outputs of the unmerged model on the parity samples: the reference of a merge."""

from __future__ import annotations

import gc
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from qvft.data.prompt import PromptTemplate
from qvft.data.rows import Row, choose_rows, evaluation_rows
from qvft.errors import RecipeError, UserError
from qvft.models.base_checkpoint import BaseCheckpoint
from qvft.models.load import load_processor
from qvft.recipe.schema import Recipe
from qvft.setup.data import read_split
from qvft.setup.model import template_of, trained_model
from qvft.weights.probe_outputs import Output, toolkit_logits, toolkit_outputs
from qvft.weights.probes import PROBES, Probe, make_probes
from qvft.weights.requirements import as_of_a_proof, asked_about, of_a_few
from qvft.weights.tolerance import Tolerance, jitter, tolerance_of


@dataclass(frozen=True)
class Reference:
    """Outputs of base and adapter.

    Attributes:
        probes: the samples. outputs: their outputs.
        tolerance: allowed errors of logits by rounding; None if not measured.
        computed: compute dtype. place: device.
    """

    probes: list[Probe]
    outputs: list[Output]
    tolerance: Tolerance | None
    template: PromptTemplate
    computed: torch.dtype
    place: torch.device


def reference_outputs(
    run_dir: Path,
    recipe: Recipe,
    *,
    rows: Sequence[Row],
    weights: int,
    quantized: bool,
    rounded: Collection[str] | None,
    written: torch.dtype,
) -> Reference:
    """Loads base and adapter, computes outputs, and unloads them.

    In float32, so that only the merge can differ; in bfloat16 with `model.dtype: bfloat16`, for
    hosts without memory for four bytes per weight.

    Args:
        rows: from `require_rows`.
        weights: number of base weights, to choose a device.
        quantized: whether the decoder is quantized as in training.
        rounded: names of the weights that are rounded to `written`; None: no tolerance is measured.
    """
    computed = torch.bfloat16 if recipe.model.dtype == "bfloat16" else torch.float32
    place = place_for(weights * computed.itemsize)
    loaded = trained_model(run_dir, recipe, quantized=quantized, dtype=computed, place=place)
    for parameter in loaded.model.parameters():
        if parameter.is_floating_point() and computed != torch.float32:
            parameter.data = parameter.data.to(computed)
    probes = make_probes(loaded.collator, rows)
    model, template = loaded.model, loaded.template
    outputs = toolkit_outputs(model, template, probes)
    tolerance = None
    if rounded is not None:
        jitter(model, rounded, written=written, computed=computed)
        exact = [output.logits for output in outputs]
        tolerance = tolerance_of(exact, toolkit_logits(model, probes))
    del loaded, model
    gc.collect()
    return Reference(probes, outputs, tolerance, template, computed, place)


def require_rows(recipe: Recipe, base: BaseCheckpoint) -> list[Row]:
    """Rows for verification, read before anything is written.

    Raises:
        UserError: the recipe has no data, it cannot be read, or no text suits a plain processor.
    """
    try:
        rows = _first_rows(recipe)
    except UserError as error:
        raise as_of_a_proof(error, recipe) from error
    template = template_of(recipe, base, load_processor(base))
    whole = [
        row
        for row in rows
        if not template.encode(row.kind, question=row.question, target=row.target).cut_tokens
    ]
    if not whole:
        raise RecipeError(
            f"data.max_text_tokens cuts each of the first {len(rows)} texts, and a proof needs one "
            "that is whole",
            where=f"data.{asked_about(recipe)}",
            do="name data with shorter texts, or raise data.max_text_tokens",
        )
    return choose_rows(whole, PROBES)


def probe_rows(recipe: Recipe) -> list[Row]:
    """Rows of the recipe's eval data, or of its training data if there is none."""
    return choose_rows(_first_rows(recipe), PROBES)


def _first_rows(recipe: Recipe) -> list[Row]:
    split = read_split(of_a_few(recipe), asked_about(recipe))
    return evaluation_rows(split.samples, texts=split.source.texts)


def place_for(needed_bytes: int) -> torch.device:
    """A GPU with memory for a model and a fifth more, otherwise the CPU."""
    if torch.cuda.is_available():
        torch.cuda.empty_cache()  # frees cached memory of earlier models
    if torch.cuda.is_available() and torch.cuda.mem_get_info()[0] > 1.2 * needed_bytes:
        return torch.device("cuda", torch.cuda.current_device())
    return torch.device("cpu")
