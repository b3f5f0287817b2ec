"""Report of `qvft.bench`: table, lines, JSON."""

from __future__ import annotations

import platform
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import torch
from rich.table import Table

from qvft.benchmark.caption import CaptionPace
from qvft.benchmark.prediction import PredictionPace
from qvft.benchmark.preference import PreferenceBench
from qvft.benchmark.reward import RewardBench
from qvft.benchmark.training import TrainingBench
from qvft.benchmark.whole import CommandBench
from qvft.recipe.schema import Recipe
from qvft.setup.model import device
from qvft.setup.provenance import versions

TITLES = {
    "plain": "plain practice",
    "label_logits": "logits at labels only",
    "image_once": "and an image once",
    "packed": "and packed, sharing its prefix",
    "cached": "cached features, not packed",
    "qvft": "all together",
}


def machine(recipe: Recipe) -> dict[str, Any]:
    """Description of the machine."""
    place = device()
    on_gpu = place.type == "cuda"
    return {
        "device": torch.cuda.get_device_name(place) if on_gpu else platform.machine(),
        "threads": torch.get_num_threads(),
        "model": recipe.model.id,
        "versions": versions(),
    }


def training_json(bench: TrainingBench) -> dict[str, Any]:
    """The measurement: plain practice and everything at the top, parts below."""
    found = asdict(bench)
    ways = found.pop("ways")
    return {"plain": ways.pop("plain"), "qvft": ways.pop("qvft"), "parts": ways, **found}


def training_table(bench: TrainingBench) -> Table:
    """One line per variant, with ratios to the plain one."""
    table = Table(
        title=f"training: {bench.batches} steps of {bench.texts} texts and {bench.images} images, "
        f"{bench.precision}, median of {bench.rounds} rounds",
        caption=f"loss differs by {bench.max_abs_loss_difference:.1e} at most, gradients by "
        f"{bench.max_abs_gradient_difference:.1e} (largest {bench.max_abs_gradient:.1e}); the "
        f"operations promise {bench.promised:.2f}; a product of matrices runs at "
        f"{bench.matmul_flops_per_second / 1e9:,.0f} GFLOP/s",
    )
    for title in ("", "texts/s", "label tokens/s", "ratio", "peak MB", "GFLOP/text", "GFLOP/s"):
        table.add_column(title, justify="right" if title else "left")
    base = bench.ways["plain"].texts_per_second
    for name, pace in bench.ways.items():
        table.add_row(
            TITLES[name],
            f"{pace.texts_per_second:,.1f}",
            f"{pace.label_tokens_per_second:,.0f}",
            f"{pace.texts_per_second / base:.2f}",
            f"{pace.peak_memory_bytes / 1e6:,.0f}",
            f"{pace.flops_per_text / 1e9:.3g}",
            f"{pace.flops_per_second / 1e9:,.1f}",
        )
    return table


def command_table(bench: CommandBench, *, title: str) -> Table:
    """One line per command, with ratios to the plain one."""
    same = "" if bench.equal_texts is None else f"; {bench.equal_texts} texts are the same"
    table = Table(
        title=f"{title}: {bench.texts} texts of {bench.images} images, {bench.threads} threads, "
        f"median of {len(next(iter(bench.commands.values())).seconds)} rounds{same}"
    )
    for name in ("", "seconds", "ratio", "texts/s", "CPU seconds", "ratio", "peak MB"):
        table.add_column(name, justify="right" if name else "left")
    for name, pace in bench.commands.items():
        rates = pace.median_seconds, pace.speedup, bench.texts / pace.median_seconds
        numbers = (*rates, pace.median_cpu_seconds, pace.cpu_ratio)
        peak = f"{pace.peak_memory_bytes / 1e6:,.0f}"
        table.add_row(name, *(f"{number:,.2f}" for number in numbers), peak)
    return table


def prediction_lines(pace: PredictionPace) -> str:
    """Both ways and their ratio."""
    return (
        f"prediction: {pace.texts} texts of {pace.images} images, median of {pace.rounds} rounds\n"
        f"  plain loop  {pace.plain.texts_per_second:10.2f} texts/s\n"
        f"  qvft        {pace.qvft.texts_per_second:10.2f} texts/s, in batches of "
        f"{pace.batch_size}\n"
        f"  ratio       {pace.speedup:10.2f}; {pace.equal_texts} texts are the same"
    )


def preference_lines(bench: PreferenceBench) -> str:
    """Both sides and their ratios."""
    lines = [
        f"preference tuning: {bench.batches} steps of {bench.pairs} pairs and {bench.images} "
        f"images, {bench.precision}, median of {bench.rounds} rounds"
    ]
    for name, pace in (("trl", bench.trl), ("qvft", bench.qvft)):
        lines.append(
            f"  {name:<6}{pace.pairs_per_second:10.2f} pairs/s "
            f"{pace.peak_memory_bytes / 1e6:8,.0f} MB peak {pace.flops_per_pair / 1e9:8.3g} "
            "GFLOP/pair"
        )
    return "\n".join(
        [
            *lines,
            f"  ratio {bench.speedup:10.2f}         {bench.memory_ratio:8.2f}         "
            f"{bench.promised:8.2f}",
            f"  gradients differ by {bench.max_abs_gradient_difference:.1e} (largest "
            f"{bench.max_abs_gradient:.1e}); features and reference once per phase, "
            f"{bench.reference_seconds:.2f} s here, are not in qvft's steps",
        ]
    )


def caption_lines(pace: CaptionPace) -> str:
    """Both ways and their ratio."""
    same = "the same tokens" if pace.equal_tokens else "other tokens"
    return (
        f"one caption of {pace.tokens} tokens, median of {pace.rounds} rounds\n"
        f"  published loop, no cache  {pace.plain_ms:10.1f} ms\n"
        f"  qvft                      {pace.qvft_ms:10.1f} ms\n"
        f"  ratio                     {pace.speedup:10.2f}; {same}"
    )


def reward_lines(bench: RewardBench) -> str:
    """Both ways, their ratios, and what FLOPs promise."""
    sides = [
        f"  {name:9} {pace.samples_per_second:10.1f} samples/s {pace.updates_per_second:8.2f} "
        f"updates/s, peak {pace.peak_memory_bytes / 1e6:,.0f} MB, "
        f"{pace.flops_per_update / 1e9:,.1f} GFLOP per update"
        for name, pace in (("one by one", bench.plain), ("qvft", bench.qvft))
    ]
    return "\n".join(
        [
            f"reward tuning: {bench.batches} updates of {bench.rows} rows, {bench.images} images, "
            f"{bench.num_generations} samples per row, {bench.precision}, median of "
            f"{bench.rounds} rounds",
            *sides,
            f"  sampling {bench.sampling_speedup:.2f} times as fast, updates "
            f"{bench.update_speedup:.2f} times (the operations promise {bench.promised:.2f}), "
            f"memory {bench.memory_ratio:.2f}; gradients differ by "
            f"{bench.max_abs_gradient_difference:.1e} (largest {bench.max_abs_gradient:.1e})",
        ]
    )


LINES: dict[str, Callable[[Any], str]] = {
    "predict": prediction_lines,
    "preference": preference_lines,
    "reward": reward_lines,
    "caption": caption_lines,
}
"""The report of each measurement but training's and whole commands', by its name."""
