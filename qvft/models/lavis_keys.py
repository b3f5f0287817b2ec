"""Names of LAVIS' BLIP-2 weights (`.pth` files) in transformers' classes, key by key.

Source: transformers, `convert_blip_2_original_to_pytorch.py` and
`convert_instructblip_original_to_pytorch.py` (`create_rename_keys`, `read_in_q_v_bias`); LAVIS,
lavis/models/blip2_models and lavis/models/eva_vit.py.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from qvft.models.checkpoint_files import refuse_weights
from qvft.models.weight_origins import Shapes

_RENAMED = (
    (r"^visual_encoder\.cls_token$", "vision_model.embeddings.class_embedding"),
    (r"^visual_encoder\.pos_embed$", "vision_model.embeddings.position_embedding"),
    (r"^visual_encoder\.patch_embed\.proj\.", "vision_model.embeddings.patch_embedding."),
    (r"^visual_encoder\.blocks\.(\d+)\.norm([12])\.",
     r"vision_model.encoder.layers.\1.layer_norm\2."),
    (r"^visual_encoder\.blocks\.(\d+)\.attn\.qkv\.",
     r"vision_model.encoder.layers.\1.self_attn.qkv."),
    (r"^visual_encoder\.blocks\.(\d+)\.attn\.proj\.",
     r"vision_model.encoder.layers.\1.self_attn.projection."),
    (r"^visual_encoder\.blocks\.(\d+)\.mlp\.", r"vision_model.encoder.layers.\1.mlp."),
    (r"^ln_vision\.", "vision_model.post_layernorm."),
    (r"^Qformer\.bert\.embeddings\.LayerNorm\.", "qformer.layernorm."),
    (r"^Qformer\.bert\.embeddings\.", "embeddings."),
    (r"^Qformer\.bert\.(encoder\.layer\.\d+\.(?:cross)?attention)\.self\.",
     r"qformer.\1.attention."),
    (r"^Qformer\.bert\.encoder\.", "qformer.encoder."),
    (r"^(?:opt|t5|llm)_proj\.", "language_projection."),
    (r"^(?:opt|t5|llm)_model\.", "language_model."),
    (r"^vision_proj\.", "vision_projection."),
    (r"^text_proj\.", "text_projection."),
)  # fmt: skip
"""LAVIS' names to those of transformers; a name that none matches stays."""

_OF_QUESTION_AWARE = (
    ("qformer.layernorm.", "qformer.embeddings.layernorm."),
    ("embeddings.", "qformer.embeddings."),
)
"""Where InstructBLIP's Q-Former has other names than BLIP-2's classes."""

_QKV = re.compile(r"^visual_encoder\.blocks\.(\d+)\.attn\.(q|v)_bias$")

DROPPED = (
    (r"^temp$", "the temperature of the contrastive loss, which no class of transformers has"),
    (r"^Qformer\.cls\.", "the head that writes text from the Q-Former (ITG), which no class has"),
    (r"^Qformer\.bert\.embeddings\.position_ids$", "a buffer that is computed"),
)
"""Keys that transformers has no place for, with the reason."""

WITHOUT_PLACE = (
    (r"^Qformer\.bert\.embeddings\.(word|position)_embeddings\.",
     "the Q-Former's text branch, which the class of --base does not have"),
    (r"^Qformer\.bert\.encoder\.layer\.\d+\.(intermediate|output)\.",
     "the Q-Former's text branch, which the class of --base does not have"),
    (r"^(vision_proj|text_proj|itm_head)\.",
     "a retrieval head, which the class of --base does not have"),
)  # fmt: skip
"""Keys that are dropped if the class of the base has no place for them."""

FROZEN = ("vision_model.", "language_model.")
"""Parts that LAVIS stores only if it trained them; otherwise the base's are used."""


@dataclass(frozen=True)
class LavisPlan:
    """Where each weight of a model comes from.

    Attributes:
        mapped: key of the model to the LAVIS keys that it is made of: one, or q_bias and v_bias.
        dropped: LAVIS key to the reason that it is not used.
        from_base: keys of the model that the file does not have.
    """

    mapped: dict[str, tuple[str, ...]]
    dropped: dict[str, str]
    from_base: tuple[str, ...]


def plan_lavis(keys: Shapes, target: Shapes, tied: Mapping[str, str], *, where: str) -> LavisPlan:
    """Plans the conversion; every key of the file and of the model is accounted for.

    Raises:
        ModelError: an unknown key, another shape, or a part that LAVIS trains is missing or partly
            there.
    """
    mapped: dict[str, tuple[str, ...]] = {}
    dropped: dict[str, str] = {}
    unknown = []
    for key in keys:
        name = model_key(key, target)
        reasons = DROPPED if name in target else (*DROPPED, *WITHOUT_PLACE)
        reason = next((why for pattern, why in reasons if re.match(pattern, key)), None)
        if reason is None and name in tied:
            reason = f"the same tensor as {tied[name]}"
        if reason is not None:
            dropped[key] = reason
        elif name in target:
            mapped[name] = tuple(sorted((*mapped.get(name, ()), key)))
        else:
            unknown.append(key)
    refuse_weights(
        "unknown",
        unknown,
        where=where,
        expected="the weights of a BLIP-2 model of LAVIS, and --base of the same model",
    )
    wrong = [
        f"{key} is {keys[key]}, expected {target[name]}"
        for name, sources in mapped.items()
        for key in sources
        if keys[key] != (target[name] if len(sources) == 1 else (target[name][0] // 3,))
    ]
    refuse_weights("ill-sized", wrong, where=where, expected="the geometry of --base")
    absent = [key for key in target if key not in mapped and key not in tied]
    # LAVIS trains `ln_vision` also with a frozen ViT.
    trained = [name for name in mapped if not name.startswith("vision_model.post_layernorm.")]
    stored = tuple(part for part in FROZEN if any(name.startswith(part) for name in trained))
    missing = [key for key in absent if not key.startswith(FROZEN) or key.startswith(stored)]
    refuse_weights(
        "missing",
        missing,
        where=where,
        expected="every weight of the Q-Former, and all or none of each other part",
    )
    return LavisPlan(mapped, dropped, tuple(absent))


def model_key(key: str, target: Shapes) -> str:
    """The name in transformers of a LAVIS key; of q_bias and v_bias that of the fused bias."""
    fused = _QKV.match(key)
    if fused is not None:
        return f"vision_model.encoder.layers.{fused[1]}.self_attn.qkv.bias"
    name = key
    for pattern, replacement in _RENAMED:
        name, found = re.subn(pattern, replacement, key)
        if found:
            break
    if name not in target:
        for plain, aware in _OF_QUESTION_AWARE:
            if name.startswith(plain) and aware + name.removeprefix(plain) in target:
                return aware + name.removeprefix(plain)
    return name


def lavis_value(sources: tuple[str, ...], state: Mapping[str, Tensor]) -> Tensor:
    """The tensor of a model's key from the LAVIS tensors that it is made of.

    LAVIS' ViT has no bias of keys, which softmax cancels: it is zero in the fused bias.
    """
    if len(sources) == 1:
        return state[sources[0]]
    query, value = (state[key] for key in sources)  # sorted: q_bias, v_bias
    return torch.cat([query, torch.zeros_like(query), value])
