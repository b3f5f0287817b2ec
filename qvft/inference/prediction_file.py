"""Prediction JSONL: rows in input order, resumable after an interruption."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qvft.data.rows import Row
from qvft.disk import to_disk
from qvft.errors import DataError, FailedError
from qvft.files import require_writable
from qvft.inference.log_probs import LogProb
from qvft.inference.predict import Outcome
from qvft.json_files import drop_torn_line, json_text, read_json, write_json

SETTINGS_SUFFIX = ".settings.json"


def in_order(outcomes: Iterable[Outcome]) -> Iterator[Outcome]:
    """The outcomes sorted by number, yielded as soon as possible."""
    early: dict[int, Outcome] = {}
    due = 0
    for outcome in outcomes:
        early[outcome.number] = outcome
        while due in early:
            yield early.pop(due)
            due += 1


def line_of(row: Row, outcome: Outcome) -> str:
    """A row of the output as JSON.

    `image`; `id` and `question`, if any; `text`, or `error` if the image is unusable; `texts`
    besides `text`, the first of them, with several return sequences; `scores` for classification;
    what `Scoring` asks for.
    """
    content: dict[str, Any] = _named(row)
    if outcome.error is not None:
        content["error"] = outcome.error.given
    else:
        content["text"] = outcome.texts[0]
        if len(outcome.texts) > 1:
            content["texts"] = list(outcome.texts)
        if outcome.scores:
            content["scores"] = dict(outcome.scores)
        content |= _probabilities(outcome)
    return json_text(content)


def _probabilities(outcome: Outcome) -> dict[str, Any]:
    """Probabilities of the texts and the candidates, of those that there are."""
    content: dict[str, Any] = {"probability": outcome.probability, "abstained": outcome.abstained}
    texts = [_values(one) for one in outcome.log_probs]
    content |= texts[0] if texts else {}
    if len(texts) > 1:
        content |= {f"{key}s": [one[key] for one in texts] for key in texts[0]}
    if outcome.candidates:
        content["candidates"] = [
            {"text": one.text, "probability": one.probability, **_values(one.log_prob)}
            for one in outcome.candidates
        ]
    return {key: value for key, value in content.items() if value is not None}


def _values(found: LogProb) -> dict[str, float]:
    return {"log_prob": found.sum, "mean_log_prob": found.mean}


def _named(row: Row) -> dict[str, Any]:
    """The input fields of a line."""
    own_id = {"id": row.id} if row.id else {}
    asked = {} if row.question is None else {"question": row.question}
    return {**own_id, "image": row.sample.image.name, **asked}


@dataclass(frozen=True)
class Written:
    """Counts of a prediction: total rows, rows from before, and errors among the new ones."""

    rows: int
    before: int
    errors: int


@dataclass(frozen=True)
class Predictions:
    """Predictions to make: of which rows, how, and by what.

    Attributes:
        settings: model, weights, prompts, decoding, as values for JSON.
        outcomes_of: loads the model and computes the outcomes of rows.
    """

    rows: Sequence[Row]
    settings: Mapping[str, Any]
    outcomes_of: Callable[[Sequence[Row]], Iterable[Outcome]]

    def lines(self) -> Iterator[str]:
        """One line of JSON per row, in order, see `line_of`."""
        for outcome in in_order(self.outcomes_of(self.rows)):
            yield line_of(self.rows[outcome.number], outcome)


def write_predictions(path: Path, predictions: Predictions, *, resume: bool) -> Written:
    """Writes the outcomes of all rows in order, as they come.

    `PATH.settings.json` records how they were made, so that rows of two jobs never mix.

    Args:
        resume: continue after the rows in the file; otherwise a finished file is replaced, at the
            first outcome, and an unfinished one refused.

    Raises:
        DataError: the file cannot be continued or replaced.
        FailedError: the disk is full or the file is gone; written rows stay.
    """
    rows, settings = predictions.rows, json.loads(json.dumps(predictions.settings))
    record = path.with_name(path.name + SETTINGS_SUFFIX)
    done = 0
    if path.is_file() and path.stat().st_size > 0:
        before = _record_of(path, record)
        # A last line without line break is incomplete.
        lines = path.read_bytes().split(b"\n")[:-1]
        if resume:
            _require_same(path, before["settings"], settings)
            for number, line in enumerate(lines):
                _require_row(f"{path}:{number + 1}", line, rows[number : number + 1])
            drop_torn_line(path)
            done = len(lines)
        elif not before["finished"]:
            raise DataError(
                f"{len(lines)} rows of a run that was stopped",
                where=str(path),
                do=f"continue with --resume, or remove it and {record.name}",
            )
    require_writable(path)
    if done == len(rows):
        write_json(record, {"finished": True, "settings": settings})
        return Written(done, done, 0)
    ordered = in_order(predictions.outcomes_of(rows[done:]))
    first = list(itertools.islice(ordered, 1))  # before anything is replaced
    errors = 0
    try:
        if not done:
            # Emptied first, so that new settings never describe old rows.
            path.parent.mkdir(parents=True, exist_ok=True)
            path.open("w").close()
        write_json(record, {"finished": False, "settings": settings})
        with path.open("a", encoding="utf-8") as stream:
            for outcome in itertools.chain(first, ordered):
                errors += outcome.error is not None
                stream.write(line_of(rows[done + outcome.number], outcome) + "\n")
                stream.flush()
            to_disk(stream)
        write_json(record, {"finished": True, "settings": settings})
    except OSError as error:
        raise FailedError(
            f"{path}: cannot be written ({error.strerror}); continue with --resume"
        ) from error
    return Written(len(rows), done, errors)


def _record_of(path: Path, record: Path) -> dict[str, Any]:
    found = read_json(record) if record.is_file() else None
    if not isinstance(found, dict) or not {"settings", "finished"} <= found.keys():
        raise DataError(
            f"is no output of qvft.predict: it has no {record.name}",
            where=str(path),
            do="name another file; what is there would be replaced",
        )
    return found


def _require_same(path: Path, before: Mapping[str, Any], settings: Mapping[str, Any]) -> None:
    for key, value in settings.items():
        if before.get(key) != value:
            raise DataError(
                f"its rows were made with another {key}: {before.get(key)}, not {value}",
                where=str(path),
                do="repeat the settings, or write to another file",
            )


def _require_row(where: str, line: bytes, wanted: Sequence[Row]) -> None:
    """Checks that a line is about the row; `wanted` is empty after the last one."""
    try:
        content = json.loads(line)
        named = {k: v for k, v in content.items() if k in ("id", "image", "question")}
    except (ValueError, AttributeError) as error:
        raise DataError("is not a row of a prediction", where=where) from error
    expected = [_named(row) for row in wanted]
    if [named] != expected:
        raise DataError(
            f"is about {named}",
            where=where,
            expected=f"{expected[0]}" if expected else "no more rows",
            do="name the images and questions as before, or write to another file",
        )
