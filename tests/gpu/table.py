"""The measurements of `run.py` as a table, each target beside what was found."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

NOT_MEASURED = "not measured"
TARGETS: Mapping[tuple[str, str], float] = {
    ("2.7b", "times plain practice"): 4.5,
    ("6.7b", "times plain practice"): 3.3,
    ("2.7b", "share of the card's matrix products, %"): 45,
    ("6.7b", "share of the card's matrix products, %"): 45,
    ("2.7b", "all on the device, NF4, cached features, GB"): 8.0,
    ("6.7b", "all on the device, NF4, cached features, GB"): 13.0,
    ("qvision", "one caption of 20 tokens, qvft, ms"): 50,
}
"""By geometry and row. QVision's model card claims its own for an image, on hardware that it does
not name."""


def _pace(way: str) -> Callable[[Mapping[str, Any]], str]:
    """Texts per second of a way."""
    return lambda found: f"{_way(found, way)['texts_per_second']:,.1f}"


def _way(found: Mapping[str, Any], way: str) -> Mapping[str, Any]:
    return found[way] if way in found else found["parts"][way]


def _speedup(found: Mapping[str, Any]) -> str:
    return f"{found['speedup']:.2f} (operations promise {found['promised']:.2f})"


def _teraflops(found: Mapping[str, Any]) -> str:
    return f"{found['qvft']['flops_per_second'] / 1e12:,.4g}"


def _share(found: Mapping[str, Any]) -> str:
    rate = found["matmul_flops_per_second"]
    reached = found["qvft"]["flops_per_second"] / rate
    return f"{100 * reached:.0f} of {rate / 1e12:,.4g} TFLOP/s"


def _step_memory(*ways: str) -> Callable[[Mapping[str, Any]], str]:
    return lambda found: ", ".join(
        f"{_way(found, way)['peak_memory_bytes'] / 1e9:.1f}" for way in ways
    )


def _both_paces(found: Mapping[str, Any]) -> str:
    return ", ".join(f"{found[way]['texts_per_second']:.1f}" for way in ("plain", "qvft"))


def _gigabytes(found: int) -> str:
    return f"{found / 1e9:.1f}"


def _milliseconds(way: str) -> Callable[[Mapping[str, Any]], str]:
    return lambda found: f"{found[f'{way}_ms']:.1f}"


ALONE: tuple[tuple[str, Callable[[Any], str]], ...] = (
    ("qvft with live features, texts/s", _pace("packed")),
    ("qvft, texts/s", _pace("qvft")),
    ("TFLOP/s", _teraflops),
    ("share of the card's matrix products, %", _share),
)
ROWS: Mapping[str, tuple[tuple[str, Callable[[Any], str]], ...]] = {
    "training": (
        ("plain practice, texts/s", _pace("plain")),
        *ALONE,
        ("times plain practice", _speedup),
        (
            "a step above weights, plain, live and cached, GB",
            _step_memory("plain", "packed", "qvft"),
        ),
    ),
    "training_alone": (
        *ALONE,
        ("a step above weights, live and cached, GB", _step_memory("packed", "qvft")),
    ),
    "compile": (("qvft with compiled blocks, texts/s", _pace("qvft")),),
    "flex": (("qvft with flex attention, texts/s", _pace("qvft")),),
    "flex_compile": (("qvft with flex attention in compiled blocks, texts/s", _pace("qvft")),),
    "nf4": (
        ("NF4, plain practice, texts/s", _pace("plain")),
        ("NF4, qvft with live features, texts/s", _pace("packed")),
        ("NF4, qvft, texts/s", _pace("qvft")),
    ),
    "nf4_memory_bytes": (("all on the device, NF4, cached features, GB", _gigabytes),),
    "decoding": (("decoding, plain loop and qvft, texts/s", _both_paces),),
    "nf4_decoding": (("NF4, decoding, plain loop and qvft, texts/s", _both_paces),),
    "caption": (
        ("one caption of 20 tokens, published loop, ms", _milliseconds("plain")),
        ("one caption of 20 tokens, qvft, ms", _milliseconds("qvft")),
        ("times the published loop", lambda found: f"{found['speedup']:.2f}"),
    ),
}
"""By the measurement's key: the rows' titles and how each is read from the result."""


def markdown(found: Mapping[str, Any]) -> str:
    """Card, versions and date above the table; the reasons for what is missing below it."""
    machine, measured = found["machine"], found["measured"]
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    head = f"{machine['device']}, CUDA {machine['cuda']}, {versions}; {found['date']}."
    if found["tiny"]:
        head += " Two narrow layers in each part: these figures say nothing but that it runs."
    reasons = [f"{key}: {why}" for key, value in measured.items() if (why := missing(value))]
    return "\n".join([head, "", *table(measured), "", *reasons]).rstrip() + "\n"


def table(measured: Mapping[str, Any]) -> list[str]:
    """The lines of the table."""
    lines = ["| | target | measured |", "|---|---|---|"]
    for name, value in measured.items():
        geometry, _, key = name.rpartition(".")
        for title, text in ROWS[key]:
            target = TARGETS.get((geometry, title), "")
            shown = NOT_MEASURED if missing(value) else text(value)
            lines.append(f"| {geometry}: {title} | {target} | {shown} |".replace("|  |", "| |"))
    return lines


def missing(value: Any) -> str | None:
    """Why a measurement is not there; None where it is."""
    return value.get("not_measured") if isinstance(value, Mapping) else None
