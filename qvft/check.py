"""`qvft check RECIPE [key.path=value ...]`: checks a recipe without training.

`qvft check RUN`: compares a finished run's files with the hashes in its manifest.
"""

from __future__ import annotations

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
    if is_run:
        return exit_status(lambda: verify(Path(given.recipe), given.json))
    return exit_status(
        lambda: check(
            given.recipe,
            given.overrides,
            only=given.only,
            json_file=given.json,
            preview_file=given.preview,
        )
    )


def verify(run: Path, json_file: Path | None) -> None:
    """Findings on a run, screen, JSON."""
    if json_file is not None:
        require_writable(json_file)
    from qvft.recipe.recipe_lock import LOCK_NAME
    from qvft.setup.run_recipe import run_recipe

    if not (run / LOCK_NAME).is_file():
        run_recipe(run, [])  # says that it is no run, before torch is imported
    from qvft.checking.check_run import check_run, show_run

    findings = check_run(run)
    show_run(findings, stdout)
    if json_file is not None:
        from qvft.json_files import write_json

        write_json(json_file, dataclasses.asdict(findings))
    findings.raise_if_failed()
    if (run / "adapter").is_dir():
        print_next(["qvft", "eval", str(run)])
    else:
        lock = str(run / LOCK_NAME)
        print_next(["qvft", "train", lock, f"run.dir={run}", "train.resume=auto"])


def check(
    recipe_path: str,
    overrides: Sequence[str],
    *,
    only: str | None,
    json_file: Path | None,
    preview_file: Path | None,
) -> None:
    """Recipe, findings, screen, JSON, preview."""
    from qvft.checking.before_torch import (
        recipe_findings,
        require_models,
        require_retention_texts,
        require_settings,
        texts_of,
    )
    from qvft.checking.findings import Findings
    from qvft.checking.print_findings import show
    from qvft.recipe.load import idle_keys, load_recipe
    from qvft.recipe.unused_keys import named_in_file
    from qvft.setup.run_recipe import require_there
    from qvft.setup.start_run import start_run

    for path in (json_file, preview_file):
        if path is not None:
            require_writable(path)
    if Path(recipe_path).suffix not in (".yaml", ".yml") and not isfile(recipe_path):
        require_there(recipe_path)  # it may have meant a run
    recipe = load_recipe(recipe_path, overrides)
    require_settings(recipe)
    start_run(recipe)
    if only is None:
        require_writable(Path(recipe.run_dir), folder=True)

    if only == "recipe":
        findings = Findings(recipe=recipe_findings(recipe))
    elif only == "model":
        require_models(recipe)
        from qvft.checking.check_recipe import check_model

        findings = check_model(recipe)
    else:
        require_models(recipe)
        require_retention_texts(recipe)
        texts = texts_of(recipe, ("train", "eval") if recipe.data.eval else ("train",))
        from qvft.checking.check_recipe import check_all, check_data

        look = check_data if only == "data" else check_all
        findings = look(recipe, preview_file, texts=texts)
    idle = tuple(named_in_file(recipe, idle_keys(recipe)))
    findings = dataclasses.replace(findings, warnings=(*idle, *findings.warnings))
    show(findings, stdout)
    if json_file is not None:
        from qvft.json_files import write_json

        write_json(json_file, dataclasses.asdict(findings))
    if preview_file is not None:
        stdout.print(f"preview  {preview_file}")
    findings.raise_if_failed()
    program = "train" if only is None else "check"
    print_next(["qvft", program, recipe_path, *overrides])


if __name__ == "__main__":
    sys.exit(main())
