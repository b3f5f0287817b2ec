"""The token rules of the Penn Treebank lexer that `tokenize` applies: a table.

A rule is a pattern and what is written for its match. Of all rules that match at a place the
longest match wins; of equally long ones the first. Where a pattern has a group, the group is the
token, and the rest of the match is context that counts for its length. What no rule matches is one
character, written as `SYMBOLS` says or as it is.

Source: observed behaviour of PTBTokenizer 3.4.1 (nlp.stanford.edu/software/tokenizer.html).
"""

from __future__ import annotations

import re
from collections.abc import Callable

Rule = tuple[re.Pattern[str], Callable[[str], list[str]]]

SYMBOLS = {
    "(": "-LRB-", ")": "-RRB-", "[": "-LSB-", "]": "-RSB-", "{": "-LCB-", "}": "-RCB-",
    '"': "''", "\u201c": "``", "\u201d": "''", "\u2018": "`", "\u2019": "'", "\u00ab": "``",
    "\u00bb": "''", "\u2039": "`", "\u203a": "'", "\u201b": "`",
    "\u2026": "...", "\u2013": "--", "\u2014": "--", "\u2015": "--",
    "\x80": "$", "\x91": "`", "\x92": "'", "\x93": "``", "\x94": "''", "\x96": "--",
    "\x97": "--", "\u20a0": "$", "\u2010": "", "\u2011": "", "\u058a": "",
    "\u00a3": "#", "\u20ac": "$", "\u00a4": "$", "\u00a2": "cents",
    "\u00bd": "1/2", "\u00bc": "1/4", "\u00be": "3/4", "\u2153": "1/3", "\u2154": "2/3",
}  # fmt: skip

# Abbreviations that keep their full stop, in any case and only when capitalised. Those that may
# end a sentence keep it before a single letter too (`etc.x`), where the others make one word.
_CLOSING_ABBREVIATIONS = (
    "al ala apr ariz assn aug bhd bldg blvd bros calif co colo conn corp cos ct dak dec esq est "
    "etc ext feb fla fri ga inc ind intl jan jr jul jun kan kans ky ltd mar md mich minn mo mon "
    "mont neb nev nov oct okla penn plc pte pty rd rt sep sept seq sq sr sys tel tenn thu thurs "
    "tue tues univ va vt wed wis wisc wyo"
)
_ABBREVIATIONS = (
    "adj adm adv alex assoc asst atty ave brig capt cf cie cmdr col comdr cpl dept det dr drs elec "
    "ens ft gen gov govs hon insp invt jos lieut lt maj messrs mfg mlle mme mr mrs ms msgr mt mtg "
    "natl pfc ph pres prof profs pvt rep reps rev sen sens sfc sgt spc st ste supt treas vs wm"
)
_CAPITALISED = (
    "Ark Az Del Ill La Mass Miss Ore Pa Tex Wash ARK AZ DEL ILL LA MASS MISS ORE PA TEX WASH"
)
# Abbreviations that keep their full stop only before a number.
_BEFORE_NUMBER = "art ca fig figs no nos op pp prop"

# Endings with which a file's name is one token.
_FILE_ENDINGS = (
    "bat bmp c class cgi cpp dll doc docx exe gif gz h html? jar java jpe?g mov mp3 pdf php pl png "
    "ppt ps py sql tar txt wav x xml zip"
)

# Words that open a sentence: a single letter before one of them loses its full stop.
_SENTENCE_OPENERS = (
    "A About According Additionally After An As At But Earlier He Her Here However If In It Last "
    "Many More Mr. Ms. Now Once One Other Our She Since So Some Such That The Their Then There "
    "These They This We What When While Yet You"
)

