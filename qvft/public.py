"""The public names of qvft, and the module that each comes from: `qvft.NAME` imports it."""

from __future__ import annotations

from collections.abc import Mapping

PUBLIC: Mapping[str, str] = {
    "EmbeddingModel": "qvft.inference.embedding_model",
    "Recipe": "qvft.recipe.schema",
    "Run": "qvft.api.run",
    "VisionLanguageModel": "qvft.inference.vision_language_model",
    "fit": "qvft.api.run",
    "load_embedding_model": "qvft.inference.embedding_model",
    "load_model": "qvft.inference.vision_language_model",
    "register_decoder": "qvft.models.decoders",
    "register_family": "qvft.models.families",
    "register_format": "qvft.data.formats.format_table",
    "register_metric": "qvft.evaluation.metric_table",
    "register_objective": "qvft.training.objectives.objective_table",
}
