"""Expected tokens are those that Stanford PTBTokenizer 3.4.1 (`-preserveLines -lowerCase`) gave for
these texts, each on a line of its own, after the toolkit dropped its list of punctuation."""

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
    # apostrophes and quotes
    "isn`t it&apos;s don&apos;t O&apos;Brien it’s": "is n`t it 's do n't o&apos;brien it 's",
    "I do n't, cann't h1dn't": "i do n't cann t h1dn t",
    "rock ’n’ roll, rock 'n roll, 'n.": "rock ’n’ roll rock 'n roll n.",
    "o'n o'f d'o o'clock O'Brien l'eau": "o 'n o f d' o o'clock o'brien l'eau",
    "nat'l ev'ry c'est nor'easter y'all": "nat'l ev'ry c'est nor'easter y' all",
    "'tis ’tis 'Twas ’twas": "'t is tis 't was twas",
    "she said “‘hi’” and x”’": "she said ``` hi ''' and x '''",
    # abbreviations
    "a Ph.D. and Messrs. Smith, Intl. Co.": "a ph.d. and messrs. smith intl. co.",
    "etc.x st.o no. 5 No.5 no.x": "etc. x st.o no. 5 no. 5 no.x",
    "non-U.S. cars, U.S.-made cars": "non-u.s. cars u.s.-made cars",
    "x-ray., café., R&B., a_b., 1.5., don't.,": "x-ray. café. r&b. a_b. 1.5 do n't",
    # numbers, names, addresses
    "IMG.1.jpg and 2.jpg) v1.2.x": "img.1.jpg and 2 jpg -rrb- v1.2.x",
    "5‑year‑old a‐b 10‑12 ‐ non‑stop": "5‑year‑old a‐b 10‑12 non‑stop",
    "x-5.3 .22-caliber 5.5-inch 10,000-seat": "x-5 .3 .22 caliber 5.5-inch 10,000-seat",
    "#tag1 #two_words #café @user_1 a#b": "#tag 1 #two _ words #café @user_1 a #b",
    "7.com a7.com HTTP://FOO.COM http://x": "7 com a7.com http://foo.com http / / x",
    r"1\/2 and \* s\/r": r"1\/2 and \* s\/r",
    # characters that the lexer spells out, drops or takes for letters
    "₹500 ₩ £5 ₤5": "500 # 5 ₤ 5",
    "Ⅳ ② ½ ⅓ ⅛ x² №5 5℃": "② 1/2 1/3 ⅛ x ² № 5 5 ℃",
    "नीला आकाश e\u0301cole x\ufe0f 1\ufe0f\u20e3": "नीला आकाश e\u0301cole x 1",
    "\x93quoted\x94 it\x92s a\x96b \x805 \x07": "quoted it 's a b $ 5",
    "caf&eacute; R&amp;B &#39; &copy; a &amp; b": "caf&eacute; r&b &#39; & copy a & b",
    "「日本」 a・b ★ → ☎": "日本 a ・ b ★ → ☎",
    "-LRB- x -RRB- (--) (^_^) (xx)": "-lrb- x -rrb- -lrb----rrb- -lrb-^_^-rrb- -lrb-xx-rrb-",
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
