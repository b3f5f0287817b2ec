"""`qvft demo MODEL [--compare]`: a page to ask a model about images, in the browser.

MODEL is a run, a merged folder or a hub id. The page shows several texts with their probabilities,
ranked candidates and where the model looked, word by word; thumbs up and down become preference
pairs. It is served on this machine alone, and asks no other.
"""

from __future__ import annotations

import argparse
import os
import shlex
import socket
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from qvft.files import expanded, given_path
from qvft.log import exit_status, stderr, stdout
from qvft.terminal import program

if TYPE_CHECKING:
    from qvft.demo_page.thumbs import Thumbs
    from qvft.setup.resolve_model import ResolvedModel


@program
def main(arguments: Sequence[str] | None = None) -> int:
    """Serves the page; returns the exit status."""
    parser = argparse.ArgumentParser(prog="qvft demo", description=__doc__)
    parser.add_argument("model", type=expanded, help="run folder, model folder or hub id")
    parser.add_argument("--compare", action="store_true", help="of a run: with its base beside it")
    parser.add_argument(
        "--out",
        type=given_path,
        default=Path("demo_thumbs"),
        metavar="FOLDER",
        help="for pairs.jsonl, thumbs.jsonl and judged images; default: demo_thumbs",
    )
    parser.add_argument(
        "--host", default="127.0.0.1", help="default: 127.0.0.1, this machine alone"
    )
    parser.add_argument("--port", type=int, default=7860, help="default: 7860; 0: any free one")
    given = parser.parse_args(arguments)
    return exit_status(lambda: demo(given))


def demo(given: argparse.Namespace) -> None:
    """Models, page, server; at the end the number of pairs and the next command."""
    from qvft.checking.before_torch import require_models
    from qvft.demo_page.thumbs import PAIRS, Thumbs
    from qvft.evaluation.pairs.next_command import preference_command
    from qvft.extras import require_package
    from qvft.locks import beside
    from qvft.setup.resolve_model import resolve_model

    require_package("gradio", wanted_by="qvft demo", install="qvft[demo]")
    opened = resolve_model(given.model)
    require_models(opened.recipe)
    models = [opened, base_of_run(opened)] if given.compare else [opened]
    with beside(given.out), listening_at(given.host, given.port) as listening:
        thumbs = Thumbs(given.out)
        # All checks that need no torch are done.
        try:
            serve(models, thumbs, listening)
        finally:
            if thumbs.labels:
                stdout.print(thumbs.said, highlight=False)
            if thumbs.pairs():
                command = preference_command(opened, given.out / PAIRS)
                stdout.print(f"next: {shlex.join(command)}", highlight=False)


def base_of_run(opened: ResolvedModel) -> ResolvedModel:
    """The base of a run, with the run's decoding; raises RecipeError for another model."""
    from qvft.errors import RecipeError
    from qvft.evaluation.compared_model import compared_with

    base = compared_with(opened.recipe.model.id, opened) if opened.kind == "run" else None
    if base is None:
        raise RecipeError(
            f"{opened.name} is no run",
            where="command line: --compare",
            expected="a run, whose recipe names its base",
        )
    return base


def listening_at(host: str, port: int) -> socket.socket:
    """A listening socket; raises RecipeError if the address cannot be had."""
    from qvft.errors import RecipeError

    try:
        kind, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        return socket.create_server(address[:2], family=kind)
    except (OSError, OverflowError) as error:
        raise RecipeError(
            f"{host}:{port} cannot be listened at ({getattr(error, 'strerror', None) or error})",
            where="command line: --host, --port",
            do="choose another --port, or 0 for any free one",
        ) from error


def serve(models: Sequence[ResolvedModel], thumbs: Thumbs, listening: socket.socket) -> None:
    """Loads the models and serves their page; uploads are deleted at the end."""
    with tempfile.TemporaryDirectory(prefix="qvft_demo_") as uploads:
        os.environ["GRADIO_TEMP_DIR"] = uploads  # read when gradio is imported

        from qvft.demo_page.page import LOOPBACK, build
        from qvft.demo_page.page import serve as serving
        from qvft.inference.vision_language_model import VisionLanguageModel

        page = build([VisionLanguageModel(one) for one in models], thumbs)
        host, port = listening.getsockname()[:2]
        if host not in LOOPBACK:
            stderr.print("whoever reaches this address can use the page: it has no password")
        host = f"[{host}]" if ":" in host else host
        stdout.print(f"open http://{host}:{port} (Ctrl-C ends it)", highlight=False)
        sys.stdout.flush()
        serving(page, listening)


if __name__ == "__main__":
    sys.exit(main())
