"""The report in a real browser: it renders, its filters filter, and nothing is complained about."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from dataclasses import replace

import pytest
from PIL import Image

from qvft.evaluation.comparison import compare
from qvft.evaluation.pairing import pair
from qvft.evaluation.report.page import write_report
from qvft.evaluation.report.report import Report
from qvft.evaluation.rows import PredictionRow
from qvft.evaluation.scoring import score

FLAGS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--enable-logging=stderr", "--v=0", "--virtual-time-budget=2000", "--dump-dom",
]  # fmt: skip
SECONDS = 60

# Would say so on the console, and in the title, if it ran.
HOSTILE = """<script>document.title="ran";console.error("ran")</script><b a='"&">"""

CLOSED = {"answer_type": "closed"}
ROWS = [
    PredictionRow("q0", "a", "question", "Is it red?", "yes", ("Yes",), {**CLOSED, "organ": "x"}),
    PredictionRow("q1", "b", "question", "Is it?", "a dog", ("no",), {**CLOSED, "organ": HOSTILE}),
    PredictionRow("q2", "b", "question", HOSTILE, "no", ("no",), {**CLOSED, "organ": "x"}),
    PredictionRow("c0", "a", "caption", None, "a <b>dog</b>", ("a dog",)),
    PredictionRow("c1", "b", "caption", None, "a cat sits here", ("a cat sits here",)),
    PredictionRow(HOSTILE, "c", "question", "Which?", HOSTILE, (HOSTILE,), {"answer_type": "open"}),
]
OTHER = ["no", "no", "no", "a dog", "a cat sits here", HOSTILE]

# Clicks each filter, then each value of a breakdown, and notes what they leave to be seen and how
# many cards the page says there are.
PROBE = """
<script>
(function () {
  var seen = {};
  function shown() {
    var cards = Array.from(document.querySelectorAll(".card"));
    return cards.filter(function (c) { return c.offsetParent !== null; }).map(function (c) {
      return c.querySelector(".meta").textContent.split(" \u00b7 ")[0];
    });
  }
  document.querySelectorAll(".filters button[data-show]").forEach(function (button) {
    button.click();
    seen[button.dataset.show] = {
      items: shown(),
      said: document.querySelector(".filters output").textContent,
      offered: button.offsetParent !== null,
      pictures: document.images.length && Array.from(document.images).every(function (i) {
        return i.naturalWidth === 40;
      }),
      wide: document.documentElement.scrollWidth > window.innerWidth
    };
  });
  function press(selector) { document.querySelector(selector).click(); }
  press('[data-show="all"]');
  document.querySelectorAll("button.pick").forEach(function (pick) {
    pick.click();
    seen[pick.dataset.key + "=" + pick.dataset.value] = {
      items: shown(), said: document.querySelector(".filters .clear").textContent
    };
  });
  press('.pick[data-key="organ"][data-value="x"]');
  press('[data-show="changed"]');
  seen.both = {items: shown()};
  press(".filters .clear");
  seen.cleared = {
    items: shown(), offered: document.querySelector(".filters .clear").offsetParent !== null
  };
  press('.pick[data-key="organ"]');
  press('.pick[data-key="organ"]');
  seen.twice = {items: shown()};
  seen.comparison = Array.from(document.querySelectorAll("#against tbody tr")).map(function (row) {
    return Array.from(row.cells).filter(function (c) { return c.innerText.trim(); })
      .map(function (c) { return c.innerText.trim(); });
  });
  seen.other = Array.from(document.querySelectorAll(".card")).map(function (c) {
    var other = c.querySelector(".other");
    return other ? other.innerText.replace(/\\s+/g, " ").trim() : "";
  });
  seen.title = document.title;
  var note = document.createElement("pre");
  note.id = "seen";
  note.textContent = JSON.stringify(seen);
  document.body.appendChild(note);
})();
</script>
</body>"""


