"""Result of scoring a prediction file: JSON, and table for the terminal."""

from __future__ import annotations

import json
import os
from collections.abc import ItemsView, Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

from qvft.disk import not_written
from qvft.errors import DataError
from qvft.files import require_writable, sha256_file, write_text

_as_json = json.JSONEncoder(ensure_ascii=False).encode


@dataclass(frozen=True)
class Scored:
    """Official scores of a set of predictions.

    Attributes:
        metrics: value by name, on the official scale.
        definition: which evaluator's scores these are.
        counts: rows and items that were found but not scored, by what they are.
        settings: what was chosen, e.g. `rules`.
        notes: one sentence for each count that is not zero.
        units: by metric, where scales differ: `percent` or `0..1`.
        n_by_metric: items that each metric is the mean of, where they differ.
        definitions: what each metric is, where one name does not say it.
        intervals: 95 %, where they are computed.
    """

    metrics: Mapping[str, Any]
    n: int
    per_item: Mapping[str, Any]
    files: Mapping[str, Path]
    definition: str
    counts: Mapping[str, int]
    settings: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    units: Mapping[str, str] = field(default_factory=dict)
    n_by_metric: Mapping[str, int] = field(default_factory=dict)
    definitions: Mapping[str, str] = field(default_factory=dict)
    intervals: Mapping[str, tuple[float, float]] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """The content of the JSON file."""
        by_metric = {
            "units": self.units,
            "n_by_metric": self.n_by_metric,
            "definitions": self.definitions,
            "intervals": self.intervals,
        }
        return {
            "metrics": self.metrics,
            "n": self.n,
            **self.settings,
            **{key: value for key, value in by_metric.items() if value},
            "definition": self.definition,
            "counts": self.counts,
            "notes": list(self.notes),
            "files": {
                # what came through a pipe is gone
                name: {"path": str(path), "sha256": sha256_file(path) if path.is_file() else None}
                for name, path in self.files.items()
            },
            "qvft": version("qvft"),
            "per_item": self.per_item,
        }


def require_output(path: Path, inputs: Mapping[str, Path]) -> None:
    """Raises DataError if `path` cannot be written, or is one of the files that are read."""
    require_writable(path)
    if os.path.realpath(path) in map(os.path.realpath, inputs.values()):
        raise DataError(
            "one of the files that are read", where=str(path), do="name another file for the scores"
        )


def write(path: Path, scored: Scored) -> None:
    """Writes the JSON of `scored`, one item per line; raises DataError if it cannot."""
    content = scored.to_json()
    items = content.pop("per_item").items()
    head = json.dumps(content, indent=2, ensure_ascii=False).removesuffix("\n}")
    lines = _tabular(items) or [
        f"    {_as_json(name)}: {_as_json(scores)}" for name, scores in items
    ]
    text = f'{head},\n  "per_item": {{\n' + ",\n".join(lines) + "\n  }\n}\n"
    try:
        write_text(path, text)
    except OSError as error:
        raise not_written(error, path) from error


def _tabular(items: ItemsView[str, Any]) -> list[str]:
    """The lines of items that have the same scores, all floats, each different float written once;
    none if items differ."""
    table = [row if isinstance(row, dict) else {} for _, row in items]
    values = [value for row in table for value in row.values()]
    if len(set(map(tuple, table))) != 1 or set(map(type, values)) != {float}:
        return []
    import numpy as np

    # By their bits, since -0.0 is not 0.0.
    bits, places = np.unique(np.array(values).view(np.int64), return_inverse=True)
    written = np.array(_as_json(bits.view(np.float64).tolist())[1:-1].split(", "), dtype=object)
    keys = [_as_json(name).replace("%", "%%") + ": %s" for name in table[0]]
    line = f"    %s: {{{', '.join(keys)}}}"
    rows = written[places].reshape(len(items), -1).tolist()
    return [line % (_as_json(name), *row) for (name, _), row in zip(items, rows, strict=True)]


def scored_table(scored: Scored) -> Table:
    """One row per score: caption metrics to four digits, VQA's overall and by answer type in %.

    Where each metric has its own scale and items, both have columns.
    """
    table = Table(title=Text(f"{scored.definition}; n = {scored.n:,}"), title_justify="left")
    table.add_column("metric")
    table.add_column("score", justify="right")
    if scored.units:
        table.add_column("scale")
        table.add_column("items", justify="right")
    if scored.intervals:
        table.add_column("95 % interval", justify="right")
    for name, value in scored.metrics.items():
        if scored.units:
            percent = scored.units[name] == "percent"
            digits = 2 if percent else 4
            ends = scored.intervals.get(name, ())
            table.add_row(
                Text(name),
                f"{value:.{digits}f}",
                "%" if percent else scored.units[name].replace("..", " to "),
                f"{scored.n_by_metric[name]:,}",
                *([" to ".join(f"{end:.{digits}f}" for end in ends)] if scored.intervals else []),
            )
        elif isinstance(value, float):
            table.add_row(Text(name), f"{value:.{2 if name == 'overall' else 4}f}")
        elif name == "per_answer_type":
            for kind, accuracy in value.items():
                table.add_row(Text(kind), f"{accuracy:.2f}")
    return table
