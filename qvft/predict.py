"""`qvft predict MODEL IMAGES... [--question Q] [--out F.jsonl] [--FIELD VALUE ...]`.

Captions or answers for images, folders, globs and JSONL files. MODEL is a run, a merged folder or a
hub id. Every field of transformers.GenerationConfig is an option: --num_beams 5 --do_sample true.
--scores adds log-probabilities; --candidates "yes,no" ranks given texts instead of generating one.
With --classes "cat,dog,car" images are classified zero-shot instead; MODEL must be a run trained
with itc, or a retrieval checkpoint.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from qvft.files import expanded, given_path
from qvft.log import exit_status, shown, stderr
from qvft.terminal import program

PROMPT = "a photo of a {}"
OF_GENERATION = ("scores", "seed")
OF_TEXTS = (
    "question", "prompt", "preprocessing", "candidates", "abstain_below", *OF_GENERATION,
)  # fmt: skip


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
    parser.add_argument("--prompt", help="text before a caption, which goes on from it")
    parser.add_argument(
        "--scores", action="store_true", help="add the log-probability of each generated text"
    )
    parser.add_argument(
        "--candidates",
        type=expanded,
        metavar="A,B,...",
        help="rank these texts, or those of a text file, one per line, by their likelihood",
    )
    parser.add_argument(
        "--rank-by",
        choices=("sum", "mean"),
        help="with --candidates: log-probability of the text (default), or its mean per token",
    )
    parser.add_argument(
        "--abstain-below",
        type=float,
        metavar="P",
        help="mark texts with a lower probability as abstained",
    )
    parser.add_argument("--seed", type=int, help="of sampling; default: the run's")
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
    from qvft.data.predict_inputs import read_names, resolve_inputs
    from qvft.errors import RecipeError
    from qvft.locks import beside
    from qvft.recipe.next_command import demo_of, print_next
    from qvft.setup.itc_heads import require_contrast
    from qvft.setup.resolve_model import resolve_model

    check_options(given)
    rows = resolve_inputs(given.images, question=given.question)
    if given.candidates is not None:
        names = tuple(dict.fromkeys(read_names(given.candidates)))
        if not all(names) or not names:
            raise RecipeError("an empty one", where="command line: --candidates")
        rows = [replace(row, candidates=names) for row in rows]
    processing, prompt = given.preprocessing, given.prompt
    overrides = [] if processing is None else [f"data.preprocessing={processing}"]
    overrides += [] if prompt is None else [f"data.prompt.caption={json.dumps(prompt)}"]
    opened = resolve_model(given.model, overrides=overrides)
    require_models(opened.recipe)
    if given.classes is not None:
        refuse_beside("--classes", OF_TEXTS, given, further)
        require_contrast(opened)
    elif given.candidates is not None:
        refuse_beside("--candidates", OF_GENERATION, given, further)

    # All checks that need no torch are done.
    from qvft.inference.prediction_file import write_predictions

    pace = {"batch_size": given.batch_size, "workers": given.workers}
    if given.classes is not None:
        from qvft.evaluation.zero_shot import Classes, classifications

        prompts = tuple((given.prompts or PROMPT).split("|"))
        found = classifications(opened, rows, Classes(read_names(given.classes), prompts), **pace)
    else:
        from qvft.inference.log_probs import Scoring
        from qvft.inference.predictions import field_options, predictions

        generate = given.candidates is None
        scoring = Scoring(
            log_probs=generate and (given.scores or given.abstain_below is not None),
            rank_by=None if generate else given.rank_by or "sum",
            generate=generate,
            abstain_below=given.abstain_below,
        )
        fields = field_options(further)
        found = predictions(opened, rows, fields, seed=given.seed, scoring=scoring, **pace)
    if given.out is None:
        failed = 0
        for line in found.lines():
            print(shown(line), flush=True)
            failed += "error" in json.loads(line)
        if failed:
            stderr.print(f"{failed} of {len(rows)} rows with an error instead of a text")
        return
    with beside(given.out):
        done = write_predictions(given.out, found, resume=given.resume)
    before = f", {done.before} of them before" if done.before else ""
    errors = f", {done.errors} with an error instead of a text" if done.errors else ""
    stderr.print(f"{done.rows} rows written to {given.out}{before}{errors}", highlight=False)
    print_next(demo_of(given.model))


def check_options(given: argparse.Namespace) -> None:
    """Refuses what can be refused before an image or model is looked at; raises `UserError`."""
    from qvft.errors import DataError, RecipeError
    from qvft.files import require_writable
    from qvft.recipe.command_line import require_least
    from qvft.recipe.section import MOST_SEED

    most = {"seed": MOST_SEED, "abstain_below": 1}
    require_least(given, most=most, batch_size=1, workers=0, seed=0, abstain_below=0)
    if given.resume and given.out is None:
        raise RecipeError("has no --out", where="command line: --resume", do="name the file")
    for name, needs in (("prompts", "classes"), ("rank_by", "candidates")):
        if getattr(given, name) is not None and getattr(given, needs) is None:
            option = f"--{name.replace('_', '-')}"
            raise RecipeError(f"has no --{needs}", where=f"command line: {option}", do="name them")
    if given.prompt is not None and given.question is not None:
        raise RecipeError(
            "is for captions, and --question asks", where="command line: --prompt", do="remove one"
        )
    if "" in given.images:
        raise DataError("an empty name", where="command line", expected="images")
    inputs = {Path(name).resolve() for name in given.images}
    if given.out is not None and given.out.resolve() in inputs:
        raise DataError("is also read", where=f"--out {given.out}", do="name another file")
    if given.out is not None:
        require_writable(given.out)
        if given.out.exists() and not given.out.is_file():
            raise DataError("a device", where=str(given.out), expected="a file to write")


def refuse_beside(
    option: str, others: Sequence[str], given: argparse.Namespace, further: Sequence[str]
) -> None:
    """Refuses options, and fields of `generate`, that go with texts that are generated.

    Raises:
        RecipeError: one of them is given.
    """
    from qvft.errors import RecipeError

    named = [one for one in others if not any(getattr(given, one) is o for o in (None, False))]
    senseless = [*(f"--{one.replace('_', '-')}" for one in named), *further]
    if senseless:
        raise RecipeError(
            f"goes with texts that are generated: {senseless[0]}",
            where=f"command line: {option}",
            do="leave one of them out",
        )


if __name__ == "__main__":
    sys.exit(main())
