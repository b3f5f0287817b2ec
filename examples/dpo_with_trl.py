"""Preference tuning with trl's own DPOTrainer, on a model prepared by qvft.

`python examples/dpo_with_trl.py` tunes the bundled small model on a few pictures made with numpy
to prefer one word over a sentence, in less than a minute on a CPU. Needs `pip install 'qvft[trl]'`.
"""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from PIL import Image
from trl import DPOConfig, DPOTrainer

from qvft.interop.trl import policy

COLOURS = {"red": (220, 30, 30), "green": (30, 200, 60), "blue": (40, 60, 220)}


def pair(name: str, shade: int) -> dict[str, Any]:
    """A row as in trl's preference datasets; the processor adds the recipe's prompt."""
    pixels = np.full((48, 48, 3), COLOURS[name], np.uint8) - np.uint8(shade)
    return {
        "image": Image.fromarray(pixels),
        "prompt": [{"role": "user", "content": "What is the colour?"}],
        "chosen": [{"role": "assistant", "content": name}],
        "rejected": [{"role": "assistant", "content": f"the picture is {name}"}],
    }


def main(folder: Path, steps: int = 6) -> list[dict[str, float]]:
    """Tunes, writes a run folder, and returns trl's log of each step."""
    start = policy("qvft/tiny-blip2")
    trainer = DPOTrainer(
        model=start.model,
        ref_model=start.reference,
        processing_class=start.processor,
        args=DPOConfig(
            output_dir=str(folder / "trl"),
            max_steps=steps,
            per_device_train_batch_size=6,
            learning_rate=3e-4,
            bf16=torch.cuda.is_available(),
            activation_checkpointing=False,
            logging_steps=1,
            save_strategy="no",
            report_to="none",
        ),
        train_dataset=Dataset.from_list([pair(name, 5 * n) for n in range(6) for name in COLOURS]),
    )
    trainer.train()
    start.save(folder / "run")  # qvft eval, qvft merge, qvft predict, train.from
    return [line for line in trainer.state.log_history if "rewards/margins" in line]


if __name__ == "__main__":
    with TemporaryDirectory() as made:
        for line in main(Path(made)):
            print({key: line[key] for key in ("step", "loss", "rewards/margins", "logps/chosen")})
