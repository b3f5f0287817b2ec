"""Dataclasses of the results of `qvft check`: written by `--json`, printed by `print_findings`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from qvft.data.quality.contradictions import Repeats
from qvft.data.quality.distributions import Answers, Lengths
from qvft.data.quality.duplicates import NearPair
from qvft.data.quality.pair_quality import PairQuality
from qvft.data.quality.tokenizer_coverage import Spelling
from qvft.data.token_stats import Cut
from qvft.data.validate_images import Skipped
from qvft.errors import ImageError, PreflightError


@dataclass(frozen=True)
class RecipeFindings:
    """Summary of a recipe. `rows_per_step` is per process and phase; under a token budget
    `tokens_per_step` is its maximum, and `rows_per_step` None. `started_from` is `train.from`.
    """

    name: str
    model: str
    run_dir: str
    quantize: str
    phases: tuple[str, ...]
    rows_per_step: tuple[int | None, ...]
    tokens_per_step: tuple[int | None, ...]
    started_from: str | None = None


@dataclass(frozen=True)
class Quality:
    """Data quality of a split; docs/data_quality.md lists the keys of its JSON.

    Only `answers.common` has texts, and only answers that many questions share.

    Attributes:
        exact_duplicates: groups of sample ids with byte-identical images.
        overlap: data leakage: `duplicates.Overlap`, and `questions` (pairs of question ids) asked
            in the training data too; None for the training data.
        lengths, cut: per kind of text, and per kind of row.
    """

    exact_duplicates: tuple[tuple[str, ...], ...]
    near_duplicates: tuple[NearPair, ...]
    overlap: Mapping[str, Any] | None
    repeats: Repeats
    answers: Answers | None
    lengths: Mapping[str, Lengths]
    cut: Mapping[str, Cut]
    spelling: Spelling
    pairs: PairQuality | None = None


@dataclass(frozen=True)
class SplitFindings:
    """Counts of a split; lengths in tokens, see `data.token_stats.TokenStats`.

    Attributes:
        cleaned_rows, shortened_ids: rows changed and truncated by `data.text: blip2`.
        rows: texts to learn from or to evaluate; a pair has two.
    """

    name: str
    images: int
    captions: int
    questions: int
    rows: int
    skipped: tuple[Skipped, ...]
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
    pairs: int = 0


@dataclass(frozen=True)
class Memory:
    """GPU memory estimate in bytes for one kind of device."""

    device: str
    weights: int
    trained_states: int
    activations: int
    total: int


@dataclass(frozen=True)
class Component:
    """Parameters of one component."""

    component: str
    total: int
    trainable: int
    percent: float
    title: str = ""


@dataclass(frozen=True)
class PhaseFindings:
    """A phase: component table, full names of the layers with LoRA, memory, optimizer steps.

    Attributes:
        memory_assumes: assumptions of the estimate.
        steps: optimizer steps on one process, None if no data was read.
        sources: of a list of training sources, see `setup.mixing.source_shares`.
    """

    name: str
    components: tuple[Component, ...]
    total: Component
    lora_targets: tuple[str, ...]
    memory: tuple[Memory, ...]
    memory_assumes: str
    steps: int | None
    sources: tuple[Mapping[str, Any], ...] = ()


@dataclass(frozen=True)
class Check:
    """One preflight check."""

    name: str
    passed: bool
    detail: str


@dataclass(frozen=True)
class ShownRow:
    """Token counts of a row, without its texts, which may be patient data."""

    id: str
    kind: str
    image_tokens: int
    prompt_tokens: int
    supervised_tokens: int


@dataclass(frozen=True)
class Findings:
    """All results; parts that were not checked are None or empty. `unusable` counts images at which
    training would stop; 0 if it skips them.
    """

    recipe: RecipeFindings
    train: SplitFindings | None = None
    eval: SplitFindings | None = None
    shown: tuple[ShownRow, ...] = ()
    phases: tuple[PhaseFindings, ...] = ()
    checks: tuple[Check, ...] = ()
    warnings: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    unusable: int = 0

    def raise_if_failed(self) -> None:
        """Raises ImageError for images at which training would stop, PreflightError for failed
        checks.
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
