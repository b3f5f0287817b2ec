"""A plain PyTorch training loop with qvft's packing, feature cache and language loss.

No recipe and no Trainer: `python examples/plain_loop.py` trains the bundled small model on a few
pictures made with numpy, on one CPU core in less than a minute.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch.utils.data import DataLoader

from qvft.data.collate import Collator
from qvft.data.formats.memory import samples_in_memory
from qvft.data.packing import Packer
from qvft.data.prompt import PromptTemplate
from qvft.data.rows import training_rows
from qvft.models.base_checkpoint import find_checkpoint
from qvft.models.load import load_model, load_processor
from qvft.setup.feature_cache import cache_features
from qvft.training.batches.numbered_rows import RowDataset
from qvft.training.batches.sampler import GroupedSampler
from qvft.training.objectives.language import LanguageModelling

COLOURS = {"red": (220, 30, 30), "green": (30, 200, 60), "blue": (40, 60, 220)}


def picture(name: str, shade: int) -> dict:
    """A row as in the custom JSONL: a picture with a caption and two questions."""
    pixels = np.full((48, 48, 3), COLOURS[name], np.uint8) - np.uint8(shade)
    asked = {"What is the colour?": name, "Is it red?": "yes" if name == "red" else "no"}
    questions = [{"question": question, "answer": answer} for question, answer in asked.items()]
    return {"image": pixels, "captions": [f"a {name} picture"], "questions": questions}


def main(epochs: int = 8) -> list[float]:
    """Trains; returns the mean loss per token of each epoch."""
    torch.manual_seed(0)
    base = find_checkpoint("qvft/tiny-blip2")
    model, processor = load_model(base, dtype=torch.float32), load_processor(base)
    for part in (model.vision_model, model.language_model):
        part.requires_grad_(False)

    # Data: samples -> one row per text -> batches whose rows share the prefix of their image.
    samples = samples_in_memory([picture(name, shade) for shade in range(8) for name in COLOURS])
    template = PromptTemplate(
        tokenizer=processor.tokenizer,
        num_query_tokens=base.config.num_query_tokens,
        image_token_id=base.config.image_token_index,
        stop_text=base.family.stop_text(base.config),
    )
    packer = Packer(shares=base.family.shares_prefix(base.config), budget=64)
    collator = Collator(template, processor.image_processor, 10_000_000, packer=packer)
    images = [sample.image for sample in samples]
    cached = cache_features(model, collator, images, vit=base.id)  # the ViT runs here, once
    rows = training_rows(samples)
    order = GroupedSampler([row.sample.id for row in rows], group_size=3, seed=0)
    collate = replace(collator, features=cached)
    loader = DataLoader(RowDataset(rows), sampler=order, batch_size=12, collate_fn=collate)

    objective = LanguageModelling(model).train()
    trained = [weight for weight in model.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=2e-3)
    history = []
    for epoch in range(epochs):
        order.set_epoch(epoch)
        total = tokens = 0.0
        for batch in loader:
            del batch["row_index"]  # numbers the rows, for logs
            found = objective(**batch)
            (found["loss_sum"] / found["count"]).backward()
            optimizer.step()
            optimizer.zero_grad()
            total, tokens = total + found["loss_sum"].item(), tokens + found["count"].item()
        history.append(total / tokens)
        print(f"epoch {epoch}: loss {history[-1]:.3f} per token")
    return history


if __name__ == "__main__":
    main()
