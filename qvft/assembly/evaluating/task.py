"""What is evaluated: checked and identified before a model is loaded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qvft.assembly.alignment.aligned import retrieves
from qvft.assembly.alignment.classifying import Classes, rows_of_class
from qvft.assembly.asking.opening import Opened
from qvft.assembly.asking.trial import tried_fields
from qvft.assembly.data import Listed, Split, read_split
from qvft.assembly.evaluating.facts import data_facts, decode_facts, model_facts
from qvft.assembly.evaluating.standing import Standing, facts_of, why_other
from qvft.assembly.model import base_of, versions
from qvft.data.rows import Row, evaluation_rows
from qvft.errors import DataError, RecipeError
from qvft.evaluation.facts import DataFacts, DecodeFacts, ModelFacts
from qvft.evaluation.groups import GROUPS, misfit
from qvft.evaluation.metrics.java import BY_JAVA
from qvft.evaluation.of_model import RETRIEVAL, ZERO_SHOT
from qvft.evaluation.rows import PredictionRow
from qvft.evaluation.scoring import applicable_groups
from qvft.log import get_logger

logger = get_logger("qvft.eval")


@dataclass(frozen=True)
class Task:
    """A model, what it is asked and how, checked; nothing is loaded yet.

    Attributes:
        groups: names of metric groups, or `auto`.
        generation: `GenerationConfig` fields by kind of text.
        of_model: groups that the model itself gives beside its texts, of `of_model.OF_MODEL`.
        classes: what images are sorted into, where that is among them.
    """

    opened: Opened
    split: Split
    rows: list[Row]
    groups: list[str] | str
    generation: Mapping[str, Mapping[str, Any]]
    model: ModelFacts
    data: DataFacts
    decode: DecodeFacts
    versions: Mapping[str, str]
    of_model: tuple[str, ...] = ()
    classes: Classes | None = None

    def why_other(self, standing: Standing) -> str | None:
        """Why an evaluation that stands has other texts than this task; None: it has the same."""
        facts = facts_of(self.model, self.data, self.decode, self.versions)
        return why_other(standing, facts, self.asked())

    def asked(self) -> list[PredictionRow]:
        """The rows, without predictions."""
        return prediction_rows(self.rows, [""] * len(self.rows))

    def group_names(self) -> list[str]:
        """The groups of metrics that the report will have, those of the model itself last."""
        groups = applicable_groups(self.asked()) if self.groups == "auto" else self.groups
        return [*groups, *self.of_model]

    def shows_blind(self) -> bool:
        """Whether the model is asked once more with the images shuffled."""
        return self.opened.recipe.eval.blind and len(self.split.samples) > 1


def output_folder(opened: Opened, split_name: str) -> Path:
    """RUN/eval/SPLIT; for a recipe's base RUN/eval-base/SPLIT; for a model FOLDER/eval/SPLIT."""
    if opened.kind == "base":
        return Path(opened.recipe.run_dir) / "eval-base" / split_name
    if opened.home is not None:
        return opened.home / "eval" / split_name
    return Path(opened.recipe.run_dir) / f"eval-{opened.name.replace('/', '--')}" / split_name


def prepare(
    opened: Opened, *, split: Split | None = None, texts: Listed | None = None
) -> Task:
    """Checks the settings, reads the data and hashes data and weights.

    Args:
        opened: from `open_target`.
        split: the evaluation data where it has been read already.
        texts: from `data.listed`, where only they have been read.

    Raises:
        UserError: the recipe, the data or the checkpoint is wrong.
    """
    recipe = opened.recipe
    require_known_metrics(recipe.eval.metrics)
    generation = tried_fields(recipe, base_of(recipe))
    split = split or read_split(recipe, "eval", texts)
    rows = evaluation_rows(split.samples, texts=split.source.texts)
    if not rows:
        raise DataError("holds no text to evaluate", where="data.eval")
    wanted = recipe.eval.metrics
    require_fitting_metrics(wanted, prediction_rows(rows, [""] * len(rows)))
    classes = _classes(opened, rows)
    of_model = ([RETRIEVAL] if _retrieves(opened, rows) else []) + ([ZERO_SHOT] if classes else [])
    return Task(
        opened,
        split,
        rows,
        "auto" if wanted == ["auto"] else [name for name in wanted if name != RETRIEVAL],
        generation,
        model_facts(opened),
        data_facts(split),
        decode_facts(opened, generation),
        versions(),
        tuple(of_model),
        classes,
    )


def _retrieves(opened: Opened, rows: Sequence[Row]) -> bool:
    """Whether retrieval is asked for; `auto` asks where there are heads for it and captions.

    Raises:
        RecipeError: it is named, and one of these is missing.
    """
    named = RETRIEVAL in opened.recipe.eval.metrics
    if not named and opened.recipe.eval.metrics != ["auto"]:
        return False
    possible = retrieves(opened)
    if named and not possible:
        raise RecipeError(
            f'"{RETRIEVAL}" of a model without contrast heads',
            where="eval.metrics",
            expected="a run with itc among its objectives",
        )
    captioned = any(row.kind == "caption" for row in rows)
    if named and not captioned:
        raise RecipeError(f'"{RETRIEVAL}" without captions', where="eval.metrics")
    return possible and captioned


def _classes(opened: Opened, rows: Sequence[Row]) -> Classes | None:
    """What images are to be sorted into; None where that is not asked for, or cannot be.

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


def prediction_rows(rows: Sequence[Row], texts: Sequence[str]) -> list[PredictionRow]:
    """Rows with what was predicted for them."""
    return [
        PredictionRow(
            row.id,
            row.sample.image.name,
            row.kind,
            row.question,
            text,
            row.references,
            row.meta,
        )
        for row, text in zip(rows, texts, strict=True)
    ]


def require_fitting_metrics(names: Sequence[str], asked: Sequence[PredictionRow]) -> None:
    """Checks that the data has what each group of metrics scores.

    Raises:
        RecipeError: it has not; the message names the group, and the item that it cannot score.
    """
    for name in names:
        problem = misfit(asked, name) if name in GROUPS else None
        if problem is not None:
            raise RecipeError(
                problem.given, where="eval.metrics", expected=problem.expected, do=problem.do
            )


def require_known_metrics(names: Sequence[str]) -> None:
    """Checks the names in `eval.metrics`, and that programs are there which some need.

    Raises:
        UserError: an unknown group, or a program is missing.
    """
    for name in names:
        if name not in (*GROUPS, RETRIEVAL) and list(names) != ["auto"]:
            raise RecipeError(
                f'"{name}"',
                where="eval.metrics",
                expected=f"some of {', '.join((*GROUPS, RETRIEVAL))}, or auto alone",
            )
        if name.upper() in BY_JAVA:
            BY_JAVA[name.upper()].require_installed()  # before anything is generated
