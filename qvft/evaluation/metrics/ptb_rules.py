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
    "\u00a3": "#", "\u20ac": "$", "\u00a4": "$", "\u00a2": "cents",
    "\u00bd": "1/2", "\u00bc": "1/4", "\u00be": "3/4", "\u2153": "1/3", "\u2154": "2/3",
}  # fmt: skip

# Abbreviations that keep their full stop, in any case and only when capitalised.
_ABBREVIATIONS = (
    "adj adm adv al ala alex apr ariz assn assoc asst atty aug ave bhd bldg blvd brig bros "
    "calif capt cf cie cmdr co col colo comdr conn corp cos cpl ct dak dec dept det dr drs ens "
    "esq est etc ext feb fla fri ft ga gen gov govs hon inc ind insp invt jan jos jr jul jun kan "
    "kans ky lieut lt ltd maj mar md mfg mich minn mlle mme mo mon mont mr mrs ms msgr mt mtg natl "
    "neb nev nov oct okla penn pfc ph plc pres prof profs pte pty pvt rd rep reps rev rt sen sens "
    "sep sept seq sfc sgt spc sq sr st ste supt sys tel tenn thu thurs treas tue tues univ va vs "
    "vt wed wis wisc wm wyo"
)
_CAPITALISED = (
    "Ark Az Del Ill La Mass Miss Ore Pa Tex Wash ARK AZ DEL ILL LA MASS MISS ORE PA TEX WASH"
)
# Abbreviations that keep their full stop only before a number.
_BEFORE_NUMBER = "art ca fig figs no nos op pp prop"

# Words that open a sentence: a single letter before one of them loses its full stop.
_SENTENCE_OPENERS = (
    "A About According Additionally After An As At But Earlier He Her Here However If In It Last "
    "Many More Mr. Ms. Now Once One Other Our She Since So Some Such That The Their Then There "
    "These They This We What When While Yet You"
)

_A = r"['\u2019]"
# Fractions, superscripts and circled numbers belong to `\w` but are no part of a word.
_NUMBER_SIGNS = "\u00b2\u00b3\u00b9\u00bc-\u00be\u2070-\u209c\u2150-\u218b\u2460-\u24ff"
_L = rf"[^\W\d_{_NUMBER_SIGNS}]"
_LD = rf"[^\W_{_NUMBER_SIGNS}]"
_NUM = r"(?:\d*(?:[.:,]\d+)+|\d+)"
_NOT_LETTER = r"(?![A-Za-z])"
_ELISION = rf"(?:[dDoOlL]{_A}(?=[A-Za-z0-9]))?"
_PART = rf"{_ELISION}(?:{_L}{_LD}*|[A-Za-z0-9]{_LD}*|{_NUM})"
_ACRONYM = r"[A-Za-z](?:\.[A-Za-z])+"
_URL_TAIL = r"""[^\s"<>|()]*[^\s"<>|.!?(){},-]"""


def _as_it_is(text: str) -> list[str]:
    return [text]


def _straight(text: str) -> list[str]:
    return [text.replace("\u2019", "'")]


def _joined(text: str) -> list[str]:
    return [text.replace(" ", "\u00a0")]


def _halves(first: int) -> Callable[[str], list[str]]:
    return lambda text: [text[:first], text[first:]]


def _bracketed(text: str) -> list[str]:
    return ["".join(SYMBOLS[c] if c in "()" else c for c in text.replace(" ", "\u00a0"))]


def _words(words: str) -> str:
    return "|".join(words.split())


_OPENERS = _words(_SENTENCE_OPENERS + " " + _SENTENCE_OPENERS.upper()).replace(".", r"\.")

