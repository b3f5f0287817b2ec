"""`qvft COMMAND ...`: dispatches to the commands."""

from __future__ import annotations

import difflib
import importlib
import importlib.metadata
import sys
from collections.abc import Sequence

from qvft.terminal import program

COMMANDS = {
    "init": "looks at a folder or file of data, writes data files, a recipe and the next commands",
    "train": "trains what a recipe says",
    "check": "everything short of training: data, prompts, weights, memory, preflight",
    "eval": "evaluates a run, a merged model or a base, also against another",
    "merge": "merges a run into a plain checkpoint, and proves it",
    "export": "writes a run's checkpoint in another form",
    "push": "uploads a merged model or an adapter to the Hugging Face Hub, private by default",
    "predict": "captions images, answers questions about them, or sorts them by prompts",
    "embed": "writes vectors of images or texts",
    "search": "finds images by text or image among vectors, and near-duplicates",
    "demo": "serves a page to ask a model about images, and to collect preference pairs",
    "pairs": "makes preference pairs from samples and a metric",
    "explain": "shows where the queries look, word by word",
    "score": "scores anybody's prediction files as the official evaluators do",
    "runs": "compares the runs of a folder: what differs, scores, loss curves, as table and page",
    "sweep": "trains and evaluates every combination of values, and compares the runs",
    "bench": "measures training and prediction here against plain practice",
    "convert": "writes any data format as the custom JSONL",
    "features": "lists or prunes the cache of ViT features",
    "completion": "prints a completion script for bash, zsh or fish",
}


@program
def main(arguments: Sequence[str] | None = None) -> int:
    """Hands over to one entry program, the only one that is imported; returns its status."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if not given or given[0] in ("-h", "--help"):
        print(usage())
        return 0 if given else 2
    command, *rest = given
    if command in ("version", "--version"):
        print(f"qvft {importlib.metadata.version('qvft')}")
        return 0
    if command not in COMMANDS:
        near = difflib.get_close_matches(command, COMMANDS, n=1)
        hint = f'did you mean "{near[0]}"?' if near else "one of " + ", ".join(COMMANDS)
        print(f'qvft: there is no command "{command}"; {hint}', file=sys.stderr)
        return 2
    return importlib.import_module(f"qvft.{command}").main(rest)


def usage() -> str:
    """What `qvft --help` prints."""
    width = max(map(len, COMMANDS))
    lines = [f"  {name:<{width}}  {does}" for name, does in COMMANDS.items()]
    return "\n".join(
        [
            "usage: qvft COMMAND ...",
            "",
            *lines,
            f"  {'version':<{width}}  prints the version, as --version does",
            "",
            "`qvft COMMAND --help` says more. Several GPUs: accelerate launch -m qvft.train RECIPE",
            "RECIPE is a YAML file, e.g. recipes/custom_jsonl.yaml; key.path=value changes a key.",
        ]
    )


if __name__ == "__main__":
    sys.exit(main())
