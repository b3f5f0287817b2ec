"""A small BLIP-2 whose parts cost in proportion what those of BLIP-2-OPT-2.7B cost, and data.

    python docs/studies/scaled_model.py FOLDER
    python -m qvft.bench FOLDER/captions.yaml
    python -m qvft.bench FOLDER/questions.yaml
    python -m qvft.bench FOLDER/pairs_1.yaml --only preference
    python -m qvft.bench FOLDER/pairs_5.yaml --only preference
    python -m qvft.bench FOLDER/reward.yaml --only reward

Writes a model of random weights, drawn scenes with five captions each (as COCO has), with five or
six questions each (VQA v2: 5.4) and with one or five pairs each, whose rejected captions are
another scene's, and a recipe for each; run them in the repository's root, where the reward's
function is found. `model.id=qvft/tiny-blip2` measures the bundled model on the
same data. The work of a part, counted as operations of matrix products forward (and backward where
it is trained or passed through):

    part, per                         BLIP-2-OPT-2.7B   ratio   here    ratio
    ViT, image                        521 GF            51.6    1.31 GF 52.0
    Q-Former, image                   32 GF             3.2     85 MF   3.4
    decoder, token                    10.1 GF           1       25.2 MF 1
    language-model head, position     0.51 GF           0.05    1.2 MF  0.05

257 patches, 32 query tokens and the rows' lengths are those of the real model.
"""

from __future__ import annotations

import json
import random
import sys
from pathlib import Path
from typing import Any

import torch
from transformers import (
    Blip2Config,
    Blip2ForConditionalGeneration,
    Blip2QFormerConfig,
    Blip2VisionConfig,
    OPTConfig,
)

sys.path.append(str(Path(__file__).resolve().parents[2]))  # where tools/ is

from tools.tiny_blip2.drawn import captions, draw, questions, sample_scene, vocabulary_texts
from tools.tiny_blip2.geometry import EOS_ID, PAD_ID, VOCABULARY_SIZE, tiny_processor

SIDE_PX, PATCH_PX, QUERIES = 224, 14, 32
IMAGES = 64
PAIRS = (1, 5)
"""Pairs per image of the recipes for preference tuning."""
SPREAD = 0.02


def scaled_config() -> Blip2Config:
    """ViT 192 x 6, Q-Former 64 x 3, OPT 256 x 8."""
    vision = Blip2VisionConfig(
        hidden_size=192,
        intermediate_size=672,
        num_hidden_layers=6,
        num_attention_heads=6,
        image_size=SIDE_PX,
        patch_size=PATCH_PX,
        initializer_range=SPREAD,
    )
    qformer = Blip2QFormerConfig(
        vocab_size=VOCABULARY_SIZE,
        hidden_size=64,
        num_hidden_layers=3,
        num_attention_heads=4,
        intermediate_size=256,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        cross_attention_frequency=2,
        encoder_hidden_size=192,
        initializer_range=SPREAD,
    )
    text = OPTConfig(
        vocab_size=VOCABULARY_SIZE,
        hidden_size=256,
        num_hidden_layers=8,
        ffn_dim=1024,
        num_attention_heads=8,
        max_position_embeddings=512,
        word_embed_proj_dim=256,
        dropout=0.0,
        init_std=SPREAD,
        bos_token_id=EOS_ID,
        eos_token_id=EOS_ID,
        pad_token_id=PAD_ID,
    )
    return Blip2Config(
        vision_config=vision.to_dict(),
        qformer_config=qformer.to_dict(),
        text_config=text.to_dict(),
        num_query_tokens=QUERIES,
        image_token_index=VOCABULARY_SIZE - 1,
        image_text_hidden_size=64,
        initializer_range=SPREAD,
    )


def write_model(folder: Path) -> None:
    """The model with its processor, as a checkpoint is laid out."""
    torch.manual_seed(0)
    model = Blip2ForConditionalGeneration(scaled_config())
    # Zeros, as the class has them, make the first LayerNorm's gradients a million times too large.
    torch.nn.init.normal_(model.query_tokens, std=SPREAD)
    model.save_pretrained(folder)
    processor = tiny_processor(vocabulary_texts())
    processor.num_query_tokens = QUERIES
    processor.image_processor.size = {"height": SIDE_PX, "width": SIDE_PX}
    processor.save_pretrained(folder)


