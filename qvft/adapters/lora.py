"""Adds LoRA layers to the decoder; the one file that calls PEFT.

PEFT, which imports bitsandbytes, takes seconds to import: the functions import it, so that a
merged model is used without.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import PreTrainedModel

from qvft.adapters.lora_config import WEIGHTS, require_fitting_lora
from qvft.adapters.targets import stored_transposed
from qvft.errors import CheckpointError
from qvft.json_files import read_json, write_json
from qvft.models.sharded_weights import full_tensor

if TYPE_CHECKING:
    from peft import PeftModel


@contextlib.contextmanager
def _without_renaming_warning() -> Iterator[None]:
    """Suppresses a PEFT warning about an argument that transformers has renamed."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="`is_gradient_checkpointing`")
        yield


def add_lora(
    model: PreTrainedModel, targets: Sequence[str], *, base_id: str | None = None, **settings: Any
) -> PeftModel:
    """Adds LoRA layers to `model`, in place, and returns the PEFT model.

    Args:
        targets: full module names, from `resolve_targets`.
        settings: `r`, `lora_alpha`, `lora_dropout`, `use_dora`, `use_rslora` of `LoraConfig`.

    Raises:
        RecipeError: the targets mix `Linear` and `Conv1D` layouts.
    """
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(
        **settings,
        target_modules=list(targets),
        fan_in_fan_out=stored_transposed(model, targets),
        bias="none",
    )
    with _without_renaming_warning():
        handle = get_peft_model(model, config, autocast_adapter_dtype=True)
    handle.peft_config["default"].base_model_name_or_path = base_id
    return handle


def lora_targets(handle: PeftModel) -> tuple[str, ...]:
    """Full names of the layers with adapters, in the model's order."""
    # torch annotates module attributes as `Tensor | Module`.
    return tuple(handle.base_model.targeted_module_names)  # type: ignore[arg-type]


def lora_state(handle: PeftModel) -> dict[str, Tensor]:
    """The adapters' full weights by the model's names; collective if sharded."""
    return {
        name: full_tensor(tensor.detach())
        for name, tensor in handle.state_dict().items()
        if ".lora_" in name
    }


def save_lora(handle: PeftModel, folder: Path, state: Mapping[str, Tensor] | None = None) -> None:
    """Writes `adapter_config.json` and `adapter_model.safetensors`; no network.

    Target modules are written by full name and sorted: PEFT keeps them in a set, in random order,
    and shortens them to common suffixes if there are many. `state` is from `lora_state`.
    """
    # PEFT would compile a template and write an empty model card, in the time of two small steps.
    handle.__dict__["create_or_update_model_card"] = lambda _: None
    try:
        handle.save_pretrained(
            str(folder),
            state_dict=dict(lora_state(handle) if state is None else state),
            save_embedding_layers=False,
            safe_serialization=True,
        )
    finally:
        del handle.__dict__["create_or_update_model_card"]
    config = read_json(folder / "adapter_config.json")
    named = {"target_modules": sorted(lora_targets(handle))}
    write_json(folder / "adapter_config.json", {**config, **named})


def load_lora(model: PreTrainedModel, folder: Path) -> PeftModel:
    """Adds the LoRA layers saved in `folder` to `model`, in place.

    Raises:
        CheckpointError: a file is damaged, not as qvft.train writes it, or does not fit the model.
    """
    from peft import PeftModel

    _require_weights(folder)
    stored = require_fitting_lora(folder)
    try:
        with _without_renaming_warning():
            handle = PeftModel.from_pretrained(model, str(folder))
    except (ValueError, RuntimeError, OSError, SafetensorError) as error:
        raise _misfit(folder, error) from error
    made = {f"base_model.model.{name}" for name in lora_targets(handle)}
    if made != stored:
        raise CheckpointError(
            f"the adapter does not fit: the model has {len(made)} layers that its settings name",
            where=str(folder),
            expected=f"the {len(stored)} that it has weights of",
        )
    return handle


def restore_lora(handle: PeftModel, folder: Path) -> None:
    """Loads saved LoRA weights into existing layers (resume, best checkpoint).

    Raises:
        CheckpointError: the file is missing or damaged, or its keys or shapes are not the model's.
    """
    from peft import set_peft_model_state_dict

    _require_weights(folder)
    try:
        state = load_file(folder / WEIGHTS)
        # PEFT annotates it as a bare `namedtuple`, which is not a type.
        result: Any = set_peft_model_state_dict(handle, state)
    except (RuntimeError, OSError, SafetensorError) as error:
        raise _misfit(folder, error) from error
    missing = [key for key in result.missing_keys if ".lora_" in key]
    if missing or result.unexpected_keys:
        raise CheckpointError(
            f"{len(missing)} LoRA weights missing, {len(result.unexpected_keys)} surplus",
            where=str(folder),
        )


def _require_weights(folder: Path) -> None:
    """Checks that the file exists, since PEFT would ask the hub for a missing one."""
    if not (folder / WEIGHTS).is_file():
        raise CheckpointError(f"no {WEIGHTS}", where=str(folder))


def _misfit(folder: Path, error: Exception) -> CheckpointError:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    reason = lines[min(1, len(lines) - 1)] if lines else type(error).__name__
    return CheckpointError(f"the adapter does not fit: {reason}", where=str(folder))


def inputs_uncast(model: nn.Module) -> contextlib.AbstractContextManager[None]:
    """Context manager: LoRA layers do not cast their input, for autocast.

    PEFT casts it to the adapter's float32, and autocast casts it back to bfloat16: each layer keeps
    its own copy for the backward pass, with dropout in float32. Without the cast, autocast casts
    the small adapter weights instead, and the input is stored once.

    DoRA computes the norms of the adapted weight in the input's dtype, so its layers still cast.
    """
    from peft.helpers import disable_input_dtype_casting
    from peft.tuners.lora import LoraLayer

    layers = [layer for layer in model.modules() if isinstance(layer, LoraLayer)]
    plain = not any(layer.lora_variant for layer in layers)
    return disable_input_dtype_casting(model, active=plain)
