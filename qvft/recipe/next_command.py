"""The command that a user runs next: after check, train, eval, merge, predict and convert."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qvft.log import is_main_process, stdout

if TYPE_CHECKING:
    from qvft.recipe.schema import Recipe


def print_next(command: Sequence[str]) -> None:
    """Prints a command as the last line of the output, on the main process."""
    if command and is_main_process():
        stdout.print(f"next: {shlex.join(command)}", highlight=False, markup=False, soft_wrap=True)


def after_training(recipe: Recipe) -> list[str]:
    """Evaluation; of a project of `qvft init` on its test images."""
    command = ["qvft", "eval", recipe.run_dir]
    if recipe.data.eval is None:
        return [*command, "data.eval.path=YOUR_TEST_DATA"]
    path = Path(getattr(recipe.data.eval, "path", None) or "")
    test = path.with_name("test.jsonl") if path.name == "val.jsonl" else path
    if test == path or not test.is_file():
        return command
    return [*command, f"data.eval.path={test}", f"data.eval.name={recipe.name}-test"]


def after_evaluation(model: str) -> list[str]:
    """Merging, of a run; nothing of other models."""
    if not (Path(model) / "adapter").is_dir():
        return []
    out = Path("merged") / Path(model).resolve().name
    return after_merge(model, str(out)) if out.exists() else ["qvft", "merge", model, str(out)]


def after_merge(run: str, out: str) -> list[str]:
    """The demo, else prediction of the first row that the run was evaluated on."""
    if demo := demo_of(out):
        return demo
    for file in sorted(Path(run).glob("eval/*/predictions.jsonl")):
        with file.open(encoding="utf-8") as lines:
            row: dict[str, Any] = json.loads(next(lines, "{}"))
        if image := row.get("image"):
            asked = ["--question", row["question"]] if row.get("question") else []
            return ["qvft", "predict", out, image, *asked]
    return ["qvft", "predict", out, "YOUR_IMAGE"]


def demo_of(model: str) -> list[str]:
    """The demo of a model, if its package is installed."""
    return ["qvft", "demo", model] if find_spec("gradio") else []
