"""Imports go one way, siblings never meet, and wide libraries have one home each."""

import ast
from collections.abc import Iterator
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "qvft"
FILES = sorted(path for path in PACKAGE.rglob("*.py") if path.name != "__init__.py")

ROOTS = {
    "errors", "log", "terminal", "files", "json_files", "disk", "locks",
    "cpu_threads", "dotted_names", "extras", "progress", "garbage_collection",
}  # fmt: skip
MAY_IMPORT = {
    "errors": set(),
    "log": {"errors", "disk", "progress", "terminal"},
    "progress": set(),
    "terminal": {"errors", "disk", "garbage_collection"},
    "garbage_collection": set(),
    "cpu_threads": set(),
    "dotted_names": {"errors"},
    "extras": {"errors"},
    "disk": {"errors"},
    "locks": {"errors", "disk"},
    "files": {"errors", "disk", "locks"},
    "json_files": {"errors", "files"},
    "recipe": ROOTS,
    "data": ROOTS | {"recipe"},
    "models": ROOTS | {"recipe"},
    "adapters": ROOTS | {"recipe", "models"},
}
MAY_IMPORT["setup"] = set(MAY_IMPORT)
MAY_IMPORT["inference"] = set(MAY_IMPORT)
BELOW = set(MAY_IMPORT)
MAY_IMPORT["interop"] = BELOW
MAY_IMPORT["training"] = MAY_IMPORT["evaluation"] = MAY_IMPORT["weights"] = BELOW
MAY_IMPORT["checking"] = set(MAY_IMPORT)
MAY_IMPORT["benchmark"] = set(MAY_IMPORT)
MAY_IMPORT["new_project"] = set(MAY_IMPORT)
MAY_IMPORT["experiments"] = set(MAY_IMPORT)
MAY_IMPORT["demo_page"] = set(MAY_IMPORT)
MAY_IMPORT["api"] = set(MAY_IMPORT)  # what programs and Python callers share
ENTRIES = {
    "train", "eval", "merge", "export", "predict", "explain", "check", "score", "convert", "bench",
    "embed", "search", "runs", "sweep", "pairs", "init", "demo", "push", "cli", "features",
    "completion", "__main__",
}  # fmt: skip
ENTRY_MAY_IMPORT = set(MAY_IMPORT) | {"cli"}

HOMES = {
    "matplotlib": {"evaluation/explanation/chart.py", "benchmark/chart.py"},
    "peft": {"adapters/lora.py"},
    "bitsandbytes": {"models/quantize.py", "training/optim.py"},
    "filelock": {"locks.py"},
    "datasets": {
        "benchmark/trl_dpo.py",
        "data/formats/hf.py",
        "data/formats/hf_images.py",
        "data/formats/hf_stream.py",
        "data/write_trl.py",
        "evaluation/modules.py",
    },
    "evaluate": {"evaluation/modules.py"},
    "pyarrow": {"data/formats/csv_rows.py", "data/write_trl.py", "inference/vector_file.py"},
    "openpyxl": {"data/formats/csv_rows.py"},
    "pillow_heif": {"data/images/opening.py"},
    "pydicom": {"data/images/dicom.py"},
    "gradio": {"demo_page/page.py"},
    "trl": {"interop/trl.py", "benchmark/trl_dpo.py"},
}


@cache
def imports(path: Path) -> list[str]:
    """Dotted names that a file imports anywhere, also inside functions."""
    return list(read_imports(path))


def read_imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield node.module or ""


def room(path: Path) -> str:
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


def test_the_package_is_found() -> None:
    assert FILES


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_go_one_way(path: Path) -> None:
    own = room(path)
    assert own in MAY_IMPORT or own in ENTRIES, f"{own} is a room without a place in the order"
    allowed = MAY_IMPORT.get(own, ENTRY_MAY_IMPORT) | {own}
    used = {name.split(".")[1] for name in imports(path) if name.startswith("qvft.")}
    assert used <= allowed, f"{own} imports {sorted(used - allowed)}"


@pytest.mark.parametrize("storey", ["setup", "inference", "evaluation", "training", "weights"])
def test_rooms_within_a_room_import_one_way(storey: str) -> None:
    below: dict[str, set[str]] = {}
    for path in (path for path in FILES if room(path) == storey):
        own = path.relative_to(PACKAGE / storey).with_suffix("").parts[0]
        used = {name.split(".")[2] for name in imports(path) if name.startswith(f"qvft.{storey}.")}
        below.setdefault(own, set()).update(used - {own})
    assert len(list(TopologicalSorter(below).static_order())) > 5  # raises CycleError


@pytest.mark.parametrize("library", HOMES)
def test_a_wide_library_has_one_home(library: str) -> None:
    users = {
        path.relative_to(PACKAGE).as_posix()
        for path in FILES
        if any(name.split(".")[0] == library for name in imports(path))
    }
    assert users <= HOMES[library]


def test_what_configures_bitsandbytes_lies_in_its_home() -> None:
    users = {p.relative_to(PACKAGE).as_posix() for p in FILES if "BitsAndBytes" in p.read_text()}
    assert users == {"models/quantize.py"}


@pytest.mark.parametrize("path", [p for p in FILES if room(p) == "recipe"], ids=lambda p: p.name)
def test_recipes_are_read_without_torch(path: Path) -> None:
    heavy = {"torch", "transformers", "numpy", "PIL"}
    assert not heavy & {name.split(".")[0] for name in imports(path)}
