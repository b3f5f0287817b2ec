"""Captions or answers with transformers alone: the plain side of `qvft bench RECIPE --serve`.

    python benchmarks/plain_predict.py MODEL ROWS.jsonl --out FILE [--stop STOP] [--threads 1]

A line of ROWS has `image` (a path), `prompt` and `generate` (arguments of `generate`). One text at
a time, written to FILE as it comes. Nothing of qvft is used.
"""

import argparse
import json
from pathlib import Path

import torch
from PIL import Image
from transformers import Blip2ForConditionalGeneration, Blip2Processor


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("model")
    parser.add_argument("rows", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--stop", default="\n", help="text that ends an answer")
    parser.add_argument("--dtype", default="float32")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    processor = Blip2Processor.from_pretrained(args.model)
    model = Blip2ForConditionalGeneration.from_pretrained(args.model, dtype=args.dtype)
    model = model.eval().to("cuda" if torch.cuda.is_available() else "cpu")
    tokenizer = processor.tokenizer
    ends = [tokenizer.eos_token_id]
    if args.stop:
        ends.append(tokenizer(args.stop, add_special_tokens=False)["input_ids"][0])
    with args.out.open("w") as out:
        for line in args.rows.read_text().splitlines():
            row = json.loads(line)
            image = Image.open(row["image"]).convert("RGB")
            inputs = processor(image, row["prompt"], return_tensors="pt").to(model.device)
            inputs["pixel_values"] = inputs["pixel_values"].to(model.dtype)
            ids = model.generate(**inputs, **row["generate"], eos_token_id=ends)
            new = ids[0, inputs["input_ids"].shape[1] :]
            text = tokenizer.decode(new, skip_special_tokens=True).strip()
            out.write(json.dumps({"image": row["image"], "text": text}) + "\n")
            out.flush()


if __name__ == "__main__":
    main()
