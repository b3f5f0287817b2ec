"""`python -m qvft.predict MODEL IMAGES... [--question Q] [--out F.jsonl] [--FIELD VALUE ...]`.

Captions or answers for images, folders, globs and JSONL files. MODEL is a run, a merged folder or a
hub id. Every field of transformers.GenerationConfig is an option: --num_beams 5 --do_sample true.
"""

from __future__ import annotations

import argparse
import itertools
import sys
from collections.abc import Sequence
from pathlib import Path

from qvft.log import exit_status, stderr


def main(arguments: Sequence[str] | None = None) -> int:
    """Predicts; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="qvft.predict",
        description=__doc__,
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("model", help="run folder, model folder or hub id")
    parser.add_argument("images", nargs="+", help="images, folders, globs, JSONL files")
    parser.add_argument("--question", help="asked about every image; without it, captions")
    parser.add_argument("--out", type=Path, help="JSONL file to write; default: standard output")
    parser.add_argument("--batch-size", type=int, default=16, help="rows decoded together")
    parser.add_argument("--workers", type=int, default=2, help="processes that decode images")
    given, further = parser.parse_known_args(arguments)
    return exit_status(lambda: predict(given, further))


def predict(given: argparse.Namespace, further: Sequence[str]) -> None:
    """Images, model, texts, JSONL."""
    from qvft.assembly.predicting import field_options, predict_images
    from qvft.data.wanted import wanted_rows
    from qvft.errors import DataError, RecipeError

    fields = field_options(further)
    for name, least in (("batch_size", 1), ("workers", 0)):
        if getattr(given, name) < least:
            raise RecipeError(
                f"{getattr(given, name)}",
                where=f"command line: --{name.replace('_', '-')}",
                expected=f"{least} or more",
            )
    if given.out is not None and given.out.is_dir():
        raise DataError("a folder", where=str(given.out), expected="a file to write")
    wanted = wanted_rows(given.images, question=given.question)
    rows = predict_images(
        given.model, wanted, fields, batch_size=given.batch_size, workers=given.workers
    )
    if given.out is None:
        for line in rows:
            print(line, flush=True)
        return
    first = list(itertools.islice(rows, 1))  # before an earlier file is replaced
    given.out.parent.mkdir(parents=True, exist_ok=True)
    count = 0
    with given.out.open("w", encoding="utf-8") as stream:
        lines = enumerate(itertools.chain(first, rows), start=1)
        for count, line in lines:  # noqa: B007 - the last count is reported
            stream.write(line + "\n")
            stream.flush()
    stderr.print(f"{count} rows written to {given.out}")


if __name__ == "__main__":
    sys.exit(main())
