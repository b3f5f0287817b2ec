"""Measures training, decoding and memory of qvft's models on a GPU, in one call of eight minutes.

    python tests/gpu/run.py OUT.json [--markdown OUT.md] [--minutes 8] [--only 2.7b,6.7b.training]

Random weights of the published geometries, made on the device; drawn images of the real size; five
texts per image; nothing is downloaded, and the disk gets a few MB. `CASES` lists the measurements,
the most valuable first, each with its budget. At 16 images x 5 texts per step, LoRA of rank 16 on
all linear layers of the decoder:

    training: texts/s of plain practice, of qvft with live and with cached features, TFLOP/s and
    its share of what a large product of bfloat16 matrices reaches on this card, memory of a step;
    compile, flex: the same with compiled blocks and flex attention; nf4: with a 4-bit decoder;
    nf4_memory_bytes: all on the device while NF4 weights are trained with cached features;
    decoding: texts/s of a plain loop and of qvft; caption: one caption of 20 tokens of QVision,
    the published loop without a cache and qvft.

Both files are written after each measurement, so a call that is cut off leaves those made. What
takes longer than its budget, fails or no longer fits stands as "not measured" with the reason. By
arithmetic the largest, plain practice of 6.7B, takes some 45 GB.

`--tiny` takes two narrow layers in each part and runs on a CPU, to try every part of the script but
flex attention, for which a CPU has no backward pass.
"""

from __future__ import annotations

import argparse
import datetime
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import subject as on
import torch
from geometry import write_qvision
from session import Session
from subject import Subject
from table import markdown

from qvft.benchmark.caption import bench_caption
from qvft.benchmark.report import machine
from qvft.json_files import write_json
from qvft.recipe.load import parse_recipe


@dataclass(frozen=True)
class Case:
    """A measurement.

    Attributes:
        geometry: key of `geometry.GEOMETRIES`, or `qvision`.
        key: its name in the results, after the geometry's.
        budget_s: most seconds it may take of the eight minutes; by arithmetic about twice what an
            H100 needs, the model included where it is the first on it.
        measure: what is called with the `Subject`.
    """

    geometry: str
    key: str
    budget_s: float
    measure: Callable[[Subject], Any] | None = None

    @property
    def name(self) -> str:
        """Name in the results."""
        return f"{self.geometry}.{self.key}"


CASES = (
    Case("2.7b", "training", 50, on.training),
    Case("2.7b", "decoding", 25, on.decoding),
    Case("2.7b", "compile", 40, on.compiled_training),
    Case("2.7b", "flex", 20, on.flex_training),
    Case("2.7b", "flex_compile", 40, on.compiled_flex_training),
    Case("2.7b", "nf4", 30, on.nf4_training),
    Case("2.7b", "nf4_memory_bytes", 5, on.nf4_memory_bytes),
    Case("6.7b", "training", 50, on.training),
    Case("6.7b", "decoding", 25, on.decoding),
    Case("6.7b", "nf4", 35, on.nf4_training),
    Case("6.7b", "nf4_memory_bytes", 5, on.nf4_memory_bytes),
    Case("vicuna-7b", "nf4", 40, on.nf4_training),
    Case("vicuna-7b", "nf4_decoding", 30, on.nf4_decoding),
    Case("vicuna-7b", "nf4_memory_bytes", 5, on.nf4_memory_bytes),
    Case("flan-t5-xl", "training_alone", 20, on.training_alone),
    Case("flan-t5-xl", "decoding", 15, on.decoding),
    Case("2.7b-364px", "training", 25, on.training),
    Case("qwen3-0.6b", "training", 10, on.training),
    Case("qwen3-0.6b", "decoding", 5, on.decoding),
    Case("qvision", "caption", 5),
)
"""In the order of their value; those of one geometry stand together, since they share a model."""


def measure(session: Session, cases: tuple[Case, ...], *, tiny: bool, rounds: int) -> None:
    """Runs the cases; a model of one geometry is gone before the next is made."""
    subject: tuple[str, Subject] | None = None
    with tempfile.TemporaryDirectory() as scratch:

        def run(case: Case) -> Any:
            nonlocal subject
            folder = Path(scratch) / case.geometry
            if case.measure is None:
                return caption(folder, tiny=tiny, rounds=rounds)
            if subject is None or subject[0] != case.geometry:
                subject = None
                made = Subject(case.geometry, folder, tiny=tiny, rounds=rounds)
                subject = (case.geometry, made)
            return case.measure(subject[1])

        for case in cases:
            session.measure(case.name, lambda case=case: run(case), budget_s=case.budget_s)


def caption(folder: Path, *, tiny: bool, rounds: int) -> dict[str, Any]:
    """One caption of a QVision of random weights."""
    write_qvision(folder, tiny=tiny)
    model = {"id": str(folder), "init": "random", "dtype": "bfloat16"}
    recipe = parse_recipe({"name": "gpu_qvision", "model": model})
    return asdict(bench_caption(recipe, rounds=3 * rounds))


def chosen(only: str | None) -> tuple[Case, ...]:
    """The cases whose name or geometry is in a list separated by commas; all for None."""
    if only is None:
        return CASES
    names = only.split(",")
    return tuple(case for case in CASES if {case.name, case.geometry} & {*names})


def main(arguments: list[str] | None = None) -> int:
    """Measures and writes."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--markdown", type=Path)
    parser.add_argument("--minutes", type=float, default=8.0)
    parser.add_argument("--only", help="geometries or measurements, separated by commas")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--tiny", action="store_true")
    given = parser.parse_args(arguments)
    if not given.tiny and not torch.cuda.is_available():
        print("there is no GPU here; --tiny tries the script on a CPU", file=sys.stderr)
        return 2
    cases = chosen(given.only)
    described = machine(parse_recipe({"name": "gpu", "model": {"id": "random weights"}}))
    head = {
        "date": datetime.date.today().isoformat(),
        "tiny": given.tiny,
        "machine": {**described, "cuda": torch.version.cuda},
    }

    def write(measured: dict[str, Any]) -> None:
        found = {**head, "measured": measured}
        write_json(given.out, found)
        if given.markdown is not None:
            given.markdown.write_text(markdown(found))

    session = Session([case.name for case in cases], minutes=given.minutes, write=write)
    measure(session, cases, tiny=given.tiny, rounds=given.rounds)
    return 0


if __name__ == "__main__":
    sys.exit(main())
