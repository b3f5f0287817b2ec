"""Writes a BLIP-2 of real geometry and random weights, to try what a real one costs.

    python tests/fullsize/make_model.py OUT [--geometry blip2-opt-2.7b] [--seed 0]

3.74 billion bfloat16 weights in shards of 2 GB (7.5 GB), written tensor by tensor: memory holds one
shard. The tokenizer has OPT's layout (`</s>` 2, `<pad>` 1, line break 50118, `<image>` 50265): it
writes text with the embedded model's merges, and its other places are fillers.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor
from transformers import AddedToken, Blip2Config, Blip2Processor, GPT2Tokenizer
from transformers.models.blip.image_processing_pil_blip import BlipImageProcessorPil

from qvft.files import new_folder, require_space
from qvft.json_files import write_json
from qvft.models.reference_configs import (
    INITIALIZER_RANGE,
    known_configs,
    meta_model,
)

sys.path.append(str(Path(__file__).resolve().parents[2]))  # where tools/ is

from tools.tiny_blip2.drawn import vocabulary_texts
from tools.tiny_blip2.geometry import IMAGE_TOKEN, tiny_tokenizer

SHARD_BYTES = 2_000_000_000
NEWLINE, NEWLINE_ID = "Ċ", 50_118
"""How byte-level BPE spells a line break, and its id in OPT's vocabulary."""
IMAGE_TOKEN_ID = 50_265


def main() -> int:
    """Writes the model; returns the exit status."""
    geometries = [name.partition("/")[2] for name in known_configs() if "opt" in name]
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("out", type=Path, help="new folder")
    parser.add_argument("--geometry", choices=geometries, default="blip2-opt-2.7b")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    started = time.monotonic()
    config = known_configs()[f"Salesforce/{given.geometry}"]
    with new_folder(given.out) as folder:
        count = write_weights(folder, config, seed=given.seed)
        config.dtype = torch.bfloat16
        config.architectures = ["Blip2ForConditionalGeneration"]
        config.save_pretrained(folder)
        opt_processor(config).save_pretrained(folder)
    took_s = time.monotonic() - started
    print(f"{count:,} weights written to {given.out} in {took_s:.0f} s")
    return 0


def write_weights(folder: Path, config: Blip2Config, *, seed: int) -> int:
    """Writes the shards and their index; returns the number of weights."""
    model = meta_model(config)
    count = sum(parameter.numel() for parameter in model.parameters())
    require_space(folder, 2 * count + 100_000_000)
    shards: list[dict[str, Tensor]] = [{}]
    written: list[list[str]] = []
    held = 0
    for name, tensor in random_weights(model, seed=seed):
        size = tensor.numel() * tensor.itemsize
        if shards[-1] and held + size > SHARD_BYTES:
            written.append(_save(folder, shards.pop(), len(written)))
            shards, held = [{}], 0
        shards[-1][name] = tensor
        held += size
    written.append(_save(folder, shards.pop(), len(written)))
    weight_map = {}
    for number, names in enumerate(written):
        file = f"model-{number + 1:05}-of-{len(written):05}.safetensors"
        (folder / f"part{number}").rename(folder / file)
        weight_map.update(dict.fromkeys(names, file))
    index = {"metadata": {"total_size": 2 * count}, "weight_map": weight_map}
    write_json(folder / "model.safetensors.index.json", index)
    return count


def random_weights(model: torch.nn.Module, *, seed: int) -> Iterator[tuple[str, Tensor]]:
    """bfloat16 weights one after the other: norms 1, biases 0, all else normal with 0.02."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        is_norm = parameter.ndim == 1 and name.endswith(".weight")
        if is_norm or parameter.ndim == 1:
            tensor = torch.full(parameter.shape, float(is_norm), dtype=torch.bfloat16)
        else:
            tensor = torch.randn(parameter.shape, generator=generator)
            tensor = tensor.mul_(INITIALIZER_RANGE).bfloat16()
        yield name, tensor


def opt_processor(config: Blip2Config) -> Blip2Processor:
    """A processor whose special tokens stand where OPT has them."""
    learnt = json.loads(tiny_tokenizer(vocabulary_texts()).backend_tokenizer.to_str())["model"]
    by_id = {place: token for token, place in learnt["vocab"].items() if token != IMAGE_TOKEN}
    by_id.pop(learnt["vocab"][NEWLINE])
    tokens = [by_id.get(place, f"Ġw{place}") for place in range(IMAGE_TOKEN_ID)]
    tokens[NEWLINE_ID] = NEWLINE
    tokenizer = GPT2Tokenizer(
        vocab={token: place for place, token in enumerate(tokens)},
        merges=[tuple(pair) for pair in learnt["merges"]],
        unk_token="<unk>",
        bos_token="</s>",
        eos_token="</s>",
        pad_token="<pad>",
        add_bos_token=True,
        model_max_length=config.text_config.max_position_embeddings,
    )
    tokenizer.add_tokens(
        [AddedToken(IMAGE_TOKEN, normalized=False, special=True)], special_tokens=True
    )
    assert tokenizer.convert_tokens_to_ids(IMAGE_TOKEN) == IMAGE_TOKEN_ID
    side = config.vision_config.image_size
    images = BlipImageProcessorPil(size={"height": side, "width": side})
    return Blip2Processor(images, tokenizer, num_query_tokens=config.num_query_tokens)


def _save(folder: Path, shard: dict[str, Tensor], number: int) -> list[str]:
    save_file(shard, folder / f"part{number}", metadata={"format": "pt"})
    return list(shard)


if __name__ == "__main__":
    sys.exit(main())
