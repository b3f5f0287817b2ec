"""The JSONL that prediction writes: rows in the order asked for, and going on after a stop."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from qvft.data.rows import Row
from qvft.errors import DataError
from qvft.evaluation.predict import Outcome
from qvft.files import read_json, write_json

SETTINGS_SUFFIX = ".unfinished.json"


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
    unusable; `texts` beside `text`, which is the first of them, where several were asked for.
    """
    content: dict[str, Any] = _named(row)
    if outcome.error is not None:
        content["error"] = outcome.error.given
    else:
        content["text"] = outcome.texts[0]
        if len(outcome.texts) > 1:
            content["texts"] = list(outcome.texts)
    return json.dumps(content, ensure_ascii=False)


def _named(row: Row) -> dict[str, Any]:
    """What a line says of the row itself."""
    own_id = {"id": row.id} if row.id else {}
    asked = {} if row.question is None else {"question": row.question}
    return {**own_id, "image": row.sample.image.name, **asked}


class PredictionFile:
    """An output file that grows line by line.

    While it is unfinished, `PATH.unfinished.json` beside it says how its rows are made; it is
    removed with the last row.

    Args:
        path: the JSONL file.
        rows: every row asked for, in order.
        settings: what makes the texts: model, prompts, decoding. JSON values.
    """

    def __init__(self, path: Path, rows: Sequence[Row], settings: Mapping[str, Any]) -> None:
        self.path, self.rows, self.settings = path, rows, dict(settings)
        self._beside = path.with_name(path.name + SETTINGS_SUFFIX)

    def refuse_unfinished(self) -> None:
        """Checks that nothing of a stopped run would be lost.

        Raises:
            DataError: the file is unfinished.
        """
        if self._beside.is_file() and self.path.is_file():
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
        if not self.path.is_file():
            return 0
        self._require_same_settings()
        content = self.path.read_bytes()
        whole = content[: content.rfind(b"\n") + 1]
        lines = whole.decode("utf-8", errors="replace").splitlines()
        for number, line in enumerate(lines):
            self._require_row(number, line)
        if len(whole) < len(content):
            with self.path.open("r+b") as stream:
                stream.truncate(len(whole))
        return len(lines)

    def _require_same_settings(self) -> None:
        if not self._beside.is_file():
            return
        before = read_json(self._beside)
        for key, value in json.loads(json.dumps(self.settings)).items():
            if before.get(key) != value:
                raise DataError(
                    f"its rows were made with {key} {before.get(key)}, not {value}",
                    where=str(self.path),
                    do="repeat the settings, or write to another file",
                )

    def _require_row(self, number: int, line: str) -> None:
        wanted = _named(self.rows[number]) if number < len(self.rows) else None
        try:
            content = json.loads(line)
        except json.JSONDecodeError as error:
            raise DataError("is not JSON", where=f"{self.path}:{number + 1}") from error
        named = {k: v for k, v in content.items() if k in ("id", "image", "question")}
        if named != wanted:
            raise DataError(
                f"is about {named}",
                where=f"{self.path}:{number + 1}",
                expected=f"{wanted}" if wanted else f"only {len(self.rows)} rows",
                do="name the images and questions as before, or write to another file",
            )

    def write(self, outcomes: Iterable[Outcome], *, finished: int = 0) -> None:
        """Writes the outcomes of the rows after the first `finished`, each as it comes in order.

        With `finished` 0 an earlier file is replaced, once the first outcome is there.
        """
        lines = (line_of(self.rows[finished + o.number], o) for o in in_order(outcomes))
        first = next(lines, None)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        write_json(self._beside, self.settings)
        with self.path.open("a" if finished else "w", encoding="utf-8") as stream:
            for line in itertools.chain([] if first is None else [first], lines):
                stream.write(line + "\n")
                stream.flush()
        self._beside.unlink()


def _lines(path: Path) -> int:
    with path.open("rb") as stream:
        return sum(1 for _ in stream)