@pytest.fixture(scope="module")
def rendered(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """The page as the browser has it after all clicks, and the browser's log."""
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("no browser: neither chromium nor google-chrome is installed")
    folder = tmp_path_factory.mktemp("page")
    scores = score(ROWS)
    theirs = [replace(row, prediction=text) for row, text in zip(ROWS, OTHER, strict=True)]
    against = compare(ROWS, scores, pair(ROWS, theirs, where="other"), name=HOSTILE)
    report = Report.from_scores(scores, title="six items", against=against)
    write_report(
        folder, report, ROWS, scores.per_item, image_for=lambda name: Image.new("RGB", (40, 30))
    )
    page = folder / "report.html"
    text = page.read_text(encoding="utf-8")
    page.write_text(text.replace("</body>", PROBE), encoding="utf-8")
    done = subprocess.run(
        [browser, *FLAGS, f"--user-data-dir={folder / 'profile'}", page.as_uri()],
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout, done.stderr


@pytest.fixture(scope="module")
def seen(rendered: tuple[str, str]) -> dict:
    found = re.search(r'<pre id="seen">(.*?)</pre>', rendered[0])
    assert found, "the page's script did not reach its end"
    return json.loads(html.unescape(found[1]))


def test_every_item_and_picture_is_shown_at_first(seen: dict) -> None:
    assert seen["all"]["items"] == ["q0", "q1", "q2", "c0", "c1", HOSTILE]
    assert seen["all"]["said"] == "6 items"
    assert seen["all"]["pictures"] is True


@pytest.mark.parametrize(
    ("show", "items", "said"),
    [
        ("unparseable", ["q1"], "1 item"),
        ("changed", ["q0", "q1", "c0"], "3 items"),
        ("better", ["q0"], "1 item"),
        ("worse", ["q1", "c0"], "2 items"),
        ("caption", ["c0", "c1"], "2 items"),
        ("question", ["q0", "q1", "q2", HOSTILE], "4 items"),
    ],
)
def test_a_filter_leaves_the_items_it_names(
    seen: dict, show: str, items: list[str], said: str
) -> None:
    assert seen[show]["items"] == items
    assert seen[show]["said"] == said
    assert seen[show]["offered"] is True


def test_the_worst_items_come_first_when_asked_for(seen: dict) -> None:
    # The wrong answer scores 0, the first caption between 0 and 1, all others 1.
    assert seen["worst"]["items"] == ["q1", "c0", "q0", "q2", "c1", HOSTILE]


def test_a_value_of_a_breakdown_leaves_its_items(seen: dict) -> None:
    assert seen["organ=x"]["items"] == ["q0", "q2"]
    assert seen["organ=x"]["said"] == "organ: x \u00d7"
    assert seen[f"organ={HOSTILE}"]["items"] == ["q1"]
    assert seen["answer_type=open"]["items"] == [HOSTILE]
    assert seen["kind=caption"]["items"] == ["c0", "c1"]


def test_a_value_and_a_filter_go_together_until_the_value_is_cleared(seen: dict) -> None:
    assert seen["both"]["items"] == ["q0"]
    assert seen["cleared"] == {"items": ["q0", "q1", "c0"], "offered": False}
    assert seen["twice"]["items"] == ["q0", "q1", "c0"]


def test_the_comparison_has_a_line_a_metric_with_its_verdict(seen: dict) -> None:
    lines = {line[0]: line[1:] for line in seen["comparison"]}
    # Of three closed questions A has two right, B two others.
    assert lines["closed accuracy"][:3] == ["66.7", "66.7", "0.0"]
    assert lines["closed accuracy"][-1] == "no clear difference"
    # Of three questions with a yes/no reference A leaves one unparsed, B none.
    assert lines["closed unparseable"][:3] == ["33.3", "0.0", "+33.3"]
    assert {"open exact match", "BLEU-4", "ROUGE-L", "CIDEr"} <= lines.keys()


def test_a_changed_card_shows_what_the_other_wrote(seen: dict) -> None:
    by_order = [text for text in seen["other"] if text]
    assert by_order[:2] == [
        "Other no better: accuracy 1 against 0",
        "Other no worse: accuracy 0 against 1",
    ]
    assert len(by_order) == 3


def test_the_page_is_not_wider_than_the_window(seen: dict) -> None:
    assert seen["all"]["wide"] is False


def test_the_console_stays_empty(rendered: tuple[str, str]) -> None:
    """Errors of scripts and whatever the page's content policy refuses would stand here."""
    assert [line for line in rendered[1].splitlines() if "CONSOLE" in line] == []


def test_nothing_of_data_or_model_is_run(seen: dict) -> None:
    assert seen["title"] == "six items \u00b7 qvft report"


def test_texts_stay_text(rendered: tuple[str, str]) -> None:
    assert "a &lt;b&gt;dog&lt;/b&gt;" in rendered[0]
