"""Writes the weights of a LAVIS `.pth` file as a checkpoint of transformers, and verifies it."""

from __future__ import annotations

import copy
import warnings
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import torch
import transformers
from torch import Tensor
from transformers import PretrainedConfig, PreTrainedModel

from qvft.errors import CheckpointError, ModelError, VerificationError
from qvft.files import new_folder, require_space, sha256_file
from qvft.json_files import write_json
from qvft.log import get_logger
from qvft.models.checkpoint_tensors import Checkpoint, base_processor, open_checkpoint
from qvft.models.image_size import config_with_image_size, processor_with_image_size
from qvft.models.lavis_keys import LavisPlan, lavis_value, plan_lavis
from qvft.models.model_path import require_folder
from qvft.models.t5_head import HEAD, has_own_head, own_head_expected
from qvft.models.weight_origins import model_shapes
from qvft.setup.provenance import versions
from qvft.weights.write import SLACK_BYTES, file_hashes

logger = get_logger("qvft.export")

_POSITIONS = "visual_encoder.pos_embed"
_T5_HEAD = "t5_model.lm_head.weight"


def export_lavis(file: Path, out: Path, *, base_id: str) -> dict[str, Any]:
    """Converts a LAVIS checkpoint, and returns the content of export.json; `out` appears only after
    verification.

    Args:
        file: a `.pth` file with `{"model": weights}` or the weights themselves.
        base_id: folder or hub id of a transformers checkpoint of the same architecture: its class,
            configuration and processor, and the parts that LAVIS did not store.

    Raises:
        UserError: file or base do not fit, `out` exists, or the disk is full.
        VerificationError: a written weight differs.
    """
    require_folder(base_id, where="--base")
    state = read_pth(file)
    base = open_checkpoint(base_id, where="--base")
    processor = base_processor(base)
    model_class, config = _class_of(base), base.config
    if _POSITIONS in state:
        side = round((state[_POSITIONS].shape[1] - 1) ** 0.5)
        size = side * config.vision_config.patch_size
        if size != config.vision_config.image_size:
            config = config_with_image_size(config, size)
            processor = processor_with_image_size(processor, size)
    target, tied = model_shapes(model_class, config)
    if has_own_head(config) and (HEAD in base.shapes or _T5_HEAD in state):
        tied.pop(HEAD)
    keys = {key: tuple(tensor.shape) for key, tensor in state.items()}
    plan = plan_lavis(keys, target, tied, where=str(file))
    for reason, count in sorted(Counter(plan.dropped.values()).items()):
        logger.info("%d keys are dropped: %s", count, reason)
    weights = _weights(plan, state, base)
    with new_folder(out) as folder:
        size = sum(one.numel() * one.itemsize for one in weights.values())
        require_space(folder, size + SLACK_BYTES)
        processor.save_pretrained(folder)
        verified = _write(folder, model_class, config, weights, tied)
        content = {
            "format": 1,
            "form": "transformers",
            "file": {"name": file.name, "sha256": sha256_file(file)},
            "base": {"id": base.id, "revision": base.revision},
            "class": model_class.__name__,
            "keys": {
                "mapped": sum(map(len, plan.mapped.values())),
                "dropped": plan.dropped,
                "from_base": dict(Counter(key.partition(".")[0] for key in plan.from_base)),
            },
            "verification": {"weights": verified},
            "versions": versions(),
            "files": file_hashes(folder),
        }
        write_json(folder / "export.json", content)
    return content


def read_pth(file: Path) -> dict[str, Tensor]:
    """The weights in a `.pth` file, read as data: `torch.load(weights_only=True)`.

    Raises:
        CheckpointError: it cannot be read so, or holds no weights by name.
    """
    expected = "a file of torch.save with weights by name, or under `model`, as LAVIS writes it"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of other versions of pickle
            content = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # damaged pickles raise nearly anything
        # torch's own message advises to run the code in the file.
        unsafe = type(error).__name__ == "UnpicklingError"
        reason = "holds other objects than tensors" if unsafe else "is damaged or of another kind"
        raise CheckpointError(
            f"cannot be read safely: it {reason}", where=str(file), expected=expected
        ) from error
    found = content.get("model", content) if isinstance(content, Mapping) else None
    if (
        not isinstance(found, Mapping)
        or not found
        or not all(isinstance(key, str) and isinstance(found[key], Tensor) for key in found)
    ):
        raise CheckpointError("holds no weights by name", where=str(file), expected=expected)
    return dict(found)


def _class_of(base: Checkpoint) -> type[PreTrainedModel]:
    """The class of the base; both of BLIP-2's have one `model_type`."""
    retrieval = "itm_head.weight" in base.shapes
    names = {
        "blip-2": "Blip2ForImageTextRetrieval" if retrieval else "Blip2ForConditionalGeneration",
        "instructblip": "InstructBlipForConditionalGeneration",
    }
    if base.config.model_type not in names:
        raise ModelError(
            f'model_type "{base.config.model_type}"',
            where=f"--base={base.id}",
            expected="one of " + ", ".join(names),
        )
    return cast(type[PreTrainedModel], getattr(transformers, names[base.config.model_type]))


def _weights(plan: LavisPlan, state: Mapping[str, Tensor], base: Checkpoint) -> dict[str, Tensor]:
    """Every weight of the model; those of the base are memory-mapped."""
    lacking = sorted(key for key in plan.from_base if key not in base.shapes)
    if lacking:
        raise ModelError(
            f"{len(lacking)} missing weights: {lacking[0]}",
            where=f"--base={base.id}",
            expected="a complete checkpoint: the file does not have its frozen parts",
        )
    return {
        **{key: lavis_value(sources, state) for key, sources in plan.mapped.items()},
        **base.tensors(plan.from_base),
    }


def _write(
    folder: Path,
    model_class: type[PreTrainedModel],
    config: PretrainedConfig,
    weights: Mapping[str, Tensor],
    tied: Mapping[str, str],
) -> int:
    """Writes the model, loads the folder plainly and compares bit by bit; the number of weights."""
    with torch.device("meta"):
        model = model_class(copy.deepcopy(config))
    # Keys that are tied to another are absent; all others are there, as the plan has checked.
    model.load_state_dict(dict(weights), strict=False, assign=True)
    with own_head_expected(config):
        model.tie_weights(missing_keys={*tied})
        model.save_pretrained(folder)
        plain, loading = cast(Any, model_class).from_pretrained(
            folder, dtype=torch.float32, output_loading_info=True
        )
    wrong = [key for kind in ("missing_keys", "unexpected_keys") for key in loading[kind]]
    loaded = plain.state_dict()
    wrong += [key for key in loaded if key not in weights and key not in tied]
    wrong += [
        key for key, tensor in weights.items() if not torch.equal(loaded[key], tensor.float())
    ]
    if wrong:
        raise VerificationError(f"{folder}: loaded again, {len(wrong)} weights differ: {wrong[:3]}")
    return sum(tensor.numel() for tensor in weights.values())
