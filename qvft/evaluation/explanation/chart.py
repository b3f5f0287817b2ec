"""Figure of an explanation: one heatmap per word, query tokens, similarities."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any, cast

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure, FigureBase, SubFigure

from qvft.evaluation.explanation.maps import Cosines, Explanation, FloatArray

MOST_WORDS = 35
_ACROSS = 6
"""Panels per row: the image, then words."""
_QUERIES_ACROSS = 8
_WIDTH_IN = 11.0
_WORD_IN = 2.05
_QUERY_IN = 1.2
_COSINES_IN = 2.0
_TITLE_IN = 0.6
"""Height of a section heading, with the titles of its first panels."""
_HEAT = "inferno"
_PLAIN: Mapping[str, Any] = {"parse_math": False}
"""Text option without math mode, so that `$` is a plain character."""


def explanation_figure(
    explained: Explanation, image: FloatArray, *, title: str, model: str
) -> Figure:
    """The figure of an explanation.

    Args:
        image: (height, width, 3) in 0..1, as preprocessed for the model.
    """
    word_rows = -(-(min(len(explained.words), MOST_WORDS) + 1) // _ACROSS)
    query_rows = -(-len(explained.queries) // _QUERIES_ACROSS)
    heights = [
        0.8,
        _TITLE_IN + word_rows * _WORD_IN,
        _TITLE_IN + max(2.6, query_rows * _QUERY_IN),
        *([_TITLE_IN + _COSINES_IN] if explained.cosines else []),
        1.1,
    ]
    figure = Figure(figsize=(_WIDTH_IN, sum(heights)), dpi=120, facecolor="white")
    parts = _subfigures(figure, len(heights), 1, height_ratios=heights)
    head, top, bottom = parts[:3]
    _heading(head, title, explained.text)
    _words(top, explained, image, heights[1], rows=word_rows)
    overview, matrix = _subfigures(bottom, 1, 2, width_ratios=[7, 4])
    _queries(overview, explained, image, heights[2], rows=query_rows)
    _similarity(matrix, explained, heights[2])
    if explained.cosines:
        _cosines(parts[3], explained.cosines, image, heights[3])
    parts[-1].text(
        0.02, 0.92, method_text(explained, model), va="top", size=8, color="#444", **_PLAIN
    )
    return figure


def _subfigures(figure: FigureBase, *shape: int, **options: Any) -> list[SubFigure]:
    """Several in one row or column, which matplotlib types as one."""
    return list(cast(Sequence[SubFigure], figure.subfigures(*shape, **options)))


def figure_bytes(figure: Figure, form: str) -> bytes:
    """The encoded figure; `form` is one of `figure_formats.FORMATS`."""
    stream = io.BytesIO()
    figure.savefig(stream, format=form)
    return stream.getvalue()


def _layers_text(layers: tuple[int, ...]) -> str:
    """Layers in words: `layers 0 to 11`, `layers 0, 2, 4` or `layer 0`."""
    if len(layers) == 1:
        return f"layer {layers[0]}"
    if len(layers) > 2 and layers == tuple(range(layers[0], layers[-1] + 1)):
        return f"layers {layers[0]} to {layers[-1]}"
    return "layers " + ", ".join(map(str, layers))


def method_text(explained: Explanation, model: str) -> str:
    """Method and caveats of a figure, for readers who see only the figure."""
    text, cross = _layers_text(explained.text_layers), _layers_text(explained.cross_layers)
    sentences = [
        f"{model}. A word's map is {explained.reading}, from the places that write the word (mean "
        f"over heads and {text}), times the Q-Former's cross-attention from those queries to the "
        f"patches (mean over heads and {cross}). Each map runs from its own least value (dark) to "
        "its largest (bright)."
    ]
    if explained.reads_words:
        sentences.append(
            "In brackets after a word: the share of that attention that goes to the image at all, "
            "the rest goes to words."
        )
    if explained.on_class_token is not None:
        sentences.append(
            "The ViT's class token, which has no place in the image, is left out: "
            f"{explained.on_class_token:.0%} of the queries' attention goes to it."
        )
    if explained.limit:
        sentences.append(explained.limit)
    warning = "Attention shows what was read, not what decided (docs/explain.md)."
    return "\n".join(textwrap.fill(line, 175) for line in (" ".join(sentences), warning))


def _printable(text: str) -> str:
    """A text without control characters, which byte-level models can generate."""
    return "".join(one if one.isprintable() else "\N{REPLACEMENT CHARACTER}" for one in text)


def _heading(head: SubFigure, title: str, text: str) -> None:
    asked = textwrap.shorten(title, 130, placeholder=" ...")
    shown = textwrap.shorten(_printable(text), 105, placeholder=" ...")
    head.text(0.02, 0.78, asked, va="center", size=11, color="#444", **_PLAIN)
    head.text(0.02, 0.30, shown, va="center", size=14, weight="bold", **_PLAIN)


def _words(
    part: SubFigure, explained: Explanation, image: FloatArray, height_in: float, *, rows: int
) -> None:
    left_out = len(explained.words) - MOST_WORDS
    more = f" ({left_out} further words are not shown)" if left_out > 0 else ""
    _subtitle(part, f"Word by word: where the queries that a word used look{more}")
    panels = _panels(part, rows, _ACROSS, height_in)
    panels[0].imshow(image)
    panels[0].set_title("as the model sees it", size=9, color="#444")
    for panel, word in zip(panels[1:], explained.words, strict=False):
        _heat(panel, word.map, image)
        name = _printable(word.text)
        name = name if len(name) <= 16 else f"{name[:13]}..."
        share = f"  ({word.on_image:.0%})" if explained.reads_words else ""
        panel.set_title(f"{name}{share}", size=9, **_PLAIN)


def _queries(
    part: SubFigure, explained: Explanation, image: FloatArray, height_in: float, *, rows: int
) -> None:
    _subtitle(part, "All queries: where each looks (share of the text's attention to the image)")
    panels = _panels(part, rows, _QUERIES_ACROSS, height_in)
    shares = explained.used / explained.used.sum()
    for panel, number, map_ in zip(panels, range(len(shares)), explained.queries, strict=False):
        _heat(panel, map_, image)
        name = "context" if explained.cosines and number == 0 else number
        panel.set_title(f"{name} ({shares[number]:.0%})", size=7, pad=2)


def _panels(part: SubFigure, rows: int, columns: int, height_in: float) -> list[Axes]:
    """Panels without axes, row by row, below a section heading."""
    panels = list(part.subplots(rows, columns, squeeze=False).ravel())
    top = 1 - _TITLE_IN / height_in
    part.subplots_adjust(left=0.02, right=0.98, bottom=0.02, top=top, wspace=0.1, hspace=0.2)
    for panel in panels:
        panel.axis("off")
        panel.set_anchor("N")
    return panels


def _similarity(part: SubFigure, explained: Explanation, height_in: float) -> None:
    _subtitle(part, "Similarity of the queries' outputs")
    panel = part.subplots()
    part.subplots_adjust(left=0.12, right=0.82, bottom=0.14, top=1 - _TITLE_IN / height_in)
    panel.set_anchor("N")
    shown = panel.imshow(explained.similarity, vmin=-1, vmax=1, cmap="RdBu_r")
    panel.set_xlabel("query", size=8)
    panel.set_ylabel("query", size=8)
    panel.tick_params(labelsize=7)
    # As tall as the matrix, which is square however tall its part is.
    bar = part.colorbar(shown, cax=panel.inset_axes((1.05, 0, 0.05, 1)))
    bar.set_label("cosine", size=8)
    bar.ax.tick_params(labelsize=7)


def _cosines(part: SubFigure, found: Cosines, image: FloatArray, height_in: float) -> None:
    _subtitle(part, "Cosine of the visual tokens with each other and with the patches")
    bars, context, queries = part.subplots(1, 3, width_ratios=[2, 1, 1])
    top = 1 - _TITLE_IN / height_in
    part.subplots_adjust(left=0.06, right=0.98, bottom=0.14, top=top, wspace=0.15)
    bars.bar(range(1, len(found.context_to_queries) + 1), found.context_to_queries)
    bars.axhline(0, color="#444", linewidth=0.5)
    bars.set_xlabel("query", size=8)
    bars.tick_params(labelsize=7)
    bars.set_title("context token and each query token", size=9)
    for panel, map_, name in (
        (context, found.context_to_patches, "context token"),
        (queries, found.queries_to_patches, "query tokens (mean)"),
    ):
        panel.axis("off")
        _heat(panel, map_, image)
        panel.set_title(f"{name}: {map_.min():+.2f} to {map_.max():+.2f}", size=9)


def _heat(panel: Axes, map_: FloatArray, image: FloatArray) -> None:
    """A heatmap over the pale grey image, from its minimum (dark) to its maximum."""
    height, width = image.shape[:2]
    # Half contrast, so that the image's brightness is not mistaken for the heatmap's.
    panel.imshow(0.25 + 0.5 * image.mean(axis=2), cmap="gray", vmin=0, vmax=1)
    spread = np.ptp(map_)
    scaled = (map_ - map_.min()) / spread if spread > 0 else np.zeros_like(map_)
    extent = (-0.5, width - 0.5, height - 0.5, -0.5)
    panel.imshow(scaled, extent=extent, cmap=_HEAT, vmin=0, vmax=1, alpha=0.7)


def _subtitle(part: SubFigure, text: str) -> None:
    part.suptitle(text, x=0.02, ha="left", size=10, weight="bold")
