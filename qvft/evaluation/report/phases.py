"""Training phases in a report: fields and wording."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from pydantic import Field

from qvft.evaluation.evaluation_facts import Part

_TITLES = {"vision": "ViT", "qformer": "Q-Former"}
_LEARNT = {"lm": "language"}


class PhaseComponent(Part):
    """A component of the model in a phase."""

    component: str = Field(description="its name in a recipe's `trainable`; LoRA is `adapters`")
    title: str = Field(description="what it is, e.g. `GPT-2 decoder`")
    weights: int = Field(description="all of its weights")
    trained: int = Field(description="of these, how many the phase trains")


class SourceShare(Part):
    """A source in a list of training sources."""

    name: str = Field(description="its name in the recipe, or derived from its path")
    images: int = Field(description="its images with texts that the phase learns from")
    texts: int = Field(description="its texts")
    share: float = Field(description="its share of the texts of an epoch, from 0 to 1")
    prompt: dict[str, str] = Field(description="prompts of its own: `caption`, `question`")


class PhaseFacts(Part):
    """A phase of the training run; a recipe without `phases` has one."""

    name: str = Field(description="as in the recipe; `train` where it names no phases")
    objective: str = Field("language", description="`language`, `preference` or `reward`")
    objectives: dict[str, float] = Field(
        description="what is learnt, with its weight in the loss: `lm`, `itc`, `itm`, `itg`; of "
        "preferences the names of `preference.loss_type`, of rewards those of `reward.funcs`"
    )
    components: list[PhaseComponent] = Field(description="what is trained and what is frozen")
    decoder_blocks: int = Field(description="blocks of the decoder")
    decoder_blocks_trained: int = Field(
        description="of these, how many are trained in full, from the top"
    )
    decoder_frozen: float = Field(
        description="`trainable.frozen_decoder_fraction`, a share from 0 to 1"
    )
    learning_rates: dict[str, float] = Field(
        description="the highest of the schedule, by what is trained"
    )
    epochs: float | None = Field(description="passes over the texts asked for; null: `max_steps`")
    max_steps: int | None = Field(description="optimizer steps asked for; null: `epochs`")
    batch_size: int = Field(description="texts per device and batch")
    batch_tokens: int | None = Field(
        None,
        description="tokens of the decoder a device and batch at most, in place of `batch_size`; "
        "null: texts were counted",
    )
    accumulation: int = Field(description="batches an optimizer step")
    steps: int | None = Field(
        description="optimizer steps taken, as far as logged; null where nothing was"
    )
    sources: list[SourceShare] = Field(
        default_factory=list, description="of a list of training sources; else empty"
    )
    loss: float | None = Field(
        description="the last training loss logged, mean over the steps since the log before"
    )


def phase_lines(phases: Sequence[PhaseFacts]) -> list[dict[str, Any]]:
    """Cells of each phase's row; lists have one line per entry."""
    numbered = len(phases) > 1
    return [
        {
            "number": number if numbered else None,
            "name": phase.name,
            "learns": _learns(phase),
            "sources": [
                f"{one.name} {100 * one.share:.3g} % ({_count(one.texts, 'text')}, "
                f"{_count(one.images, 'image')})"
                for one in phase.sources
            ],
            "trained": _trained(phase),
            "frozen": [_part(part) for part in phase.components if not part.trained],
            "rates": _rates(phase),
            "length": _length(phase),
            "rows": _rows(phase),
            "loss": "\u2013" if phase.loss is None else f"{phase.loss:.3g}",
        }
        for number, phase in enumerate(phases, start=1)
    ]


def _learns(phase: PhaseFacts) -> str:
    what = "" if phase.objective == "language" else f"{phase.objective}: "
    if len(phase.objectives) == 1:
        name = next(iter(phase.objectives))
        return what + _LEARNT.get(name, name)
    return what + ", ".join(f"{name} {weight:g}" for name, weight in phase.objectives.items())


def _trained(phase: PhaseFacts) -> list[str]:
    """Trained components, and their share of all weights."""
    lines = []
    for part in phase.components:
        if not part.trained:
            continue
        text = _part(part)
        if part.component == "decoder" and phase.decoder_blocks_trained < phase.decoder_blocks:
            blocks = f"{phase.decoder_blocks_trained} of {phase.decoder_blocks} blocks"
            text += ", " + blocks.replace(" ", "\u00a0")
        lines.append(text)
    weights = sum(part.weights for part in phase.components)
    trained = sum(part.trained for part in phase.components)
    share = f"{100 * trained / weights:.1f} % of all weights" if weights else ""
    return [*lines, share]


def _part(part: PhaseComponent) -> str:
    partly = f"{_weights(part.trained)} of " if 0 < part.trained < part.weights else ""
    return f"{_title(part)} {partly}{_weights(part.weights)}"


def _title(part: PhaseComponent) -> str:
    return _TITLES.get(part.title, part.title)


def _weights(count: int) -> str:
    return f"{count / 1e6:.2f}\u00a0M" if count >= 10_000 else _number(count)


def _rates(phase: PhaseFacts) -> list[str]:
    """Learning rates, the most common one first; a single one without name."""
    titles = {part.component: _title(part) for part in phase.components}
    rates = phase.learning_rates
    common = [value for value, _ in Counter(rates.values()).most_common()]
    if len(common) == 1:
        return [_rate(common[0])]
    return [
        f"{_rate(value)} {', '.join(titles.get(k, k) for k, v in rates.items() if v == value)}"
        for value in common
    ]


def _rate(value: float) -> str:
    """2e-5, 1.5e-3, 0.01."""
    mantissa, _, power = f"{value:.2e}".partition("e")
    return f"{float(mantissa):g}e{int(power)}" if 0 < value < 0.01 else f"{value:g}"


def _length(phase: PhaseFacts) -> list[str]:
    taken = None if phase.steps is None else _count(phase.steps, "step")
    if phase.max_steps is not None:
        if phase.steps is None or phase.steps == phase.max_steps:
            return [_count(phase.max_steps, "step")]
        return [f"{_number(phase.steps)} of {_count(phase.max_steps, 'step')}"]
    assert phase.epochs is not None
    return [_count(phase.epochs, "epoch"), *([taken] if taken else [])]


def _count(number: float, unit: str) -> str:
    return f"{_number(number)} {unit}" + ("" if number == 1 else "s")


def _number(number: float) -> str:
    return f"{number:,.12g}".replace(",", "\u2009")


def _rows(phase: PhaseFacts) -> str:
    batch = str(phase.batch_size)
    if phase.batch_tokens is not None:
        batch = _count(phase.batch_tokens, "token")
    return batch if phase.accumulation == 1 else f"{phase.accumulation} \u00d7 {batch}"
