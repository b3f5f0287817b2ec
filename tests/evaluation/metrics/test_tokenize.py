"""Expected tokens are those of the toolkit's own tokeniser (PTBTokenizer 3.4.1) on these texts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from qvft.evaluation.metrics.tokenize import ptb_tokens, tokenize

OFFICIAL = {
    "A man (with a hat) said \"hello\" to 'him'.": "a man -lrb- with a hat -rrb- said hello to him",
    "Don't can't won't it's they're I'd dogs' o'clock": "do n't ca n't wo n't it 's they 're i 'd "
    "dogs o'clock",
    "cannot gonna wanna 'tis more'n gonna's": "can not gon na wan na 't is more 'n gonna 's",
    "and/or 50/50 3/4ths a/b/c/d": "and/or 50/50 3/4ths a/b/c / d",
    "$5 5$ £5 €5 US$5 5% ½ cup": "$ 5 5 $ # 5 $ 5 us$ 5 5 % 1/2 cup",
    "Mr. Smith, Dr. No. 5 vs. no. five.": "mr. smith dr. no. 5 vs. no five",
    "1,000 1.5 10:30 12/25/2013 1990s '90s 5-year-old 3-D": "1,000 1.5 10:30 12/25/2013 1990s '90s "
    "5-year-old 3-d",
    "a well-dressed man -- walking - the --- ... end…": "a well-dressed man walking the end",
    "café naïve “curly” ‘single’ it’s – en": "café naïve curly single it 's en",
    "R&B at AT&T & B&W, C++": "r&b at at&t & b&w c++",
    "rock'n'roll y'all ma'am c'mon O'Brien": "rock 'n' roll y' all ma'am c'mon o'brien",
    "what?! no!! ????": "what ?! no !! ????",
    "[x] {y} <b>": "-lsb- x -rsb- -lcb- y -rcb- <b>",
    '6\' tall 6\'2" 10" x 12"': "6 tall 6 2 10 x 12",
    "hello.World p.m. a.m. 5pm U.S.-based": "hello.world p.m. a.m. 5pm u.s.-based",
    "plan B. The Mr. and B. Smith": "plan b the mr. and b. smith",
    "see www.foo.com or me@foo.com or @user #tag #1": "see www.foo.com or me@foo.com or @user #tag "
    "# 1",
    "日本語 😀 90° ™": "日本語 90 ° ™",
    "": "",
}


@pytest.mark.parametrize("text", OFFICIAL)
def test_tokens_equal_the_toolkits(text: str) -> None:
    assert " ".join(tokenize(text)) == OFFICIAL[text]


def test_a_mixed_number_is_one_token_across_its_blank() -> None:
    assert tokenize("cut 1 1/2 inches") == ["cut", "1\u00a01/2", "inches"]


def test_punctuation_is_still_in_the_raw_tokens(shared_data: Path) -> None:
    folder = shared_data / "caption_metrics"
    raw = json.loads((folder / "debug.ref.json").read_text())
    tokenized = json.loads((folder / "debug.tokenized_ref.json").read_text())
    assert {k: [" ".join(ptb_tokens(text)) for text in texts] for k, texts in raw.items()} == (
        tokenized
    )


def test_blanks_and_line_breaks_separate_words() -> None:
    assert tokenize(" two\tdogs\nrun\u00a0 fast\u200b. ") == ["two", "dogs", "run", "fast"]
