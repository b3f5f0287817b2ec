"""Trains under ZeRO: `dealt.py RECIPE ...`; prints how many moments a process holds as it saves.

AdamW keeps two for each weight, so that half of them are as many as there are weights.
"""

from __future__ import annotations

import json
import sys

from qvft.train import main
from qvft.training.trainer import QFormerTrainer

save = QFormerTrainer._save_optimizer_and_scheduler


def counting(self: QFormerTrainer, folder: str) -> None:
    """Saves, after counting."""
    states = self.optimizer.optimizer.state.values()
    moments = sum(
        value.numel() for entry in states for name, value in entry.items() if name != "step"
    )
    weights = sum(one.numel() for one in self.model.parameters() if one.requires_grad)
    sys.stdout.write(json.dumps({"moments": moments, "weights": weights}) + "\n")
    sys.stdout.flush()
    save(self, folder)


QFormerTrainer._save_optimizer_and_scheduler = counting
sys.exit(main(sys.argv[1:]))
