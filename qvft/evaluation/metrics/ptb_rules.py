"""Token rules of the Penn Treebank lexer, used by `tokenize`: a table.

The patterns read shapes (`ptb_characters.shape`), in which one character stands for all of its
class: LETTER for the letters of every script. Of all rules that match at a place the longest match
wins; of equally long ones the first. Where a pattern has a group, the group is the token, and the
rest of the match is context that counts for its length. What no rule matches is one character,
written as `SYMBOLS` says or as it is.

Source: observed behaviour of PTBTokenizer 3.4.1 (nlp.stanford.edu/software/tokenizer.html).
"""

from __future__ import annotations

import re
from collections.abc import Callable

from qvft.evaluation.metrics.ptb_characters import (
    ASTRAL,
    BLANK,
    DIGIT,
    LETTER,
    MARK,
    SUBSCRIPT,
    SUPERSCRIPT,
)

Rule = tuple[re.Pattern[str], Callable[[str], list[str]]]

SYMBOLS = {
    "(": "-LRB-", ")": "-RRB-", "[": "-LSB-", "]": "-RSB-", "{": "-LCB-", "}": "-RCB-",
    '"': "''", "\u201c": "``", "\u201d": "''", "\u2018": "`", "\u2019": "'", "\u00ab": "``",
    "\u00bb": "''", "\u2039": "`", "\u203a": "'", "\u201b": "`",
    "\u2026": "...", "\x85": "...", "\u2013": "--", "\u2014": "--", "\u2015": "--",
    "\x80": "$", "\x91": "`", "\x92": "'", "\x93": "``", "\x94": "''", "\x96": "--",
    "\x97": "--", "\u20a0": "$", "\u2010": "", "\u2011": "", "\u058a": "",
    "\u00a3": "#", "\u20ac": "$", "\u00a4": "$", "\u00a2": "cents",
    "\u00bd": "1/2", "\u00bc": "1/4", "\u00be": "3/4", "\u2153": "1/3", "\u2154": "2/3",
}  # fmt: skip

# Abbreviations that keep their full stop, in any case and only as written. Those that may end a
# sentence keep it before a single letter too (`etc.x`), where the others make one word.
_CLOSING_ABBREVIATIONS = (
    "al ala apr ariz assn aug bhd bldg blvd bros calif co colo conn corp cos ct dak dec esq est "
    "etc ext feb fla fri ga inc ind intl jan jr jul jun kan kans ky ltd mar md mich minn mo mon "
    "mont neb nev nov oct okla penn ph\\.d plc rd rt sep sept seq sq sr sys tel tenn thu thurs "
    "tue tues univ va vt wed wis wisc wyo"
)
_ABBREVIATIONS = (
    "adj adm adv alex assoc asst atty ave brig capt cf cie cmdr col comdr cpl dept det dr drs elec "
    "ens ft gen gov govs hon insp invt jos lieut lt maj messrs mlle mme mr mrs ms msgr mt "
    "natl pfc ph pres prof profs pvt rep reps rev sen sens sfc sgt spc st ste supt treas vs wm"
)
_CLOSING_AS_WRITTEN = (
    "Ark Az Del Ill La Mass Miss Ore Pa Tex Wash ARK AZ DEL ILL LA MASS MISS ORE PA TEX WASH "
    "Pte pte Pty pty"
)
_AS_WRITTEN = "Mfg mfg Mtg mtg"
ABBREVIATIONS = frozenset(
    " ".join((_CLOSING_ABBREVIATIONS, _ABBREVIATIONS, _CLOSING_AS_WRITTEN, _AS_WRITTEN)).split()
)
# Abbreviations that keep their full stop only before a number.
_BEFORE_NUMBER = "art ca fig figs no nos op pp prop"

# Endings with which a file's name is one token.
_FILE_ENDINGS = (
    "bat bmp c class cgi cpp dll doc docx exe gif gz h html? jar java jpe?g mov mp3 pdf php pl png "
    "ppt ps py sql tar txt wav x xml zip"
)

# Words that open a sentence, a capital and then letters of any case: a single letter before one of
# them loses its full stop.
_SENTENCE_OPENERS = (
    "A About According Additionally After An As At But Earlier He Her Here However If In It Last "
    "Many More Mr. Ms. Now Once One Other Our She Since So Some Such That The Their Then There "
    "These They This We What When While Yet You"
)

