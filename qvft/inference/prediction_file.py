"""Prediction JSONL: rows in input order, resumable after an interruption."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from qvft.data.rows import Row
from qvft.disk import to_disk
from qvft.errors import DataError, FailedError
from qvft.inference.predict import Outcome
from qvft.json_files import drop_torn_line, json_text, read_json, write_json

SETTINGS_SUFFIX = ".settings.json"


def in_order(outcomes: Iterable[Outcome]) -> Iterator[Outcome]:
    """The outcomes by their number, 0, 1, 2, ...; each is held until those before it have come."""
    early: dict[int, Outcome] = {}
    due = 0
    for outcome in outcomes:
        early[outcome.number] = outcome
        while due in early:
            yield early.pop(due)
            due += 1


def line_of(row: Row, outcome: Outcome) -> str:
    """A row of the output as JSON.

    `image`; `id` and `question` where there are any; `text`, or `error` where the image is
    unusable; `texts` beside `text`, which is the first of them, where several were asked for;
    `scores` where it was chosen among classes.
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
    return json_text(content)


def _named(row: Row) -> dict[str, Any]:
    """What a line says of the row itself."""
    own_id = {"id": row.id} if row.id else {}
    asked = {} if row.question is None else {"question": row.question}
    return {**own_id, "image": row.sample.image.name, **asked}


class PredictionFile:
    """An output file that grows line by line.

    `PATH.settings.json` beside it says how its rows are made, so that rows of two jobs never mix.

    Args:
        path: the JSONL file.
        rows: every row asked for, in order.
        settings: what makes the texts: model, weights, prompts, decoding. JSON values.
    """

    def __init__(self, path: Path, rows: Sequence[Row], settings: Mapping[str, Any]) -> None:
        self.path, self.rows = path, rows
        self.settings = json.loads(json.dumps(settings))
        self._beside = path.with_name(path.name + SETTINGS_SUFFIX)

    def refuse_what_would_be_lost(self) -> None:
        """Checks that a file which is about to be replaced is a finished one of ours.

        Raises:
            DataError: it is unfinished, or holds something else.
        """
        if not self.path.is_file() or not self.path.stat().st_size:
            return
        before = self._settings_before()
        if not before["finished"]:
            raise DataError(
                f"{_lines(self.path)} rows of a run that was stopped",
                where=str(self.path),
                do=f"go on with --resume, or remove it and {self._beside.name}",
            )

    def finished_rows(self) -> int:
        """How many rows, from the first on, stand in the file; a torn last line is cut off.

        Raises:
            DataError: the file holds other rows than those asked for, or rows made otherwise.
        """
        if not self.path.is_file() or not self.path.stat().st_size:
            return 0
        before = self._settings_before()["settings"]
        for key, value in self.settings.items():
            if before.get(key) != value:
                raise DataError(
                    f"its rows were made with another {key}: {before.get(key)}, not {value}",
                    where=str(self.path),
                    do="repeat the settings, or write to another file",
                )
        # A last part without an end is a line that was cut short.
        lines = self.path.read_bytes().split(b"\n")[:-1]
        for number, line in enumerate(lines):
            self._require_row(number, line)
        drop_torn_line(self.path)
        return len(lines)

    def _settings_before(self) -> dict[str, Any]:
        before = read_json(self._beside) if self._beside.is_file() else None
        if not isinstance(before, dict) or not {"settings", "finished"} <= before.keys():
            raise DataError(
                f"exists, and no {self._beside.name} says that it is an output of qvft.predict",
                where=str(self.path),
                do="name another file; what is there would be replaced",
            )
        return before

    def _require_row(self, number: int, line: bytes) -> None:
        wanted = _named(self.rows[number]) if number < len(self.rows) else None
        where = f"{self.path}:{number + 1}"
        try:
            content = json.loads(line)
            named = {k: v for k, v in content.items() if k in ("id", "image", "question")}
        except (ValueError, AttributeError) as error:
            raise DataError("is no row of a prediction", where=where) from error
        if named != wanted:
            raise DataError(
                f"is about {named}",
                where=where,
                expected=f"{wanted}" if wanted else f"only {len(self.rows)} rows",
                do="name the images and questions as before, or write to another file",
            )

    def write(self, outcomes: Iterable[Outcome], *, finished: int = 0) -> int:
        """Writes the outcomes of the rows after the first `finished`, each as it comes in order.

        With `finished` 0 an earlier file is replaced, once the first outcome is there.

        Returns:
            How many of them are errors.

        Raises:
            FailedError: the disk is full or the file has gone; what is written stays.
        """
        ordered = in_order(outcomes)
        first = list(itertools.islice(ordered, 1))
        errors = 0
        try:
            if not finished:
                # Emptied first: settings beside rows that were made otherwise would vouch for them.
                self.path.parent.mkdir(parents=True, exist_ok=True)
                self.path.open("w").close()
            write_json(self._beside, {"finished": False, "settings": self.settings})
            with self.path.open("a", encoding="utf-8") as stream:
                for outcome in itertools.chain(first, ordered):
                    errors += outcome.error is not None
                    stream.write(line_of(self.rows[finished + outcome.number], outcome) + "\n")
                    stream.flush()
                to_disk(stream)
            self.mark_finished()
        except OSError as error:
            raise FailedError(
                f"{self.path}: cannot be written ({error.strerror}); go on with --resume"
            ) from error
        return errors

    def mark_finished(self) -> None:
        """Notes that the file holds every row; a run that was killed before it did so has none
        left to write.
        """
        write_json(self._beside, {"finished": True, "settings": self.settings})


def _lines(path: Path) -> int:
    with path.open("rb") as stream:
        return sum(1 for _ in stream)
