"""The table of phases and the loss chart in a real browser, on a screen and on a telephone."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from qvft.evaluation.report.page import write_report
from qvft.evaluation.report.phases import PhaseComponent, PhaseFacts
from qvft.evaluation.report.report import LossPoint, Report

FLAGS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--hide-scrollbars", "--virtual-time-budget=2000", "--dump-dom",
]  # fmt: skip
SECONDS = 60

PROBE = """
<script>
(function () {
  function box(e) {
    var b = e.getBoundingClientRect();
    return {left: b.left, right: b.right, top: b.top, height: b.height};
  }
  function shown(selector) {
    return Array.from(document.querySelectorAll(selector)).filter(function (e) {
      return e.getClientRects().length;
    });
  }
  var panel = document.querySelector("#phases .panel"), chart = shown("#loss svg")[0];
  var seen = {
    width: window.innerWidth,
    wide: document.documentElement.scrollWidth > window.innerWidth,
    scrolls: panel.scrollWidth > panel.clientWidth,
    heads: shown("#phases th").length,
    cells: Array.from(document.querySelectorAll("#phases tbody tr")).map(function (row) {
      return Array.from(row.cells).map(box);
    }),
    texts: Array.from(document.querySelectorAll("#phases tbody tr")).map(function (row) {
      return row.innerText;
    }),
    charts: shown("#loss svg").length,
    letter: 12 * chart.getBoundingClientRect().width
      / chart.viewBox.baseVal.width,
    names: Array.from(chart.querySelectorAll("text.phase")).map(function (e) {
      return Object.assign({text: e.textContent}, box(e));
    }),
    frame: box(chart)
  };
  parent.postMessage(JSON.stringify(seen), "*");
})();
</script>
</body>"""

# A window is 500 pixels wide at least; a frame may be narrower.
FRAME = """<!doctype html>
<script>
addEventListener("message", function (event) {
  var note = document.createElement("pre");
  note.id = "seen";
  note.textContent = event.data;
  document.body.appendChild(note);
});
</script>
<body style="margin:0"><iframe src="report.html" width="%d" height="2000" style="border:0"></iframe>
</body>"""


def phase(name: str, trained: int, steps: int) -> PhaseFacts:
    parts = [("vision", "CLIP encoder", 0), ("decoder", "GPT-Neo decoder", trained)]
    return PhaseFacts(
        name=name,
        objectives={"lm": 1.0, "itc": 0.5, "itm": 0.5},
        components=[
            PhaseComponent(component=key, title=title, weights=355_800_000, trained=count)
            for key, title, count in parts
        ],
        decoder_blocks=24,
        decoder_blocks_trained=9,
        decoder_frozen=0.7,
        learning_rates={"decoder": 2e-5, "heads": 1e-3},
        epochs=7,
        max_steps=None,
        batch_size=16,
        accumulation=4,
        steps=steps,
        loss=2.5,
    )


@pytest.fixture(scope="module", params=[1200, 390])
def seen(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict:
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("no browser: neither chromium nor google-chrome is installed")
    folder: Path = tmp_path_factory.mktemp("page")
    phases = [phase("most_frozen", 164_800_000, 35_000), phase("half_frozen", 240_360_000, 15_000)]
    points = [
        LossPoint(phase=part.name, step=step, loss=3.0 - step / 50_000)
        for part in phases
        for step in range(1000, (part.steps or 0) + 1, 1000)
    ]
    report = Report(title="two phases", n=0, metrics={}, phases=phases, loss_curve=points)
    write_report(folder, report, [], [])
    page = folder / "report.html"
    text = page.read_text(encoding="utf-8")
    page.write_text(text.replace("</body>", PROBE), encoding="utf-8")
    frame = folder / "frame.html"
    frame.write_text(FRAME % request.param, encoding="utf-8")
    done = subprocess.run(
        [browser, *FLAGS, f"--user-data-dir={folder / 'profile'}", frame.as_uri()],
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = re.search(r'<pre id="seen">(.*?)</pre>', done.stdout, flags=re.DOTALL)
    assert found, "the page's script did not reach its end"
    known = json.loads(html.unescape(found[1]))
    assert known["width"] == request.param
    return known


def test_nothing_is_wider_than_the_window_or_has_to_be_scrolled(seen: dict) -> None:
    assert seen["wide"] is False and seen["scrolls"] is False


def test_the_cells_of_a_phase_stand_beside_each_other_or_below_where_that_is_too_wide(
    seen: dict,
) -> None:
    assert len(seen["cells"]) == 2
    for cells in seen["cells"]:
        assert len(cells) == 8
        lefts, tops = ({round(cell[side]) for cell in cells} for side in ("left", "top"))
        on_screen = seen["width"] == 1200
        assert (len(lefts), len(tops)) == ((8, 1) if on_screen else (1, 8))
    assert seen["heads"] == (8 if seen["width"] == 1200 else 0)


def test_a_phase_says_all_of_itself(seen: dict) -> None:
    said = re.sub(r"\s+", " ", seen["texts"][0])
    for part in (
        "most_frozen", "lm 1, itc 0.5, itm 0.5", "164.80 M of 355.80 M, 9 of 24 blocks",
        "CLIP encoder 355.80 M", "2e-5 GPT-Neo decoder", "1e-3 heads", "7 epochs",
        "35 000 steps", "4 \u00d7 16", "2.5",
    ):  # fmt: skip
        assert part in said


def test_one_chart_is_shown_with_letters_that_can_be_read(seen: dict) -> None:
    assert seen["charts"] == 1
    assert seen["letter"] > 10


def test_the_names_of_phases_lie_inside_the_chart_and_apart(seen: dict) -> None:
    first, second = seen["names"]
    assert first["text"] == "1 most_frozen" and second["text"] == "2 half_frozen"
    assert first["right"] < second["left"]
    assert second["right"] <= seen["frame"]["right"] and first["top"] >= seen["frame"]["top"]
