"""Dataclasses of the results of `qvft check`: written by `--json`, printed by `print_findings`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

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
    """Data quality of a split as plain values; docs/data_quality.md lists the keys.

    Only `answers.common` has texts, and only answers that many questions share.

    Attributes:
        exact_duplicates: groups of sample ids with byte-identical images.
        near_duplicates: pairs (first, second, difference) of near-duplicate images.
        overlap: data leakage, what is also in the training data: exact and near (pairs of image
            ids, ours first), id_only (image ids) and questions (pairs of question ids); None for
            the training data.
        repeats: contradictions and repeated_questions (groups of question ids), repeated_captions
            (row ids); duplicate images count as one.
        answers: None without questions.
        lengths: per kind of text: count, and quantiles in words and tokens.
        cut: per kind of row: rows, tokens, and the share truncated by `data.max_text_tokens`.
        spelling: tokenizer coverage.
        pairs: of pairs of texts: count, equal, repeated, reference_rejected and uneven (ids),
            contradictions (groups of ids), mean tokens, and the share in which either text is
            longer; None without pairs.
    """

    exact_duplicates: tuple[tuple[str, ...], ...]
    near_duplicates: tuple[Mapping[str, Any], ...]
    overlap: Mapping[str, Any] | None
    repeats: Mapping[str, Any]
    answers: Mapping[str, Any] | None
    lengths: Mapping[str, Mapping[str, Any]]
    cut: Mapping[str, Mapping[str, Any]]
    spelling: Mapping[str, Any]
    pairs: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class SplitFindings:
    """Counts of a split; lengths in tokens, see `data.token_stats.TokenStats`.

    Attributes:
        cut_ids: ids of truncated rows.
        cut_prompts, cut_targets: rows with truncated prompt, and with truncated target.
        cleaned_rows: rows changed by `data.text: blip2`.
        shortened_ids: ids of rows truncated by it.
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
    """A phase: component table, LoRA targets, memory, optimizer steps.

    Attributes:
        lora_targets: full names of the layers with adapters.
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
    """All results; parts that were not checked are None or empty.

    Attributes:
        unusable: images at which training would stop; 0 if it skips them.
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