_TABLE: list[tuple[str, Callable[[str], list[str]]]] = [
    # words split in two
    (rf"(?i:cannot){_NOT_LETTER}", _halves(3)),
    (rf"(?i:gonna|gotta|wanna|lemme|gimme){_NOT_LETTER}", _halves(3)),
    (rf"{_A}[tT](?=(?i:is|was))", _straight),
    # words and the clitics that end them
    (rf"({_L}{_LD}*?)[nN]{_A}[tT]", _as_it_is),
    (rf"[nN]{_A}[tT](?!{_L})", _straight),
    (rf"({_L}{_LD}*){_A}(?i:[msd]|re|ve|ll){_NOT_LETTER}", _as_it_is),
    (rf"{_L}{_LD}*(?:[.!?]{_L}{_LD}*)*", _as_it_is),
    (rf"{_A}(?i:[msd]|re|ve|ll){_NOT_LETTER}|\u2019s", _straight),
    # words with an apostrophe inside or at an end
    (rf"{_A}[nN]{_A}|{_A}[nN](?!{_L})", _as_it_is),
    (rf"[lLdDjJ]{_A}", _as_it_is),
    (rf"(?i:ol){_A}|{_A}(?i:em|cause|till?)", _as_it_is),
    (rf"(?i:c{_A}mon|nor{_A}easter|s{_A}mores|e{_A}er)", _as_it_is),
    (rf"[A-HJ-XZn]{_A}{_L}{{2,}}", _as_it_is),
    (rf"{_L}+[aeiouyAEIOUY]{_A}[aeiouA-Z]{_L}*", _as_it_is),
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
    (rf"{_PART}(?:[-_]{_PART})*", _as_it_is),
    (rf"[A-Za-z0-9][A-Za-z0-9.,]*(?:-(?:[A-Za-z0-9]+|{_ACRONYM}\.))+", _as_it_is),
    (r"[A-Za-z0-9]+(?:-[A-Za-z]+){0,2}(?:/[A-Za-z0-9]+(?:-[A-Za-z]+){0,2}){1,2}", _as_it_is),
    (r"[A-Z]+(?:[+&][A-Z]+)+", _as_it_is),
    (r"[CcFf]#|[Cc]\+\+", _as_it_is),
    # abbreviations
    (rf"[A-Za-z](?:\.[A-Za-z])+\.|[A-Za-z]\.(?! +(?:{_OPENERS})(?:\s|$))", _as_it_is),
    (rf"(?:(?i:{_words(_ABBREVIATIONS)})|{_words(_CAPITALISED)})\.", _as_it_is),
    (rf"(?i:{_words(_BEFORE_NUMBER)})\.(?= ?\d)", _as_it_is),
    (r"([A-Za-z0-9]+\.)[,;:]", _as_it_is),
    # addresses, names, markup
    (rf"https?://{_URL_TAIL}", _as_it_is),
    (
        r"""(?:www\.(?:[^\s"<>|.!?(){},]+\.)+[a-zA-Z]{2,4}"""
        r"""|(?:[^\s"`'<>|.!?(){},\-_$/]+\.)+(?:com|net|org|edu))"""
        rf"(?:/{_URL_TAIL})?",
        _as_it_is,
    ),
    (r"""[a-zA-Z0-9][^\s"<>|(){}]*@(?:[^\s"<>|(){}.]+\.)*[^\s"<>|(){}.]+""", _as_it_is),
    (r"[@#][A-Za-z_][A-Za-z_0-9]*", _as_it_is),
    (
        r"""</?[A-Za-z][\w:.-]*(?: +[A-Za-z][\w:.-]*(?:="[^"<>]*")?)* */?>"""
        r"""|<[^\s<>()"]+@[^\s<>()"]+>|<!--.*?-->""",
        _joined,
    ),
    (r"&(?i:amp);", lambda _: ["&"]),
    (r"&(?i:lt);", lambda _: ["<"]),
    (r"&(?i:gt);", lambda _: [">"]),
    (r"&(?i:quot);", lambda _: ["''"]),
    (r"&(?i:apos);", lambda _: ["'"]),
    (r"&(?i:nbsp);", lambda _: []),
    (r"&(?i:mdash|ndash|md);", lambda _: ["--"]),
    # punctuation of several characters
    (r"[?!]+", _as_it_is),
    (r"\.{3,}|\. \. \.", lambda _: ["..."]),
    (r"''|``", _as_it_is),
    (r"-{2,4}", lambda _: ["--"]),
    (r"-{5,}|_+|\*+|#+|@+|<<|>>", _as_it_is),
    (r"[<>]?[:;=][-o*']?[()DPdpO\\{@|\[\]](?![A-Za-z0-9])", _bracketed),
    (r":\*", _as_it_is),
    (r"[-^x=~<>']_[-^x=~<>']|[\^x=~<>]\.[\^x=~<>]", _as_it_is),
]  # fmt: skip

RULES: list[Rule] = [(re.compile(pattern), write) for pattern, write in _TABLE]
