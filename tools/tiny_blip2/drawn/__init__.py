"""Scenes drawn by code: the data that the embedded default model is pretrained on.

A `Scene` is sampled from `(seed, index)`, drawn with PIL, described by captions and questions, and
labelled by place. Nothing here needs torch or a file beyond the fonts inside matplotlib and PIL.
"""

from tools.tiny_blip2.drawn.scenes import Scene, Thing, draw, sample_scene, targets
from tools.tiny_blip2.drawn.texts import captions, questions, vocabulary_texts

__all__ = [
    "Scene",
    "Thing",
    "captions",
    "draw",
    "questions",
    "sample_scene",
    "targets",
    "vocabulary_texts",
]
