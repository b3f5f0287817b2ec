"""Captions in COCO's layouts: which are scored, which are left out, which are refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from qvft.errors import DataError
from qvft.evaluation.metrics.captions import NAMES, score_captions
from qvft.evaluation.official.captions import read_references, score_caption_files
from qvft.evaluation.official.scored import Scored

CAPTIONS = {7: ["a red bus", "one bus"], 8: ["two cats sleep"], 9: ["a man surfs", "surfing"]}


def write(path: Path, content: Any) -> Path:
    path.write_text(json.dumps(content))
    return path


def references(folder: Path, **changes: Any) -> Path:
    content = {
        "images": [{"id": image} for image in CAPTIONS],
        "annotations": [
            {"id": 100 * image + number, "image_id": image, "caption": text}
            for image, texts in CAPTIONS.items()
            for number, text in enumerate(texts)
        ],
    }
    return write(folder / "captions.json", content | changes)


def scored(folder: Path, rows: list[dict[str, Any]], **changes: Any) -> Scored:
    return score_caption_files(references(folder, **changes), write(folder / "results.json", rows))


def said(**texts: str) -> list[dict[str, Any]]:
    return [{"image_id": int(name[1:]), "caption": text} for name, text in texts.items()]


def test_scores_are_those_of_the_captions_by_image(tmp_path: Path) -> None:
    result = scored(tmp_path, said(i9="a man surfs", i7="a bus", i8="cats sleep"))
    expected = score_captions(
        {str(image): texts for image, texts in CAPTIONS.items()},
        {"7": "a bus", "8": "cats sleep", "9": "a man surfs"},
    )
    assert result.metrics == expected.corpus
    assert result.n == 3
    assert list(result.per_item) == ["7", "8", "9"]
    assert result.per_item["8"] == {name: expected.per_item[name]["8"] for name in NAMES}
    assert result.notes == ()


def test_of_two_rows_for_an_image_the_first_counts_and_it_is_said(tmp_path: Path) -> None:
    rows = said(i7="a bus", i8="cats sleep", i9="surfing")
    again = [{"image_id": 8, "caption": "x"}, {"image_id": "8", "caption": "y"}]
    result = scored(tmp_path, [*rows, *again])
    assert result.metrics == scored(tmp_path, rows).metrics
    assert result.counts["duplicate_rows"] == 2
    assert result.notes == (
        "rows that repeat an image: 2, first 8; the first row of an image counts",
    )


def test_images_without_a_prediction_are_left_out_and_counted(tmp_path: Path) -> None:
    result = scored(tmp_path, said(i7="a bus", i9="surfing"))
    expected = score_captions({"7": CAPTIONS[7], "9": CAPTIONS[9]}, {"7": "a bus", "9": "surfing"})
    assert (result.metrics, result.n) == (expected.corpus, 2)
    assert result.counts["without_prediction"] == 1
    assert result.notes == ("images without a prediction: 1 of 3, left out: 8",)


def test_unknown_images_are_named(tmp_path: Path) -> None:
    rows = [{"image_id": image, "caption": "x"} for image in [7, *range(101, 108)]]
    with pytest.raises(DataError) as caught:
        scored(tmp_path, rows)
    assert "results.json: 7 of 8 images have no reference captions: 101, 102" in str(caught.value)
    assert "105 and 2 more" in str(caught.value)


def test_an_image_without_captions_cannot_be_predicted(tmp_path: Path) -> None:
    images = [{"id": image} for image in (*CAPTIONS, 10)]
    with pytest.raises(DataError, match="no reference captions: 10"):
        scored(tmp_path, said(i10="x"), images=images)


def test_ids_are_the_same_as_number_text_and_whole_decimal(tmp_path: Path) -> None:
    rows = [
        {"image_id": "7", "caption": "a bus"},
        {"image_id": 8.0, "caption": "cats sleep"},
        {"image_id": 9, "caption": "surfing"},
    ]
    expected = scored(tmp_path, said(i7="a bus", i8="cats sleep", i9="surfing"))
    assert scored(tmp_path, rows).per_item == expected.per_item


def test_captions_of_images_that_are_not_listed_are_passed_over(tmp_path: Path) -> None:
    path = references(tmp_path, images=[{"id": 9}, {"id": 7}])
    assert read_references(path) == {"9": CAPTIONS[9], "7": CAPTIONS[7]}


def test_a_file_without_images_lists_those_with_captions(tmp_path: Path) -> None:
    content = json.loads(references(tmp_path).read_text())
    del content["images"]
    path = write(tmp_path / "bare.json", content)
    assert read_references(path) == {str(image): texts for image, texts in CAPTIONS.items()}


def test_an_empty_caption_is_scored(tmp_path: Path) -> None:
    result = scored(tmp_path, said(i7="", i8="cats sleep"))
    assert result.n == 2
    assert result.per_item["7"]["ROUGE_L"] == 0.0
    assert result.per_item["7"]["CIDEr"] == 0.0


@pytest.mark.parametrize(
    "changes, says",
    [
        ({"annotations": []}, "no captions"),
        ({"annotations": {}}, "captions.json, annotations: an object"),
        ({"annotations": [{"image_id": 7}]}, "annotations, record 0: `caption` is missing"),
        ({"annotations": [{"caption": "a", "image_id": None}]}, "`image_id` is null"),
        ({"images": [{"file_name": "a"}]}, "images, record 0: `id` is missing"),
        ({"images": None}, "captions.json, images: null"),
    ],
)
def test_what_is_no_annotations_file_is_refused(tmp_path: Path, changes: dict, says: str) -> None:
    with pytest.raises(DataError, match=says):
        scored(tmp_path, said(i7="a bus"), **changes)
