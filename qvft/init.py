"""`qvft init SOURCE`: from a folder or file of data to split data files, a recipe and commands.

SOURCE is a folder with a folder per class, a CSV or TSV file, COCO captions, VQA-RAD, SLAKE, LLaVA
or ShareGPT conversations, an image folder with metadata, parquet, or JSONL. Nothing is overwritten.
"""

from __future__ import annotations

import argparse
import contextlib
import re
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qvft.errors import RecipeError
from qvft.files import given_path, new_folder, require_new, write_text
from qvft.log import exit_status, stdout
from qvft.recipe.command_line import add_data_options, values_by_key
from qvft.terminal import program

if TYPE_CHECKING:
    from qvft.data.sample import Sample
    from qvft.new_project.detect_format import Found


@program
def main(arguments: Sequence[str] | None = None) -> int:
    """Writes a project; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="qvft init",
        description=__doc__,
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("source", type=given_path, help="folder or file of your data")
    parser.add_argument(
        "--out",
        type=given_path,
        metavar="DIR",
        help="new folder of data files and recipe; default: SOURCE_qvft in the working folder",
    )
    parser.add_argument("--format", help="of the data, where it is not detected")
    add_data_options(parser, class_texts=False)
    parser.add_argument(
        "--question", metavar="TEXT", help="of classes: the question that their name answers"
    )
    parser.add_argument(
        "--caption", metavar="TEXT", help="of classes: a caption, 'a photo of a {class}'"
    )
    parser.add_argument(
        "--group", metavar="COLUMN", help="split by its values (patient, product), not by image"
    )
    parser.add_argument(
        "--split",
        default="80,10,10",
        metavar="TRAIN,VAL,TEST",
        help="percent of the images, where the data has no splits; default: 80,10,10",
    )
    parser.add_argument("--seed", type=int, default=0, help="of the split; default: 0")
    parser.add_argument("--model", metavar="ID", help="base; default: what fits the GPU")
    given = parser.parse_args(arguments)
    return exit_status(lambda: start(given))


def start(given: argparse.Namespace) -> None:
    """Detects, reads, shows, splits, writes, and prints the next commands."""
    from qvft.data.write_jsonl import write_jsonl
    from qvft.new_project.detect_format import detect
    from qvft.new_project.read_data import described, read_found, sample_lines
    from qvft.new_project.recipe_text import recipe_text
    from qvft.new_project.split_samples import split_data
    from qvft.recipe.load import parse_recipe
    from qvft.recipe.next_command import after_training

    shares = shares_of(given.split)
    out = given.out or Path(f"{given.source.resolve().stem}_qvft")
    require_new(out, folder=True)
    found = detect(given.source, given.format)
    asked = ask_for_texts(given, found)
    data = read_found(found, options_of(given, found, asked))
    stdout.print(f"{found.path}: {described(found, data)}")
    stdout.print("three samples:")
    every = [sample for part in data.values() for sample in part]
    for sample in every[:: max(1, (len(every) - 1) // 2)][:3]:
        for line in sample_lines(sample):
            stdout.print(line)
    parts = split_data(data, shares, seed=given.seed, column=given.group, where=str(found.path))
    recipe, base = chosen_recipe(given, out, parts)
    comments = [
        f"Written by qvft init {shlex.quote(str(given.source))} (seed {given.seed}).",
        base,
        "Keys: docs/recipe_reference.md. Low scores: docs/low_score.md. Rates: docs/tuning.md.",
    ]
    out.parent.mkdir(parents=True, exist_ok=True)
    with new_folder(out) as folder:
        for role, samples in parts.items():
            write_jsonl(samples, folder / f"{role}.jsonl", copy_images=given.copy_images)
        write_text(folder / "recipe.yaml", recipe_text(recipe, comments))
    by = f"`{given.group}`" if given.group else "image"
    how = f"split by {by}, seed {given.seed}"
    print_written(out, parts, how if parts.keys() != data.keys() else "splits of the data")
    stdout.print(base)
    path = shlex.quote(str(out / "recipe.yaml"))
    stdout.print("next:")
    stdout.print(f"  qvft check {path} --preview {shlex.quote(str(out / 'preview.html'))}")
    stdout.print(f"  qvft train {path}")
    stdout.print(f"  {shlex.join(after_training(parse_recipe(recipe, where=str(out))))}")


def shares_of(split: str) -> dict[str, float]:
    """The shares of train, val and test; raises RecipeError."""
    from qvft.new_project.split_samples import ROLES

    numbers = [part.strip() for part in split.split(",")]
    if len(numbers) == 3 and all(re.fullmatch(r"\d{1,3}", one) for one in numbers):
        percent = [int(one) for one in numbers]
        if sum(percent) == 100 and percent[0] and percent[1]:
            return {role: one / 100 for role, one in zip(ROLES, percent, strict=True)}
    raise RecipeError(
        split,
        where="command line: --split",
        expected="three percentages that sum to 100, the first two above 0, e.g. 80,10,10",
    )


def ask_for_texts(given: argparse.Namespace, found: Found) -> dict[str, str]:
    """Texts of class names: flags, else what a person at a terminal answers, else the default."""
    from qvft.data.formats.class_folders import DEFAULT_TEXTS

    named = {"question": given.question, "caption": given.caption}
    texts = {key: text for key, text in named.items() if text}
    if texts or found.format != "class_folders":
        return texts
    if sys.stdin.isatty() and sys.stdout.isatty():
        default = DEFAULT_TEXTS["question"]
        with contextlib.suppress(EOFError):
            asked = input(f"question that a class's name answers [{default}]: ")
            return {"question": asked.strip() or default}
    return dict(DEFAULT_TEXTS)


def options_of(given: argparse.Namespace, found: Found, texts: Mapping[str, str]) -> dict[str, Any]:
    """Options of `read_samples` that are set; the format refuses those it does not take."""
    options = {
        "images": given.images,
        "columns": values_by_key(given.columns, "--columns"),
        "class_texts": dict(texts),
        "limit": given.limit,
        "allow_paths_outside_root": given.allow_paths_outside_root,
    }
    return {key: value for key, value in options.items() if value}


def chosen_recipe(
    given: argparse.Namespace, out: Path, parts: Mapping[str, Sequence[Sample]]
) -> tuple[dict[str, Any], str]:
    """A recipe for the GPU, or without one for the bundled model, and which base it has and why."""
    from qvft.new_project.fitting_base import fitting_base, gpu_memory
    from qvft.new_project.recipe_text import facts_of, recipe_of
    from qvft.recipe.load import parse_recipe

    gpu = gpu_memory()
    model, rows, needed = fitting_base(gpu and gpu[1], max_text_tokens=128)
    device = f"{gpu[0]} with {gpu[1] / 1e9:.0f} GB free" if gpu else "no GPU"
    why = f"{device}: {model['id']}"
    if needed:
        why += f", about {needed / 1e9:.1f} GB by estimate"
    if given.model:
        model, rows = {"id": given.model}, rows or 4
        why = f"{given.model}, as asked for"
    name = re.sub(r"[^\w.-]+", "_", out.name.removesuffix("_qvft")).strip("._")[:60] or "project"
    outside = not given.copy_images
    recipe = recipe_of(name, model, rows, str(out), facts_of(parts["train"]), outside=outside)
    parse_recipe(recipe, where=str(out / "recipe.yaml"))
    return recipe, f"Base: {why}."


def print_written(out: Path, parts: Mapping[str, Sequence[Sample]], how: str) -> None:
    """Prints the data files, how they were split, and images that training data share with them."""
    counts = ", ".join(f"{role}.jsonl {len(samples):,}" for role, samples in parts.items())
    stdout.print(f"written to {out}: {counts} images ({how}), recipe.yaml")
    trained = {one.image.name for one in parts["train"]}
    for role in [role for role in parts if role != "train"]:
        if shared := sum(one.image.name in trained for one in parts[role]):
            stdout.print(
                f"warning: {shared:,} images of {role}.jsonl are in train.jsonl too (data leakage)"
            )


if __name__ == "__main__":
    sys.exit(main())
