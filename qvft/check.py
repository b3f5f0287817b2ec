"""`python -m qvft.check RECIPE [key.path=value ...]`: everything short of the first step."""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path

from qvft.log import exit_status, stdout


def main(arguments: Sequence[str] | None = None) -> int:
    """Checks; returns the exit status, 1 where a preflight check has failed."""
    parser = argparse.ArgumentParser(prog="qvft.check", description=__doc__)
    parser.add_argument("recipe", help="YAML file, e.g. recipes/custom_jsonl.yaml")
    parser.add_argument("overrides", nargs="*", metavar="key.path=value")
    parser.add_argument(
        "--only",
        choices=("recipe", "data", "model"),
        help="recipe: read the recipe alone; data: no weights; model: neither data nor weights",
    )
    parser.add_argument("--json", type=Path, metavar="F", help="write what was found to F")
    given = parser.parse_intermixed_args(arguments)
    return exit_status(
        lambda: check(given.recipe, given.overrides, only=given.only, json_file=given.json)
    )


def check(
    recipe_path: str, overrides: Sequence[str], *, only: str | None, json_file: Path | None
) -> None:
    """Recipe, findings, screen, JSON."""
    from qvft.recipe.load import load_recipe

    recipe = load_recipe(recipe_path, overrides)

    from qvft.checking.findings import Findings
    from qvft.checking.recipe import recipe_findings
    from qvft.checking.screen import show

    if only == "recipe":
        findings = Findings(recipe=recipe_findings(recipe))
    else:
        from qvft.assembly.checking import check_all, check_data, check_model

        findings = {"data": check_data, "model": check_model, None: check_all}[only](recipe)
    show(findings, stdout)
    if json_file is not None:
        from qvft.files import write_json

        write_json(json_file, dataclasses.asdict(findings))
    findings.raise_if_failed()


if __name__ == "__main__":
    sys.exit(main())
