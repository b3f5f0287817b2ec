"""Evaluation task: rows, prompts, decoding and metrics, checked before a model is loaded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from qvft.data.rows import Row, evaluation_rows
from qvft.errors import DataError
from qvft.evaluation.available_metrics import (
    prediction_rows,
    require_metrics,
    wants_retrieval,
)
from qvft.evaluation.collect_facts import data_facts, decode_facts, model_facts
from qvft.evaluation.embedding_metrics import RETRIEVAL, ZERO_SHOT
from qvft.evaluation.evaluation_facts import DataFacts, DecodeFacts, ModelFacts
from qvft.evaluation.rows import PredictionRow
from qvft.evaluation.scoring import metric_names
from qvft.evaluation.stored_evaluation import StoredEvaluation, facts_of, mismatch
from qvft.evaluation.zero_shot import Classes, rows_of_class
from qvft.inference.generation_trial import tried_fields
from qvft.log import get_logger
from qvft.setup.data import Listed, Split, read_split
from qvft.setup.itc_heads import retrieves
from qvft.setup.model import base_of, versions
from qvft.setup.resolve_model import ResolvedModel

logger = get_logger("qvft.eval")


@dataclass(frozen=True)
class Task:
    """A checked evaluation task; nothing is loaded yet.

    Attributes:
        groups: names of metrics, possibly `auto`.
        generation: `GenerationConfig` fields per kind of text.
        of_model: embedding metrics, of `EMBEDDING_METRICS`.
        classes: classes of zero-shot classification, if evaluated.
    """

    opened: ResolvedModel
    split: Split
    rows: list[Row]
    groups: list[str]
    generation: Mapping[str, Mapping[str, Any]]
    model: ModelFacts
    data: DataFacts
    decode: DecodeFacts
    versions: Mapping[str, str]
    of_model: tuple[str, ...] = ()
    classes: Classes | None = None

    def mismatch(self, standing: StoredEvaluation) -> str | None:
        """Why a stored evaluation has other texts than this task; None if it has the same."""
        facts = facts_of(self.model, self.data, self.decode, self.versions)
        return mismatch(standing, facts, self.asked())

    def asked(self) -> list[PredictionRow]:
        """The rows, without predictions."""
        return prediction_rows(self.rows, [""] * len(self.rows))

    def group_names(self) -> list[str]:
        """Metrics in the report, embedding metrics last."""
        return [*metric_names(self.asked(), self.groups), *self.of_model]

    def shows_blind(self) -> bool:
        """Whether the image-blind baseline is computed."""
        return self.opened.recipe.eval.blind and len(self.split.samples) > 1


def prepare(
    opened: ResolvedModel, *, split: Split | None = None, texts: Listed | None = None
) -> Task:
    """Checks settings, reads data, and hashes data and weights.

    Args:
        opened: from `resolve_model`.
        split: the evaluation data, if already read.
        texts: from `data.listed`, if only these have been read.

    Raises:
        UserError: the recipe, the data or the checkpoint is wrong.
    """
    recipe = opened.recipe
    generation = tried_fields(recipe, base_of(recipe))
    split = split or read_split(recipe, "eval", texts)
    rows = evaluation_rows(split.samples, texts=split.source.texts)
    if not rows:
        raise DataError("holds no text to evaluate", where="data.eval")
    require_metrics(opened, rows)
    classes = _classes(opened, rows)
    of_model = [RETRIEVAL] if wants_retrieval(opened, rows) else []
    of_model += [ZERO_SHOT] if classes else []
    return Task(
        opened,
        split,
        rows,
        [name for name in recipe.eval.metrics if name != RETRIEVAL],
        generation,
        model_facts(opened),
        data_facts(split),
        decode_facts(opened, generation),
        versions(),
        tuple(of_model),
        classes,
    )


def _classes(opened: ResolvedModel, rows: Sequence[Row]) -> Classes | None:
    """Classes of zero-shot classification; None if not requested or not possible.

    Raises:
        UserError: as `Classes`.
    """
    named = opened.recipe.eval.classes
    if not named:
        return None
    classes = Classes(tuple(named), tuple(opened.recipe.eval.class_prompts))
    reason = None
    if not retrieves(opened):
        reason = "not a run with itc among its objectives"
    elif not rows_of_class(prediction_rows(rows, [""] * len(rows)), classes.names):
        reason = "no text's reference is one of them"
    if reason is not None:
        logger.warning("%s: eval.classes is left out: %s", opened.name, reason)
        return None
    return classes
