"""The report in a real browser: it renders, its filters filter, and nothing is complained about."""

from __future__ import annotations

import json
import re
import shutil
import subprocess

import pytest
from PIL import Image

from qvft.evaluation.report import Report, write_report
from qvft.evaluation.rows import PredictionRow
from qvft.evaluation.scoring import score

FLAGS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--enable-logging=stderr", "--v=0", "--virtual-time-budget=2000", "--dump-dom",
]  # fmt: skip
SECONDS = 60

ROWS = [
    PredictionRow("q0", "a", "question", "Is it red?", "yes", ("Yes",), {"answer_type": "closed"}),
    PredictionRow("q1", "b", "question", "Is it?", "a dog", ("no",), {"answer_type": "closed"}),
    PredictionRow("q2", "b", "question", "Is it big?", "no", ("no",), {"answer_type": "closed"}),
    PredictionRow("c0", "a", "caption", None, "a <b>dog</b>", ("a dog",)),
]

# Clicks each filter and notes what it leaves to be seen, and how many cards it says there are.
PROBE = """
<script>
(function () {
  var seen = {};
  document.querySelectorAll(".filters button").forEach(function (button) {
    button.click();
    var cards = Array.from(document.querySelectorAll(".card"));
    seen[button.dataset.show] = {
      items: cards.filter(function (c) { return c.offsetParent !== null; }).map(function (c) {
        return c.querySelector(".meta").textContent.split(" ")[0];
      }),
      said: document.querySelector(".filters output").textContent,
      pictures: document.images.length && Array.from(document.images).every(function (i) {
        return i.naturalWidth === 40;
      }),
      wide: document.documentElement.scrollWidth > window.innerWidth
    };
  });
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
    report = Report.from_scores(scores, title="four items")
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
    return json.loads(found[1])


def test_every_item_and_picture_is_shown_at_first(seen: dict) -> None:
    assert seen["all"]["items"] == ["q0", "q1", "q2", "c0"]
    assert seen["all"]["said"] == "4 items"
    assert seen["all"]["pictures"] is True


@pytest.mark.parametrize(
    ("show", "items", "said"),
    [
        ("unparseable", ["q1"], "1 item"),
        ("caption", ["c0"], "1 item"),
        ("question", ["q0", "q1", "q2"], "3 items"),
    ],
)
def test_a_filter_leaves_the_items_it_names(
    seen: dict, show: str, items: list[str], said: str
) -> None:
    assert seen[show]["items"] == items
    assert seen[show]["said"] == said


def test_the_worst_items_come_first_when_asked_for(seen: dict) -> None:
    # The wrong answer scores 0, the caption between 0 and 1, the right answers 1.
    assert seen["worst"]["items"] == ["q1", "c0", "q0", "q2"]


def test_the_page_is_not_wider_than_the_window(seen: dict) -> None:
    assert seen["all"]["wide"] is False


def test_the_console_stays_empty(rendered: tuple[str, str]) -> None:
    """Errors of scripts and whatever the page's content policy refuses would stand here."""
    assert [line for line in rendered[1].splitlines() if "CONSOLE" in line] == []


def test_texts_stay_text(rendered: tuple[str, str]) -> None:
    assert "a &lt;b&gt;dog&lt;/b&gt;" in rendered[0]
