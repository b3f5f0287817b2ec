"""Draws what `growth.py` measured: texts per second by texts per image and text length.

python docs/studies/growth_chart.py growth.json growth.png
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from matplotlib.figure import Figure

PANELS = {
    "texts": "texts per image (30 texts per step)",
    "length": "words per text (5 texts per image, 20 per step)",
}
WAYS = {"plain": "#a8a8a8", "qvft": "#4a6fa5"}


def draw(found: dict[str, dict[str, dict[str, float]]], path: Path) -> None:
    """One panel a quantity, both ways in it, the ratio at each point."""
    figure = Figure(figsize=(10, 3.4), dpi=100, layout="constrained")
    axes = figure.subplots(1, len(PANELS))
    for axis, (part, title) in zip(axes, PANELS.items(), strict=True):
        rows = found[part]
        counts = [int(count) for count in rows]
        for way, colour in WAYS.items():
            paces = [row[f"{way}_texts_per_second"] for row in rows.values()]
            axis.plot(counts, paces, "o-", color=colour, label=way)
        for count, row in zip(counts, rows.values(), strict=True):
            at = (count, row["qvft_texts_per_second"])
            axis.annotate(
                f"x{row['speedup']:.1f}", at, xytext=(0, 6), textcoords="offset points", size=8
            )
        axis.set_xscale("log", base=2)
        axis.set_yscale("log")
        axis.set_xticks(counts, labels=[str(count) for count in counts])
        axis.set_title(title, loc="left", size=10)
        axis.set_ylabel("texts per second")
        axis.spines[["top", "right"]].set_visible(False)
    axes[0].legend(frameon=False)
    figure.savefig(path)


if __name__ == "__main__":
    draw(json.loads(Path(sys.argv[1]).read_text()), Path(sys.argv[2]))
