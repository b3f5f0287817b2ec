"""`qvft push FOLDER OWNER/NAME`: uploads a model, an adapter or a dataset card to the hub.

FOLDER is what `qvft merge` or `qvft export` wrote, a run, whose adapter goes with a card, or what
`qvft init` wrote, of which a card goes. What was proven when it was written is compared with its
hashes first. Texts and images of your data, predictions, reports and the card's samples stay here
unless --with-samples is given; the repository is private unless --public.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from rich.filesize import decimal

from qvft.files import given_path
from qvft.log import exit_status, stdout
from qvft.terminal import program


@program
def main(arguments: Sequence[str] | None = None) -> int:
    """Uploads; returns the exit status."""
    parser = argparse.ArgumentParser(prog="qvft push", description=__doc__, allow_abbrev=False)
    parser.add_argument(
        "folder", type=given_path, help="folder of qvft merge, export or init, or a run"
    )
    parser.add_argument("repo", metavar="OWNER/NAME", help="repository on the hub")
    parser.add_argument("--public", action="store_true", help="visible to everybody")
    parser.add_argument(
        "--dry-run", action="store_true", help="list what would go, with sizes; upload nothing"
    )
    parser.add_argument(
        "--with-samples",
        action="store_true",
        help="also the card's samples and, of a run, its reports and predictions, of a data folder "
        "its texts and images",
    )
    given = parser.parse_args(arguments)
    return exit_status(lambda: _push(given))


def _push(given: argparse.Namespace) -> None:
    """Proof, list, upload, the next command."""
    from qvft.weights.dataset_card import dataset_files, is_data_folder
    from qvft.weights.hub_files import files_to_push, require_repo_id

    require_repo_id(given.repo)
    kind = "dataset" if is_data_folder(given.folder) else "model"
    chosen = dataset_files if kind == "dataset" else files_to_push
    files = chosen(given.folder, given.repo, with_samples=given.with_samples)
    sizes = {
        name: len(content) if isinstance(content, bytes) else content.stat().st_size
        for name, content in files.items()
    }
    for name, size in sizes.items():
        stdout.print(f"{decimal(size):>10}  {name}")
    visible, total = "public" if given.public else "private", decimal(sum(sizes.values()))
    stdout.print(f"{total:>10}  in {len(files)} files, to the {visible} {kind} {given.repo}")
    if b"\nlicense: unknown\n" in bytes(files["README.md"]):
        where = "at the top of the README.md that qvft export --to peft writes"
        if kind == "dataset":
            where = f"as data.license in {given.folder / 'recipe.yaml'}"
        elif (given.folder / "README.md").is_file():
            where = "at the top of README.md"
        stdout.print(f"license: unknown; name the right one {where}")
    if given.dry_run:
        stdout.print("nothing was uploaded; next: the same command without --dry-run")
        return

    from qvft.weights.hub_upload import upload

    stdout.print(f"uploaded: {upload(files, given.repo, private=not given.public, repo_type=kind)}")
    of_kind = " --repo-type dataset" if kind == "dataset" else ""
    stdout.print(
        f"next: hf download {given.repo}{of_kind} --local-dir {given.repo.partition('/')[2]}"
    )


if __name__ == "__main__":
    sys.exit(main())