def write_data(folder: Path) -> None:
    """Scenes with five captions, and with five or six questions, of about the real lengths."""
    rng = random.Random(0)
    (folder / "images").mkdir()
    lines: dict[str, list[str]] = {"captions": [], "questions": []}
    written: list[list[str]] = []
    for index in range(IMAGES):
        scene = sample_scene(7, index)
        name = f"images/{index}.png"
        draw(scene, SIDE_PX).save(folder / name)
        pool = [*captions(scene)]
        texts = [" and ".join(rng.choices(pool, k=rng.choice((1, 2)))) for _ in range(5)]
        lines["captions"].append(json.dumps({"image": name, "captions": texts}))
        written.append(texts)
        asked = rng.choices(questions(scene), k=rng.choice((5, 5, 5, 6, 6)))
        pairs = [{"question": question, "answers": [answer]} for question, answer in asked]
        lines["questions"].append(json.dumps({"image": name, "questions": pairs}))
    for count in PAIRS:
        lines[f"pairs_{count}"] = [
            json.dumps({"image": f"images/{index}.png", "pairs": pairs_of(written, index, count)})
            for index in range(IMAGES)
        ]
    for name, found in lines.items():
        (folder / f"{name}.jsonl").write_text("\n".join(found) + "\n")


def pairs_of(written: list[list[str]], index: int, count: int) -> list[dict[str, str]]:
    """The first captions of a scene, each against one of the next scene's that differs from it."""
    others = written[(index + 1) % len(written)]
    return [
        {"chosen": text, "rejected": next(one for one in others if one != text)}
        for text in written[index][:count]
    ]


def length(completions: list[str], **columns: Any) -> list[float]:
    """Characters of each text: a reward in which the texts of random weights differ."""
    return [float(len(text)) for text in completions]


def write_recipes(folder: Path) -> None:
    """A recipe per kind of text; 80 texts per step, those of an image together. Pairs and rewards:
    8 images per step.
    """
    for name in ("captions", "questions"):
        source = {"path": str(folder / f"{name}.jsonl")}
        recipe = {
            "name": f"scaled_{name}",
            "model": {"id": str(folder / "model")},
            "data": {"train": source, "eval": source, "num_workers": 0},
            "train": {"per_device_train_batch_size": 80, "texts_per_image": 6},
        }
        write_recipe(folder / f"{name}.yaml", recipe)
    for count in PAIRS:
        phase = {"name": "preference", "objective": "preference"}
        batch = {"per_device_train_batch_size": 8 * count, "texts_per_image": count}
        write_recipe(folder / f"pairs_{count}.yaml", tuned(folder, f"pairs_{count}", phase, batch))
    reward = tuned(
        folder,
        "captions",
        {"name": "reward", "objective": "reward"},
        {"per_device_train_batch_size": 8},
    )
    settings = {
        "funcs": {"docs.studies.scaled_model.length": 1.0},
        "num_generations": 5,
        "max_completion_length": 12,
    }
    write_recipe(folder / "reward.yaml", {**reward, "reward": settings})


def tuned(folder: Path, data: str, phase: dict[str, str], train: dict[str, int]) -> dict[str, Any]:
    """A recipe of one phase that learns from pairs or rewards."""
    return {
        "name": f"scaled_{phase['name']}",
        "model": {"id": str(folder / "model")},
        "data": {"train": {"path": str(folder / f"{data}.jsonl")}, "num_workers": 0},
        "trainable": {"lora": {"target_modules": "all-linear"}},
        "train": train,
        "phases": [phase],
        "run": {"threads": 1},
    }


def write_recipe(path: Path, recipe: dict[str, Any]) -> None:
    """Writes a recipe as JSON, which is YAML too."""
    path.write_text(json.dumps(recipe, indent=1) + "\n")


def main() -> int:
    """Writes everything into a new folder."""
    folder = Path(sys.argv[1]).resolve()
    folder.mkdir(parents=True)
    write_model(folder / "model")
    write_data(folder)
    write_recipes(folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
