"""TrainingArguments that `train.arguments` refuses, by name. Does not import torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from qvft.errors import RecipeError
from qvft.recipe.train import Train

# Fields that a recipe sets under another name, or that qvft's trainer needs as they are; those that
# the `train` section has under the same name are not repeated here.
_OURS = {
    "output_dir": "run.dir",
    "num_train_epochs": "train.epochs",
    "per_device_eval_batch_size": "train.per_device_train_batch_size",
    "gradient_checkpointing_kwargs": "train.gradient_checkpointing",
    "adam_beta1": "train.betas",
    "adam_beta2": "train.betas",
    "bf16": "train.mixed_precision",
    "fp16": "train.mixed_precision",
    "eval_strategy": "train.eval_steps",
    "save_strategy": "train.save_steps",
    "dataloader_num_workers": "data.num_workers",
    "seed": "run.seed",
    "remove_unused_columns": None,
    "prediction_loss_only": None,
    "label_names": None,
    "label_smoothing_factor": None,
    "logging_nan_inf_filter": None,
    "torch_compile_backend": "train.torch_compile",
    "torch_compile_mode": "train.torch_compile",
    "fsdp": None,
    "deepspeed": None,
    "local_rank": None,
    "use_cpu": None,
}

_ORDER = "the order of texts follows run.seed and train.texts_per_image"
_METRICS = "evaluation during training computes its own metrics, which need neither"
_EVAL_PRECISION = "evaluation during training uses train.mixed_precision"
_PROGRAM = "it is for scripts that read it themselves"
# Fields without effect here, and why.
_IDLE = {
    "data_seed": _ORDER,
    "train_sampling_strategy": _ORDER,
    "group_by_length": _ORDER,
    "length_column_name": _ORDER,
    "include_for_metrics": _METRICS,
    "batch_eval_metrics": _METRICS,
    "eval_do_concat_batches": _METRICS,
    "bf16_full_eval": _EVAL_PRECISION,
    "fp16_full_eval": _EVAL_PRECISION,
    "auto_find_batch_size": "a batch that does not fit into memory is split into parts",
    "activation_checkpointing": "train.gradient_checkpointing is read instead",
    "activation_checkpointing_kwargs": "train.gradient_checkpointing is read instead",
    "fsdp_config": "accelerate launch sets how weights are sharded, see docs/scaling.md",
    **dict.fromkeys(
        ("hub_model_id", "hub_strategy", "hub_private_repo", "hub_always_push", "hub_revision"),
        "checkpoints are not uploaded",
    ),
    "do_train": _PROGRAM,
    "do_eval": f"{_PROGRAM}; set train.eval_steps",
    "do_predict": _PROGRAM,
    "resume_from_checkpoint": "train.resume is read instead",
}
# Fields that are read only if the batch size is in texts.
_OF_TEXT_BATCHES = (
    "dataloader_drop_last", "dataloader_multiprocessing_context", "dataloader_in_order",
)  # fmt: skip


def refuse_arguments(train: Mapping[str, Any]) -> None:
    """Raises RecipeError if a field of `train.arguments` has a key of its own, or no effect."""
    for key in train["arguments"]:
        where = f"train.arguments.{key}"
        reason = _IDLE.get(key)
        if train["batch_tokens"] is not None and key in _OF_TEXT_BATCHES:
            reason = "train.batch_tokens builds the batches"
        if reason is not None:
            raise RecipeError(f"would have no effect: {reason}", where=where, do="leave it out")
        if key == "push_to_hub":
            raise RecipeError(
                "would upload checkpoints, which nobody can load as a model",
                where=where,
                do="upload the folder that qvft.merge writes: hf upload REPO FOLDER",
            )
        if key in _OURS or key in Train.model_fields:
            instead = f"train.{key}" if key in Train.model_fields else _OURS[key]
            raise RecipeError(
                "is set by qvft", where=where, do=f"set {instead} instead" if instead else None
            )
