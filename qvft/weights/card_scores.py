"""Scores of a run's reports for its model card: tables, model-index, samples, a question."""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult

from qvft.json_files import complete_lines
from qvft.weights.card_text import plain

TASK = "image-text-to-text"
"""Pipeline tag of the models, and the task of their scores."""
SAMPLES = 3
"""Number of predictions that a card shows."""


@dataclass(frozen=True)
class Scores:
    """Reports of a run with the same weights (by name), and names of those with other weights."""

    run_dir: Path
    reports: dict[str, dict[str, Any]] = field(default_factory=dict)
    excluded: list[str] = field(default_factory=list)


def read_scores(run_dir: Path, adapter_sha256: Mapping[str, str]) -> Scores:
    """Reports in `run_dir`/eval; those of other weights than these hashes are only named."""
    scores = Scores(run_dir)
    for path in sorted(run_dir.glob("eval/*/report.json")):
        if (report := _report(path)) is None:
            continue
        if (report.get("model") or {}).get("adapter_sha256") == dict(adapter_sha256):
            scores.reports[path.parent.name] = report
        else:
            scores.excluded.append(path.parent.name)
    return scores


def measured(scores: Scores) -> list[dict[str, Any]]:
    """Name, number of items, verdict and Markdown table of each report."""
    return [
        {
            "name": name,
            "n": report["n"],
            "verdict": report.get("verdict") or [],
            "table": _table(report),
        }
        for name, report in scores.reports.items()
    ]


def eval_results(scores: Scores) -> list[EvalResult]:
    """The scores as entries of the card's model-index, with intervals in their names."""
    results = []
    for name, report in scores.reports.items():
        for metric, value in report["metrics"].items():
            if not isinstance(value, int | float) or not math.isfinite(value):
                continue
            ends = (report.get("intervals") or {}).get(metric)
            interval = f" (95 % interval {ends[0]:.4g} to {ends[1]:.4g})" if ends else ""
            unit = ", %" if report.get("units", {}).get(metric) == "percent" else ""
            results.append(
                EvalResult(
                    task_type=TASK,
                    dataset_type=name,
                    dataset_name=name,
                    metric_type=metric,
                    metric_name=f"{metric}{unit}{interval}",
                    metric_value=round(float(value), 4),
                )
            )
    return results


def samples(scores: Scores) -> list[dict[str, str]]:
    """A few predictions of the first report, evenly spread over its rows."""
    for name in scores.reports:
        rows = _predictions(scores, name)
        # Not a third of the rows apart: rows of an image repeat with a period.
        places = {min(len(rows) * n // SAMPLES + n, len(rows) - 1) for n in range(SAMPLES)}
        chosen = [rows[place] for place in sorted(places) if rows]
        return [
            {
                "question": row.get("question") or "",
                "prediction": row.get("prediction", ""),
                "reference": " / ".join(row.get("references") or []),
            }
            for row in chosen
        ]
    return []


def common_question(scores: Scores, asked: Iterable[tuple[str, object]] = ()) -> str | None:
    """The question asked about the most images, None if none is asked about two.

    A question about a single image may hold what identifies a patient.
    """
    images: dict[str, set[object]] = defaultdict(set)
    for question, image in asked:
        images[question].add(image)
    for name in scores.reports:
        for row in _predictions(scores, name):
            if row.get("question"):
                images[row["question"]].add(row.get("image"))
    often = max(images, key=lambda question: len(images[question]), default=None)
    return often if often is not None and len(images[often]) > 1 else None


def _predictions(scores: Scores, name: str) -> list[dict[str, Any]]:
    return complete_lines(scores.run_dir / "eval" / name / "predictions.jsonl")


def _report(path: Path) -> dict[str, Any] | None:
    """Content of a report; None if it is not one."""
    try:
        report = json.loads(path.read_text(encoding="utf-8"))
        return report if {"n", "metrics"} <= report.keys() else None
    except (OSError, ValueError, AttributeError):
        return None


def _table(report: Mapping[str, Any]) -> str:
    """A report's scores as a Markdown table, with units and baselines."""
    units, intervals = report.get("units", {}), report.get("intervals", {})
    baselines = report.get("baselines", {})

    def shown(metric: str, value: float | None) -> str:
        if value is None:
            return ""
        return f"{value:.1f} %" if units.get(metric) == "percent" else f"{value:.3f}"

    names = [plain(name.replace("_", " ")) for name in baselines]
    lines = [["metric", "value", "95 % interval", *names], ["---"] * (3 + len(names))]
    for metric, value in report["metrics"].items():
        interval = " to ".join(shown(metric, end) for end in intervals.get(metric) or ())
        others = [shown(metric, values.get(metric)) for values in baselines.values()]
        lines.append([plain(metric), shown(metric, value), interval, *others])
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
