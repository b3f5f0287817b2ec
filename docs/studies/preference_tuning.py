"""What do pairs of a model's own samples bring, beside equal further supervised steps?

    python docs/studies/preference_tuning.py --seeds 0 1 2 --out table.json

Captions of drawn scenes and the supervised runs of `reward_tuning.py` (`tuned_captions`). `qvft
pairs` makes pairs of their samples, best against worst: by CIDEr, and by a preference that the data
does not state, captions without places (half of the references have them). Arms start from the
supervised run (`train.from`), with the same steps and learning rates. Everything goes through
`qvft.train`, `qvft.pairs` and `qvft.eval`.
"""

from __future__ import annotations

import sys
from pathlib import Path

from qvft.pairs import main as pairs

sys.path.append(str(Path(__file__).resolve().parent))

from tuned_captions import Arm, run_study

SAMPLES, IMAGES = 5, 800
"""Samples per image, and training images of which pairs are made."""
BATCH = 8
"""Pairs per step."""
METRICS = {"cider": "cider", "no_places": "tuned_captions.without_places"}


def make_pairs(start: Path, metric: str, seed: int) -> Path:
    """Pairs of a run's samples, unless they are there."""
    path = start.parent / f"pairs-{metric}-{seed}.jsonl"
    if not path.is_file():
        given = [str(start), "--metric", METRICS[metric], "--samples", str(SAMPLES)]
        given += ["--limit", str(IMAGES), "--seed", str(seed), "--workers", "0"]
        if pairs([*given, "--batch-size", "200", "--out", str(path)]):
            raise SystemExit(f"no pairs of {start}")
    return path


def preference(metric: str, *losses: str) -> Arm:
    """An arm of preference tuning on pairs by a metric."""

    def changes(start: Path, seed: int) -> list[str]:
        return [
            f"data.train.path={make_pairs(start, metric, seed)}",
            f"preference={{loss_type: [{', '.join(losses)}]}}",
            "phases=[{name: preference, objective: preference}]",
            f"train.per_device_train_batch_size={BATCH}",
            "train.texts_per_image=1",
        ]

    return changes


ARMS = {
    "dpo": preference("cider", "sigmoid"),
    "dpo_sft": preference("cider", "sigmoid", "sft"),
    "no_places": preference("no_places", "sigmoid"),
    "no_places_sft": preference("no_places", "sigmoid", "sft"),
}

if __name__ == "__main__":
    sys.exit(run_study(__doc__.split("\n")[0], ARMS, "preference_tuning"))
