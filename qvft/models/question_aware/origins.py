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
from dataclasses import dataclass
from typing import Literal

from qvft.errors import ModelError

Shapes = Mapping[str, tuple[int, ...]]
TextKind = Literal["retrieval", "bert", "fresh"]

WORDS = "qformer.embeddings.word_embeddings.weight"
POSITIONS = "qformer.embeddings.position_embeddings.weight"
_NORM = "qformer.embeddings.layernorm."
_TEXT_FFN = re.compile(r"qformer\.encoder\.layer\.\d+\.(intermediate|output)\.")

_BUFFER = (r"embeddings\.(position_ids|token_type_ids)", "a buffer that is computed")
UNUSED: dict[str, tuple[tuple[str, str], ...]] = {
    "base": (
        (_TEXT_FFN.pattern, "the text source's stands in its place"),
        (r"embeddings\.(word|position)_embeddings\.", "the text source's stands in its place"),
    ),
    "retrieval": (
        (r"(vision_model\.|query_tokens$)", "BLIP-2's own stands in its place"),
        (r"qformer\.layernorm\.", "shared by queries and words: BLIP-2's own stands"),
        (
            r"qformer\.encoder\.layer\.\d+\.attention\.",
            "shared by queries and words: BLIP-2's own stands",
        ),
        (
            r"qformer\.encoder\.layer\.\d+\.(crossattention|intermediate_query|output_query)\.",
            "the query path is BLIP-2's own",
        ),
        (r"(vision_projection|text_projection|itm_head)\.", "a retrieval head"),
        _BUFFER,
    ),
    "bert": (
        (r"embeddings\.LayerNorm\.", "shared by queries and words: BLIP-2's own stands"),
        (r"embeddings\.token_type_embeddings\.", "the Q-Former has no segments"),
        (r"encoder\.layer\.\d+\.attention\.", "shared by queries and words: BLIP-2's own stands"),
        (r"(pooler|cls)\.", "a head of BERT's pretraining"),
        _BUFFER,
    ),
    "fresh": (),
}
"""Patterns of keys that are not used, by source, each with its reason."""


@dataclass(frozen=True)
class Origin:
    """Source of one weight.

    Attributes:
        source: `base` (BLIP-2), `text` (the text source), `fresh` (initialised), or `tied`.
        key: its key in that source; the key of the tensor it is tied to; else "".
        shape: its shape in the model.
        fresh_rows: rows at its end that the source does not have, initialised randomly.
    """

    source: Literal["base", "text", "fresh", "tied"]
    key: str
    shape: tuple[int, ...]
    fresh_rows: int = 0


@dataclass(frozen=True)
class Origins:
    """The plan of a graft.

    Attributes:
        weights: every key of the model to its origin.
        unused: (`base` or `text`, key) of each unused weight, to the reason.
    """

    weights: dict[str, Origin]
    unused: dict[tuple[str, str], str]


def plan_origins(
    target: Shapes, tied: Mapping[str, str], *, base: Shapes, text: Shapes, kind: TextKind
) -> Origins:
    """Determines the source of each weight and checks shapes.

    Args:
        target: keys and shapes of the question-aware model.
        tied: tied keys, to the key of their tensor.
        base: those of the BLIP-2 checkpoint.
        text: those of the text source; empty if fresh.
        kind: type of the text source.

    Raises:
        ModelError: a weight has no source, a source has an unexpected weight, or a shape differs.
    """
    names = {_plain(key, kind): key for key in text}
    weights = {
        key: _origin(key, shape, tied=tied, base=base, text=text, names=names, kind=kind)
        for key, shape in target.items()
    }
    missing = sorted(
        f"{origin.key} (of the {origin.source} checkpoint)"
        for origin in weights.values()
        if origin.source in ("base", "text")
        and origin.key not in (base if origin.source == "base" else text)
    )
    _refuse(missing, "missing", kind)
    wrong = sorted(filter(None, (_misfit(o, base, text) for o in weights.values())))
    _refuse(wrong, "ill-sized", kind)
    used = {(origin.source, origin.key) for origin in weights.values()}
    unused: dict[tuple[str, str], str] = {}
    surplus: list[str] = []
    for source, keys, reasons in (("base", base, UNUSED["base"]), ("text", text, UNUSED[kind])):
        for key in keys:
            if (source, key) in used:
                continue
            plain = _plain(key, kind) if source == "text" else key
            reason = next((why for pattern, why in reasons if re.match(pattern, plain)), None)
            if source == "base" and key in tied:
                reason = f"the same tensor as {tied[key]}"
            if reason is None:
                surplus.append(f"{key} (of the {source} checkpoint)")
            else:
                unused[source, key] = reason
    _refuse(sorted(surplus), "unexpected", kind)
    return Origins(weights, unused)


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


def _misfit(origin: Origin, base: Shapes, text: Shapes) -> str | None:
    """Description of a shape mismatch, None if it fits."""
    if origin.source not in ("base", "text"):
        return None
    found = (base if origin.source == "base" else text)[origin.key]
    wanted = (origin.shape[0] - origin.fresh_rows, *origin.shape[1:])
    if found == wanted:
        return None
    return f"{origin.key} of the {origin.source} checkpoint is {found} where {wanted} fits"


def _refuse(problems: list[str], what: str, kind: TextKind) -> None:
    if not problems:
        return
    listed = ", ".join(problems[:3]) + (", ..." if len(problems) > 3 else "")
    text = {
        "retrieval": " and a Blip2ForImageTextRetrieval checkpoint with a Q-Former of its size",
        "bert": " and a BERT checkpoint of its Q-Former's width and depth",
        "fresh": "",
    }[kind]
    raise ModelError(
        f"{len(problems)} {what} weights: {listed}",
        where="model.id" if kind == "fresh" else "model.id with model.text_branch",
        expected=f"a complete BLIP-2 checkpoint{text}",
    )
