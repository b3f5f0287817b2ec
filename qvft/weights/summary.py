"""Summary of a merge in a few lines."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any


def merge_summary(content: Mapping[str, Any]) -> Iterator[str]:
    """Summary lines: keys per action, and the results of verification."""
    keys, checks = content["keys"], content["verification"]
    yield (
        f"keys: {keys['bridge']} replaced by trained weights, {keys['lora']} with LoRA added, "
        f"{keys['untouched']} untouched, {keys['tied']} tied"
    )
    yield (
        f"weights: {checks['weights']['weights']:,} in {content['dtype']}, each exactly as planned"
    )
    yield f"against base + adapter: {comparison_line(checks['behaviour'])}"
    for tie in checks["behaviour"]["near_ties"]:
        yield (
            f"  {tie['row']} parts at token {tie['token']}, where the two best tokens are "
            f"{tie['margin']:.2g} apart"
        )
    if checks["quantized"]:
        yield (
            f"against the {content['quantized']} base it was trained on (for information): "
            f"{comparison_line(checks['quantized'], judged=False)}"
        )


def comparison_line(figures: Mapping[str, Any], *, judged: bool = True) -> str:
    """Result of a parity check, in one line."""
    allowed = f" (allowed {figures['tolerance']['largest']:.2g})" if judged else ""
    return (
        f"{figures['equal_texts']} of {figures['rows']} texts equal, logits off by at most "
        f"{figures['largest_error']:.2g}{allowed}, {figures['rms_error']:.2g} on average, "
        f"at a spread of {figures['spread']:.2g}"
    )
