"""Evaluation task: rows, prompts, decoding and metrics, checked before a model is loaded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from qvft.adapters.manifest import fingerprints, read_manifest
from qvft.data.rows import Row, evaluation_rows
from qvft.errors import DataError
from qvft.evaluation.available_metrics import require_metrics, wants_retrieval
from qvft.evaluation.embedding_metrics import RETRIEVAL, ZERO_SHOT
from qvft.evaluation.evaluation_facts import (
    DataFacts,
    DecodeFacts,
    ModelFacts,
    setting_differences,
)
from qvft.evaluation.likelihoods import CANDIDATES, SCORES, with_candidates
from qvft.evaluation.pairing import differing_parts
from qvft.evaluation.rows import PredictionRow, prediction_rows
from qvft.evaluation.scoring import metric_names
from qvft.evaluation.stored_evaluation import StoredEvaluation, stored_facts
from qvft.evaluation.zero_shot import Classes, rows_of_class
from qvft.inference.generation_trial import tried_fields
from qvft.inference.log_probs import Scoring
from qvft.json_files import sha256_json
from qvft.log import get_logger
from qvft.models.load import gpu_has_bf16
from qvft.setup.data import Listed, Split, images_hash, read_split
from qvft.setup.itc_heads import retrieves
from qvft.setup.model import DTYPES, base_of, device
from qvft.setup.provenance import base_hash, versions
from qvft.setup.resolve_model import ResolvedModel
from qvft.setup.source_names import split_source

logger = get_logger("qvft.eval")


@dataclass(frozen=True)
class Task:
    """A checked evaluation task; nothing is loaded yet.

    Attributes:
        groups: names of metrics, possibly `auto`.
        generation: `GenerationConfig` fields per kind of text.
        of_model: embedding metrics: `retrieval`, `zero_shot`.
        classes: classes of zero-shot classification, if evaluated.
    """

    opened: ResolvedModel
    split: Split
    rows: list[Row]
    groups: list[str]
    generation: Mapping[str, Mapping[str, Any]]
    model: ModelFacts
    data: DataFacts
    decode: DecodeFacts
    versions: Mapping[str, str]
    of_model: tuple[str, ...] = ()
    classes: Classes | None = None

    def facts(self) -> dict[str, Any]:
        """Facts that determine its texts, as JSON values."""
        parts = {"model": self.model, "data": self.data, "decode": self.decode}
        content = {name: part.model_dump(mode="json") for name, part in parts.items()}
        return stored_facts({**content, "versions": self.versions})

    def mismatch(self, stored: StoredEvaluation) -> str | None:
        """Why a stored evaluation has other texts than this task; None if it has the same."""
        if self.data.images_sha256 is None:
            return "its images have no files whose content could be compared"
        differing = setting_differences(self.facts(), stored_facts(stored.content))
        if differing:
            more = f" and {len(differing) - 3} more" if len(differing) > 3 else ""
            return "other " + ", ".join(item.setting for item in differing[:3]) + more
        asked = self.asked()
        same = len(asked) == len(stored.rows) and all(
            row.id == found.id and row.meta == found.meta and not differing_parts(row, found)
            for row, found in zip(asked, stored.rows, strict=True)
        )
        return None if same else "other items"

    def asked(self) -> list[PredictionRow]:
        """The rows, without predictions."""
        return prediction_rows(self.rows)

    def group_names(self) -> list[str]:
        """Metrics in the report, embedding metrics last."""
        scoring = self.scoring()
        of_likelihoods = [SCORES] if scoring.log_probs else []
        of_likelihoods += [CANDIDATES] if scoring.rank_by else []
        return [*metric_names(self.asked(), self.groups), *self.of_model, *of_likelihoods]

    def scoring(self) -> Scoring:
        """What is computed besides texts."""
        settings = self.opened.recipe.eval
        return Scoring(
            log_probs=settings.scores or settings.abstain_below is not None,
            rank_by="sum" if any(row.candidates for row in self.rows) else None,
            abstain_below=settings.abstain_below,
        )

    def is_deterministic(self) -> bool:
        """Whether no text is sampled. Reading images draws a random number, as sampling does."""
        return not any(fields["do_sample"] for fields in self.generation.values())

    def shows_blind(self) -> bool:
        """Whether the image-blind baseline is computed."""
        return self.opened.recipe.eval.blind and len(self.split.samples) > 1


def prepare(
    opened: ResolvedModel, *, split: Split | None = None, texts: Listed | None = None
) -> Task:
    """Checks settings, reads data, and hashes data and weights.

    Args:
        split: the evaluation data, if already read.
        texts: from `data.listed`, if only these have been read.

    Raises:
        UserError: the recipe, the data or the checkpoint is wrong.
    """
    recipe = opened.recipe
    generation = tried_fields(recipe, base_of(recipe))
    split = split or read_split(recipe, "eval", texts)
    rows = evaluation_rows(split.samples, texts=split.source.texts)
    rows = with_candidates(recipe, rows)
    if not rows:
        has_pairs = any(sample.pairs for sample in split.samples)
        raise DataError(
            "holds no text to evaluate",
            where="data.eval",
            expected="captions or questions; pairs are for training" if has_pairs else None,
        )
    require_metrics(opened, rows)
    classes = _classes(opened, rows)
    of_model = [RETRIEVAL] if wants_retrieval(opened, rows) else []
    of_model += [ZERO_SHOT] if classes else []
    return Task(
        opened,
        split,
        rows,
        [name for name in recipe.eval.metrics if name != RETRIEVAL],
        generation,
        _model_facts(opened),
        _data_facts(split),
        _decode_facts(opened, generation, rows),
        versions(),
        tuple(of_model),
        classes,
    )


def _classes(opened: ResolvedModel, rows: Sequence[Row]) -> Classes | None:
    """Classes of zero-shot classification; None if not requested or not possible."""
    named = opened.recipe.eval.classes
    if not named:
        return None
    classes = Classes(tuple(named), tuple(opened.recipe.eval.class_prompts))
    reason = None
    if not retrieves(opened):
        reason = "not a run with itc among its objectives"
    elif not rows_of_class(prediction_rows(rows), classes.names):
        reason = "no text's reference is one of them"
    if reason is not None:
        logger.warning("%s: eval.classes is ignored: %s", opened.name, reason)
        return None
    return classes


def _model_facts(opened: ResolvedModel) -> ModelFacts:
    """The model with the hashes of its weights, which are read but not loaded."""
    recipe = opened.recipe
    base = base_of(recipe)
    run = opened.home if opened.kind == "run" else None
    manifest = read_manifest(run / "adapter") if run else {}
    dtype = DTYPES.get(recipe.model.dtype, torch.bfloat16 if gpu_has_bf16() else torch.float32)
    place = device()
    return ModelFacts(
        name=opened.name,
        kind=opened.kind,
        base=recipe.model.id,
        base_revision=base.revision,
        decoder=recipe.model.decoder,
        base_weights_sha256=base_hash(recipe, base, recorded=manifest.get("base_weights_sha256")),
        adapter_sha256=fingerprints(run / "adapter") if run else {},
        recipe_sha256=manifest.get("recipe_sha256"),
        started_from=manifest.get("started_from", {}),
        image_size=recipe.model.image_size,
        dtype=str(dtype).removeprefix("torch."),
        quantize=recipe.model.quantization.scheme,
        attention=recipe.model.kernel,
        device=torch.cuda.get_device_name(place) if place.type == "cuda" else place.type,
    )


def _data_facts(split: Split) -> DataFacts:
    """The split with the hashes of its texts and of its image files."""
    return DataFacts(
        format=split.source.format,
        name=split.name,
        path=split.source.path,
        images=len(split.samples),
        sha256=split.sha256,
        images_sha256=images_hash(split.samples),
    )


def _decode_facts(
    opened: ResolvedModel, generation: Mapping[str, Mapping[str, Any]], rows: Sequence[Row]
) -> DecodeFacts:
    """Decoding settings: `generation` from `generation_fields`, prompts, lengths, candidates."""
    recipe, own = opened.recipe, split_source(opened.recipe, "eval")
    candidates = [list(row.candidates) for row in rows]
    return DecodeFacts(
        captions=dict(generation["caption"]),
        questions=dict(generation["question"]),
        batch_size=recipe.eval.batch_size,
        prompt={**recipe.data.prompt.recorded(), **own.prompt.model_dump(exclude_none=True)},
        text=recipe.data.text,
        max_text_tokens=recipe.data.max_text_tokens,
        rerank=recipe.eval.rerank,
        classes=recipe.eval.classes,
        class_prompts=recipe.eval.class_prompts if recipe.eval.classes else [],
        candidates_sha256=sha256_json(candidates) if any(candidates) else None,
        abstain_below=recipe.eval.abstain_below,
    )
