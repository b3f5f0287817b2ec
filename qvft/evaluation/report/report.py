"""`Report`: the typed content of `report.json`."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from qvft.evaluation.calibration import Calibration
from qvft.evaluation.comparison import Comparison
from qvft.evaluation.evaluation_facts import DataFacts, DecodeFacts, ModelFacts, Part
from qvft.evaluation.report.completions import Completion
from qvft.evaluation.report.loss_chart import LossPoint
from qvft.evaluation.report.phases import PhaseFacts
from qvft.evaluation.report.preference_and_reward import PreferencePoint, RewardPoint
from qvft.evaluation.scoring import Scores


class Skipped(Part):
    """An item that was not scored, and why."""

    id: str = Field(description="the sample's")
    reason: str = Field(description="what is wrong with its image")


class Report(Part):
    """What `report.json` holds. Percentages are 0 to 100; `units` states each metric's scale."""

    title: str = Field(description="what was evaluated on what, e.g. `vqa_rad test`")
    n: int = Field(description="items scored")
    n_by_group: dict[str, int] = Field(default={}, description="items by group of metrics")
    metrics: dict[str, float] = Field(description="value by name")
    intervals: dict[str, tuple[float, float]] = Field(
        default={}, description="95 % bootstrap interval by name, whole images drawn"
    )
    units: dict[str, str] = Field(default={}, description="`percent`, `0..1` or `0..10` by name")
    definitions: dict[str, str] = Field(
        default={}, description="name/version and a sentence, by name of metric or baseline"
    )
    baselines: dict[str, dict[str, float]] = Field(
        default={},
        description="metrics of `base`, `most_frequent_answer`, `blind` (images shuffled)",
    )
    verdict: list[str] = Field(
        default=[],
        description="in plain sentences: whether the model uses the image, whether it beats the "
        "most frequent answer, whether its query tokens have become one",
    )
    query_similarity: float | None = Field(
        default=None,
        description="mean cosine between what the Q-Former makes of two query tokens, on 8 images; "
        "1: they have become one",
    )
    calibration: dict[str, Calibration] = Field(
        default={},
        description="of `generated` answers (`eval.scores`) and of ranked `candidates`: does their "
        "probability say whether they are right?",
    )
    against: Comparison | None = Field(
        default=None, description="paired comparison with another evaluation (`--against`)"
    )
    retention: dict[str, Comparison] = Field(
        default={},
        description="by data set of `eval.retention`: this run minus its base, without the items",
    )
    breakdowns: dict[str, list[dict[str, Any]]] = Field(
        default={},
        description="by key, an entry a value: `value`, `n`, `exact_match` with its `interval`, "
        "and the means of other scores where items have them; an item with several values counts "
        "under each",
    )
    counts: dict[str, float] = Field(
        default={},
        description="images read and skipped; prompts that `data.max_text_tokens` cut, and targets "
        "that it would cut in training; predictions, empty and different ones, share of the "
        "most common one (percent), yes/no answers that do not open with yes or no (`unparseable`) "
        "and those that hold both words or neither anywhere (`undecided`)",
    )
    warnings: list[str] = Field(
        default=[], description="what should be known before the figures are read, in sentences"
    )
    skipped: list[Skipped] = Field(default=[], description="skipped items, with the reason")
    decode: DecodeFacts = Field(default=DecodeFacts(), description="how the model was asked")
    model: ModelFacts = Field(default=ModelFacts(), description="the model, with hashes")
    data: DataFacts = Field(default=DataFacts(), description="the data, with hashes")
    versions: dict[str, str] = Field(default={}, description="of qvft and its libraries")
    phases: list[PhaseFacts] = Field(
        default=[], description="of the training run, in order; empty where no run was evaluated"
    )
    loss_curve: list[LossPoint] = Field(default=[], description="from the training run")
    preference_curve: list[PreferencePoint] = Field(
        default=[], description="of its phases that learn from pairs"
    )
    reward_curve: list[RewardPoint] = Field(
        default=[], description="of its phases that learn from rewards of their own samples"
    )
    completions: list[Completion] = Field(
        default=[], description="evaluation texts as they changed in training"
    )
    wall_seconds: float | None = Field(
        default=None, description="of the evaluation, loading and baselines included"
    )

    @classmethod
    def from_scores(cls, scores: Scores, **fields: Any) -> Report:
        """A report of `scores`; `fields` are the fields that scores do not know.

        `counts` given here joins the scores' own; so does `definitions`.
        """
        return cls(
            n=scores.n["all"],
            n_by_group={name: n for name, n in scores.n.items() if name != "all"},
            metrics=scores.metrics,
            intervals=scores.intervals,
            units=scores.units,
            definitions={**scores.definitions, **fields.pop("definitions", {})},
            breakdowns=scores.breakdowns,
            counts={**fields.pop("counts", {}), **scores.counts},
            **fields,
        )

    def to_json(self) -> dict[str, Any]:
        """The report as JSON values, in the order of the fields."""
        return self.model_dump(mode="json")

    def _repr_html_(self) -> str:
        """The scores as a table, for notebooks."""
        from qvft.evaluation.report.table import report_html

        return report_html(self)
