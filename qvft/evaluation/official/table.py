"""Table of official scores for the terminal."""

from __future__ import annotations

from rich.table import Table
from rich.text import Text

from qvft.evaluation.official.scored import Scored


def scored_table(scored: Scored) -> Table:
    """One row a score: captions' metrics to four digits, VQA's overall and by answer type in %.

    Where each metric has its own scale and items, both have columns.
    """
    title = f"{scored.definition}; n = {scored.n:,}"
    table = Table(title=Text(title), title_justify="left")
    table.add_column("metric")
    table.add_column("score", justify="right")
    if scored.units:
        return _with_units(table, scored)
    for name, value in scored.metrics.items():
        if isinstance(value, float):
            digits = 2 if name == "overall" else 4
            table.add_row(Text(name), f"{value:.{digits}f}")
        elif name == "per_answer_type":
            for kind, accuracy in value.items():
                table.add_row(Text(kind), f"{accuracy:.2f}")
    return table


def _with_units(table: Table, scored: Scored) -> Table:
    table.add_column("scale")
    table.add_column("items", justify="right")
    for name, value in scored.metrics.items():
        percent = scored.units[name] == "percent"
        table.add_row(
            Text(name),
            f"{value:.{2 if percent else 4}f}",
            "%" if percent else scored.units[name].replace("..", " to "),
            f"{scored.n_by_metric[name]:,}",
        )
    return table
