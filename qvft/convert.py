"""`qvft convert FORMAT PATH OUT.jsonl`: converts any dataset format to the custom JSONL.

With --to trl its pairs of chosen and rejected texts are written to OUT.parquet, in trl's columns.
FORMAT `predictions` reads the output of qvft eval or predict; --to coco_results or vqa_results
writes it to OUT.json as evaluation servers take it.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from qvft.errors import RecipeError
from qvft.files import expanded, given_path, require_new
from qvft.log import exit_status, stdout
from qvft.recipe.command_line import add_data_options, values_by_key
from qvft.recipe.next_command import print_next
from qvft.terminal import program


@program
def main(arguments: Sequence[str] | None = None) -> int:
    """Converts; returns the exit status."""
    from qvft.data.formats.format_table import FORMATS

    parser = argparse.ArgumentParser(
        prog="qvft convert",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,  # keeps the lines of --list
    )
    parser.add_argument("format", help=f"one of {', '.join(FORMATS)}; --list describes them")
    parser.add_argument("path", type=expanded, help="file, folder or what else the format reads")
    parser.add_argument(
        "out", type=given_path, help="new file; image paths are relative to its folder"
    )
    parser.add_argument("--split", help="which split, where there are several")
    add_data_options(parser)
    parser.add_argument("--questions", type=expanded, metavar="F", help="questions file of vqa_v2")
    parser.add_argument(
        "--annotations", type=expanded, metavar="F", help="annotations file of vqa_v2"
    )
    parser.add_argument(
        "--to",
        choices=("jsonl", "trl", "coco_results", "vqa_results"),
        default="jsonl",
        help="trl: pairs alone, as images, prompt, chosen, rejected; *_results: of predictions",
    )
    parser.add_argument(
        "--conversational", action="store_true", help="of trl: texts as lists of messages"
    )
    parser.add_argument("--unpaired", action="store_true", help="of trl: prompt, completion, label")
    formats = "\n".join(
        f"{one.name:14} {one.description}{' (can be streamed)' if one.stream else ''}"
        for one in FORMATS.values()
    )
    parser.add_argument(
        "--list", action="version", version=formats, help="print the formats and exit"
    )
    given = parser.parse_intermixed_args(arguments)
    return exit_status(lambda: convert(given))


def convert(given: argparse.Namespace) -> None:
    """Reads, writes, and prints one line of summary."""
    require_options(given)
    require_new(given.out)
    if given.format == "predictions":
        from qvft.evaluation.official.predictions import write_results

        rows, others = write_results(Path(given.path), given.out, layout=given.to)
        more = f"; {others} rows of the other kind left out" if others else ""
        stdout.print(f"{rows} rows written to {given.out}{more}")
        return

    from qvft.data.formats.format_table import read_samples

    options = ("split", "images", "questions", "annotations", "limit", "allow_paths_outside_root")
    samples = read_samples(
        given.format,
        given.path,
        columns=values_by_key(given.columns, "--columns"),
        class_texts=values_by_key(given.class_texts, "--class-texts"),
        **{name: getattr(given, name) for name in options},
    )
    captions = sum(len(sample.captions) for sample in samples)
    questions = sum(len(sample.questions) for sample in samples)
    pairs = sum(len(sample.pairs) for sample in samples)
    if given.to == "trl":
        from qvft.data.write_trl import write_trl

        rows = write_trl(
            samples, given.out, conversational=given.conversational, unpaired=given.unpaired
        )
        rest = f"; left out: {captions} captions, {questions} questions"
        counts = f"{pairs} pairs in {rows} rows"
        images = rest if captions or questions else ""
    else:
        from qvft.data.write_jsonl import write_jsonl

        copied = write_jsonl(samples, given.out, copy_images=given.copy_images)
        counts = f"{len(samples)} images, {captions} captions, {questions} questions"
        counts += f", {pairs} pairs" if pairs else ""
        images = f" ({copied} images written beside it)" if copied else ""
    stdout.print(f"{counts} written to {given.out}{images}")
    if captions or questions:
        print_next([] if given.to == "trl" else ["qvft", "init", str(given.out)])


def require_options(given: argparse.Namespace) -> None:
    """Refuses options that do not go together; raises `RecipeError`."""
    to_trl = given.to == "trl"
    for option, wanted in (("conversational", True), ("unpaired", True), ("copy_images", False)):
        if getattr(given, option) and to_trl != wanted:
            raise RecipeError(
                f"does not go with --to {given.to}",
                where=f"command line: --{option.replace('_', '-')}",
                do="remove it",
            )
    if (given.format == "predictions") != given.to.endswith("_results"):
        raise RecipeError(
            f"{given.format} --to {given.to}",
            where="command line",
            expected="predictions with --to coco_results or vqa_results, and only these together",
        )
    if to_trl and given.out.suffix != ".parquet":
        raise RecipeError(
            f"{given.out}",
            where="command line: OUT",
            expected="a name that ends in .parquet, with --to trl",
        )


if __name__ == "__main__":
    sys.exit(main())
