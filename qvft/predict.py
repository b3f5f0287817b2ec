"""`qvft predict MODEL IMAGES... [--question Q] [--out F.jsonl] [--FIELD VALUE ...]`.

Captions or answers for images, folders, globs and JSONL files. MODEL is a run, a merged folder or a
hub id. Every field of transformers.GenerationConfig is an option: --num_beams 5 --do_sample true.
With --classes "cat,dog,car" images are classified zero-shot instead; MODEL must be a run trained
with itc, or a retrieval checkpoint.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qvft.files import expanded, given_path
from qvft.log import exit_status, shown, stderr
from qvft.terminal import program

if TYPE_CHECKING:
    from qvft.inference.prediction_file import Written

PROMPT = "a photo of a {}"


@program
def main(arguments: Sequence[str] | None = None) -> int:
    """Predicts; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="qvft predict",
        description=__doc__,
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("model", type=expanded, help="run folder, model folder or hub id")
    parser.add_argument(
        "images", type=expanded, nargs="+", help="images, folders, globs, JSONL files"
    )
    parser.add_argument("--question", help="asked about every image; without it, captions")
    parser.add_argument(
        "--classes",
        type=expanded,
        metavar="A,B,...",
        help="sort images into these, or into those of a text file, one per line",
    )
    parser.add_argument(
        "--prompts",
        metavar='"P|P"',
        help=f"with --classes: texts in which {{}} stands for the class; default: {PROMPT}",
    )
    parser.add_argument(
        "--out", type=given_path, help="JSONL file to write; default: standard output"
    )
    parser.add_argument("--resume", action="store_true", help="go on where --out was stopped")
    parser.add_argument(
        "--generation-config",
        type=given_path,
        metavar="F",
        help="a generation_config.json; options win",
    )
    parser.add_argument(
        "--preprocessing",
        choices=("checkpoint", "plain"),
        help="images as the checkpoint's processor makes them, or stretched to its size with "
        "values from 0 to 1; default: as the model was trained",
    )
    parser.add_argument("--batch-size", type=int, default=16, help="rows decoded together")
    parser.add_argument("--workers", type=int, default=2, help="processes that decode images")
    given, further = parser.parse_known_args(arguments)
    again = "continue with --resume" if given.out is not None else ""
    return exit_status(lambda: predict(given, further), when_stopped=again)


def predict(given: argparse.Namespace, further: Sequence[str]) -> None:
    """Images, model, texts, JSONL."""
    from qvft.checking.before_torch import require_models
    from qvft.data.predict_inputs import resolve_inputs
    from qvft.locks import beside
    from qvft.setup.itc_heads import require_contrast
    from qvft.setup.resolve_model import resolve_model

    check_options(given)
    rows = resolve_inputs(given.images, question=given.question)
    processing = given.preprocessing
    overrides = [] if processing is None else [f"data.preprocessing={processing}"]
    opened = resolve_model(given.model, overrides=overrides)
    require_models(opened.recipe)
    if given.classes is not None:
        check_options_of_classes(given, further)
        require_contrast(opened)

    # All checks that need no torch are done.
    asked: Any  # classes, or fields of `generate`
    lines_of: Callable[..., Iterator[str]]
    write: Callable[..., Written]
    if given.classes is not None:
        from qvft.evaluation.zero_shot import (
            Classes,
            class_lines,
            classify_to_file,
            read_names,
        )

        asked = Classes(read_names(given.classes), tuple((given.prompts or PROMPT).split("|")))
        lines_of, write = class_lines, classify_to_file
    else:
        from qvft.inference.generation_config import read_fields
        from qvft.inference.predict_to_file import field_options, predict_lines, predict_to_file

        asked = read_fields(given.generation_config) if given.generation_config else {}
        asked |= field_options(further)
        lines_of, write = predict_lines, predict_to_file
    pace = {"batch_size": given.batch_size, "workers": given.workers}
    if given.out is None:
        failed = 0
        for line in lines_of(opened, rows, asked, **pace):
            print(shown(line), flush=True)
            failed += "error" in json.loads(line)
        if failed:
            stderr.print(f"{failed} of {len(rows)} rows with an error instead of a text")
        return
    with beside(given.out):
        done = write(opened, rows, asked, given.out, resume=given.resume, **pace)
    before = f", {done.before} of them before" if done.before else ""
    errors = f", {done.errors} with an error instead of a text" if done.errors else ""
    stderr.print(f"{done.rows} rows written to {given.out}{before}{errors}", highlight=False)


def check_options(given: argparse.Namespace) -> None:
    """Refuses what can be refused before an image or model is looked at; raises `UserError`."""
    from qvft.errors import DataError, RecipeError
    from qvft.files import require_writable
    from qvft.recipe.command_line import require_least

    require_least(given, batch_size=1, workers=0)
    if given.resume and given.out is None:
        raise RecipeError("has no --out", where="command line: --resume", do="name the file")
    if given.prompts is not None and given.classes is None:
        raise RecipeError("has no --classes", where="command line: --prompts", do="name them")
    if "" in given.images:
        raise DataError("an empty name", where="command line", expected="images")
    inputs = {Path(name).resolve() for name in given.images}
    if given.out is not None and given.out.resolve() in inputs:
        raise DataError("is also read", where=f"--out {given.out}", do="name another file")
    if given.out is not None:
        require_writable(given.out)
        if given.out.exists() and not given.out.is_file():
            raise DataError("a device", where=str(given.out), expected="a file to write")


def check_options_of_classes(given: argparse.Namespace, further: Sequence[str]) -> None:
    """Refuses what says how to ask or generate; raises `RecipeError`."""
    from qvft.errors import RecipeError

    senseless = [
        *(["--question"] if given.question is not None else []),
        *(["--preprocessing"] if given.preprocessing is not None else []),
        *(["--generation-config"] if given.generation_config is not None else []),
        *further,
    ]
    if senseless:
        raise RecipeError(
            f"goes with texts that are generated: {senseless[0]}",
            where="command line: --classes",
            do="leave one of them out",
        )


if __name__ == "__main__":
    sys.exit(main())
