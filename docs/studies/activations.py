"""What a token costs in activations, counted from the tensors that autograd keeps.

    python docs/studies/activations.py [--width 2560] [--tokens 24] [--out activations.json]

One and two blocks of OPT at the width of OPT-2.7B, random bfloat16 weights, float32 LoRA, bfloat16
autocast on a CPU. `torch.autograd.graph.saved_tensors_hooks` sees every tensor that is kept for the
backward pass; each storage counts once, weights don't count. The second block less the first is
what a block costs, times 32 (and what stands outside the blocks) is the figure for the whole
decoder: measured tensors, then arithmetic. Attention's mask, which all blocks share, is not in it.
BLIP-2's Q-Former, trained in full, is counted as a whole, per image.

`gpu_rules`: autocast on a GPU computes norms in float32, on a CPU it does not. There the norms'
input is cast as the GPU's rule says (Source: torch, aten/src/ATen/autocast_mode.h,
AT_FORALL_FP32), so that what a GPU would keep is counted without one.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from transformers import Blip2QFormerConfig, Blip2QFormerModel, OPTConfig, OPTForCausalLM

from qvft.adapters.lora import add_lora
from qvft.models.families import FAMILIES
from qvft.models.quantize import quantization_config
from qvft.training.activations import lean_activations

sys.path.append(str(Path(__file__).resolve().parents[2]))  # where tools/ is

from tools.quantize_in_place import quantize_in_place

LAYERS = 32
ATTENTION = ("q_proj", "v_proj")
ALL = ("q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2")
PEERS = {"dropout": 0.05, "decoder_dropout": 0.1}
"""What PEFT's examples and OPT's checkpoints say."""


class GpuNorms(TorchFunctionMode):
    """Casts a norm's input and weights to float32 wherever autocast is on, as on a GPU."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        named = dict(kwargs or {})
        if func is torch.nn.functional.layer_norm and torch.is_autocast_enabled("cpu"):
            args = (args[0].float(), *args[1:])
            named |= {key: named[key].float() for key in ("weight", "bias")}
        return func(*args, **named)


def decoder(
    width: int,
    layers: int,
    *,
    targets: tuple[str, ...] = ATTENTION,
    dropout: float = 0.0,
    decoder_dropout: float = 0.0,
    nf4: bool = False,
) -> nn.Module:
    """OPT with frozen bfloat16 weights and float32 adapters."""
    torch.manual_seed(0)
    config = OPTConfig(
        vocab_size=64,
        hidden_size=width,
        word_embed_proj_dim=width,
        num_hidden_layers=layers,
        num_attention_heads=32 if width >= 2048 else 4,
        ffn_dim=4 * width,
        max_position_embeddings=512,
        dropout=decoder_dropout,
    )
    with torch.device("meta"):
        model = OPTForCausalLM._from_config(config, dtype=torch.bfloat16)
    model.to_empty(device="cpu")
    for name, parameter in model.named_parameters():
        if parameter.ndim == 1:
            nn.init.constant_(parameter, float("norm.weight" in name))
        else:  # drawing all of a wide layer's weights would take most of the time
            noise = 0.02 * torch.randn(min(parameter.numel(), 2**16))
            times = -(-parameter.numel() // noise.numel())
            parameter.data.copy_(noise.repeat(times)[: parameter.numel()].view_as(parameter))
    if nf4:
        family = FAMILIES["blip2"]
        quantize_in_place(
            model, quantization_config(family, "nf4", double=True, compute_dtype=torch.bfloat16)
        )
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    names = [n for n, _ in model.named_modules() if n.rpartition(".")[2] in targets]
    add_lora(model, names, r=16, lora_alpha=32, lora_dropout=dropout)
    for name, parameter in model.named_parameters():
        if ".lora_B" in name:  # zero at first, where A has no gradient
            nn.init.normal_(parameter, std=0.02)
    return model.train()


@contextlib.contextmanager
def kept(model: nn.Module) -> Iterator[dict[int, Tensor]]:
    """Context that fills a dictionary with what autograd keeps, one tensor a storage."""
    weights = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    found: dict[int, Tensor] = {}

    def pack(tensor: Tensor) -> Tensor:
        place = tensor.untyped_storage().data_ptr()
        if place not in weights:
            found[place] = tensor  # holding it, so that no other takes its place
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        yield found


def kept_bytes(model: nn.Module, *, lean: bool, tokens: int, gpu: bool = False) -> float:
    """Bytes a token that a forward pass of two rows keeps, without copies of weights."""
    width = model.config.hidden_size
    x = torch.randn(2, tokens, width, dtype=torch.bfloat16, requires_grad=True)
    rules = GpuNorms() if gpu else contextlib.nullcontext()
    autocast = torch.autocast("cpu", dtype=torch.bfloat16)
    with lean_activations(model, active=lean), kept(model) as found, rules, autocast:
        model.get_decoder()(inputs_embeds=x, use_cache=False)
    held = [t.untyped_storage().nbytes() for t in found.values() if _of_tokens(t, tokens)]
    return sum(held) / (2 * tokens)


def _of_tokens(tensor: Tensor, tokens: int) -> bool:
    """Whether a tensor grows with the tokens; autocast's copies of adapters do not."""
    return tokens in tensor.shape or 2 * tokens in tensor.shape


def per_token(width: int, tokens: int, *, lean: bool, gpu: bool, **options: Any) -> dict[str, Any]:
    """Bytes a token: of a block, outside the blocks, and of 32 blocks by arithmetic."""
    one, two = (
        kept_bytes(decoder(width, layers, **options), lean=lean, tokens=tokens, gpu=gpu)
        for layers in (1, 2)
    )
    block, rest = two - one, 2 * one - two
    return {"block": block, "rest": rest, "all": LAYERS * block + rest}


def qformer_bytes(images: int) -> int:
    """Bytes that BLIP-2's whole Q-Former keeps for images of 257 patches, with its dropout."""
    torch.manual_seed(0)
    config = Blip2QFormerConfig(encoder_hidden_size=1408, cross_attention_frequency=2)
    config._attn_implementation = "sdpa"
    model = Blip2QFormerModel(config).train()
    queries = torch.randn(1, 32, config.hidden_size, requires_grad=True).expand(images, -1, -1)
    patches = torch.randn(images, 257, 1408, dtype=torch.bfloat16)
    with kept(model) as found, GpuNorms(), torch.autocast("cpu", dtype=torch.bfloat16):
        model(query_embeds=queries, encoder_hidden_states=patches)
    return sum(tensor.untyped_storage().nbytes() for tensor in found.values())


def main() -> int:
    """Counts and writes."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--width", type=int, default=2560)
    parser.add_argument("--tokens", type=int, default=24)
    parser.add_argument("--out", type=Path, default=Path("activations.json"))
    given = parser.parse_args()
    per_image = qformer_bytes(3) - qformer_bytes(2)  # without the weights' bfloat16 copies
    found: list[dict[str, Any]] = [{"qformer_bytes_per_image": per_image}]
    print(found[0], flush=True)
    for gpu in (False, True):
        for targets in (ATTENTION, ALL):
            for name, lean, options in (
                ("PEFT and OPT as they come", False, PEERS),
                ("no dropout", False, {}),
                ("lean", True, {}),
                ("lean, NF4", True, {"nf4": True}),
            ):
                bytes_ = per_token(
                    given.width, given.tokens, lean=lean, gpu=gpu, targets=targets, **options
                )
                row = {"gpu_rules": gpu, "targets": len(targets), "way": name, **bytes_}
                found.append(row)
                print(row, flush=True)
    given.out.write_text(json.dumps(found, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
