"""What a checkpoint says, in numbers and texts that a later version can be held against."""

from __future__ import annotations

import sys
from pathlib import Path

import torch

from qvft.data.rows import evaluation_rows
from qvft.eval import main as evaluate
from qvft.json_files import complete_lines, read_json, read_jsonl
from qvft.models.alignment.scoring import matching_scores, similarity
from qvft.recipe.schema import Recipe
from qvft.setup.alignment_model import load_alignment_model
from qvft.setup.data import read_texts
from qvft.setup.model import Loaded
from qvft.training.objectives.language import LanguageModelling

sys.path.append(str(Path(__file__).resolve().parents[2]))  # where tools/ is

from tools.tiny_blip2 import scene_format

scene_format.register()

Scores = dict[str, list[list[float]]]
"""By name a score of each image with each text."""


def row_losses(loaded: Loaded, recipe: Recipe) -> dict[str, float]:
    """Mean loss of each row of the recipe's evaluation data, nats a token."""
    rows = evaluation_rows(read_texts(recipe, "eval"), texts="all")
    batch = loaded.collator(list(enumerate(rows)))
    batch.pop("row_index")
    with torch.no_grad():
        losses = LanguageModelling(loaded.model).eval()(**batch)["row_loss"]
    return dict(zip((row.id for row in rows), losses.tolist(), strict=True))


def texts(run: Path) -> dict[str, str]:
    """What `qvft.eval` has the run say, greedily; its report is left in the run folder."""
    assert evaluate([str(run)]) == 0
    (predictions,) = run.glob("eval/*/predictions.jsonl")
    return {row["id"]: row["prediction"] for _, row in read_jsonl(predictions)}


def recalls(run: Path) -> dict[str, float]:
    """What the report of `texts` says of retrieval, in percent."""
    (report,) = run.glob("eval/*/report.json")
    metrics = read_json(report)["metrics"]
    return {name: value for name, value in metrics.items() if "_recall_at_" in name}


def losses_of_step(run: Path, step: int) -> dict[str, float]:
    """The losses of a run that were logged at a step, by name."""
    rows = (row for row in complete_lines(run / "metrics.jsonl") if row["step"] == step)
    return {name: value for name, value in next(rows).items() if name.startswith("loss")}


@torch.no_grad()
def alignment(run: Path, recipe: Recipe) -> Scores:
    """Cosines and matching scores of each evaluation image (I) and every caption (M)."""
    aligned, samples = load_alignment_model(run), read_texts(recipe, "eval")
    captions = [caption for sample in samples for caption in sample.captions]
    collator = aligned.loaded.collator
    pixels = collator.normalise([collator.decode(sample.image) for sample in samples])
    cosines = similarity(aligned.image_vectors(pixels), aligned.text_vectors(captions))
    input_ids, text_mask = aligned.encode(captions)
    matching = [
        matching_scores(
            aligned.loaded.model,
            aligned.branch.heads,
            features=features.expand(len(captions), -1, -1),
            input_ids=input_ids,
            text_mask=text_mask,
        ).tolist()
        for features in aligned.features(pixels)
    ]
    return {"cosines": cosines.tolist(), "matching": matching}
