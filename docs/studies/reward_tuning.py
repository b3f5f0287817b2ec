"""What does reward tuning bring to a converged model, beside equal further supervised steps?

    python docs/studies/reward_tuning.py --seeds 0 1 2 --out table.json

Captions of drawn scenes (`tuned_captions`). A supervised run, then arms from its weights
(`train.from`) that differ in what they learn from: captions again, or the model's own samples with
CIDEr, CIDEr without the stop token, or exact match as the reward. Same steps, images per step and
learning rates. Everything goes through `qvft.train` and `qvft.eval`.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parent))

from tuned_captions import Arm, run_study

SAMPLES = 5
IMAGES = 16
"""Samples per image, and images per step."""


def reward(function: str, *, stop_token: bool = True) -> Arm:
    """An arm of reward tuning."""
    changes = [
        f"reward.funcs={{{function}: 1.0}}",
        f"reward.num_generations={SAMPLES}",
        "reward.beta=0.0",
        f"reward.stop_token={json.dumps(stop_token)}",
        "phases=[{name: reward, objective: reward}]",
        f"train.per_device_train_batch_size={IMAGES}",
        "train.texts_per_image=1",
    ]
    return lambda start, seed: changes


ARMS = {
    "cider": reward("cider"),
    "cider_no_stop": reward("cider", stop_token=False),
    "exact_match": reward("exact_match"),
}

if __name__ == "__main__":
    sys.exit(run_study(__doc__.split("\n")[0], ARMS, "reward_tuning"))
