"""COCO captions layouts: annotations file and results file.

Source: github.com/salaniz/pycocoevalcap 1.2, eval.py, over pycocotools' `COCO.loadRes`: it refuses
results for images that the annotations file does not list, and scores the images that have one.
"""

from __future__ import annotations

from pathlib import Path

from qvft.data.formats import fields
from qvft.errors import DataError
from qvft.evaluation.metrics.captions import score_captions
from qvft.evaluation.metrics.meteor import DEFINITION, meteor, meteor_command
from qvft.evaluation.official.reading import identifier, ids_and_texts, named, read_results
from qvft.evaluation.official.scored import Scored
from qvft.json_files import read_json

_DEFINITION = "pycocoevalcap 1.2: BLEU, ROUGE_L and CIDEr (CIDEr-D) of PTB tokens of composed text"


def score_caption_files(
    references: Path, predictions: Path, *, with_meteor: bool = False
) -> Scored:
    """Scores of a results file; `per_item` holds each image's metrics by name.

    Images are scored in the order of the annotations file. Of several rows for an image the first
    counts; images without a row are left out; both are counted.

    Args:
        with_meteor: METEOR too, which a Java program computes.

    Raises:
        DataError: a file or row is broken, or a result's image has no reference captions.
        MissingToolError: Java or the program of METEOR is not installed.
    """
    if with_meteor:
        meteor_command()
    known = read_references(references)
    results = read_results(predictions, key="image_id", text_key="caption")
    unknown = [name for name in results.texts if name not in known]
    if unknown:
        raise DataError(
            f"{len(unknown):,} of {len(results.texts):,} images have no reference captions: "
            f"{named(unknown)}",
            where=str(predictions),
            expected=f"images of {references}",
            do="give the captions of the split that the predictions were made on",
        )
    ordered = {name: results.texts[name] for name in known if name in results.texts}
    without = [name for name in known if name not in ordered]
    scores = score_captions(known, ordered)
    metrics = dict(scores.corpus)
    rows = zip(*(values.values() for values in scores.per_item.values()), strict=True)
    per_item = {
        image: dict(zip(scores.per_item, row, strict=True))
        for image, row in zip(ordered, rows, strict=True)
    }
    if with_meteor:
        metrics["METEOR"], items = meteor(known, ordered)
        for image, item in items.items():
            per_item[image]["METEOR"] = item
    notes = []
    if results.repeated:
        notes.append(
            f"rows that repeat an image: {len(results.repeated):,}, first {results.repeated[0]}; "
            "the first row of an image counts"
        )
    if without:
        notes.append(
            f"images without a prediction: {len(without):,} of {len(known):,}, "
            f"left out: {named(without)}"
        )
    if len(ordered) == 1:
        notes.append(
            "one image only: CIDEr is 0 by its definition, which gives no weight to words that "
            "every image's captions have"
        )
    return Scored(
        metrics=metrics,
        n=len(ordered),
        per_item=per_item,
        files={"references": references, "predictions": predictions},
        definition="; ".join([_DEFINITION, *([DEFINITION] if with_meteor else [])]),
        counts={
            "duplicate_rows": len(results.repeated),
            "without_prediction": len(without),
        },
        notes=tuple(notes),
    )


def read_references(path: Path) -> dict[str, list[str]]:
    """The captions of each image that has any, in the order of `images`.

    As in pycocotools, a caption of an image that `images` does not list is passed over. A file
    without `images` is taken to list those that have captions.

    Raises:
        DataError: another layout, a broken record, or no caption at all.
    """
    content = read_json(path)
    captions: dict[str, list[str]] = {}
    listed = isinstance(content, dict) and "images" in content
    if listed:
        for where, row in fields.section(content, "images", path=path):
            captions[identifier(row, "id", where=where)] = []
    annotations = fields.listed(content, "annotations", path=path)
    where = f"{path}, annotations"
    for name, caption in ids_and_texts(annotations, "image_id", "caption", where=where):
        if name in captions:
            captions[name].append(caption)
        elif not listed:
            captions[name] = [caption]
    found = {name: texts for name, texts in captions.items() if texts}
    if not found:
        raise DataError(
            "no captions",
            where=str(path),
            expected="some in `annotations`",
            do="check that the images listed are those that are described",
        )
    return found
