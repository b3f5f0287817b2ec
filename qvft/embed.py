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
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from qvft.files import expanded, given_path
from qvft.log import exit_status, get_logger, stdout
from qvft.terminal import program

if TYPE_CHECKING:
    from qvft.data.sample import ImageSource
    from qvft.inference.embedding_model import EmbeddingModel

logger = get_logger("qvft.embed")


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
    batches = text_batches(model, texts, given) if texts else image_batches(model, images, given)
    found = write_vectors(given.out, settings, batches)
    rows, queries, width = found.shape
    stdout.print(f"{rows:,} {kind}s, {queries} x {width} numbers each, written to {given.out}")
    file, first = shlex.quote(str(given.out)), shlex.quote(found.names[0])
    by_text = settings["vectors"] == "contrast" and kind == "image"
    stdout.print(
        f"next: qvft search {file} " + ("--text 'TEXT'" if by_text else f"--{kind} {first}")
    )


def text_batches(
    model: EmbeddingModel, texts: Sequence[str], given: argparse.Namespace
) -> Iterator[tuple[Sequence[str], Any]]:
    """Texts with their vectors."""
    for start in range(0, len(texts), given.batch_size):
        batch = texts[start : start + given.batch_size]
        yield batch, model.embed_texts(batch)


def image_batches(
    model: EmbeddingModel, images: Sequence[ImageSource], given: argparse.Namespace
) -> Iterator[tuple[Sequence[str], Any]]:
    """Names of usable images with their vectors; the others are counted in a warning."""
    names, failed = iter(image.name for image in images), []
    pace = {"batch_size": given.batch_size, "workers": given.workers}
    for vectors, problems in model.image_batches(images, **pace):
        named = [(next(names), problem) for problem in problems]
        failed += [problem for _, problem in named if problem is not None]
        yield [name for name, problem in named if problem is None], vectors
    if failed:
        says = "images that cannot be decoded, left out: %d of %d, first: %s"
        logger.warning(says, len(failed), len(images), failed[0])


if __name__ == "__main__":
    sys.exit(main())
