"""The command that trains on new preference pairs, as `qvft pairs` and `qvft demo` print it."""

from __future__ import annotations

import json
from pathlib import Path

from qvft.recipe.recipe_lock import LOCK_NAME
from qvft.setup.resolve_model import ResolvedModel

NEXT_RECIPE = "recipes/medical_vqa_dpo.yaml"


def preference_command(opened: ResolvedModel, pairs: Path) -> list[str]:
    """The command that learns from the pairs: of a run with its own recipe and a tenth of its
    learning rates, since LoRA and prompts must be those of the start.

    Args:
        opened: the model whose texts they are.
        pairs: the JSONL file.
    """
    if opened.kind != "run":
        model = f"model.id={opened.recipe.model.id}"
        return ["qvft", "train", NEXT_RECIPE, model, f"data.train.path={pairs}"]
    run = opened.name.rstrip("/")
    source = f"path: {json.dumps(str(pairs), ensure_ascii=False)}"
    rates = opened.recipe.train.rates
    tenths = {group: f"{rate / 10:.2g}" for group, rate in rates.items()}
    rate = ", ".join(f"{group}: {tenth}" for group, tenth in tenths.items())
    rate = f"{{{rate}}}" if len(set(tenths.values())) > 1 else tenths["qformer"]
    return [
        *("qvft", "train", f"{run}/{LOCK_NAME}", f"run.dir={run}_preference"),
        *(f"train.from={run}", f"data.train={{{source}}}", f"train.learning_rate={rate}"),
        "phases=[{name: preference, objective: preference}]",
    ]