_CURLY = r"(?:[\x92\u2019]|&apos;)"
_A = rf"(?:'|{_CURLY})"
# Fractions, superscripts and circled numbers belong to `\w` but are no part of a word.
_NUMBER_SIGNS = "\u00b2\u00b3\u00b9\u00bc-\u00be\u2070-\u209c\u2150-\u218b\u2460-\u24ff"
# Combining marks count as letters, and so do the entities of accented vowels.
_MARKS = (
    "\u0300-\u036f\u0483-\u0487\u0591-\u05bd\u064b-\u065e\u0670\u0900-\u0903\u093c"
    "\u093e-\u094e\u0e31\u0e34-\u0e3a\u0e47-\u0e4e"
)
_ACCENTED = "&[aeiouAEIOU](?:acute|grave|uml);"
_L = rf"(?:[^\W\d_{_NUMBER_SIGNS}]|[{_MARKS}]|{_ACCENTED})"
_LD = rf"(?:[^\W_{_NUMBER_SIGNS}]|[{_MARKS}]|{_ACCENTED})"
_NUM = r"(?:\d*(?:[.:,]\d+)+|\d+)"
_NOT_LETTER = r"(?![A-Za-z])"
_ELISION = rf"(?:[dDoOlL](?:{_A}|`)[A-Za-z0-9])?"
_PART = rf"{_ELISION}{_LD}+"
_COMPOUND = rf"{_PART}(?:[-_\u058a\u2010\u2011]{_PART})*"
_WORD = rf"{_L}{_LD}*(?:[.!?]{_L}{_LD}*)*"
_CLITIC = r"(?i:[msd]|re|ve|ll)"
# After a curly apostrophe or its entity a clitic ends even where letters follow.
_WITH_CLITIC = rf"(?:'{_CLITIC}{_NOT_LETTER}|{_CURLY}{_CLITIC})"
_ACRONYM = r"[A-Za-z](?:\.[A-Za-z])+"
_INITIALS = r"[A-Z]+(?:(?:[+&]|&amp;)[A-Z]+)+"
_URL_TAIL = r"""[^\s"<>|()]+[^\s"<>|.!?(){},-]"""
_QUOTES = "`\x91-\x94\u2018-\u201f\u2039\u203a\u00ab\u00bb"
_FACE = "[-^x=~<>']"

# What the lexer drops, leaving a blank: all characters but ASCII, the letters, digits and marks it
# knows, and these symbols; and all beyond the basic plane.
_KEPT = (
    "\x21-\x7e\x80\x91-\x94\x96\x97\xa1-\xff\u02c2-\u02ef\u037e\u0384-\u0387\u03f6\u055a-\u055f"
    "\u0589\u058a\u05be\u060c\u061b\u061f\u066a\u06d4\u0964\u0965\u0e3f\u0e4f\u2010\u2011\u2013-\u2023"
    "\u2026\u2030-\u203b\u203e-\u2042\u2044\u207a-\u207e\u208a-\u208e\u20a0\u20a4\u20ac\u2100-\u214f"
    "\u2190-\u2bff\u3001\u3002\u3012\u30fb\uff01-\uff65\uffe0\uffe1\uffe5\uffe6"
)
BLANKS = re.compile(
    rf"[^\w{_KEPT}{_MARKS}]|[\u2150-\u2152\u215f-\u2189\u3007\u3021-\u3029\u3192-\u3195"
    "\u3220-\u3289\U00010000-\U0010ffff]"
)


def _as_it_is(text: str) -> list[str]:
    return [text]


def _straight(text: str) -> list[str]:
    return [re.sub(_CURLY, "'", text)]


def _joined(text: str) -> list[str]:
    return [text.replace(" ", "\u00a0")]


def _halves(first: int) -> Callable[[str], list[str]]:
    return lambda text: [text[:first], text[first:]]


def _bracketed(text: str) -> list[str]:
    return ["".join(SYMBOLS[c] if c in "()" else c for c in text.replace(" ", "\u00a0"))]


def _spelled(text: str) -> list[str]:
    return ["".join(SYMBOLS.get(character, character) for character in text)]


def _words(words: str) -> str:
    return "|".join(words.split())


_OPENERS = _words(_SENTENCE_OPENERS + " " + _SENTENCE_OPENERS.upper()).replace(".", r"\.")

