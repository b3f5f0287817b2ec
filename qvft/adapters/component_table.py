"""Component table as text: parameters per component, trainable and frozen."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table

from qvft.adapters.freeze import ComponentCount, total_count


def component_table(counts: Sequence[ComponentCount], *, title: str) -> Table:
    """Table of all and trained parameters and percentages, with the sum below."""
    table = Table(title=title, title_justify="left")
    table.add_column("component")
    for column in ("total", "trainable", "%"):
        table.add_column(column, justify="right")
    for row in counts:
        table.add_row(*_cells(row))
    table.add_section()
    table.add_row(*_cells(total_count(list(counts))))
    return table


def _cells(row: ComponentCount) -> list[str]:
    return [
        row.title or row.component,
        millions(row.total),
        millions(row.trainable),
        f"{row.percent:.2f}",
    ]


def millions(count: int) -> str:
    """A parameter count as text: 2651.74 M, and plain below ten thousand."""
    return f"{count / 1e6:.2f} M" if count >= 10_000 else str(count)
