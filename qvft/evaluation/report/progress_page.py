"""Page of a run while it trains: progress, loss, learning rate, metrics and generated texts."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, Template
from markupsafe import Markup

from qvft.evaluation.report.completions import completions_of
from qvft.evaluation.report.loss_chart import LoggedPoint, LossPoint, line_chart, loss_chart
from qvft.files import write_text
from qvft.json_files import complete_lines
from qvft.log import get_logger, is_main_process

logger = get_logger("qvft.train")

POINTS = 500
"""Most logged steps in a chart."""
_NO_METRICS = ("runtime", "per_second", "_loss")


@contextmanager
def progress_page(folder: Path) -> Iterator[Callable[[str], None]]:
    """Context manager: a function that writes `progress.html` with a line of progress.

    At the end the page says `finished`, or `stopped` if there was an error, and no longer reloads
    itself. Training goes on where it cannot be written.
    """
    last = ""

    def write(line: str, running: bool = True) -> None:
        nonlocal last
        last = line
        if is_main_process() and folder.is_dir():  # one that vanished is not made anew
            try:
                write_text(folder / "progress.html", drawn(folder, line, running))
            except OSError as error:
                logger.warning("progress.html cannot be written (%s)", error)

    try:
        yield write
    except BaseException:
        write(f"stopped: {last}", running=False)
        raise
    write(f"finished: {last}", running=False)


def drawn(folder: Path, line: str, running: bool) -> str:
    """The page, without script and without anything from elsewhere."""
    rows = complete_lines(folder / "metrics.jsonl")
    logged = [row for row in rows if "loss" in row]
    logged = logged[:: max(1, len(logged) // POINTS)] + logged[-1:]
    evaluated = [row for row in rows if "eval_loss" in row]
    steps = {name: 0 for name in dict.fromkeys(row["phase"] for row in rows)}
    for row in rows:
        steps[row["phase"]] = max(steps[row["phase"]], row["step"])
    # What charts read of a phase.
    phases: Any = [SimpleNamespace(name=name, steps=count) for name, count in steps.items()]
    points = [
        LossPoint(**{key: row[key] for key in LossPoint.model_fields if key in row})
        for row in sorted((*logged, *evaluated), key=lambda row: row["step"])
    ]
    completions = completions_of(complete_lines(folder / "completions.jsonl"))
    last = completions[-1].phase if completions else None
    page = _template().render(
        name=folder.resolve().name,
        line=line,
        running=running,
        written=time.strftime("%Y-%m-%d %H:%M:%S"),
        loss=loss_chart(points, phases),
        charts=[
            *(_chart(name, evaluated, phases) for name in _metrics(evaluated)),
            *([_chart("learning_rate", logged, phases)] if logged else []),
        ],
        completions=[one for one in completions if one.phase == last],
    )
    return page.encode(errors="replace").decode()


@cache
def _template() -> Template:
    return page_environment().get_template("progress.html.j2")


@cache
def page_environment() -> Environment:
    """The templates of this folder; text is escaped."""
    return Environment(
        loader=PackageLoader("qvft.evaluation.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _metrics(evaluated: Sequence[Mapping[str, Any]]) -> list[str]:
    """Keys of metrics.jsonl that are metrics of evaluations."""
    keys = dict.fromkeys(key for row in evaluated for key in row if key.startswith("eval_"))
    return [key for key in keys if not key.endswith(_NO_METRICS)]


def _chart(name: str, rows: Sequence[Mapping[str, Any]], phases: Any) -> tuple[str, Markup]:
    """Title and chart of a key of metrics.jsonl."""
    values = [(LoggedPoint(phase=row["phase"], step=row["step"]), row.get(name)) for row in rows]
    title = name.removeprefix("eval_").replace("generated/", "of generated texts: ")
    title = title.replace("_", " ")
    dotted = () if name == "learning_rate" else ("",)
    return title, line_chart({"": values}, phases, what=title, dotted=dotted)