_TABLE: list[tuple[str, Callable[[str], list[str]]]] = [
    # words split in two
    (rf"(?i:cannot){_NOT_LETTER}", _halves(3)),
    (rf"(?i:gonna|gotta|wanna|lemme|gimme){_NOT_LETTER}", _halves(3)),
    (r"'[tT](?=(?i:is|was))", _as_it_is),
    (rf"((?i:{_words(_CLOSING_ABBREVIATIONS)})\.){_L}", _as_it_is),
    # words and the clitics that end them
    (rf"({_L}+?(?<=[A-MO-Za-mo-z]))[nN](?:{_A}|`)[tT]", _as_it_is),
    (rf"[nN](?:{_A}|`)[tT](?!{_L})", _straight),
    (rf"({_L}{_LD}*){_WITH_CLITIC}", _as_it_is),
    (_WORD, _as_it_is),
    (_WITH_CLITIC, _straight),
    # words with an apostrophe inside or at an end
    (rf"{_A}[nN]{_A}|'[nN](?=\s|$)|{_CURLY}[nN]", _as_it_is),
    (rf"[lLdDjJ]{_A}", _as_it_is),
    (rf"(?i:ol){_A}|{_A}(?i:em|cause|till?)", _as_it_is),
    (rf"(?i:c'mon|nor'easter|s'mores|e'er|nat'l|ev'ry)|[cC]{_A}est", _as_it_is),
    (rf"[A-HJ-XZn](?:{_A}|`){_L}{{2,}}", _as_it_is),
    (rf"{_L}+[aeiouyAEIOUY](?:{_A}|`)[aeiouA-Z]{_L}*", _as_it_is),
    (rf"([yY]{_A}){_L}", _as_it_is),
    (rf"{_A}[2-9]0[sS]", _as_it_is),
    (rf"{_A}\d\d(?=\s|$)", _as_it_is),
    # numbers
    (rf"[-+]?{_NUM}", _as_it_is),
    (r"(?:\d{1,4}[- ])?\d{1,4}[/\u2044]\d{1,4}", _joined),
    (r"\d{1,2}[-/]\d{1,2}[-/]\d{2,4}", _as_it_is),
    (
        r"(?:\(\d{2,3}\) ?|\+{0,2}(?:\d{2,4}[- ])?\d{2,4}[- ])\d{3,4}[- ]?\d{3,5}"
        r"|\+{0,2}(?:\d{2,4}\.){1,2}\d{3,4}\.\d{3,5}",
        _bracketed,
    ),
    (r"[A-Z]*\$", _as_it_is),
    # compounds
    (_COMPOUND, _as_it_is),
    (rf"[A-Za-z0-9][A-Za-z0-9.,]*(?:-(?:{_ACRONYM}\.|[A-Za-z0-9]+))+", _as_it_is),
    (r"[A-Za-z0-9]+(?:-[A-Za-z]+){0,2}(?:\\?/[A-Za-z0-9]+(?:-[A-Za-z]+){0,2}){1,2}", _as_it_is),
    (_INITIALS, lambda text: [text.replace("&amp;", "&")]),
    (r"[CcFf]#|[Cc]\+\+", _as_it_is),
    # abbreviations
    (rf"[A-Za-z](?:\.[A-Za-z])+\.|[A-Za-z]\.(?! +(?:{_OPENERS})(?:\s|$))", _as_it_is),
    (
        rf"(?:(?i:ph\.d|{_words(_ABBREVIATIONS + ' ' + _CLOSING_ABBREVIATIONS)})"
        rf"|{_words(_CAPITALISED)})\.",
        _as_it_is,
    ),
    (rf"(?i:{_words(_BEFORE_NUMBER)})\.(?= ?\d)", _as_it_is),
    (rf"((?!\d*[.,:]\d)(?:{_COMPOUND}|{_WORD}|{_INITIALS})\.)[,;:]", _as_it_is),
    # addresses, names, markup
    (rf"(?i:https?)://{_URL_TAIL}", _as_it_is),
    (
        r"""(?:www\.(?:[^\s"<>|.!?(){},]+\.)+[a-zA-Z]{2,4}"""
        r"""|(?:[^\s"`'<>|!(){},-_$]+\.)+(?:com|net|org|edu))"""
        rf"(?:/{_URL_TAIL})?",
        _as_it_is,
    ),
    (rf"{_LD}+(?:\.{_LD}+)*\.(?i:{_words(_FILE_ENDINGS)})(?=[\s.?!,]|$)", _as_it_is),
    (r"""<?[a-zA-Z0-9][^\s"<>|(){}]*@(?:[^\s"<>|(){}.]+\.)*[^\s"<>|(){}.]+>?""", _as_it_is),
    (rf"@[A-Za-z_][A-Za-z_0-9]*|#{_L}+", _as_it_is),
    (
        r"""</?[A-Za-z][\w:.-]*(?: +[A-Za-z][\w:.-]*(?:="[^"<>]*")?)* */?>|<!--.*?-->""",
        _joined,
    ),
    (r"&(?i:amp);", lambda _: ["&"]),
    (r"&(?i:lt);", lambda _: ["<"]),
    (r"&(?i:gt);", lambda _: [">"]),
    (r"&(?i:quot);", lambda _: ["''"]),
    (r"&(?i:apos);", lambda _: ["'"]),
    (r"&(?i:nbsp);", lambda _: []),
    (r"&(?i:mdash|ndash|md);", lambda _: ["--"]),
    (r"&#\d+;", _as_it_is),
    # punctuation of several characters
    (r"[?!]+", _as_it_is),
    (r"\.{3,}|\. \. \.", lambda _: ["..."]),
    (r"''", _as_it_is),
    (rf"[{_QUOTES}]{{2}}", _spelled),
    (r"-(?i:[lr][rsc]b)-", _as_it_is),
    (r"-{2,4}", lambda _: ["--"]),
    (r"-{5,}|_+|\*+|\\\*|#+|@+|<<|>>", _as_it_is),
    (r"[<>]?[:;=][-o*']?[()DPdpO\\{@|\[\]](?![A-Za-z0-9])", _bracketed),
    (rf"{_FACE}_{_FACE}|[\^x=~<>]\.[\^x=~<>]", _as_it_is),
    (rf"\({_FACE}[._]?{_FACE}\)", _bracketed),
]  # fmt: skip

RULES: list[Rule] = [(re.compile(pattern), write) for pattern, write in _TABLE]
