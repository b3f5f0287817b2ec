"""Warnings before and after training: the data, the number of steps, collapsed query tokens."""

from __future__ import annotations

from qvft.data.data_warnings import data_warnings, few_steps
from qvft.data.rows import training_rows
from qvft.log import is_main_process
from qvft.setup.alignment_heads import truncation_warnings
from qvft.setup.mixing import unseen_texts
from qvft.setup.query_similarity import collapse_warning, query_similarity
from qvft.training.phase_rows import different_rows
from qvft.training.training_run import TrainingRun


def run_warnings(work: TrainingRun) -> list[str]:
    """Warnings about the data and the length of training."""
    found: list[str] = []
    for split, training in ((work.train, True), (work.eval, False)):
        if split is not None:
            for rows in different_rows(work.plans, split, training=training):
                found += data_warnings(
                    rows,
                    work.loaded.collator,
                    images=len(split.samples),
                    name=split.name,
                    training=training,
                )
    return [*dict.fromkeys(found), *phase_warnings(work)]


def phase_warnings(work: TrainingRun) -> list[str]:
    """Warnings that depend on phases and objectives, not on the data alone."""
    found: list[str] = []
    if work.branch is not None:
        rows = training_rows(work.train.samples, texts=work.train.source.texts)
        captions = [row.target for row in rows if row.kind == "caption"]
        found += truncation_warnings(work.branch, captions, name=work.train.name)
    for plan in work.plans:
        found += few_steps(plan.phase.name, work.steps(plan))
        if plan.train.max_steps <= 0:
            texts = len(work.mixture(plan) or ()) * plan.train.epochs
            found += unseen_texts(work.source_shares(plan), texts)
    return found


def query_warnings(work: TrainingRun) -> list[str]:
    """Warning if the query tokens have collapsed, on a few training images.

    Not checked under FSDP, which would need all processes.
    """
    if work.sharded or not is_main_process():
        return []
    similarity = query_similarity(work.loaded, work.train.samples)
    return [] if similarity is None else collapse_warning(similarity)
