"""Asks models about an image: texts with log-probabilities, ranked candidates, attention maps."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image

from qvft.data.prompt import Kind
from qvft.data.rows import Row
from qvft.data.sample import ImageFile, Sample
from qvft.errors import ModelError
from qvft.evaluation.explanation.explain import seen_image
from qvft.evaluation.explanation.maps import FloatArray, explain_texts
from qvft.inference.log_probs import Candidate, LogProb, Scoring
from qvft.inference.predict import Outcome
from qvft.inference.vision_language_model import VisionLanguageModel

SAMPLED = {"do_sample": True, "num_beams": 1}
"""Decoding of further texts; temperature and the rest are the model's own."""
DARKEST = 0.15
"""Brightness of the patch with the least attention, as a share of the image's."""


class Text(NamedTuple):
    """A generated text, how often it came, and its log-probability."""

    text: str
    times: int
    log_prob: LogProb

    @property
    def probability(self) -> float:
        """Of the whole text with its stop token."""
        return math.exp(self.log_prob.sum)


class WordMap(NamedTuple):
    """A word, the share of its attention that goes to the image, and its map as PNG."""

    word: str
    on_image: float | None
    png: bytes


@dataclass(frozen=True, eq=False)
class Answered:
    """What a model says about an image: its own text, then sampled ones; the candidates, the most
    likely first; the maps of its own text, or why there are none; and whether that text is less
    probable than `eval.abstain_below`.
    """

    model: str
    texts: tuple[Text, ...]
    candidates: tuple[Candidate, ...]
    words: tuple[WordMap, ...]
    no_words: str
    abstained: bool


def row_of(image: Path, question: str = "", candidates: Sequence[str] = ()) -> Row:
    """The row of an image file: a caption, or an answer to a question that is not blank."""
    asked = question.strip() or None
    sample = Sample(image.name, ImageFile(image))
    named = tuple(dict.fromkeys(text.strip() for text in candidates if text.strip()))
    kind: Kind = "caption" if asked is None else "question"
    return Row("", sample, kind, asked, "", (), {}, candidates=named)


def ask(model: VisionLanguageModel, row: Row, *, texts: int, seed: int) -> Answered:
    """A model's own text about an image, `texts - 1` sampled ones with a seed, candidates and maps.

    Raises:
        UserError: the image cannot be decoded, or the model refuses the question.
    """
    scoring = Scoring(
        log_probs=True,
        rank_by="sum" if row.candidates else None,
        abstain_below=model.recipe.eval.abstain_below,
    )
    own = _outcome(model, row, {}, scoring)
    found = {own.texts[0]: Text(own.texts[0], 1, own.log_probs[0])}
    if texts > 1:
        fields = {**SAMPLED, "num_return_sequences": texts - 1}
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            drawn = _outcome(model, row, fields, Scoring(log_probs=True))
        for text, log_prob in zip(drawn.texts, drawn.log_probs, strict=True):
            before = found.get(text, Text(text, 0, log_prob))
            found[text] = before._replace(times=before.times + 1)
    first, *others = found.values()
    others.sort(key=lambda one: -one.times)
    words, reason = word_maps(model, row, first.text)
    shown = (first, *others)
    return Answered(model.name, shown, own.candidates, words, reason, bool(own.abstained))


def _outcome(
    model: VisionLanguageModel, row: Row, fields: Mapping[str, object], scoring: Scoring
) -> Outcome:
    (found,) = model.outcomes([row], fields, batch_size=1, workers=0, scoring=scoring)
    if found.error is not None:
        raise found.error
    return found


def word_maps(model: VisionLanguageModel, row: Row, text: str) -> tuple[tuple[WordMap, ...], str]:
    """Attention maps of a text's words, as `qvft explain` computes them, or why there are none."""
    loaded = model.loaded
    try:
        (explained,) = explain_texts(loaded.model, loaded.collator, [row], [text])
    except ModelError as error:
        return (), str(error)
    if explained is None:
        return (), "no word to explain"
    image = seen_image(loaded, row)
    return tuple(
        WordMap(one.text, one.on_image if explained.reads_words else None, lit(image, one.map))
        for one in explained.words
    ), ""


def lit(image: FloatArray, map_: FloatArray) -> bytes:
    """The image as PNG, bright where a map is high and dark where it is low.

    Args:
        image: (height, width, 3) in 0..1.
        map_: (R, C); its least value becomes `DARKEST`, its largest the image's own brightness.
    """
    spread = np.ptp(map_)
    scaled = (map_ - map_.min()) / spread if spread > 0 else np.ones_like(map_)
    height, width = image.shape[:2]
    light = Image.fromarray(scaled.astype(np.float32)).resize(
        (width, height), Image.Resampling.BILINEAR
    )
    shown = image * (DARKEST + (1 - DARKEST) * np.asarray(light)[..., None])
    stream = io.BytesIO()
    Image.fromarray((shown.clip(0, 1) * 255).round().astype(np.uint8)).save(stream, "PNG")
    return stream.getvalue()
