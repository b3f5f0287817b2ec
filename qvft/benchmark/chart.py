"""Bar chart of a training benchmark."""

from __future__ import annotations

import io
from pathlib import Path

from matplotlib.figure import Figure

from qvft.benchmark.report import TITLES
from qvft.benchmark.training import TrainingBench
from qvft.evaluation.figure_formats import figure_format


def save_chart(bench: TrainingBench, path: Path) -> None:
    """Writes horizontal bars of texts per second and of peak memory, one per variant."""
    form = figure_format(path, option="--chart")
    paces = bench.ways.values()
    panels = {
        "texts per second": [pace.texts_per_second for pace in paces],
        "peak memory of a step, MB": [pace.peak_memory_bytes / 1e6 for pace in paces],
    }
    figure = Figure(figsize=(11, 0.9 + 0.42 * len(paces)), dpi=120, layout="constrained")
    all_axes = figure.subplots(1, len(panels), sharey=True)
    for axes, (title, values) in zip(all_axes, panels.items(), strict=True):
        bars = axes.barh(range(len(values)), values, color="#4a6fa5", height=0.62)
        bars[0].set_color("#a8a8a8")
        axes.bar_label(bars, labels=[f" {value:,.4g}" for value in values], size=9)
        axes.set_title(title, loc="left", size=10)
        axes.set_yticks(range(len(values)), labels=[TITLES[name] for name in bench.ways])
        axes.set_xlim(0, 1.15 * max(*values, 1e-9))
        axes.spines[["top", "right"]].set_visible(False)
    all_axes[0].invert_yaxis()
    stream = io.BytesIO()
    figure.savefig(stream, format=form)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(stream.getvalue())