# The dotted and dotless I, the long s and the Kelvin sign are letters that match `i`, `s` and `k`
# where case is ignored.
_N = rf"A-Za-z\u0130\u0131\u017f\u212a{LETTER}"
_D = rf"[0-9{DIGIT}]"
# In plain words marks, soft hyphens and the entities of accented vowels count as letters, in
# compounds and beside elisions they do not.
_ACCENTED = "&[aeiouAEIOU](?:acute|grave|uml);"
_L = rf"(?:[{_N}{MARK}\u00ad]|{_ACCENTED})"
_LD = rf"(?:[{_N}{MARK}\u00ad0-9{DIGIT}]|{_ACCENTED})"
_NUM = rf"(?:{_D}*(?:[.:,\u00ad\u066b]{_D}+)+|{_D}+)"
_CURLY = r"(?:\u2019|&apos;)"
_A = rf"(?:'|{_CURLY})"
_AQ = rf"(?:{_A}|[`\u2018])"
_NOT_LETTER = r"(?![A-Za-z])"
_PART = rf"(?:[dDoOlL]{_AQ}[{_N}0-9{DIGIT}])?[{_N}0-9{DIGIT}]+"
_COMPOUND = rf"{_PART}(?:[-_\u2010]{_PART})*"
_WORD = rf"{_L}{_LD}*(?:[.!?]{_L}{_LD}*)*"
_CLITIC = r"(?:[msdMSD]|(?i:re|ve|ll))"
_ACRONYM = r"[A-Za-z](?:\.[A-Za-z])+"
_ASCII_COMPOUND = rf"[A-Za-z0-9][A-Za-z0-9.,\u00ad]*(?:-(?:{_ACRONYM}\.|[A-Za-z0-9\u00ad]+))+"
_INITIALS = r"[A-Z]+(?:(?:[+&]|&amp;)[A-Z]+)+"
_QUOTES = "`\u2018\u2019\u201c-\u201e\u2039\u203a"
_FACE = "[-^x=~<>']"
_TAG = "[A-Za-z][A-Za-z0-9_:.-]*"

_BLANKS = rf"[ \t\u00a0{BLANK}]"
_END = rf"[ \t\n\v\f\u00a0\x85{BLANK}]"
# What no part of an address is.
_NOT = r' \t\n\f"<>|'


def _url_tail(brackets: str) -> str:
    return rf"[^{_NOT}{brackets}]*(?:[^{_NOT}{brackets}][^{_NOT}.!?(){{}},-]|{ASTRAL})"


def _as_it_is(text: str) -> list[str]:
    return [text]


def _hyphenless(text: str) -> list[str]:
    return [text.replace("\u00ad", "") or "-"]


def _straight(text: str) -> list[str]:
    return [re.sub("[\x91\u2018\u201b]", "`", re.sub("[\x92\u2019]|&apos;", "'", text))]


def _joined(text: str) -> list[str]:
    return [text.replace(" ", "\u00a0")]


def _halves(first: int) -> Callable[[str], list[str]]:
    return lambda text: [text[:first], text[first:]]


def _bracketed(text: str) -> list[str]:
    return ["".join(SYMBOLS[c] if c in "()" else c for c in text.replace(" ", "\u00a0"))]


def _spelled(text: str) -> list[str]:
    return ["".join(SYMBOLS.get(character, character) for character in text)]


def _written(*tokens: str) -> Callable[[str], list[str]]:
    return lambda _: list(tokens)


def _words(words: str) -> str:
    return "|".join(words.split())


_OPENERS = "|".join(rf"{word[0]}(?i:{re.escape(word[1:])})" for word in _SENTENCE_OPENERS.split())

