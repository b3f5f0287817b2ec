"""What a checkpoint says, in numbers and texts that a later version can be held against."""

from __future__ import annotations

from pathlib import Path

import torch

from qvft.assembly.data import read_texts
from qvft.assembly.model import Loaded
from qvft.data.rows import evaluation_rows
from qvft.eval import main as evaluate
from qvft.files import read_jsonl
from qvft.recipe.schema import Recipe
from qvft.training.losses import LanguageModelling


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
