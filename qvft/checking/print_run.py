"""Prints the results of `qvft check RUN`."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table
from rich.text import Text

from qvft.checking.run_findings import RunFindings

_SHOWN = 12
"""Displayed characters of a hash."""
_STYLES = {"ok": "green", "not recorded": "dim"}


def show_run(findings: RunFindings, console: Console) -> None:
    """Prints one line per check, and the libraries that have changed."""
    table = Table(title=f"run {findings.run}", title_justify="left")
    for column in ("what", "state", "recorded", "found", ""):
        table.add_column(column, overflow="fold")
    for one in findings.verified:
        state = Text(one.state, _STYLES.get(one.state, "bold red"))
        table.add_row(one.what, state, _short(one.recorded), _short(one.found), one.detail)
    console.print(table)
    for warning in findings.warnings:
        console.print(Text.assemble(("warning  ", "bold yellow"), warning))
    for name, (then, now) in findings.versions.items():
        console.print(Text.assemble(("note     ", "bold"), f"{name} was {then}, is {now} here"))


def _short(value: str | None) -> str:
    return "" if value is None else value[:_SHOWN]
