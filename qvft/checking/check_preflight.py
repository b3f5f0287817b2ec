"""Preflight checks: runs each check before the first step and reports all failures at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from qvft.adapters.lora import lora_targets
from qvft.checking.findings import Check
from qvft.data.token_stats import TokenStats
from qvft.errors import ModelError, PreflightError
from qvft.recipe.phases import PhasePlan
from qvft.setup.model import device
from qvft.training.arguments import recompute_activations, use_bf16
from qvft.training.preflight import check_backward, check_image_matters, preflight_batch
from qvft.training.training_run import TrainingRun

LISTED = 3


def preflight_checks(work: TrainingRun, stats: TokenStats) -> tuple[Check, ...]:
    """Runs all preflight checks of each phase; weights are not changed."""
    template = work.loaded.template
    checks = [
        _attempt("the stop text is one token", lambda: f"token {template.stop_id}"),
        _rows_check(
            f"every row holds {template.num_query_tokens} image tokens",
            stats.wrong_image_tokens,
            stats.rows,
        ),
        _rows_check(
            "every row's supervised span ends in the stop token", stats.unstopped, stats.rows
        ),
    ]
    if work.loaded.handle is not None:
        count = len(lora_targets(work.loaded.handle))
        checks.append(Check("LoRA targets are found", True, f"{count} layers"))
    for plan in work.plans:
        checks.extend(_phase_checks(work, plan))
    return tuple(checks)


def _phase_checks(work: TrainingRun, plan: PhasePlan) -> list[Check]:
    work.counts(plan)
    loaded, phase = work.loaded, plan.phase.name
    recompute_activations(loaded.model, plan.train.gradient_checkpointing)
    rows = work.rows(plan, work.train, training=True)
    module, collator = work.objective(plan, rows)
    place = device()
    asked = list(enumerate(rows))
    if work.branch is not None and plan.phase.objective == "language":
        # Heads are trained on captions only.
        asked = [(index, row) for index, row in asked if row.kind == "caption"]
        work.branch.heads.to(place)
    batch = preflight_batch(collator, asked, place)

    def swap() -> str:
        if int(batch["image_index"].max()) == 0:
            return "not checked: there is one image only"
        return f"a row's loss moves by {check_image_matters(module, batch):.2g} nats a token"

    def gradients() -> str:
        largest = check_backward(module, loaded.model, loaded.base.family, batch)
        return ", ".join(f"{name} {value:.2g}" for name, value in largest.items())

    bf16 = use_bf16(plan.train.mixed_precision)
    with torch.autocast(place.type, dtype=torch.bfloat16, enabled=bf16):
        return [
            _attempt(f"{phase}: exchanging images moves the loss", swap),
            _attempt(f"{phase}: a gradient reaches every trained component", gradients),
        ]


def _attempt(name: str, check: Callable[[], str]) -> Check:
    try:
        return Check(name, True, check())
    except (ModelError, PreflightError) as error:
        return Check(name, False, str(error))


def _rows_check(name: str, wrong: Sequence[str], rows: int) -> Check:
    if not wrong:
        return Check(name, True, f"all {rows:,}")
    return Check(
        name, False, f"{len(wrong):,} of {rows:,} do not, first {', '.join(wrong[:LISTED])}"
    )
