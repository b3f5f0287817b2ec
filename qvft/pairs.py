"""`qvft pairs MODEL --metric NAME --out F.jsonl`: preference pairs from samples and a metric.

Several texts per image or question are drawn from MODEL (a run, a merged folder or a hub id) and
scored against the references; the best and the worst make a pair. The data is the run's training
data, or --data. Every field of transformers.GenerationConfig is an option: --top_p 0.9. With
--predictions F the texts of a file are scored, and nothing is drawn.
"""

from __future__ import annotations

import argparse
import math
import shlex
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from qvft.files import expanded, given_path
from qvft.log import exit_status, stdout
from qvft.recipe.command_line import add_data_options, values_by_key
from qvft.terminal import program

if TYPE_CHECKING:
    from qvft.evaluation.pairs.best_and_worst import Chosen
    from qvft.recipe.source import Source
    from qvft.setup.resolve_model import ResolvedModel


@program
def main(arguments: Sequence[str] | None = None) -> int:
    """Makes pairs; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="qvft pairs",
        description=__doc__,
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("model", type=expanded, help="run folder, model folder or hub id")
    parser.add_argument(
        "--out", type=given_path, required=True, metavar="F.jsonl", help="new file of pairs"
    )
    parser.add_argument(
        "--metric",
        required=True,
        help="cider, bleu4, rouge_l, vqa_accuracy, exact_match, token_f1, or "
        "package.module.name of your own (docs/reward.md)",
    )
    parser.add_argument(
        "--samples", type=int, default=8, metavar="K", help="texts per row; default: 8"
    )
    parser.add_argument(
        "--temperature", type=float, default=1.0, metavar="T", help="of sampling; default: 1"
    )
    parser.add_argument("--seed", type=int, help="of sampling; default: the run's")
    parser.add_argument(
        "--against-reference",
        action="store_true",
        help="the reference is the chosen text, the worst sample below it the rejected one",
    )
    parser.add_argument(
        "--predictions",
        type=given_path,
        metavar="F",
        help="JSONL with `texts` per row, as qvft predict --num_return_sequences writes it",
    )
    parser.add_argument(
        "--data", type=expanded, metavar="PATH", help="data; default: the run's training data"
    )
    parser.add_argument("--format", help="its format; default: jsonl")
    parser.add_argument("--split", help="its split, where there are several")
    add_data_options(parser)
    parser.add_argument(
        "--texts",
        choices=("all", "captions", "questions"),
        help="rows to use; default: all that the metric scores",
    )
    parser.add_argument(
        "--batch-size", type=int, default=64, help="texts decoded together; default: 64"
    )
    parser.add_argument("--workers", type=int, default=2, help="processes that decode images")
    given, further = parser.parse_known_args(arguments)
    return exit_status(lambda: make_pairs(given, further))


def make_pairs(given: argparse.Namespace, further: Sequence[str]) -> None:
    """Data, texts, scores, pairs, JSONL, and a few lines of summary."""
    from qvft.checking.before_torch import require_models
    from qvft.evaluation.pairs.best_and_worst import best_and_worst, require_pairs
    from qvft.evaluation.pairs.prediction_texts import texts_of_file
    from qvft.evaluation.pairs.rows import rows_for, samples_with
    from qvft.evaluation.pairs.text_scores import scorable
    from qvft.files import require_new
    from qvft.setup.resolve_model import resolve_model

    check_options(given, further)
    require_new(given.out)
    opened = resolve_model(given.model)
    require_models(opened.recipe)
    some = {"limit": given.limit, "texts": given.texts}
    changes = {key: value for key, value in some.items() if value is not None}
    rows = rows_for(opened, data_source(given, changes), changes)
    texts: Sequence[Sequence[str]]
    if given.predictions is not None:
        by_id = texts_of_file(given.predictions, rows)
        rows = [row for row in rows if row.id in by_id]
        rows = scorable(rows, given.metric, against_reference=given.against_reference)
        texts = [by_id[row.id] for row in rows]
    else:
        rows = scorable(rows, given.metric, against_reference=given.against_reference)
        # All checks that need no torch are done.
        from qvft.evaluation.pairs.sampling import sampled_texts
        from qvft.inference.predictions import field_options

        texts = sampled_texts(
            opened,
            rows,
            count=given.samples,
            seed=opened.recipe.run.seed if given.seed is None else given.seed,
            fields={"temperature": given.temperature, **field_options(further)},
            batch_size=given.batch_size,
            workers=given.workers,
        )
    chosen = best_and_worst(rows, texts, given.metric, against_reference=given.against_reference)
    require_pairs(chosen, given.metric)

    from qvft.data.write_jsonl import write_jsonl

    write_jsonl(samples_with(chosen.pairs), given.out, copy_images=given.copy_images)
    report(given, chosen, opened, rows=len(rows))


def data_source(given: argparse.Namespace, changes: Mapping[str, Any]) -> Source | None:
    """The data of --data; None without it."""
    from qvft.evaluation.pairs.rows import source_of

    if given.data is None:
        return None
    keys = {"split": given.split, "images": given.images, **changes}
    keys["columns"] = values_by_key(given.columns, "--columns")
    keys["class_texts"] = values_by_key(given.class_texts, "--class-texts")
    keys["allow_paths_outside_root"] = given.allow_paths_outside_root
    return source_of({"format": given.format or "jsonl", "path": given.data, **keys})


def report(given: argparse.Namespace, chosen: Chosen, opened: ResolvedModel, *, rows: int) -> None:
    """Prints what was made, and the next command."""
    from statistics import mean

    from qvft.evaluation.pairs.next_command import preference_command

    pairs = [pair for _, pair in chosen.pairs]
    longer = mean(len(pair.chosen.split()) > len(pair.rejected.split()) for pair in pairs)
    words = [
        mean(len(text.split()) for text in texts)
        for texts in zip(*((pair.chosen, pair.rejected) for pair in pairs), strict=True)
    ]
    lines = [
        f"{len(pairs):,} pairs of {rows:,} rows written to {given.out}",
        f"{given.metric}: chosen {mean(chosen.chosen_scores):.3g}, rejected "
        f"{mean(chosen.rejected_scores):.3g} on average",
        f"words: chosen {words[0]:.1f}, rejected {words[1]:.1f} on average; the chosen text is "
        f"longer in {longer:.0%} of pairs",
    ]
    if rest := chosen.described():
        lines.insert(1, f"without a pair: {rest}")
    lines.append(f"next: {shlex.join(preference_command(opened, given.out))}")
    for line in lines:
        stdout.print(line, highlight=False, markup=False, soft_wrap=True)


def check_options(given: argparse.Namespace, further: Sequence[str]) -> None:
    """Refuses what can be refused before data is read; raises `UserError`."""
    from qvft.errors import RecipeError
    from qvft.evaluation.pairs.text_scores import require_metric
    from qvft.recipe.command_line import require_least

    def refuse(option: str, given: str, **more: str) -> None:
        raise RecipeError(given, where=f"command line: {option}", **more)

    require_least(given, samples=2, batch_size=1, workers=0, limit=1)
    if not 0 < given.temperature < math.inf:
        refuse("--temperature", f"{given.temperature}", expected="above 0")
    if given.data is None:
        for option in ("format", "split", "images", "columns", "class-texts", "allow-outside"):
            name = "allow_paths_outside_root" if option == "allow-outside" else option
            if getattr(given, name.replace("-", "_")):
                refuse(f"--{option}", "has no --data", do="name the data")
    if given.predictions is not None:
        names = ["--seed"] if given.seed is not None else []
        for option in (*names, *further):
            refuse(option, "goes with texts that are drawn", do="leave it or --predictions out")
    elif "num_return_sequences" in " ".join(further).replace("-", "_"):
        refuse("--num_return_sequences", "is set by --samples", do="use --samples")
    require_metric(given.metric)


if __name__ == "__main__":
    sys.exit(main())
