"""`python tests/reliability/fuzz.py [--seed N] [--count KIND=N ...]`: the long run of the trials.

Prints how many inputs of each kind were accepted and refused, and stops at the first defect, naming
the trial and keeping its input. The same seed gives the same inputs. The suite runs some hundreds
of each (`test_trials.py`).
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
sys.path.append(str(Path(__file__).resolve().parents[2]))  # where tools/ is

import setting_trials
import trials

COUNTS = {
    "recipes": 10_000,
    "jsonl": 5_000,
    "json_files": 5_000,
    "images": 5_000,
    "adapters": 2_000,
    "arguments": 500,
    "decoding": 2_000,
    "command_lines": 5_000,
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--count", nargs="+", metavar="KIND=N", default=[])
    given = parser.parse_args()
    counts = {**COUNTS, **({} if not given.count else dict.fromkeys(COUNTS, 0))}
    counts |= {kind: int(count) for kind, _, count in (one.partition("=") for one in given.count)}
    for kind, count in counts.items():
        if not count:
            continue
        with tempfile.TemporaryDirectory() as folder:
            work = Path(folder)
            options = {"adapter": written_adapter(work / "whole")} if kind == "adapters" else {}
            start = time.monotonic()
            home = trials if hasattr(trials, kind) else setting_trials
            ends = getattr(home, kind)(count, seed=given.seed, work=work, **options)
            seconds = time.monotonic() - start
        print(json.dumps({"kind": kind, "tried": count, **ends, "seconds": round(seconds)}))
        sys.stdout.flush()
    return 0


def written_adapter(folder: Path) -> Path:
    """An adapter of the bundled model's geometry, as training writes it."""
    from qvft.adapters.checkpoint import bridge_names, save_checkpoint
    from qvft.adapters.freeze import mark_trainable
    from qvft.adapters.lora import add_lora
    from qvft.adapters.targets import resolve_targets
    from qvft.models.families import FAMILIES
    from tools.tiny_blip2.geometry import init_tiny

    model, family = init_tiny(0), FAMILIES["blip2"]
    handle = add_lora(model, resolve_targets(model, family, ["q_proj"]), r=2, lora_alpha=4)
    parts = dict.fromkeys(("qformer", "query_tokens", "language_projection"), "full")
    mark_trainable(model, family, {"vision": "frozen", **parts, "decoder": "lora"})
    provenance = {
        "base_id": "base",
        "base_revision": None,
        "base_weights_sha256": "a" * 64,
        "family": "blip2",
        "recipe_sha256": "b" * 64,
        "data_sha256": {"train": "c" * 64},
    }
    save_checkpoint(folder, model, handle, family, provenance, bridge=bridge_names(model))
    return folder


if __name__ == "__main__":
    sys.exit(main())
