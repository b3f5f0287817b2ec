"""The measurements of `run.py` as a table, each target beside what was found."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

TARGETS = {"2.7b": (4.5, 8.0), "6.7b": (3.3, 13.0)}
"""By geometry: times plain practice; GB with NF4 and cached features."""
SHARE = 45
"""Percent of the card's measured rate of bfloat16 matrix products."""
CAPTION_MS = 50
"""What QVision's model card claims for an image, on hardware that it does not name."""
NOT_MEASURED = "not measured"


def markdown(found: Mapping[str, Any]) -> str:
    """Card, versions and date above the table; the reasons for what is missing below it."""
    machine, measured = found["machine"], found["measured"]
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    head = f"{machine['device']}, CUDA {machine['cuda']}, {versions}; {found['date']}."
    if found["tiny"]:
        head += " Two narrow layers in each part: these figures say nothing but that it runs."
    lines = [head, "", "| | target | measured |", "|---|---|---|"]
    for name in dict.fromkeys(key.rpartition(".")[0] for key in measured):
        found_rows = caption_rows(measured) if name == "qvision" else rows(name, measured)
        lines += [f"| {row} |" for row in found_rows]
    reasons = [f"{key}: {why}" for key, value in measured.items() if (why := missing(value))]
    return "\n".join([*lines, "", *reasons]).rstrip() + "\n"


def rows(name: str, measured: Mapping[str, Any]) -> list[str]:
    """The rows of a geometry's measurements."""
    ratio, gigabytes = TARGETS[name]
    training = measured[f"{name}.training"]
    found = [
        f"{name}: plain practice, texts/s | | {cell(training, plain_pace)}",
        f"{name}: qvft, texts/s | | {cell(training, pace)}",
        f"{name}: times plain practice | {ratio} | {cell(training, speedup)}",
        f"{name}: TFLOP/s | | {cell(training, teraflops)}",
        f"{name}: share of the card's matrix products, % | {SHARE} | {cell(training, share)}",
        f"{name}: a step above weights, plain and qvft, GB | | {cell(training, step_memory)}",
        f"{name}: all on the device, NF4, cached features, GB | {gigabytes} | "
        f"{cell(measured[f'{name}.nf4_memory_bytes'], lambda value: f'{value / 1e9:.1f}')}",
        f"{name}: decoding, plain loop and qvft, texts/s | | "
        f"{cell(measured[f'{name}.decoding'], decoding)}",
    ]
    titles = {
        "compile": "compiled blocks",
        "flex": "flex attention",
        "flex_compile": "flex attention in compiled blocks",
    }
    for key, title in titles.items():
        if f"{name}.{key}" in measured:
            found.append(
                f"{name}: qvft with {title}, texts/s | | {cell(measured[f'{name}.{key}'], pace)}"
            )
    return found


def caption_rows(measured: Mapping[str, Any]) -> list[str]:
    """The rows of QVision's one caption."""
    found = measured["qvision.caption"]
    tokens = "one caption of 20 tokens"
    return [
        f"QVision: {tokens}, published loop, ms | | "
        + cell(found, lambda pace: f"{pace['plain_ms']:.1f}"),
        f"QVision: {tokens}, qvft, ms | {CAPTION_MS} | "
        + cell(found, lambda pace: f"{pace['qvft_ms']:.1f}"),
        "QVision: times the published loop | | "
        + cell(found, lambda pace: f"{pace['speedup']:.2f}"),
    ]


def missing(value: Any) -> str | None:
    """Why a measurement is not there; None where it is."""
    return value.get("not_measured") if isinstance(value, Mapping) else None


def cell(value: Any, text: Any) -> str:
    """What `text` says of a measurement, if there is one."""
    return NOT_MEASURED if missing(value) else text(value)


def plain_pace(training: Mapping[str, Any]) -> str:
    return f"{training['plain']['texts_per_second']:,.1f}"


def pace(training: Mapping[str, Any]) -> str:
    return f"{training['qvft']['texts_per_second']:,.1f}"


def speedup(training: Mapping[str, Any]) -> str:
    return f"{training['speedup']:.2f} (operations promise {training['promised']:.2f})"


def teraflops(training: Mapping[str, Any]) -> str:
    return f"{training['qvft']['flops_per_second'] / 1e12:,.4g}"


def share(training: Mapping[str, Any]) -> str:
    reached = training["qvft"]["flops_per_second"] / training["matmul_flops_per_second"]
    return f"{100 * reached:.0f} of {training['matmul_flops_per_second'] / 1e12:,.4g} TFLOP/s"


def step_memory(training: Mapping[str, Any]) -> str:
    taken = [training[way]["peak_memory_bytes"] / 1e9 for way in ("plain", "qvft")]
    return f"{taken[0]:.1f}, {taken[1]:.1f}"


def decoding(pace: Mapping[str, Any]) -> str:
    return f"{pace['plain']['texts_per_second']:.1f}, {pace['qvft']['texts_per_second']:.1f}"
