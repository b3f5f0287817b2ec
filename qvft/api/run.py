"""`qvft.fit`, which trains from Python, and `qvft.Run`, the run folder it returns."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qvft.errors import UserError
from qvft.files import given_path
from qvft.json_files import complete_lines
from qvft.recipe.load import load_recipe, parse_recipe
from qvft.recipe.overrides import override_texts
from qvft.recipe.recipe_lock import read_lock
from qvft.recipe.schema import Recipe

if TYPE_CHECKING:
    from transformers import TrainerCallback

    from qvft.data.formats.memory import Rows
    from qvft.data.sample import Sample
    from qvft.evaluation.report.report import Report
    from qvft.inference.vision_language_model import VisionLanguageModel


def fit(
    recipe: Recipe | str | Path,
    train: Rows | None = None,
    eval: Rows | None = None,
    *,
    columns: Mapping[str, str] | None = None,
    callbacks: Sequence[TrainerCallback] = (),
) -> Run:
    """Trains a recipe, as `qvft train` does, and returns the run.

    Args:
        recipe: from `Recipe.load`, built in Python, or the path of a YAML file.
        train: training data instead of the recipe's: a `datasets.Dataset`, or a list of dicts with
            the fields of the custom JSONL. Images are paths, Pillow images, uint8 arrays, or the
            bytes of image files. None: the recipe's data.
        eval: evaluation data instead of the recipe's; used if `train.eval_steps` is set, and by
            `Run.evaluate`.
        columns: column names of `train` and `eval` by field (`image`, `caption`, `question`,
            `answer`, ...), as in format hf.
        callbacks: transformers callbacks, for the trainer of each phase.

    Raises:
        UserError: the recipe, the data, the base checkpoint or the run folder is wrong; see its
            subclasses.
        FailedError: training failed. Ctrl-C raises `StoppedError` after a checkpoint.
    """
    from qvft.api.train import train as run_training
    from qvft.setup.given_data import data_in_memory, with_given

    for callback in callbacks:
        if not hasattr(callback, "on_step_end"):
            raise UserError(
                f"a {type(callback).__name__}",
                where="callbacks",
                expected="objects of transformers.TrainerCallback",
            )
    if not isinstance(recipe, Recipe):
        recipe = load_recipe(recipe)
    given = {
        which: _samples(rows, columns, which=which)
        for which, rows in (("train", train), ("eval", eval))
        if rows is not None
    }
    recipe = parse_recipe(with_given(recipe, given).model_dump())
    with data_in_memory(given):
        folder = run_training(recipe, callbacks=callbacks)
    return Run(folder, _given=given)


class Run:
    """The folder of a finished training run.

    Args:
        folder: run folder of `qvft train` or `qvft.fit`.

    Attributes:
        folder: its path.

    Raises:
        CheckpointError: it is not a run folder.
    """

    def __init__(
        self, folder: str | Path, *, _given: Mapping[str, list[Sample]] | None = None
    ) -> None:
        self.folder = given_path(str(folder))
        self._given = dict(_given or {})
        _ = self.recipe  # raises if it is not a run

    def __repr__(self) -> str:
        model = self.recipe.model.id
        return f"Run({str(self.folder)!r}, model={model!r}, finished={self.is_finished})"

    @cached_property
    def recipe(self) -> Recipe:
        """The run's recipe with all defaults and overrides resolved: `recipe.lock.yaml`."""
        return read_lock(self.folder)

    @property
    def is_finished(self) -> bool:
        """Whether its adapter has been written."""
        from qvft.training.run_folder import is_finished

        return is_finished(self.folder)

    @property
    def metrics(self) -> list[dict[str, Any]]:
        """Rows of `metrics.jsonl`: phase, step, seconds and the trainer's logs."""
        return complete_lines(self.folder / "metrics.jsonl")

    def model(self) -> VisionLanguageModel:
        """Loads the trained model, in evaluation mode, on the GPU if there is one."""
        from qvft.inference.vision_language_model import load_model

        return load_model(self.folder)

    def evaluate(
        self,
        data: Rows | None = None,
        *,
        columns: Mapping[str, str] | None = None,
        against: str | Path | None = None,
        out: str | Path | None = None,
        overwrite: bool = False,
        **overrides: Any,
    ) -> Report:
        """Evaluates as `qvft eval` does, writes the report, and returns it.

        Args:
            data: as `eval` of `fit`; None: the recipe's evaluation data.
            columns: column names of `data`, as in `fit`.
            against: run, model, or folder of an evaluation to compare with on the same items;
                None: as `qvft eval`, the run it started from if that was evaluated on them.
            out: folder of the report; None: RUN/eval/DATASET-SPLIT, or one next to it if that has
                another evaluation.
            overwrite: replace another evaluation in that folder.
            overrides: recipe overrides, e.g. `**{"eval.blind": False}`.

        Raises:
            UserError: the data, an override or the run is wrong.
        """
        from qvft.api.evaluate import evaluate

        with self._data(data, columns, which="eval") as source:
            done = evaluate(
                str(self.folder),
                overrides=[*source, *override_texts(overrides)],
                out=given_path(str(out)) if out is not None else None,
                overwrite=overwrite,
                against=str(against) if against is not None else None,
            )
        return done.report

    def evaluate_each(
        self, *, against: str | Path | None = None, overwrite: bool = False, **overrides: Any
    ) -> dict[str, Report]:
        """Evaluates on each source of a list of evaluation data; reports by source name. Arguments
        as `evaluate`.
        """
        from qvft.api.evaluate import evaluate_each

        with self._data(None, None, which="eval"):
            done = evaluate_each(
                str(self.folder),
                overrides=override_texts(overrides),
                overwrite=overwrite,
                against=str(against) if against is not None else None,
            )
        return {str(one.report.data.name): one.report for one in done}

    def merge(
        self,
        out: str | Path,
        *,
        data: Rows | None = None,
        columns: Mapping[str, str] | None = None,
        dtype: str | None = None,
        shard_size: str = "5GB",
        **overrides: Any,
    ) -> Path:
        """Merges into a plain checkpoint as `qvft merge` does, verifies it, and returns its folder.

        Args:
            out: new folder.
            data: a few samples for verification, as `eval` of `fit`; None: the run's data.
            columns: column names of `data`, as in `fit`.
            dtype: dtype of the written weights, e.g. `float32`; None: that of the base.
            shard_size: maximum file size.
            overrides: recipe overrides.

        Raises:
            UserError: the run or the base is wrong, or `out` exists.
            VerificationError: the written model differs from base and adapter.
        """
        from qvft.api.merge import merge

        folder = given_path(str(out))
        with self._data(data, columns, which="eval") as source:
            merge(
                self.folder,
                folder,
                dtype=dtype,
                shard_size=shard_size,
                overrides=[*source, *override_texts(overrides)],
            )
        return folder

    @contextmanager
    def _data(
        self, rows: Rows | None, columns: Mapping[str, str] | None, *, which: str
    ) -> Iterator[list[str]]:
        """Yields the override for `rows` as in-memory data."""
        from qvft.setup.given_data import data_in_memory, memory_source

        if rows is None:
            with data_in_memory(self._given):
                yield []
            return
        source = memory_source(None).model_dump(exclude_defaults=True)
        samples = _samples(rows, columns, which=which)
        with data_in_memory({**self._given, which: samples}):
            yield override_texts({f"data.{which}": source})


def _samples(rows: Rows, columns: Mapping[str, str] | None, *, which: str) -> list[Sample]:
    from qvft.data.formats.memory import samples_in_memory

    return samples_in_memory(rows, columns=columns, where=which)
