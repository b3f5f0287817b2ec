"""Scores as a person reads them in a terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.table import Table

# What a short table shows, in this order, of whatever was scored.
HEADLINE = (
    "closed_accuracy",
    "open_exact_match",
    "open_token_recall",
    "exact_match",
    "vqa_accuracy_2017",
    "vqa_accuracy_2021",
    "caption_exact_match",
    "CIDEr",
    "Bleu_4",
    "ROUGE_L",
)
PERCENT = "percent"


def score_table(report: Mapping[str, Any]) -> Table:
    """Headline scores of a report with intervals, and its baselines beside.

    Args:
        report: the content of a `report.json`.
    """
    table = Table(
        title=f"{report['data']['name']}: {report['n']} texts of {report['data']['images']} images",
        title_justify="left",
    )
    table.add_column("metric")
    table.add_column(report["model"]["kind"], justify="right")
    table.add_column("95 % interval", justify="right")
    for name in report["baselines"]:
        table.add_column(name.replace("_", " "), justify="right")
    for metric in headline(report["metrics"]):
        unit = report["units"].get(metric, "")
        interval = report["intervals"].get(metric)
        table.add_row(
            metric,
            figure(report["metrics"].get(metric), unit),
            " to ".join(figure(end, unit) for end in interval) if interval else "",
            *(figure(values.get(metric), unit) for values in report["baselines"].values()),
        )
    return table


def comparison_table(reports: Mapping[str, Mapping[str, Any]]) -> Table:
    """Headline scores of several reports side by side; the last one's blind figure at the end.

    Args:
        reports: contents of `report.json` by the column's name.
    """
    table = Table()
    table.add_column("metric")
    for name in reports:
        table.add_column(name, justify="right")
    blind = next(
        (r["baselines"]["blind"] for r in reversed(reports.values()) if "blind" in r["baselines"]),
        None,
    )
    if blind is not None:
        table.add_column("blind", justify="right")
    everything = {key for report in reports.values() for key in report["metrics"]}
    for metric in headline(dict.fromkeys(everything, 0.0)):
        units = [report["units"].get(metric, "") for report in reports.values()]
        cells = [
            figure(report["metrics"].get(metric), unit)
            for report, unit in zip(reports.values(), units, strict=True)
        ]
        if blind is not None:
            cells.append(figure(blind.get(metric), next(filter(None, units), "")))
        table.add_row(metric, *cells)
    return table


def headline(metrics: Mapping[str, float]) -> list[str]:
    """The metrics a short table shows."""
    chosen = [name for name in HEADLINE if name in metrics]
    if "closed_accuracy" in chosen or "open_exact_match" in chosen:
        chosen.remove("exact_match") if "exact_match" in chosen else None
    return chosen


def figure(value: float | None, unit: str) -> str:
    """A value in its unit: one decimal in percent, three elsewhere; a dash where there is none."""
    if value is None:
        return "–"
    return f"{value:.1f} %" if unit == PERCENT else f"{value:.3f}"
