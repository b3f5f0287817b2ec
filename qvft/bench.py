"""`qvft bench RECIPE [key.path=value ...] [--json F] [--chart F]`: benchmarks a recipe.

Training throughput and memory: a plain implementation (one image per text, logits at every
position) against qvft, and each optimization alone. Inference throughput: one `generate` call per
text against qvft's batches. All in one process, alternating, on the same model.
`--only preference`: pairs of a preference phase, trl's own DPOTrainer against qvft.
`--only reward`: samples and updates of a reward phase, one by one against qvft.
`--only caption`: one caption of a QVision, the published loop without a KV cache against qvft.
`--whole`: whole commands, each in a process of its own, alternating: a plain PEFT script,
`qvft train` with an empty feature cache, and with the filled one.
`--serve`: likewise `qvft predict` of one image and of `data.eval` against a plain script;
`model.id` is a merged model.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from qvft.errors import RecipeError
from qvft.files import expanded, given_path, require_writable
from qvft.log import exit_status, stdout
from qvft.recipe.command_line import RecipeParser
from qvft.terminal import program

PLAIN_SCRIPTS = {"whole": "plain_peft.py", "serve": "plain_predict.py"}


@program
def main(arguments: Sequence[str] | None = None) -> int:
    """Measures; returns the exit status."""
    parser = RecipeParser(prog="qvft bench", description=__doc__)
    parser.add_argument("recipe", type=expanded, help="YAML file")
    parser.add_overrides()
    measure = parser.add_mutually_exclusive_group()
    measure.add_argument(
        "--only",
        choices=("train", "predict", "preference", "reward", "caption"),
        help="measure this alone",
    )
    for name, does in (("whole", "qvft train"), ("serve", "qvft predict")):
        says = f"measure `{does}` alone, as a whole command"
        measure.add_argument(f"--{name}", dest="only", action="store_const", const=name, help=says)
    parser.add_argument(
        "--script",
        type=given_path,
        metavar="F",
        help="plain side of --whole or --serve; default: that of benchmarks/ in qvft's repository",
    )
    parser.add_argument("--rounds", type=int, default=3, help="the median of this many is taken")
    parser.add_argument("--steps", type=int, default=8, help="training steps of a round")
    parser.add_argument("--json", type=given_path, metavar="F", help="write what was measured to F")
    parser.add_argument(
        "--chart", type=given_path, metavar="F", help="draw training's part: .svg, .png"
    )
    given = parser.parse_intermixed_args(arguments)
    return exit_status(lambda: bench(given))


def bench(given: argparse.Namespace) -> None:
    """Recipe, rounds, ratios, JSON, chart."""
    from qvft.checking.before_torch import require_models, texts_of
    from qvft.evaluation.figure_formats import figure_format
    from qvft.json_files import write_json
    from qvft.recipe.load import load_recipe

    for name in ("rounds", "steps"):
        if getattr(given, name) < 1:
            where = f"command line: --{name}"
            raise RecipeError(f"{getattr(given, name)}", where=where, expected="1 or more")
    if given.chart is not None and given.only not in (None, "train"):
        raise RecipeError("--chart", where="command line", expected="training to be measured")
    recipe = load_recipe(given.recipe, given.overrides)
    for path in (given.json, given.chart):
        if path is not None:
            require_writable(path)
    if given.chart is not None:
        figure_format(given.chart, option="--chart")

    if given.only in (None, "predict", "serve") and recipe.data.eval is None:
        raise RecipeError("is not set", where="data.eval", do="set it, or measure --only train")
    script = plain_script(given)
    require_models(recipe)
    of_training = dict.fromkeys(("train", "preference", "reward", "whole"), ["train"])
    read = {**of_training, "predict": ["eval"], "serve": ["eval"], "caption": []}
    texts_of(recipe, read.get(given.only, ["train", "eval"]))

    # All checks that need no torch are done.
    from qvft.benchmark import caption, prediction, preference, report, reward, training

    found: dict[str, Any] = {"machine": report.machine(recipe)}
    if given.only in PLAIN_SCRIPTS:
        from qvft.benchmark.whole import bench_serve, bench_whole

        line = {"script": script, "rounds": given.rounds}
        if given.only == "whole":
            whole = bench_whole(recipe, named=given.recipe, overrides=given.overrides, **line)
        else:
            whole = bench_serve(recipe, **line)
        for title, commands in whole.items():
            stdout.print(report.command_table(commands, title=title.replace("_", " ")))
            found[title] = asdict(commands)
    steps = {"rounds": given.rounds, "steps": given.steps}
    if given.only in (None, "train"):
        measured = training.bench_training(recipe, **steps)
        stdout.print(report.training_table(measured))
        found.update(report.training_json(measured))
        if given.chart is not None:
            from qvft.benchmark.chart import save_chart

            save_chart(measured, given.chart)
    result: Any = None
    name = given.only or "predict"
    if name == "predict":
        result = prediction.bench_prediction(recipe, rounds=given.rounds)
    elif name == "caption":
        result = caption.bench_caption(recipe, rounds=given.rounds)
    elif name == "preference":
        result = preference.bench_preference(recipe, **steps)
    elif name == "reward":
        result = reward.bench_reward(recipe, **steps)
    if result is not None:
        stdout.print(report.LINES[name](result))
        found[name] = asdict(result)
    if given.json is not None:
        write_json(given.json, found)


def plain_script(given: argparse.Namespace) -> Path:
    """The plain side of whole commands, `benchmarks/` in the checkout; raises RecipeError."""
    name = PLAIN_SCRIPTS.get(given.only)
    script = given.script or Path(__file__).resolve().parents[1] / "benchmarks" / (name or "")
    if name is None and given.script is not None:
        raise RecipeError("--script", where="command line", expected="with --whole or --serve")
    if name is not None and not script.is_file():
        do = f"name benchmarks/{name} of qvft's repository, which an installed qvft lacks"
        raise RecipeError("no such file", where=f"--script {script}", do=do)
    return script


if __name__ == "__main__":
    sys.exit(main())
