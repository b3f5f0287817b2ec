"""`qvft score caption|vqa|medical|predictions ...`: scores prediction files of any system.

The same scores as the official evaluators, without Java and without a model; medical answers are
scored by several definitions, each with name and version. predictions: the rows of qvft eval.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from qvft.files import given_path
from qvft.log import exit_status, stdout
from qvft.terminal import program

FILES = {
    "caption": {
        "references": "COCO captions: images and annotations",
        "predictions": "list of image_id and caption",
    },
    "vqa": {
        "questions": "VQA v2 questions",
        "annotations": "VQA v2 annotations",
        "predictions": "list of question_id and answer",
    },
    "medical": {
        "rows": "JSON or JSONL: id, answer_type, question, reference, prediction",
    },
    "predictions": {
        "predictions": "JSONL as of qvft eval: id, image, question, prediction, references",
    },
}


@program
def main(arguments: Sequence[str] | None = None) -> int:
    """Scores; returns the exit status."""
    parser = argparse.ArgumentParser(prog="qvft score", description=__doc__)
    tasks = parser.add_subparsers(dest="task", required=True)
    for task, files in FILES.items():
        options = tasks.add_parser(task)
        for name, holds in files.items():
            options.add_argument(
                f"--{name}", type=given_path, required=True, metavar="F", help=holds
            )
        if task == "caption":
            options.add_argument(
                "--metrics", nargs="+", default=[], type=str.upper, choices=("METEOR",),
                help="METEOR too, by the official Java program",
            )  # fmt: skip
        if task == "predictions":
            options.add_argument(
                "--metrics", nargs="+", default=["auto"], help="as eval.metrics of a recipe"
            )
        if task == "medical":
            options.add_argument(
                "--candidates", type=given_path, metavar="F",
                help="answers that LLaVA-Med's open accuracy chooses from",
            )  # fmt: skip
        if task == "vqa":
            options.add_argument("--rules", choices=("2017", "2021"), default="2017")
        options.add_argument("--json", type=given_path, metavar="F", help="write all scores to F")
    given = parser.parse_args(arguments)
    return exit_status(lambda: score(given))


def score(given: argparse.Namespace) -> None:
    """Files, scores, screen, JSON."""
    from qvft.evaluation.official.scored import require_output, scored_table, write

    files = {name: getattr(given, name) for name in FILES[given.task]}
    if given.task == "medical" and given.candidates is not None:
        files["candidates"] = given.candidates
    if given.json is not None:
        require_output(given.json, files)
    if given.task == "medical":
        from qvft.evaluation.official.medical import score_medical_file

        scored = score_medical_file(**files)
    elif given.task == "predictions":
        from qvft.evaluation.official.predictions import score_predictions_file

        scored = score_predictions_file(**files, metrics=given.metrics)
    elif given.task == "caption":
        from qvft.evaluation.official.captions import score_caption_files

        scored = score_caption_files(**files, with_meteor=bool(given.metrics))
    else:
        from qvft.evaluation.official.vqa import score_vqa_files

        scored = score_vqa_files(**files, rules=given.rules)
    stdout.print(scored_table(scored))
    for note in scored.notes:
        stdout.print(note, markup=False, highlight=False)
    if given.json is not None:
        write(given.json, scored)


if __name__ == "__main__":
    sys.exit(main())
