"""What came from data, models and file names is shown and never obeyed: pages, terminals, cards."""

from __future__ import annotations

import dataclasses
import io
import json
import logging
import re
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace

import pytest
from rich.table import Table
from rich.text import Text
from transformers import Blip2Config

from qvft import log
from qvft.checking.preview import PreviewRow, Token, write_preview
from qvft.errors import DataError
from qvft.evaluation.comparison import compare
from qvft.evaluation.evaluation_facts import DataFacts, DecodeFacts, ModelFacts
from qvft.evaluation.pairing import pair
from qvft.evaluation.report.page import write_report
from qvft.evaluation.report.phases import PhaseFacts
from qvft.evaluation.report.report import LossPoint, Report, Skipped
from qvft.evaluation.rows import PredictionRow
from qvft.evaluation.scoring import score
from qvft.json_files import json_text
from qvft.models.base_checkpoint import BaseCheckpoint
from qvft.models.families import FAMILIES
from qvft.recipe.load import parse_recipe
from qvft.weights.card import model_card

HOSTILE = (
    "<script>alert(1)</script>",
    '" onmouseover="alert(1)" x=\'',
    "'><img src=x onerror=alert(1)>",
    "javascript:alert(1)",
    "</style></title></textarea><!--",
    "{{7*7}}{% raw %}",
    "[red]x[/]",
    "[/nothing]",
    ":smile:",
    "\x1b[2J\x1b]0;owned\x07",
    "\x9b31m",
    "\u202egnp.exe",
    "nul\0byte",
    "half \ud800 pair",
    "two\nlines",
)
EVIL = " ".join(HOSTILE)
HARMLESS = {"meta", "title", "style", "script", "button", "div", "span", "p", "h1", "h2", "h3"}


