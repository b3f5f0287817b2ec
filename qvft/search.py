"""`qvft search VECTORS --text T | --image F | --duplicates`: the most similar images or texts.

VECTORS is a file of `qvft embed`. Texts and images are embedded by the model that the file names,
or by --model, which must be the same one elsewhere. The search is exact.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from qvft.files import expanded, given_path
from qvft.log import exit_status, stdout
from qvft.terminal import program

if TYPE_CHECKING:
    from qvft.inference.vector_file import FloatArray, VectorFile


@program
def main(arguments: Sequence[str] | None = None) -> int:
    """Searches; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="qvft search",
        description=__doc__,
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("vectors", type=given_path, help="file of qvft embed")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--text", nargs="+", metavar="T", help="texts to search for")
    what.add_argument("--image", nargs="+", type=expanded, metavar="F", help="images to search for")
    what.add_argument("--duplicates", action="store_true", help="pairs that are nearly the same")
    parser.add_argument(
        "--threshold",
        type=float,
        default=0.98,
        metavar="S",
        help="with --duplicates: the least similarity; default: 0.98",
    )
    parser.add_argument("--model", type=expanded, help="the file's model, if it has moved")
    parser.add_argument("--top", type=int, default=10, metavar="K", help="default: 10")
    parser.add_argument(
        "--out", type=given_path, metavar="F.jsonl", help="new file of what is found"
    )
    given = parser.parse_args(arguments)
    return exit_status(lambda: search(given))


def search(given: argparse.Namespace) -> None:
    """Vectors, queries, table, JSONL, next command."""
    from rich.table import Table

    from qvft.files import require_new, write_text
    from qvft.inference.vector_file import read_vectors
    from qvft.json_files import json_text
    from qvft.recipe.command_line import require_least

    require_least(given, top=1)
    if given.out is not None:
        require_new(given.out)
    vectors = read_vectors(given.vectors)
    rows = list(pairs(given, vectors) if given.duplicates else found(given, vectors))
    if rows:
        table = Table(*rows[0], box=None)
        for row in rows:
            table.add_row(*map(str, row.values()))
        stdout.print(table)
    if given.out is not None:
        write_text(given.out, "".join(json_text(row) + "\n" for row in rows))
        stdout.print(f"{len(rows)} rows written to {given.out}")
    kind = vectors.settings["kind"]
    if given.duplicates and not rows:
        more = ["--duplicates", "--threshold", f"{given.threshold - 0.05:.2f}"]
    elif given.image:
        more = ["--duplicates"]
    else:
        more = [f"--{kind}", rows[0]["first" if given.duplicates else kind]]
    stdout.print(f"next: {shlex.join(['qvft', 'search', str(given.vectors), *more])}")


def found(given: argparse.Namespace, vectors: VectorFile) -> Iterator[dict[str, Any]]:
    """Rows of the most similar vectors of each query."""
    from qvft.inference.vector_search import nearest

    indices, scores = nearest(vectors, queries(given, vectors), given.top)
    kind = vectors.settings["kind"]
    for query, own, similar in zip(given.text or given.image, indices, scores, strict=True):
        for rank, (index, score) in enumerate(zip(own, similar, strict=True), start=1):
            row = {"query": query, "rank": rank, "similarity": round(float(score), 6)}
            yield {**row, kind: vectors.names[index]}


def pairs(given: argparse.Namespace, vectors: VectorFile) -> Iterator[dict[str, Any]]:
    """Rows of the most similar pairs."""
    from qvft.inference.vector_search import near_duplicates

    count, indices, scores = near_duplicates(vectors, given.threshold, given.top)
    more = f", the {given.top} most similar ones below (--top)" if count > given.top else ""
    stdout.print(f"{count:,} pairs with a similarity of {given.threshold} or more{more}")
    for (first, second), score in zip(indices, scores, strict=True):
        names = {"first": vectors.names[first], "second": vectors.names[second]}
        yield {"similarity": round(float(score), 6), **names}


def queries(given: argparse.Namespace, vectors: VectorFile) -> FloatArray:
    """Vectors of the texts or images to search for, by the file's model."""
    from qvft.checking.before_torch import require_models
    from qvft.data.predict_inputs import require_question
    from qvft.errors import CheckpointError
    from qvft.setup.itc_heads import no_contrast
    from qvft.setup.resolve_model import resolve_model

    for text in given.text or ():
        require_question(text, where="command line: --text", what="text")
    named, made_by = vectors.settings["model"], vectors.settings["made_by"]
    if given.text and not made_by["contrast"]:
        raise no_contrast(named)
    opened = resolve_model(given.model or named)
    require_models(opened.recipe)

    # All checks that need no torch are done.
    from qvft.inference.embedding_model import EmbeddingModel, vector_settings

    other = vector_settings(opened)["made_by"]
    if different := [key for key, value in made_by.items() if other.get(key) != value]:
        raise CheckpointError(
            f"is not the model of {given.vectors}: another {different[0]}",
            where=opened.name,
            expected=f"{named} as it was then",
            do="name it with --model, or embed again",
        )
    model = EmbeddingModel(opened)
    return model.embed_texts(given.text) if given.text else model.embed_images(given.image)


if __name__ == "__main__":
    sys.exit(main())
