from __future__ import annotations

import base64
import io
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from PIL import Image

from qvft.errors import ImageError
from qvft.evaluation.report import LossPoint, Report, write_report
from qvft.evaluation.report_page import choose_items, format_number
from qvft.evaluation.rows import PredictionRow
from qvft.evaluation.scoring import score

HOSTILE = '<script>alert("x")</script>'


class Page(HTMLParser):
    """Tags with their attributes, and the text by class of the element it stands in."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.texts.append(data.strip())

    def with_class(self, name: str) -> list[dict[str, str | None]]:
        return [a for _, a in self.tags if name in (a.get("class") or "").split()]


def make_rows(n: int) -> list[PredictionRow]:
    rows = [
        PredictionRow(
            f"q{i}", f"image{i}", "question", f"Is it {HOSTILE}?",
            ["yes", HOSTILE, ""][i % 3], ("Yes",), {"answer_type": "closed", "organ": "ab"[i % 2]},
        )
        for i in range(n)
    ]  # fmt: skip
    rows.append(PredictionRow("c0", "image0", "caption", None, "a dog", ("a dog", "one dog")))
    return rows


def picture(name: str) -> Image.Image:
    if name == "image1":
        raise ImageError("truncated")
    return Image.new("LA", (800, 400), (200, 255))


def written(folder: Path, rows: list[PredictionRow], **fields) -> Page:
    scores = score(rows)
    report = Report.from_scores(scores, title="a & b", **fields)
    write_report(folder, report, rows, scores.per_item, image_for=picture)
    return Page((folder / "report.html").read_text(encoding="utf-8"))


def test_json_holds_n_and_metrics_and_reads_back_as_a_report(tmp_path: Path) -> None:
    rows = make_rows(6)
    written(tmp_path, rows, counts={"read": 9, "skipped": 2}, wall_seconds=1.5)
    content = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    assert content["n"] == 7
    assert content["metrics"]["exact_match"] == pytest.approx(100 * 2 / 6)
    assert (content["counts"]["read"], content["counts"]["unparseable"]) == (9, 4)
    assert Report.model_validate(content).to_json() == content


def test_an_unknown_field_is_refused() -> None:
    with pytest.raises(ValueError, match="extra"):
        Report(title="t", n=0, metrics={}, unknown=1)


def test_every_field_is_documented() -> None:
    assert [n for n, f in Report.model_fields.items() if not f.description] == []


def test_page_needs_nothing_from_outside(tmp_path: Path) -> None:
    page = written(tmp_path, make_rows(6))
    sources = [a.get("src") or a.get("href") for _, a in page.tags if "src" in a or "href" in a]
    assert sources and all(source.startswith("data:image/jpeg;base64,") for source in sources)
    policy = next(a["content"] for t, a in page.tags if t == "meta" and "content" in a and (
        a.get("http-equiv")))  # fmt: skip
    assert policy.startswith("default-src 'none'")


def test_texts_are_escaped(tmp_path: Path) -> None:
    page = written(tmp_path, make_rows(6))
    assert sum(tag == "script" for tag, _ in page.tags) == 1
    assert HOSTILE in page.texts and "a & b" in page.texts


def test_thumbnails_are_jpegs_of_at_most_160_pixels(tmp_path: Path) -> None:
    page = written(tmp_path, make_rows(6))
    source = next(a["src"] for tag, a in page.tags if tag == "img")
    with Image.open(io.BytesIO(base64.b64decode(source.split(",")[1]))) as image:
        assert (image.format, image.size) == ("JPEG", (160, 80))


def test_an_unreadable_image_leaves_a_note_in_its_place(tmp_path: Path) -> None:
    page = written(tmp_path, make_rows(6))
    assert page.texts.count("the image could not be read") == 1
    assert sum(tag == "img" for tag, _ in page.tags) == 6


def test_cards_carry_what_the_filters_need(tmp_path: Path) -> None:
    cards = written(tmp_path, make_rows(6)).with_class("card")
    assert [card["data-index"] for card in cards] == [str(i) for i in range(7)]
    assert [card["data-parsed"] for card in cards] == ["yes", *["unparseable"] * 2] * 2 + [""]
    assert cards[0]["data-kind"] == "question" and cards[-1]["data-kind"] == "caption"
    assert (cards[0]["data-score"], cards[1]["data-score"]) == ("1.0000", "0.0000")


def test_baselines_are_columns_and_marks(tmp_path: Path) -> None:
    page = written(tmp_path, make_rows(6), baselines={"base": {"exact_match": 12.3}, "blind": {}})
    assert "base model" in page.texts and "12.3" in page.texts
    assert len(page.with_class("mark")) == 1


def test_loss_curve_has_a_point_for_every_finite_loss(tmp_path: Path) -> None:
    curve = [
        LossPoint(step=1, loss=2.0),
        LossPoint(step=2, loss=1.0, eval_loss=1.5),
        LossPoint(step=3, loss=float("nan")),
    ]
    page = written(tmp_path, make_rows(2), loss_curve=curve)
    lines = {a["class"]: a["points"].split() for tag, a in page.tags if tag == "polyline"}
    assert {name: len(points) for name, points in lines.items()} == {
        "line train": 2,
        "line eval": 1,
    }


def test_without_a_training_run_there_is_no_chart(tmp_path: Path) -> None:
    assert not written(tmp_path, make_rows(2)).with_class("chart")


def test_grid_holds_the_worst_the_unparseable_and_both_kinds() -> None:
    rows = [PredictionRow(str(i), "x", "question", "?", "", ("a",)) for i in range(90)]
    rows += [PredictionRow(str(i), "x", "caption", None, "", ("a",)) for i in range(10)]
    items: list[dict[str, float | str]] = [{"exact_match": 1.0} for _ in rows]
    items[50]["exact_match"] = 0.0
    items[60]["parsed"] = "unparseable"
    chosen = choose_items(rows, items, 24)
    assert len(chosen) == len(set(chosen)) == 22  # ten captions leave two of their twelve places
    assert {50, 60} <= set(chosen) and sum(i >= 90 for i in chosen) == 10


def test_numbers_are_written_on_their_scale() -> None:
    assert format_number(54.321, "percent") == "54.3"
    assert format_number(0.43312, "0..1") == "0.433"
    assert format_number(12345) == "12\u2009345"


def test_pages_without_items_render(tmp_path: Path) -> None:
    write_report(tmp_path, Report(title="empty", n=0, metrics={}), [], [])
    assert re.search("<b>0</b>", (tmp_path / "report.html").read_text(encoding="utf-8"))
