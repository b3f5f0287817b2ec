"""Fine-tunes BLIP-2 with transformers and PEFT alone: plain side of `qvft bench RECIPE --whole`.

    python benchmarks/plain_peft.py MODEL ROWS.jsonl --out DIR [--epochs 1] [--batch-size 8] ...

A line of ROWS has `image` (a path), `prompt` and `text`. One row per text, padded on the right to
the longest; ViT frozen, Q-Former, query tokens and projection trained, LoRA on the decoder. The
loss covers the text and its stop, not padding, prompt and image tokens. Nothing of qvft is used.
"""

import argparse
import itertools
import json
import math
from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model
from PIL import Image
from safetensors.torch import save_file
from torch.utils.data import DataLoader
from transformers import Blip2Config, Blip2ForConditionalGeneration, Blip2Processor
from transformers.optimization import get_cosine_schedule_with_warmup

BRIDGE = ("query_tokens", "qformer.", "language_projection.")


class Collator:
    """Rows to a batch of the model's inputs, with labels."""

    def __init__(self, processor: Blip2Processor, stop: str, max_length: int) -> None:
        processor.tokenizer.padding_side = "right"
        self.processor, self.max_length = processor, max_length
        self.stop = stop or processor.tokenizer.eos_token

    def __call__(self, rows: list[dict]) -> dict[str, torch.Tensor]:
        images = [Image.open(row["image"]).convert("RGB") for row in rows]
        texts = [row["prompt"] + row["text"] + self.stop for row in rows]
        cut = {"truncation": True, "max_length": self.max_length}
        batch = self.processor(images, texts, padding=True, return_tensors="pt", **cut)
        labels = batch["input_ids"].masked_fill(batch["attention_mask"] == 0, -100)
        prompts = self.processor.tokenizer([row["prompt"] for row in rows])["input_ids"]
        for row, prompt in zip(labels, prompts, strict=True):
            row[: self.processor.num_query_tokens + len(prompt)] = -100  # image and prompt tokens
        return {**batch, "labels": labels}


def load_model(args: argparse.Namespace) -> torch.nn.Module:
    """The model with LoRA in the decoder; all that is not trained is frozen."""
    config = Blip2Config.from_pretrained(args.model)
    config.text_config.dropout = args.decoder_dropout
    load = Blip2ForConditionalGeneration.from_pretrained
    model = load(args.model, config=config, dtype=args.dtype)
    of_decoder = rf"language_model\..*\.({'|'.join(args.target_modules)})"
    lora = {"r": args.r, "lora_alpha": args.lora_alpha, "lora_dropout": args.lora_dropout}
    model = get_peft_model(model, LoraConfig(**lora, target_modules=of_decoder))
    for name, weight in model.named_parameters():
        if any(part in name for part in BRIDGE):
            weight.data = weight.data.float()
            weight.requires_grad_(True)
    return model.to("cuda" if torch.cuda.is_available() else "cpu")


def train(args: argparse.Namespace, model: torch.nn.Module, loader: DataLoader) -> None:
    """AdamW with warm-up and a cosine, gradients clipped."""
    trained = {name: one for name, one in model.named_parameters() if one.requires_grad}
    lora = [one for name, one in trained.items() if "lora_" in name]
    bridge = [one for name, one in trained.items() if "lora_" not in name]
    groups = [{"params": lora, "lr": args.lora_lr}, {"params": bridge, "lr": args.bridge_lr}]
    optimizer = torch.optim.AdamW(groups, weight_decay=args.weight_decay, fused=True)
    steps = args.max_steps if args.max_steps > 0 else math.ceil(args.epochs * len(loader))
    warmup = args.warmup if args.warmup >= 1 else math.ceil(args.warmup * steps)
    schedule = get_cosine_schedule_with_warmup(optimizer, warmup, steps)
    batches = itertools.chain.from_iterable(itertools.repeat(loader))
    model.train()
    for step, batch in enumerate(itertools.islice(batches, steps), start=1):
        batch = {key: value.to(model.device) for key, value in batch.items()}
        with torch.autocast(model.device.type, torch.bfloat16, enabled=args.bf16):
            loss = model(**batch).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained.values(), args.max_grad_norm)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        if step % 10 == 0 or step == steps:
            print(f"step {step} of {steps}: loss {loss.item():.4f}", flush=True)


def arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("model")
    parser.add_argument("rows", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    numbers = {"epochs": 1.0, "max-steps": -1, "batch-size": 8, "workers": 2, "threads": 1}
    numbers |= {"r": 16, "lora-alpha": 32, "lora-dropout": 0.0, "lora-lr": 1e-4, "bridge-lr": 1e-5}
    numbers |= {"weight-decay": 0.05, "warmup": 0.03, "max-grad-norm": 1.0, "max-length": 160}
    texts = {"dtype": "float32", "stop": "\n"}
    for name, value in {**numbers, **texts, "seed": 0, "decoder-dropout": 0.0}.items():
        parser.add_argument(f"--{name}", type=type(value), default=value)
    parser.add_argument("--target-modules", nargs="+", default=["q_proj", "v_proj"])
    parser.add_argument("--bf16", action="store_true", help="autocast to bfloat16")
    return parser


def main() -> None:
    args = arguments().parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    rows = [json.loads(line) for line in args.rows.read_text().splitlines()]
    collator = Collator(Blip2Processor.from_pretrained(args.model), args.stop, args.max_length)
    workers = {"num_workers": args.workers, "persistent_workers": args.workers > 0}
    loader = DataLoader(rows, args.batch_size, shuffle=True, collate_fn=collator, **workers)
    model = load_model(args)
    train(args, model, loader)
    model.save_pretrained(args.out)
    full = {n: w.detach() for n, w in model.named_parameters() if any(p in n for p in BRIDGE)}
    save_file(full, args.out / "bridge.safetensors")


if __name__ == "__main__":
    main()