_TABLE: list[tuple[str, Callable[[str], list[str]]]] = [
    (rf"{_BLANKS}+", _written()),
    # words split in two
    (rf"(?i:cannot){_NOT_LETTER}", _halves(3)),
    (rf"(?i:gonna|gotta|wanna|lemme|gimme){_NOT_LETTER}", _halves(3)),
    (r"'[tT](?=(?i:is|was))", _as_it_is),
    # words and the clitics that end them
    (rf"([A-Za-z\u00ad]*?[A-MO-Za-mo-z]\u00ad*)[nN]{_AQ}[tT]", _hyphenless),
    (rf"[nN]{_AQ}[tT]{_NOT_LETTER}", _straight),
    (rf"({_WORD}){_A}{_CLITIC}", _hyphenless),
    (rf"{_LD}+(?:\.{_LD}+)*\.(?i:{_words(_FILE_ENDINGS)})(?={_END}|[.?!,])", _as_it_is),
    (_WORD, _hyphenless),
    # after a curly apostrophe or its entity a clitic ends even where letters follow
    (rf"'{_CLITIC}{_NOT_LETTER}|{_CURLY}{_CLITIC}", _straight),
    # words with an apostrophe inside or at an end
    (rf"{_A}[nN]{_A}|'[nN](?=[ \t\n\u00a0])|{_CURLY}[nN]", _as_it_is),
    (rf"[lLdDjJ]{_A}", _as_it_is),
    (rf"(?i:ol|dunkin|somethin){_A}|{_A}(?i:em|cause|till?)|[oO]{_AQ}[oO]", _as_it_is),
    (rf"(?i:c'mon|nor'easter|s'mores|e'er|nat'l|ev'ry|li'l|cont'd\.?)|[cC]{_A}est", _as_it_is),
    (rf"[A-HJ-XZn]{_AQ}[{_N}]{{2,}}", _as_it_is),
    (rf"[{_N}]+[aeiouyAEIOUY]{_AQ}[aeiouA-Z][{_N}]*", _as_it_is),
    (rf"([yY]{_A})[{_N}]", _as_it_is),
    (rf"{_A}[2-9]0[sS\u017f]", _as_it_is),
    (rf"{_A}[0-9]{{2}}(?={_END})", _as_it_is),
    # numbers
    (rf"[-+]?{_NUM}", _hyphenless),
    (rf"(?:{_D}{{1,4}}[- \u00a0])?{_D}{{1,4}}[/\u2044]{_D}{{1,4}}", _joined),
    (rf"{_D}{{1,2}}[-/]{_D}{{1,2}}[-/]{_D}{{2,4}}", _as_it_is),
    (
        r"(?:\([0-9]{2,3}\)[ \u00a0]?|\+{0,2}(?:[0-9]{2,4}[- \u00a0])?[0-9]{2,4}[- \u00a0])"
        r"[0-9]{3,4}[- \u00a0]?[0-9]{3,5}|\+{0,2}(?:[0-9]{2,4}\.){1,2}[0-9]{3,4}\.[0-9]{3,5}",
        _bracketed,
    ),
    (rf"\u207a?(?:{SUPERSCRIPT}+|{SUBSCRIPT}+)", _as_it_is),
    (r"[A-Z]*\$", _as_it_is),
    # compounds
    (_COMPOUND, _as_it_is),
    (r"[A-Za-z0-9]+(?:-[A-Za-z]+){0,2}(?:\\?/[A-Za-z0-9]+(?:-[A-Za-z]+){0,2}){1,2}", _as_it_is),
    (_INITIALS, lambda text: [text.replace("&amp;", "&")]),
    (r"[CcFf]#|[Cc]\+\+", _as_it_is),
    # abbreviations
    (rf"[A-Za-z](?:\.[A-Za-z])+\.|[A-Za-z]\.(?!{_END}+(?:{_OPENERS}){_END})", _as_it_is),
    (
        rf"(?:(?i:{_words(_ABBREVIATIONS + ' ' + _CLOSING_ABBREVIATIONS)})"
        rf"|{_words(_CLOSING_AS_WRITTEN + ' ' + _AS_WRITTEN)})\.",
        _as_it_is,
    ),
    (rf"(?i:{_words(_BEFORE_NUMBER)})\.(?=(?:{_END}|\u3001)?{_D})", _as_it_is),
    (
        rf"((?!{_D}*[.,:]{_D})(?:{_COMPOUND}|{_WORD}|{_INITIALS}|{_ASCII_COMPOUND})\.)"
        r"[,;:\u3001]",
        _hyphenless,
    ),
    # addresses, names, markup
    (
        rf"<?[a-zA-Z0-9][^{_NOT}\u00a0(){{}}]*@(?:[^{_NOT}\u00a0(){{}}.]+\.)*"
        rf"[^{_NOT}\u00a0(){{}}.]+>?",
        _as_it_is,
    ),
    (
        rf"((?:(?i:{_words(_CLOSING_ABBREVIATIONS)})|{_words(_CLOSING_AS_WRITTEN)})\.)(?s:..)",
        _as_it_is,
    ),
    (_ASCII_COMPOUND, _hyphenless),
    (rf"(?i:https?)://{_url_tail('(){}')}", _as_it_is),
    (
        rf"(?:www\.(?:[^{_NOT}.!?(){{}},]+\.)+[a-zA-Z]{{2,4}}"
        rf"|(?:[^{_NOT}`'!(){{}},-_$]+\.)+(?i:com|net|org|edu))(?:/{_url_tail('()')})?",
        _as_it_is,
    ),
    (rf"@[A-Za-z_][A-Za-z_0-9]*|#{_L}+", _as_it_is),
    (
        rf"""<(?:[!?][A-Za-z-][^>\n]*|/{_TAG}"""
        rf"""|{_TAG}(?: +{_TAG}(?: *= *(?:'[^'\n]*'|"[^"\n]*"))?)* */?) *>""",
        _joined,
    ),
    (r"&(?i:amp);", _written("&")),
    (r"&(?i:lt);", _written("<")),
    (r"&(?i:gt);", _written(">")),
    (r"&(?i:quot);", _written("''")),
    (r"&(?i:apos);", _written("'")),
    (r"&(?i:nbsp);", _written()),
    (r"&(?i:mdash|ndash|md);", _written("--")),
    (r"&(?:HT|TL|UR|LR|QC|QL|QR|odq|cdq|#[0-9]+);", _as_it_is),
    # punctuation of several characters
    (r"[?!]+", _as_it_is),
    (r"\.{3,5}|\. \. \.", _written("...")),
    (r"''", _as_it_is),
    (rf"[{_QUOTES}]{{2}}", _spelled),
    (r"-(?i:[lr][rsc]b)-", _as_it_is),
    (r"-{2,4}", _written("--")),
    (r"-{5,}|_+|\*+|\\\*|#+|@+|<<|>>", _as_it_is),
    (r"[<>]?[:;=][-o*']?[()DPdpO\\{@|\[\]](?![A-Za-z0-9])", _bracketed),
    (rf"{_FACE}_{_FACE}", _as_it_is),
    (rf"\({_FACE}[._]?{_FACE}\)", _bracketed),
]  # fmt: skip

RULES: list[Rule] = [(re.compile(pattern), write) for pattern, write in _TABLE]
