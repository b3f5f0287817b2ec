"""Exports model and alignment heads as a plain `Blip2ForImageTextRetrieval` folder."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor
from transformers import (
    Blip2Config,
    Blip2ForConditionalGeneration,
    Blip2ForImageTextRetrieval,
    Blip2Processor,
    Blip2VisionConfig,
)

from qvft.errors import VerificationError
from qvft.files import require_space
from qvft.models.alignment.heads import AlignmentHeads
from qvft.models.alignment.initial_weights import NOT_IN_RETRIEVAL, qformer_config, retrieval_name
from qvft.models.alignment.qformer_states import image_embeddings, matching_logits, text_embeddings
from qvft.models.alignment.scoring import similarity
from qvft.models.alignment.text_tokens import MAX_TOKENS
from qvft.models.blip2 import query_states

SLACK_BYTES = 16_000_000
"""Disk space for the processor and other small files."""
TOLERANCE = {torch.float32: 1e-4, torch.float16: 1e-2, torch.bfloat16: 1e-1}
"""Largest difference of a score, over 1 + its size, that counts as equal: by the coarser of the
type that is written and the type that the ViT has here. The arithmetic is the same up to its order,
which moves float32 scores by some 1e-6; half types round every activation to 3 and 2 digits, and
the 39 layers of a ViT-g add that up. That the weights are the same is checked to the bit."""


def retrieval_config(
    model: Blip2ForConditionalGeneration, heads: AlignmentHeads, *, dtype: torch.dtype
) -> Blip2Config:
    """The configuration of the retrieval model."""
    config = copy.deepcopy(model.config)
    attention = qformer_config(config)._attn_implementation
    config.qformer_config = copy.deepcopy(heads.config)
    config.qformer_config._attn_implementation = attention
    config.image_text_hidden_size = heads.embedding_width
    config.architectures = ["Blip2ForImageTextRetrieval"]
    config.dtype = dtype
    for part in config.sub_configs:
        getattr(config, part).dtype = dtype
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    return config


def retrieval_state(
    model: Blip2ForConditionalGeneration, heads: AlignmentHeads, *, dtype: torch.dtype
) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """All weights under the retrieval class' names, and the heads' weights that it lacks.

    All in `dtype`, but with float16 the Q-Former and the query tokens stay float32, as transformers
    keeps them when it loads this class.
    """
    state = {
        name: tensor.detach()
        for name, tensor in model.state_dict().items()
        if name.startswith(("vision_model.", "qformer.", "query_tokens"))
    }
    left_out = []
    for name, tensor in heads.state_dict().items():
        if name.startswith(NOT_IN_RETRIEVAL):
            left_out.append(name)
        else:
            state[retrieval_name(name)] = tensor.detach()
    qformer_dtype = torch.float32 if dtype == torch.float16 else dtype
    typed = {
        name: tensor.to(qformer_dtype if name.startswith(("qformer.", "query_tokens")) else dtype)
        for name, tensor in state.items()
    }
    return typed, tuple(left_out)


def fill_retrieval(
    folder: Path,
    model: Blip2ForConditionalGeneration,
    heads: AlignmentHeads,
    *,
    image_processor: Any,
    tokenizer: Any,
    dtype: torch.dtype = torch.float32,
) -> dict[str, Any]:
    """Writes a folder that plain `Blip2ForImageTextRetrieval.from_pretrained` loads, into an empty
    one, and verifies it: it is loaded again with plain transformers, its weights are compared, and
    its cosines and matching logits on noise. Returns `weights` (their number), `left_out` (weights
    of the heads that the class does not have), `largest_difference` and what is `allowed`.

    Args:
        tokenizer: of the text branch; it is copied, pads on the right, cuts where `encode_texts`
            does (with `truncation=True`), and gains `<image>`.

    Raises:
        SpaceError: not enough disk space.
        VerificationError: the written folder scores differently.
    """
    config = retrieval_config(model, heads, dtype=dtype)
    state, left_out = retrieval_state(model, heads, dtype=dtype)
    require_space(folder, sum(t.numel() * t.element_size() for t in state.values()) + SLACK_BYTES)
    tokenizer = copy.deepcopy(tokenizer)
    tokenizer.padding_side = "right"
    longest = min(MAX_TOKENS, heads.config.max_position_embeddings)
    tokenizer.model_max_length = min(tokenizer.model_max_length, longest)
    processor = Blip2Processor(
        image_processor, tokenizer, num_query_tokens=model.query_tokens.shape[1]
    )
    config.image_token_index = tokenizer.convert_tokens_to_ids("<image>")
    with torch.device("meta"):
        # A copy: saving records the dtype of the first weight, which is not the Q-Former's.
        plain = Blip2ForImageTextRetrieval(copy.deepcopy(config))
    plain.load_state_dict(state, strict=True, assign=True)
    plain.save_pretrained(folder)
    config.save_pretrained(folder)
    processor.save_pretrained(folder)
    # safetensors makes its files readable only by their owner.
    mode = (folder / "config.json").stat().st_mode
    for path in folder.glob("*.safetensors"):
        path.chmod(mode)
    reloaded = _reload(folder, state)
    difference = largest_difference(reloaded, model, heads)
    allowed = max(TOLERANCE[dtype], TOLERANCE[model.vision_model.dtype])
    if not difference <= allowed:
        raise VerificationError(
            f"{folder}: loaded again, a score differs by {difference:.2g}, more than {allowed:.2g}"
        )
    return {
        "weights": sum(tensor.numel() for tensor in state.values()),
        "left_out": left_out,
        "largest_difference": difference,
        "allowed": allowed,
    }


def _reload(folder: Path, state: dict[str, Tensor]) -> Blip2ForImageTextRetrieval:
    """The folder's model as plain transformers loads it, its weights compared with `state`."""
    # With `output_loading_info` it returns a pair, which its type does not say.
    pair = Blip2ForImageTextRetrieval.from_pretrained(folder, output_loading_info=True)
    plain, loading = cast(tuple[Blip2ForImageTextRetrieval, dict[str, Any]], pair)
    wrong = [*loading["missing_keys"], *loading["unexpected_keys"], *loading["mismatched_keys"]]
    loaded = plain.state_dict()
    wrong += [
        name
        for name, tensor in state.items()
        if not torch.equal(loaded[name].to(tensor.device), tensor)
    ]
    if wrong:
        raise VerificationError(f"{folder}: loaded again, {len(wrong)} weights differ: {wrong[:3]}")
    return plain.eval()


