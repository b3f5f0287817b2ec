"""`python -m tools.tiny_blip2 OUT`: geometry, tokenizer and image processor of `qvft/tiny-blip2`.

What `recipes/tiny_pretrain.yaml` starts from; its weights are drawn by the recipe.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from qvft.data.drawn import vocabulary_texts
from qvft.files import given_path, new_folder
from qvft.log import exit_status
from qvft.models.tiny import tiny_config, tiny_processor


def write_geometry(folder: Path) -> None:
    """Writes config.json and the processor's files into a new folder.

    Raises:
        DataError: `folder` exists.
    """
    with new_folder(folder) as out:
        tiny_config().save_pretrained(out)
        tiny_processor(vocabulary_texts()).save_pretrained(out)


def main(arguments: Sequence[str] | None = None) -> int:
    """Writes the folder; returns the exit status."""
    parser = argparse.ArgumentParser(prog="tools.tiny_blip2", description=__doc__)
    parser.add_argument("out", type=given_path)
    given = parser.parse_args(arguments)
    return exit_status(lambda: write_geometry(given.out))


if __name__ == "__main__":
    sys.exit(main())
