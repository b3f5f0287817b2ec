"""Outputs of the unmerged model on the parity samples: the reference of a merge."""

from __future__ import annotations

import gc
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import torch

from qvft.data.prompt import PromptTemplate
from qvft.data.rows import Row, choose_rows, evaluation_rows, preference_rows
from qvft.data.token_stats import encode
from qvft.errors import RecipeError, UserError
from qvft.models.base_checkpoint import BaseCheckpoint
from qvft.models.load import load_processor
from qvft.recipe.schema import Recipe
from qvft.setup.data import read_split
from qvft.setup.model import Loaded, trained_model
from qvft.setup.prompt_template import template_of
from qvft.weights.merge_inputs import MergeInputs
from qvft.weights.parity import Comparison, compare, require_equal
from qvft.weights.probe_outputs import Output, Probe, make_probes, toolkit_logits, toolkit_outputs
from qvft.weights.requirements import data_error, probe_split, with_few_images
from qvft.weights.tolerance import Tolerance, jitter, tolerance_of

PROBES = 8
"""Number of rows compared: both kinds of text, different images."""


@dataclass(frozen=True)
class Reference:
    """Outputs of base and adapter, computed in dtype `computed`.

    `tolerance` has the allowed errors of logits by rounding; None if not measured.
    """

    probes: list[Probe]
    outputs: list[Output]
    tolerance: Tolerance | None
    template: PromptTemplate
    computed: torch.dtype
    place: torch.device

    def require_equal(self, outputs: list[Output], *, what: str) -> Comparison:
        """Compares a written model's outputs with these; raises as `parity.require_equal`."""
        assert self.tolerance is not None
        comparison = compare(self.outputs, outputs, self.tolerance)
        require_equal(comparison, what=what)
        return comparison


def reference_outputs(
    inputs: MergeInputs,
    rows: Sequence[Row],
    *,
    rounded: Collection[str] | None,
    written: torch.dtype,
    quantized: bool = False,
) -> Reference:
    """Loads base and adapter, computes outputs, and unloads them.

    In float32, so that only the merge can differ; in bfloat16 with `model.dtype: bfloat16`, for
    hosts without memory for four bytes per weight.

    Args:
        rounded: names of the weights that are rounded to `written`; None: no tolerance is measured.
    """
    loaded = unmerged_model(inputs, quantized=quantized)
    computed, place = computed_dtype(inputs.recipe), loaded.model.device
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
    """Rows for verification, read before anything is written; raises UserError for none."""
    which = probe_split(recipe)
    try:
        split = read_split(with_few_images(recipe), which)
    except UserError as error:
        raise data_error(error, recipe) from error
    texts = split.source.texts
    rows = evaluation_rows(split.samples, texts=texts) or preference_rows(
        split.samples, texts=texts
    )
    template = template_of(recipe, base, load_processor(base))
    fitting = [row for row in rows if not encode(row, template).cut_tokens]
    if not rows:
        raise RecipeError(
            "holds no text, and the verification needs one",
            where=f"data.{which}",
            do="name data with texts",
        )
    if not fitting:
        raise RecipeError(
            f"data.max_text_tokens truncates each of the first {len(rows)} texts, and the "
            "verification needs one that is not truncated",
            where=f"data.{which}",
            do="name data with shorter texts, or raise data.max_text_tokens",
        )
    return choose_rows(fitting, PROBES)


def unmerged_model(inputs: MergeInputs, *, quantized: bool = False) -> Loaded:
    """Base and adapter, on a GPU with memory for them and a fifth more, otherwise on the CPU."""
    recipe, place = inputs.recipe, torch.device("cpu")
    dtype = computed_dtype(recipe)
    if torch.cuda.is_available():
        torch.cuda.empty_cache()  # frees cached memory of earlier models
        if torch.cuda.mem_get_info()[0] > 1.2 * inputs.weights * dtype.itemsize:
            place = torch.device("cuda", torch.cuda.current_device())
    return trained_model(inputs.run_dir, recipe, quantized=quantized, dtype=dtype, place=place)


def computed_dtype(recipe: Recipe) -> torch.dtype:
    """Dtype in which the parity check computes."""
    return torch.bfloat16 if recipe.model.dtype == "bfloat16" else torch.float32
