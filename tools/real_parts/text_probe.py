"""What fine-tuning made the decoder forget of plain English: its loss on prose without images.

    python -m tools.real_parts.text_probe RUN

RUN is a run with LoRA on a causal decoder. The decoder reads prose of the Python documentation,
which every Python installs as `pydoc_data`, with and without LoRA, without image or prompt.
Printed: the mean loss in nats per token of both, the difference with a bootstrap interval
over paragraphs, and how often both find the same token the most likely one.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pydoc_data.topics import topics

import torch
from torch.nn import functional

from qvft.evaluation.stats import paired_difference
from qvft.files import given_path
from qvft.setup.resolve_model import load_resolved, resolve_model

SHORTEST = 400  # characters: headings, lists and code are shorter
LONGEST = 128  # tokens


def paragraphs() -> list[str]:
    """Paragraphs of prose, in the documentation's order."""
    found = [text for name in sorted(topics) for text in topics[name].split("\n\n")]
    code = ("::=", ">>>", "\n   ")
    return [
        " ".join(text.split())
        for text in found
        if len(text) >= SHORTEST and not any(sign in f"\n{text}" for sign in code)
    ]


@torch.no_grad()
def losses(decoder: torch.nn.Module, rows: Sequence[torch.Tensor]) -> tuple[list[float], list[int]]:
    """Mean loss of each row, nats per token, and the most likely token at every position."""
    found: list[float] = []
    likely: list[int] = []
    for row in rows:
        logits = decoder(input_ids=row[None]).logits[0, :-1].float()
        found.append(float(functional.cross_entropy(logits, row[1:])))
        likely += logits.argmax(-1).tolist()
    return found, likely


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints losses with and without LoRA."""
    parser = argparse.ArgumentParser(prog="tools.real_parts.text_probe", description=__doc__)
    parser.add_argument("run", type=given_path)
    given = parser.parse_args(arguments)
    loaded = load_resolved(resolve_model(str(given.run)))
    if loaded.handle is None:
        parser.error(f"{given.run} has no LoRA")
    decoder, tokenizer = loaded.blip2.language_model, loaded.processor.tokenizer
    texts = paragraphs()
    rows = [
        torch.tensor(tokenizer(text, add_special_tokens=False)["input_ids"][:LONGEST])
        for text in texts
    ]
    tuned, tuned_likely = losses(decoder, rows)
    with loaded.handle.disable_adapter():
        base, base_likely = losses(decoder, rows)
    difference = paired_difference(tuned, base, clusters=range(len(rows)))
    low, high = difference.interval or (float("nan"),) * 2
    same = sum(one == other for one, other in zip(tuned_likely, base_likely, strict=True))
    print(f"{len(rows)} paragraphs, {sum(map(len, rows))} tokens")
    print(f"loss without LoRA {sum(base) / len(base):.3f}, with LoRA {sum(tuned) / len(tuned):.3f}")
    print(
        f"difference {difference.difference:+.3f} nats per token "
        f"(95 % interval {low:+.3f} to {high:+.3f})"
    )
    print(f"the same most likely token at {100 * same / len(base_likely):.1f} % of positions")
    return 0


if __name__ == "__main__":
    sys.exit(main())
