"""`qvft check RECIPE [key.path=value ...]`: checks a recipe without training.

`qvft check RUN`: compares a finished run's files with the hashes in its manifest.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Sequence
from os.path import isdir, isfile
from pathlib import Path

from qvft.files import expanded, given_path, require_writable
from qvft.log import exit_status, stdout
from qvft.recipe.command_line import RecipeParser
from qvft.recipe.next_command import print_next
from qvft.terminal import program


@program
def main(arguments: Sequence[str] | None = None) -> int:
    """Checks; returns the exit status, 1 where a check has failed."""
    parser = RecipeParser(prog="qvft check", description=__doc__)
    parser.add_argument(
        "recipe", type=expanded, help="YAML file, e.g. recipes/custom_jsonl.yaml, or a run folder"
    )
    parser.add_overrides()
    parser.add_argument(
        "--only",
        choices=("recipe", "data", "model"),
        help="recipe: read the recipe alone; data: no weights; model: neither data nor weights",
    )
    parser.add_argument("--json", type=given_path, metavar="F", help="write what was found to F")
    parser.add_argument(
        "--preview",
        type=given_path,
        metavar="F.html",
        help="write twenty training rows as the model sees them: image, prompt, learned tokens",
    )
    given = parser.parse_intermixed_args(arguments)
    if given.preview is not None and given.only in ("recipe", "model"):
        parser.error(f"--preview needs the data, which --only {given.only} leaves out")
    is_run = isdir(given.recipe)  # False for a name that no system takes
    if is_run and (given.overrides or given.only or given.preview):
        parser.error("a run is checked as it is; overrides, --only and --preview are for recipes")
    return exit_status(lambda: verify(given) if is_run else check(given))


def verify(given: argparse.Namespace) -> None:
    """Findings on a run, screen, JSON."""
    from qvft.json_files import write_json
    from qvft.recipe.recipe_lock import LOCK_NAME
    from qvft.setup.run_recipe import run_recipe

    run = Path(given.recipe)
    if given.json is not None:
        require_writable(given.json)
    if not (run / LOCK_NAME).is_file():
        run_recipe(run, [])  # says that it is no run, before torch is imported
    from qvft.checking.check_run import check_run, show_run

    findings = check_run(run)
    show_run(findings, stdout)
    if given.json is not None:
        write_json(given.json, dataclasses.asdict(findings))
    findings.raise_if_failed()
    if (run / "adapter").is_dir():
        print_next(["qvft", "eval", str(run)])
    else:
        lock = str(run / LOCK_NAME)
        print_next(["qvft", "train", lock, f"run.dir={run}", "train.resume=auto"])


def check(given: argparse.Namespace) -> None:
    """Recipe, findings, screen, JSON, preview."""
    from qvft.checking import before_torch
    from qvft.checking.findings import Findings
    from qvft.checking.print_findings import show
    from qvft.json_files import write_json
    from qvft.recipe.load import idle_keys, load_recipe
    from qvft.recipe.unused_keys import named_in_file
    from qvft.setup.run_recipe import require_there
    from qvft.setup.start_run import start_run

    for path in (given.json, given.preview):
        if path is not None:
            require_writable(path)
    if Path(given.recipe).suffix not in (".yaml", ".yml") and not isfile(given.recipe):
        require_there(given.recipe)  # it may have meant a run
    recipe = load_recipe(given.recipe, given.overrides)
    before_torch.require_settings(recipe)
    start_run(recipe)
    if given.only is None:
        require_writable(Path(recipe.run_dir), folder=True)

    if given.only == "recipe":
        findings = Findings(recipe=before_torch.recipe_findings(recipe))
    elif given.only == "model":
        before_torch.require_models(recipe)
        from qvft.checking.check_recipe import check_model

        findings = check_model(recipe)
    else:
        before_torch.require_models(recipe)
        before_torch.require_retention_texts(recipe)
        texts = before_torch.texts_of(recipe, ("train", "eval") if recipe.data.eval else ("train",))
        from qvft.checking.check_recipe import check_all, check_data

        look = check_data if given.only == "data" else check_all
        findings = look(recipe, given.preview, texts=texts)
    idle = tuple(named_in_file(recipe, idle_keys(recipe)))
    findings = dataclasses.replace(findings, warnings=(*idle, *findings.warnings))
    show(findings, stdout)
    if given.json is not None:
        write_json(given.json, dataclasses.asdict(findings))
    if given.preview is not None:
        stdout.print(f"preview  {given.preview}")
    findings.raise_if_failed()
    follows = "train" if given.only is None else "check"
    print_next(["qvft", follows, given.recipe, *given.overrides])


if __name__ == "__main__":
    sys.exit(main())