class Page(HTMLParser):
    """Every tag with its attributes, and all text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data

    def shape(self) -> list[tuple[str, tuple[str, ...]]]:
        return [(tag, tuple(attributes)) for tag, attributes in self.tags]


def report_page(folder: Path, text: str) -> Page:
    """A report in which every text that data, a model or a user gives is `text` and a number."""

    def said(number: int) -> str:
        return f"{text} {number}"

    rows = [
        PredictionRow(
            said(n), f"i{n}", "question", said(n), said(n), (said(n),), {said(0): said(n % 2)}
        )
        for n in range(6)
    ]
    rows.append(PredictionRow(said(9), "i9", "caption", None, said(9), (said(8),), {}))
    scores = score(rows)
    theirs = [dataclasses.replace(row, prediction="other") for row in rows]
    against = compare(rows, scores, pair(rows, theirs, where="b"), name=text, settings=[])
    report = Report.from_scores(
        scores,
        title=text,
        against=against.model_copy(update={"folder": text, "origin": text, "method": text}),
        counts={text: 3.0},
        skipped=[Skipped(id=text, reason=text)],
        decode=DecodeFacts(captions={text: text}, prompt={"caption": text, "question": text}),
        model=ModelFacts(name=text, base=text, adapter_sha256={text: text}),
        data=DataFacts(name=text, format=text),
        versions={text: text},
        definitions={text: text},
        phases=[PhaseFacts.model_validate(phase(text))],
        loss_curve=[LossPoint(phase=text, step=n, loss=1.0 / n) for n in (1, 2, 3)],
    )
    write_report(folder, report, rows, scores.per_item)
    json.loads((folder / "report.json").read_text(encoding="utf-8"))
    return Page((folder / "report.html").read_text(encoding="utf-8"))


def phase(text: str) -> dict[str, object]:
    part = {"component": text, "title": text, "weights": 9, "trained": 1}
    counts = dict.fromkeys(("decoder_blocks", "decoder_blocks_trained", "steps", "max_steps"), 1)
    return {
        "name": text,
        "objectives": {text: 1.0, "lm": 1.0},
        "components": [part, {**part, "trained": 0}],
        **counts,
        "decoder_frozen": 0.0,
        "learning_rates": {text: 1e-4, "lm": 1e-5},
        "epochs": None,
        "batch_size": 1,
        "accumulation": 1,
        "loss": 1.0,
    }


def test_a_report_of_hostile_texts_has_the_tags_of_a_harmless_one(tmp_path: Path) -> None:
    plain, evil = report_page(tmp_path / "a", "word"), report_page(tmp_path / "b", EVIL)
    assert evil.shape() == plain.shape()
    for one in HOSTILE[:6]:
        assert one in evil.text
    assert "49" not in evil.text.replace("{{7*7}}", "")
    assert not [a for _, a in evil.tags if {"href", "onmouseover", "onerror"} & a.keys()]


def preview_page(path: Path, text: str) -> Page:
    tokens = (Token(1, text, "prompt"), Token(2, text, "target", cut=True))
    rows = [PreviewRow(text, text, text, b"png", (9, 9), 3, tokens)]
    write_preview(path, rows, title=text, lead=text)
    return Page(path.read_text(encoding="utf-8"))


def test_a_preview_of_hostile_texts_has_the_tags_of_a_harmless_one(tmp_path: Path) -> None:
    plain = preview_page(tmp_path / "a.html", "word")
    evil = preview_page(tmp_path / "b.html", EVIL)
    assert evil.shape() == plain.shape()
    assert "{{7*7}}" in evil.text


OBEYED = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


@pytest.mark.parametrize("text", HOSTILE)
def test_a_console_shows_markup_and_sends_no_control_character(text: str) -> None:
    stream = io.StringIO()
    console = log.PlainConsole(
        file=stream, markup=False, emoji=False, force_terminal=True, color_system="truecolor"
    )
    table = Table(title=text)
    table.add_column(text)
    table.add_row(text)
    for one in (text, Text(text), table):
        console.print(one, highlight=False)
    written = re.sub("\x1b\\[[0-9;]*m", "", stream.getvalue())  # colours are rich's own
    assert not OBEYED.search(written)
    bare = OBEYED.sub("", text).split("\n")[0]
    assert written.count(bare) >= 3


def test_the_consoles_of_the_entries_are_of_this_kind() -> None:
    for console in (log.stdout, log.stderr):
        assert isinstance(console, log.PlainConsole)
        assert not (console._markup or console._emoji)


def test_a_table_with_an_unseen_character_keeps_its_columns_in_line() -> None:
    stream = io.StringIO()
    console = log.PlainConsole(file=stream, markup=False)
    table = Table("a", "b")
    table.add_row("x\x1b\u202ey", "z")
    table.add_row("xy", "z")
    console.print(table)
    rows = [line for line in stream.getvalue().splitlines() if "xy" in line]
    assert len(rows) == 2 and rows[0] == rows[1]


def test_messages_and_logs_spell_escape_sequences_out(capsys) -> None:
    def fail() -> None:
        log.get_logger("qvft.data").warning("sample %s", EVIL)
        raise DataError(f"id {EVIL}", where="a\x1b[1m.jsonl:1")

    root = logging.getLogger("qvft")
    before = root.handlers[:], root.propagate
    try:
        assert log.exit_status(fail) == 2
    finally:
        root.handlers[:], root.propagate = before
    told = capsys.readouterr().err
    assert not OBEYED.search(told)
    assert "\\u001b[2J" in told and "\\u202e" in told
    logged = next(line for line in told.splitlines() if "sample" in line)
    assert "two\\nlines" in logged


def test_json_that_is_made_fit_for_a_terminal_is_the_same_json() -> None:
    line = json_text({"text": EVIL})
    assert json.loads(log.shown(line)) == {"text": EVIL}
    assert not OBEYED.search(log.shown(line))


def test_a_card_of_hostile_names_keeps_its_front_matter_its_code_and_its_table(
    tmp_path: Path,
) -> None:
    from ruamel.yaml import YAML

    evil = EVIL + '"); import os; os.system("x") # ```\n---\nlicense: none\n| a | b |'
    folder = tmp_path / "eval" / "x | <b>y"
    folder.mkdir(parents=True)
    content = {"n": 1, "metrics": {evil: 1.0}, "model": {"adapter_sha256": {}}}
    (folder / "report.json").write_text(json.dumps(content))
    recipe = parse_recipe({"name": "scans", "model": {"id": "base/model"}})
    prompt = recipe.data.prompt.model_copy(update={"caption": evil, "question": evil})
    data = recipe.data.model_copy(update={"prompt": prompt})
    facts = dict(
        folder=evil,
        manifest={
            "recipe_sha256": "0" * 64,
            "started_from": dict.fromkeys(("path", "recipe_sha256", "weights_sha256"), evil),
        },
        adapter_sha256={},
        template=SimpleNamespace(written_prompt=lambda kind, question: evil + question),
        sources=[evil],
    )
    merged = dict(
        remote_code=False, dtype="float32", data=[evil], trained=["qformer"], decoder=None,
        quantized="none", qvft_version="0",
    )  # fmt: skip
    hostile = recipe.model_copy(update={"name": evil, "data": data})
    base = BaseCheckpoint(evil, str(tmp_path), evil, Blip2Config(), FAMILIES["blip2"])
    for card in (
        model_card(hostile, tmp_path, base, library="transformers", **facts, **merged),
        model_card(hostile, tmp_path, base, library="peft", **facts),
    ):
        _, front, rest = card.split("---\n", 2)
        read = YAML(typ="safe").load(front)
        known = {"library_name", "pipeline_tag", "base_model", "tags", "license", "model-index"}
        assert set(read) <= known
        assert read["license"] == "unknown"
        code = rest.split("```python\n")[1].split("\n```\n")[0]
        compile(code, "card", "exec")
        outside = rest.replace(code, "")
        assert "<script>" not in re.sub(r"(?<!\\)`[^`\n]*`", "", outside)
        assert "| a | b |" not in outside.splitlines()
        for table in re.findall(r"(?:^\|.*\n)+", outside, flags=re.MULTILINE):
            assert len({len(re.findall(r"(?<!\\)\|", row)) for row in table.splitlines()}) == 1
