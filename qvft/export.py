"""`qvft export RUN OUT --to FORM`: exports a run's checkpoint, or a LAVIS file, to a format."""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from qvft.errors import UserError
from qvft.files import expanded, require_new
from qvft.log import exit_status, stdout
from qvft.recipe.command_line import RecipeParser
from qvft.terminal import program


@program
def main(arguments: Sequence[str] | None = None) -> int:
    """Exports; returns the exit status."""
    parser = RecipeParser(prog="qvft export", description=__doc__)
    parser.add_argument(
        "run", type=expanded, help="run folder of qvft.train, or a .pth file of LAVIS"
    )
    parser.add_argument("out", type=expanded, help="new folder for what is written")
    parser.add_overrides()
    parser.add_argument(
        "--to",
        required=True,
        metavar="FORM",
        help="peft: what plain PEFT loads; retrieval: a Blip2ForImageTextRetrieval, of a run with "
        "alignment objectives; qvision: the layout QVision was published in; transformers: of a "
        ".pth file, a folder for plain transformers",
    )
    parser.add_argument(
        "--base",
        type=expanded,
        metavar="MODEL",
        help="with a .pth file: hub id or folder of a transformers checkpoint of its architecture",
    )
    parser.add_argument("--json", action="store_true", help="print export.json, not a summary")
    given = parser.parse_intermixed_args(arguments)
    return exit_status(lambda: export(given))


def export(given: argparse.Namespace) -> None:
    """Write, load as its users do, compare, summary."""
    if given.to == "transformers" or given.base is not None or Path(given.run).is_file():
        content = _export_file(given)
        line = f"{content['verification']['weights']:,} weights equal"
    else:
        content, line = _export_run(given)
    if given.json:
        print(json.dumps(content, indent=2, ensure_ascii=False))
        return
    stdout.print(f"loaded again: {line}")
    stdout.print(f"written to {given.out}")
    if given.to == "peft":
        out = shlex.quote(str(given.out))
        stdout.print(f"next: qvft push {out} OWNER/NAME --dry-run")


def _export_file(given: argparse.Namespace) -> dict[str, Any]:
    """Export of a LAVIS file; the content of export.json."""
    if given.to != "transformers":
        raise UserError(
            f'"{given.to}"', where="--to", expected="transformers, which a .pth file is exported to"
        )
    if not Path(given.run).is_file():
        raise UserError(
            "is no file",
            where=given.run,
            expected="a .pth file of LAVIS",
            do="qvft merge writes a run as a checkpoint of transformers",
        )
    if given.base is None:
        raise UserError(
            "is not given",
            where="--base",
            expected="a transformers checkpoint of the same architecture, hub id or folder: the "
            "file has weights alone",
        )
    if given.overrides:
        raise UserError(
            f"{given.overrides[0]}", where="command line", expected="no recipe keys: it is no run"
        )
    require_new(Path(given.out), folder=True)

    from qvft.weights.export_lavis import export_lavis

    return export_lavis(Path(given.run), Path(given.out), base_id=given.base)


def _export_run(given: argparse.Namespace) -> tuple[dict[str, Any], str]:
    """Export of a run; the content of export.json, and what its verification found."""
    from qvft.checking.before_torch import require_models
    from qvft.setup.run_recipe import run_recipe
    from qvft.weights.requirements import require_form, require_texts

    recipe = run_recipe(Path(given.run), given.overrides, program="export")
    require_form(Path(given.run), given.to)
    require_models(recipe)
    require_new(Path(given.out), folder=True)
    if given.to != "retrieval":  # which is proven by its weights
        require_texts(recipe)

    # All checks that need no torch are done.
    from qvft.weights.export import export_run, proof_line

    content = export_run(Path(given.run), Path(given.out), to=given.to, overrides=given.overrides)
    return content, proof_line(content)


if __name__ == "__main__":
    sys.exit(main())
