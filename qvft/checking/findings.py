"""Dataclasses of the results of `qvft check`: written by `--json`, printed by `print_findings`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from qvft.errors import ImageError, PreflightError


@dataclass(frozen=True)
class RecipeFindings:
    """What the recipe says in one glance. `rows_per_step` is of one process and a phase; where a
    phase counts tokens, `tokens_per_step` has the most that it may take, and `rows_per_step` None.
    """

    name: str
    model: str
    run_dir: str
    quantize: str
    phases: tuple[str, ...]
    rows_per_step: tuple[int | None, ...]
    tokens_per_step: tuple[int | None, ...]


@dataclass(frozen=True)
class LeftOut:
    """A sample that is skipped: its image's path, why, what was expected and what to do."""

    id: str
    reason: str
    path: str = ""
    expected: str | None = None
    do: str | None = None


@dataclass(frozen=True)
class Quality:
    """What a split's images and texts are like, as plain values; docs/data_quality.md has the keys.

    Texts are in `answers.common` alone, and there only what many questions share.

    Attributes:
        exact_duplicates: groups of sample ids whose images are equal byte by byte.
        near_duplicates: pairs (first, second, difference) of images that look like copies.
        overlap: exact and near (pairs of image ids, ours first), id_only (image ids) and questions
            (pairs of question ids): what is also in the training data; None for the training data.
        repeats: contradictions and repeated_questions (groups of question ids), repeated_captions
            (row ids); images that look like copies of each other count as one.
        answers: None where there are no questions.
        lengths: by kind of text: count, and quantiles in words and tokens.
        cut: by kind of row: rows, tokens, and the share that `data.max_text_tokens` cuts.
        spelling: what the tokenizer loses, and what costs it much.
    """

    exact_duplicates: tuple[tuple[str, ...], ...]
    near_duplicates: tuple[Mapping[str, Any], ...]
    overlap: Mapping[str, Any] | None
    repeats: Mapping[str, Any]
    answers: Mapping[str, Any] | None
    lengths: Mapping[str, Mapping[str, Any]]
    cut: Mapping[str, Mapping[str, Any]]
    spelling: Mapping[str, Any]


@dataclass(frozen=True)
class SplitFindings:
    """Counts of one side of the data; lengths in tokens, see `data.token_stats.TokenStats`.

    Attributes:
        cut_ids: of the rows that lose tokens.
        cut_prompts, cut_targets: rows whose prompt, and whose target, loses tokens.
        cleaned_rows: rows whose caption or question `data.text: blip2` changes.
        shortened_ids: of those that lose words by it.
    """

    name: str
    images: int
    captions: int
    questions: int
    rows: int
    skipped: tuple[LeftOut, ...]
    target_tokens: tuple[int, float, int]
    longest: int
    longest_id: str
    cut_rows: int
    cut_tokens: int
    sha256: str
    quality: Quality
    cut_ids: tuple[str, ...] = ()
    cleaned_rows: int = 0
    shortened_ids: tuple[str, ...] = ()
    cut_prompts: int = 0
    cut_targets: int = 0


@dataclass(frozen=True)
class TextShown:
    """What a row consists of, in tokens; the loss sees the supervised ones only."""

    id: str
    kind: str
    image_tokens: int
    prompt_tokens: int
    supervised_tokens: int


@dataclass(frozen=True)
class Memory:
    """Bytes by arithmetic on one kind of device."""

    device: str
    weights: int
    trained_states: int
    activations: int
    total: int


@dataclass(frozen=True)
class Component:
    """Weights of one component."""

    component: str
    total: int
    trainable: int
    percent: float
    title: str = ""


@dataclass(frozen=True)
class PhaseFindings:
    """A phase: its component table, its LoRA targets, its memory, its optimizer steps.

    Attributes:
        total: the sum over the components.
        lora_targets: full names of the layers that get adapters.
        memory_assumes: what the estimate takes for granted, in words.
        steps: optimizer steps on one process, None where no data was read.
    """

    name: str
    components: tuple[Component, ...]
    total: Component
    lora_targets: tuple[str, ...]
    memory: tuple[Memory, ...]
    memory_assumes: str
    steps: int | None


@dataclass(frozen=True)
class Check:
    """One check before the first step."""

    name: str
    passed: bool
    detail: str


@dataclass(frozen=True)
class Findings:
    """Everything found; what was not looked at is None or empty.

    Attributes:
        warnings: what a user should act on.
        notes: what is worth knowing and needs no act.
        unusable: images at which training would stop; 0 where it leaves them out.
    """

    recipe: RecipeFindings
    train: SplitFindings | None = None
    eval: SplitFindings | None = None
    shown: tuple[TextShown, ...] = ()
    phases: tuple[PhaseFindings, ...] = ()
    checks: tuple[Check, ...] = ()
    warnings: tuple[str, ...] = field(default=())
    notes: tuple[str, ...] = ()
    unusable: int = 0

    def raise_if_failed(self) -> None:
        """Ends a check that training would not survive.

        Raises:
            ImageError: training would stop at unusable images.
            PreflightError: a check has failed.
        """
        if self.unusable:
            raise ImageError(
                f"{self.unusable} images are unusable",
                do="replace them or leave them out (data.on_bad_image: skip)",
            )
        failed = [check for check in self.checks if not check.passed]
        if failed:
            names = "; ".join(check.name for check in failed)
            raise PreflightError(f"{len(failed)} of {len(self.checks)} checks failed: {names}")
