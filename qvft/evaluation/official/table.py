"""Official scores as a person reads them in a terminal."""

from __future__ import annotations

from rich.table import Table
from rich.text import Text

from qvft.evaluation.official.scored import Scored


def scored_table(scored: Scored) -> Table:
    """One row a score: captions' metrics to four digits, VQA's overall and by answer type in %."""
    title = f"{scored.definition}; n = {scored.n:,}"
    table = Table(title=Text(title), title_justify="left")
    table.add_column("metric")
    table.add_column("score", justify="right")
    for name, value in scored.metrics.items():
        if isinstance(value, float):
            digits = 2 if name == "overall" else 4
            table.add_row(Text(name), f"{value:.{digits}f}")
        elif name == "per_answer_type":
            for kind, accuracy in value.items():
                table.add_row(Text(kind), f"{accuracy:.2f}")
    return table
