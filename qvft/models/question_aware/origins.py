"""Source of every weight of a question-aware model, and which source weights are unused.

The Q-Former has two paths through shared self-attention. The query path (cross-attention, its own
feed-forward layers) is BLIP-2's. The text path (word and position embeddings, its own feed-forward
layers) is a text source's: a BLIP-2 retrieval checkpoint, or BERT, which BLIP-2's Q-Former was
made from. Self-attention and the one LayerNorm after the embeddings are shared by both paths; they
are BLIP-2's, so that without a question the model is BLIP-2 itself.

Source: BLIP-2, arXiv 2301.12597, section 3.1 and figure 2; LAVIS, lavis/models/blip2_models,
`Qformer.py` (`BertEmbeddings` has no segment embeddings, one LayerNorm follows queries and words)
and `blip2.py` (`init_Qformer`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Literal

from qvft.models.weight_origins import Origin, Origins, Shapes, checked_origins

TextKind = Literal["retrieval", "bert", "fresh"]

WORDS = "qformer.embeddings.word_embeddings.weight"
POSITIONS = "qformer.embeddings.position_embeddings.weight"
_NORM = "qformer.embeddings.layernorm."
_TEXT_FFN = re.compile(r"qformer\.encoder\.layer\.\d+\.(intermediate|output)\.")

_BUFFER = (r"embeddings\.(position_ids|token_type_ids)", "a buffer that is computed")
UNUSED: dict[str, tuple[tuple[str, str], ...]] = {
    "base": (
        (_TEXT_FFN.pattern, "replaced by the text source's"),
        (r"embeddings\.(word|position)_embeddings\.", "replaced by the text source's"),
    ),
    "retrieval": (
        (r"(vision_model\.|query_tokens$)", "replaced by BLIP-2's own"),
        (r"qformer\.layernorm\.", "shared by queries and words: BLIP-2's is used"),
        (
            r"qformer\.encoder\.layer\.\d+\.attention\.",
            "shared by queries and words: BLIP-2's is used",
        ),
        (
            r"qformer\.encoder\.layer\.\d+\.(crossattention|intermediate_query|output_query)\.",
            "the query path is BLIP-2's own",
        ),
        (r"(vision_projection|text_projection|itm_head)\.", "a retrieval head"),
        _BUFFER,
    ),
    "bert": (
        (r"embeddings\.LayerNorm\.", "shared by queries and words: BLIP-2's is used"),
        (r"embeddings\.token_type_embeddings\.", "the Q-Former has no segments"),
        (r"encoder\.layer\.\d+\.attention\.", "shared by queries and words: BLIP-2's is used"),
        (r"(pooler|cls)\.", "a head of BERT's pretraining"),
        _BUFFER,
    ),
    "fresh": (),
}
"""Patterns of keys that are not used, by source, each with its reason."""


def plan_origins(
    target: Shapes, tied: Mapping[str, str], *, base: Shapes, text: Shapes, kind: TextKind
) -> Origins:
    """Determines the source of each weight and checks shapes; raises as `checked_origins`."""
    names = {_plain(key, kind): key for key in text}
    weights = {
        key: _origin(key, shape, tied=tied, base=base, text=text, names=names, kind=kind)
        for key, shape in target.items()
    }
    expected = (
        "a complete BLIP-2 checkpoint"
        + {
            "retrieval": " and a Blip2ForImageTextRetrieval checkpoint with a Q-Former of its size",
            "bert": " and a BERT checkpoint of its Q-Former's width and depth",
            "fresh": "",
        }[kind]
    )

    def reason(source: str, key: str) -> str | None:
        plain = _plain(key, kind) if source == "text" else key
        reasons = UNUSED[kind if source == "text" else "base"]
        return next((why for pattern, why in reasons if re.match(pattern, plain)), None)

    return checked_origins(
        weights,
        {"base": base, "text": text},
        reason,
        twins={("base", key): weights[owner].key for key, owner in tied.items()},
        where="model.id" if kind == "fresh" else "model.id with model.text_branch",
        expected=expected,
    )


def _origin(
    key: str,
    shape: tuple[int, ...],
    *,
    tied: Mapping[str, str],
    base: Shapes,
    text: Shapes,
    names: Mapping[str, str],
    kind: TextKind,
) -> Origin:
    if key in tied:
        return Origin("tied", tied[key], shape)
    twins = [other for other, owner in tied.items() if owner == key and other in base]
    if twins and key not in base:
        return Origin("base", twins[0], shape)
    if kind == "fresh" and key in (WORDS, POSITIONS):
        return Origin("fresh", "", shape, fresh_rows=shape[0])
    if kind == "fresh" and _TEXT_FFN.match(key):
        twin = re.sub(r"\.(intermediate|output)\.", r".\1_query.", key, count=1)
        return Origin("base", twin, shape)
    if key in (WORDS, POSITIONS):
        source = key.removeprefix("qformer.")
    elif _TEXT_FFN.match(key):
        source = key.removeprefix("qformer.") if kind == "bert" else key
    else:
        return Origin("base", key.replace(_NORM, "qformer.layernorm."), shape)
    stored = names.get(source, source)
    rows = text[stored][0] if key == WORDS and stored in text else shape[0]
    return Origin("text", stored, shape, fresh_rows=max(0, shape[0] - rows))


def _plain(key: str, kind: TextKind) -> str:
    """A key as current transformers writes it.

    `bert-base-uncased` on the hub was written by an old release: a prefix `bert.`, and `gamma` and
    `beta` for a LayerNorm's weight and bias.
    """
    if kind != "bert":
        return key
    key = key.removeprefix("bert.")
    return re.sub(
        r"LayerNorm\.(gamma|beta)$",
        lambda found: "LayerNorm." + {"gamma": "weight", "beta": "bias"}[found[1]],
        key,
    )