@torch.no_grad()
def largest_difference(
    plain: Blip2ForImageTextRetrieval, model: Blip2ForConditionalGeneration, heads: AlignmentHeads
) -> float:
    """Largest difference of cosines and matching logits, over 1 + their size, between a retrieval
    model and a model with heads; on two images of noise and two texts of random tokens, one of
    them padded. All in evaluation mode."""
    assert not (model.training or heads.training)
    pixels, input_ids, text_mask = _probe(model, heads)
    device = model.query_tokens.device
    plain = plain.to(device)  # type: ignore[arg-type]  # stub of .to() drops self
    features = model.vision_model(pixel_values=pixels.to(device, model.dtype)).last_hidden_state
    texts = {"input_ids": input_ids.to(device), "text_mask": text_mask.to(device)}
    images = image_embeddings(heads, query_states(model, features))
    scores = [
        similarity(images, text_embeddings(model, heads, **texts)),
        matching_logits(model, heads, features=features, **texts),
    ]
    image_id, queries = plain.config.image_token_index, model.query_tokens.shape[1]
    assert image_id is not None, "`retrieval_config` names it"
    inputs = {
        "pixel_values": pixels.to(device, plain.dtype),
        "input_ids": _with_image_tokens(texts["input_ids"], image_id, queries),
        "attention_mask": _with_image_tokens(texts["text_mask"], 1, queries),
    }
    plain_scores = [
        plain(**inputs, use_image_text_matching_head=matching).logits_per_image.float()
        for matching in (False, True)
    ]
    return max(
        float(((a - b).abs() / (1 + b.abs())).max())
        for a, b in zip(scores, plain_scores, strict=True)
    )


def _probe(
    model: Blip2ForConditionalGeneration, heads: AlignmentHeads
) -> tuple[Tensor, Tensor, Tensor]:
    """Noise (2, 3, size, size), token ids (2, 6) and their mask, the same each time."""
    generator = torch.Generator().manual_seed(0)
    size = cast(Blip2VisionConfig, model.config.vision_config).image_size
    height, width = size if isinstance(size, list | tuple) else (size, size)
    pixels = torch.randn(2, 3, height, width, generator=generator)
    input_ids = torch.randint(heads.config.vocab_size, (2, 6), generator=generator)
    text_mask = torch.ones_like(input_ids)
    text_mask[1, 4:] = 0
    return pixels, input_ids, text_mask


def _with_image_tokens(rows: Tensor, value: int, queries: int) -> Tensor:
    """Rows with one `value` per image token in front, as the class' processor writes them."""
    return torch.cat([rows.new_full((len(rows), queries), value), rows], dim=1)
