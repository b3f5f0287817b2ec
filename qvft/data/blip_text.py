"""BLIP-2's text preprocessing (LAVIS) for captions and questions: `data.text: blip2`.

Source: LAVIS, lavis/processors/blip_processors.py, `BlipCaptionProcessor.pre_caption` and
`BlipQuestionProcessor.pre_question`.
"""

from __future__ import annotations

import re
from typing import Literal

Kind = Literal["caption", "question"]
TextForm = Literal["as_written", "blip2"]
MAX_WORDS = 50
"""Source: as above, the default of `max_words`."""
_PUNCTUATION = re.compile(r'[.!"()*#:;~]')
_WHITE_SPACE = re.compile(r"\s{2,}")


def cleaned(kind: Kind, text: str, form: TextForm) -> str:
    """A caption or question as the model gets it: unchanged or cleaned."""
    if form == "as_written":
        return text
    return clean_caption(text) if kind == "caption" else clean_question(text)


def clean_caption(text: str, *, max_words: int = MAX_WORDS) -> str:
    """A caption in lower case, each of `.!"()*#:;~` replaced by a space, whitespace collapsed,
    truncated to `max_words` words.
    """
    spaced = _WHITE_SPACE.sub(" ", _PUNCTUATION.sub(" ", text.lower()))
    return _first_words(spaced.rstrip("\n").strip(" "), max_words)


def clean_question(text: str, *, max_words: int = MAX_WORDS) -> str:
    """A question in lower case, without `.!"()*#:;~` and trailing spaces, truncated to `max_words`
    words. Inner whitespace stays, and two spaces count as a word.
    """
    return _first_words(_PUNCTUATION.sub("", text.lower()).rstrip(" "), max_words)


def _first_words(text: str, count: int) -> str:
    return " ".join(text.split(" ")[:count])
