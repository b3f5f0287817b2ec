"""`python docs/studies/qvision_attention.py FOLDER [--seed N]`: is QVision's attention by word
worth anything after training?

Trains a small QVision on drawn scenes. To save time, encoder and decoder are the bundled model's:
its ViT without the class token, as a SigLIP, and its OPT. The Q-Former is fresh, and everything is
trained. The run is FOLDER/run, for `tools.faithfulness` and tools.tiny_blip2.pointing. At
the end the study prints how alike the visual tokens are, and how much the maps of a caption's words
differ.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
import torch
from transformers import SiglipVisionConfig, SiglipVisionModel
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

from qvft.data.rows import evaluation_rows
from qvft.evaluation.explanation.maps import FloatArray, explain_texts
from qvft.models.base_checkpoint import TINY_ID, find_checkpoint
from qvft.models.load import load_model, load_processor
from qvft.setup.resolve_model import load_resolved, resolve_model
from qvft.train import main as train

sys.path.append(str(Path(__file__).resolve().parents[2]))  # where tools/ is

from tools.tiny_blip2.scene_format import read, write_scenes

RECIPE = """
name: qvision_drawn
model: {{family: qvision, id: "{folder}/siglip", decoder: "{folder}/opt"}}
data:
  train: {{path: "{folder}/train.jsonl"}}
  eval: {{path: "{folder}/eval.jsonl", name: drawn-heldout}}
  num_workers: 0
  cache_images: true
trainable: {{vision: full, qformer: full, decoder: full}}
train:
  max_steps: {steps}
  per_device_train_batch_size: 128
  texts_per_image: 4
  warmup_steps: 100
  betas: [0.9, 0.98]
  logging_steps: 50
  learning_rate: {{vision: 3.0e-4, qformer: 1.0e-3, decoder: 5.0e-4}}
eval: {{batch_size: 128}}
run: {{threads: 1, seed: {seed}, dir: "{folder}/run"}}
"""


def write_components(folder: Path) -> None:
    """Writes the bundled model's ViT as a SigLIP and its decoder, in float32."""
    base = find_checkpoint(TINY_ID)
    model, processor = load_model(base, dtype=torch.float32), load_processor(base)
    model.language_model.save_pretrained(folder / "opt")
    processor.tokenizer.save_pretrained(folder / "opt")
    siglip_of(model.vision_model).save_pretrained(folder / "siglip")
    given = processor.image_processor
    SiglipImageProcessorPil(
        size=dict(given.size), image_mean=given.image_mean, image_std=given.image_std
    ).save_pretrained(folder / "siglip")


def siglip_of(vit: torch.nn.Module) -> SiglipVisionModel:
    """A BLIP-2 ViT as a SigLIP tower: all its weights but those of the class token."""
    names = (
        "hidden_size",
        "intermediate_size",
        "num_hidden_layers",
        "num_attention_heads",
        "image_size",
        "patch_size",
        "layer_norm_eps",
        "hidden_act",
    )
    fields = {name: getattr(vit.config, name) for name in names}
    siglip = SiglipVisionModel(SiglipVisionConfig(**fields, vision_use_head=False))
    weights = {}
    for name, tensor in vit.state_dict().items():
        if name == "embeddings.class_embedding":
            continue
        if name == "embeddings.position_embedding":
            weights[f"{name}.weight"] = tensor[0, 1:]  # the first is the class token's
        elif ".qkv." in name:
            for part, third in zip("qkv", tensor.chunk(3), strict=True):
                weights[name.replace(".qkv.", f".{part}_proj.")] = third
        else:
            weights[name.replace(".projection.", ".out_proj.")] = tensor
    siglip.load_state_dict({name_in(siglip, name): tensor for name, tensor in weights.items()})
    return siglip


def name_in(siglip: SiglipVisionModel, name: str) -> str:
    """A tower's name of a weight: some versions of transformers put one module around it."""
    return f"vision_model.{name}" if hasattr(siglip, "vision_model") else name


def groups(similarity: FloatArray) -> int:
    """Groups of visual tokens in which each has a cosine above 0.99 with its group's first."""
    left, count = list(range(len(similarity))), 0
    while left:
        left = [other for other in left[1:] if similarity[left[0], other] <= 0.99]
        count += 1
    return count


def say_how_alike(model: str, scenes: int = 100) -> None:
    """Prints how alike visual tokens and maps of words are, for captions of held-out scenes."""
    loaded = load_resolved(resolve_model(model))
    rows = evaluation_rows(read(f"seed=2,count={scenes},size=48"), texts="captions")
    found = explain_texts(loaded.model, loaded.collator, rows, [row.target for row in rows])
    counts = [groups(one.similarity) for one in found]
    apart = [
        np.abs(maps - maps.mean(axis=0)).max()
        for maps in (np.stack([word.map for word in one.words]) for one in found)
    ]
    print(f"groups of visual tokens: {min(counts)} to {max(counts)} in {scenes} scenes")
    print(f"a patch of a word's map differs from the words' mean by at most {max(apart):.2g}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--scenes", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    folder = given.folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    write_components(folder)
    recipe = folder / "recipe.yaml"
    recipe.write_text(RECIPE.format(folder=folder, steps=given.steps, seed=given.seed))
    for which, scenes in (("train", f"seed=1,count={given.scenes}"), ("eval", "seed=2,count=1000")):
        if not (folder / f"{which}.jsonl").is_file():
            write_scenes(f"{scenes},size=48", folder / f"{which}.jsonl")
    status = train([str(recipe)])
    if status == 0:
        say_how_alike(str(folder / "run"))
    return status


if __name__ == "__main__":
    raise SystemExit(main())
