from __future__ import annotations

import base64
import dataclasses
import io
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from PIL import Image

from qvft.errors import ImageError
from qvft.evaluation.comparison import compare
from qvft.evaluation.evaluation_facts import DecodeFacts, ModelFacts, SettingDifference
from qvft.evaluation.pairing import pair
from qvft.evaluation.report.grid import choose_items
from qvft.evaluation.report.page import extra_means, format_number, write_report
from qvft.evaluation.report.report import LossPoint, Report
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


def written(folder: Path, rows: list[PredictionRow], other=None, **fields) -> Page:
    """The page of a report; `other` are texts that the rows are compared with."""
    scores = score(rows)
    if other is not None:
        theirs = [
            dataclasses.replace(row, prediction=text) for row, text in zip(rows, other, strict=True)
        ]
        setting = SettingDifference(setting="decode.prompt.question", a=HOSTILE, b=None)
        fields["against"] = compare(
            rows, scores, pair(rows, theirs, where="b"), name=HOSTILE, settings=[setting]
        )
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


def test_a_comparison_reads_back_and_has_a_line_a_metric(tmp_path: Path) -> None:
    rows = make_rows(6)
    page = written(tmp_path, rows, ["no"] * 6 + ["a cat"])
    content = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    assert Report.model_validate(content).to_json() == content
    assert set(content["against"]["metrics"]) == set(content["metrics"])
    strips = page.with_class("zero")
    assert len(strips) == len(content["metrics"])
    assert page.texts.count("\u22120.0") == 0


def test_cards_of_changed_items_show_both_texts_and_what_moved(tmp_path: Path) -> None:
    rows = make_rows(3)
    page = written(tmp_path, rows, ["no", HOSTILE, "yes", "a cat"])
    cards = page.with_class("card")
    # Row 1 kept its text; rows 0 and 3 were right, row 2 was empty where the other is right.
    assert [card["data-change"] for card in cards] == ["better", "", "worse", "same"]
    assert len(page.with_class("other")) == 3
    assert "worse: accuracy 0 against 1" in page.texts


def test_without_a_comparison_there_is_nothing_about_one(tmp_path: Path) -> None:
    page = written(tmp_path, make_rows(3))
    assert {card["data-change"] for card in page.with_class("card")} == {""}
    shows = {a["data-show"] for _, a in page.tags if "data-show" in a}
    assert shows == {"all", "worst", "unparseable", "caption", "question"}
    assert not page.with_class("zero")


def test_every_text_of_data_model_and_settings_is_escaped(tmp_path: Path) -> None:
    rows = [
        PredictionRow(
            HOSTILE + str(i), f"image{i}", "question", HOSTILE, HOSTILE + str(i), (HOSTILE,),
            {"organ": HOSTILE + str(i), HOSTILE: f"\"'&<{i}", "answer_type": "open"},
        )
        for i in range(3)
    ]  # fmt: skip
    page = written(
        tmp_path,
        rows,
        [HOSTILE] * 3,
        model=ModelFacts(name=HOSTILE, adapter_sha256={HOSTILE: HOSTILE}),
        decode=DecodeFacts(prompt={"question": HOSTILE}, captions={HOSTILE: HOSTILE}),
        versions={HOSTILE: HOSTILE},
        skipped=[{"id": HOSTILE, "reason": HOSTILE}],
        definitions={"x": HOSTILE},
    )
    assert sum(tag == "script" for tag, _ in page.tags) == 1
    assert not [a for _, a in page.tags for name in a if name.startswith("on")]
    values = [json.loads(card["data-values"] or "") for card in page.with_class("card")]
    assert values[2]["organ"] == [HOSTILE + "2"] and values[2][HOSTILE] == ["\"'&<2"]
    picks = {(a["data-key"], a["data-value"]) for a in page.with_class("pick")}
    assert ("organ", HOSTILE + "1") in picks and (HOSTILE, "\"'&<1") in picks


def test_every_hash_and_setting_is_shown(tmp_path: Path) -> None:
    model = ModelFacts(
        name="runs/a",
        base_weights_sha256="b" * 64,
        adapter_sha256={"bridge.safetensors": "c" * 64},
        recipe_sha256="d" * 64,
    )
    page = written(
        tmp_path,
        make_rows(2),
        model=model,
        data={"sha256": "e" * 64, "images_sha256": "f" * 64},
        decode=DecodeFacts(questions={"num_beams": 5}, prompt={"caption": "", "question": "Q"}),
        versions={"torch": "2.0"},
    )
    text = "\n".join(page.texts)
    assert all(letter * 64 in text for letter in "bcdef")
    assert "num_beams: 5" in text and "(none)" in text and "2.0" in text


def test_a_third_of_the_grid_are_changed_items() -> None:
    rows = [PredictionRow(str(i), "x", "question", "?", "", ("a",)) for i in range(100)]
    items: list[dict[str, float | str]] = [{"exact_match": 1.0} for _ in rows]
    assert {33, 55, 77, 78} <= set(choose_items(rows, items, 24, {33, 55, 77, 78}))
    chosen = choose_items(rows, items, 24, range(90, 100))
    assert len(chosen) == len(set(chosen)) == 24
    assert sum(i >= 90 for i in chosen) >= 8


def test_closed_and_open_scores_stand_beside_where_a_value_has_both() -> None:
    entry = {"value": "chest", "n": 9, "exact_match": 50.0, "accuracy": 50.0}
    both = {**entry, "closed_accuracy": 60.0, "open_token_recall": 40.0}
    assert extra_means([both, entry]) == ["closed_accuracy", "open_token_recall"]
    assert extra_means([{**entry, "closed_accuracy": 60.0}]) == []
    assert extra_means([{**both, "accuracy": 52.0}])[0] == "accuracy"
    assert extra_means([both, {**entry, "CIDEr": 1.0}]) == ["CIDEr"]
