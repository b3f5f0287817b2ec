"""`qvft embed MODEL IMAGES_OR_TEXTS... --out F.parquet`: vectors of images or texts.

MODEL is a run trained with itc, what `qvft export --to retrieval` wrote of one, or a
Blip2ForImageTextRetrieval of the hub; any other BLIP-2 embeds images alone. Inputs are images,
folders, globs and JSONL files; or text files, one text per line, and JSONL files of texts. The
ending of --out is .parquet, .npy or .safetensors. `qvft search` finds images by it.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Iterable, Sequence
from typing import Any

from qvft.files import expanded, given_path
from qvft.log import exit_status, stdout
from qvft.terminal import program


@program
def main(arguments: Sequence[str] | None = None) -> int:
    """Embeds; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="qvft embed",
        description=__doc__,
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("model", type=expanded, help="run folder, model folder or hub id")
    parser.add_argument(
        "inputs", type=expanded, nargs="+", help="images, folders, globs, JSONL or text files"
    )
    parser.add_argument(
        "--out",
        type=given_path,
        required=True,
        metavar="F",
        help="new file: .parquet, .npy or .safetensors",
    )
    parser.add_argument(
        "--captions", action="store_true", help="of JSONL files with images: their captions"
    )
    parser.add_argument("--batch-size", type=int, default=16, help="images or texts at once")
    parser.add_argument("--workers", type=int, default=2, help="processes that decode images")
    given = parser.parse_args(arguments)
    return exit_status(lambda: embed(given))


def embed(given: argparse.Namespace) -> None:
    """Inputs, model, vectors, file, next command."""
    from qvft.checking.before_torch import require_models
    from qvft.data.embed_inputs import resolve_embed_inputs
    from qvft.files import require_new
    from qvft.inference.vector_file import require_suffix, write_vectors
    from qvft.recipe.command_line import require_least
    from qvft.setup.itc_heads import require_contrast
    from qvft.setup.resolve_model import resolve_model

    size, workers = given.batch_size, given.workers
    require_least(given, batch_size=1, workers=0)
    require_suffix(given.out)
    require_new(given.out)
    images, texts = resolve_embed_inputs(given.inputs, captions=given.captions)
    opened = resolve_model(given.model)
    require_models(opened.recipe)
    if texts:
        require_contrast(opened)

    # All checks that need no torch are done.
    from qvft.inference.embedding_model import EmbeddingModel, vector_settings

    kind = "text" if texts else "image"
    settings = {"kind": kind, **vector_settings(opened)}
    model = EmbeddingModel(opened)
    chunks = (texts[start : start + size] for start in range(0, len(texts), size))
    batches: Iterable[tuple[Sequence[str], Any]] = ((one, model.embed_texts(one)) for one in chunks)
    if images:
        batches = model.batches(images, batch_size=size, workers=workers, skip=True)
    found = write_vectors(given.out, settings, batches)
    rows, queries, width = found.shape
    stdout.print(f"{rows:,} {kind}s, {queries} x {width} numbers each, written to {given.out}")
    by_text = images and settings["made_by"]["contrast"]
    query = ["--text", "TEXT"] if by_text else [f"--{kind}", found.names[0]]
    stdout.print(f"next: {shlex.join(['qvft', 'search', str(given.out), *query])}")


if __name__ == "__main__":
    sys.exit(main())
