"""Weights of QVision's published layout: the whole model, or one component."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from transformers import AutoModelForCausalLM

from qvft.errors import ModelError
from qvft.models.checkpoint_files import refuse_weights
from qvft.models.qvision.configuration import QVisionConfig
from qvft.models.qvision.encoder import QVisionEncoder
from qvft.models.qvision.modeling import QVisionForConditionalGeneration
from qvft.models.qvision.published import (
    COMPONENTS,
    is_published,
    published_config,
    published_file,
    published_files,
)


def read_published(
    location: str, config: QVisionConfig, revision: str | None = None
) -> dict[str, Tensor]:
    """All weights of a model by its own names; every key and copy is checked.

    Raises:
        ModelError: a file is missing or damaged, a key is missing, unknown or of another shape, or
            two copies of a weight differ.
    """
    with torch.device("meta"):
        expected = QVisionForConditionalGeneration(config).state_dict()
    return _read(published_files(location, revision), expected)


def load_component(location: str, name: str, *, revision: str | None = None) -> nn.Module:
    """Loads one component of a published checkpoint, from its own file only.

    Args:
        location: folder or hub id in the published layout.
        name: `encoder`: images (I, 3, height, width) to patch features (I, P, D).
            `decoder`: a QVision model without an encoder, which takes such features as
            `pixel_values`.
            `gpt_decoder`: the `GPTNeoForCausalLM` alone.

    Returns:
        The module in evaluation mode, in its stored dtype.

    Raises:
        ModelError: there is no such component, or as `read_published`.
    """
    if name not in COMPONENTS:
        raise ModelError(f'"{name}"', expected="one of " + ", ".join(COMPONENTS))
    if not is_published(location, revision):
        raise ModelError("not in the published layout", where=location)
    config = published_config(location, revision)
    module, prefix = _empty(name, config)
    expected = {prefix + key: weight for key, weight in module.state_dict().items()}
    state = _read({name: published_file(location, name, revision)}, expected)
    module = module.to(next(iter(state.values())).dtype)
    module.load_state_dict({key.removeprefix(prefix): value for key, value in state.items()})
    return module.eval()


def _empty(component: str, config: QVisionConfig) -> tuple[nn.Module, str]:
    """An uninitialised component, and its path in the complete model."""
    if component == "encoder":
        return QVisionEncoder(config), "vision_model."
    if component == "gpt_decoder":
        return AutoModelForCausalLM.from_config(config.text_config), "language_model."
    model = QVisionForConditionalGeneration(config)
    model.vision_model = nn.Identity()  # type: ignore[assignment]  # has no weights
    return model, ""


def published_keys(names: Iterable[str]) -> dict[str, dict[str, str]]:
    """Keys of each component's file, with the model's name of each weight."""
    keys: dict[str, dict[str, str]] = {name: {} for name in COMPONENTS}
    for name in names:
        part, _, rest = name.partition(".")
        if part == "language_model":
            keys["decoder"][f"gpt_decoder.{rest}"] = name
            keys["gpt_decoder"][rest] = name
        elif part == "qformer":
            keys["decoder"][rest] = name
        else:
            inner, _, last = rest.partition(".")
            keys["encoder"][f"{'proj' if inner == 'projection' else 'clip'}.{last}"] = name
            if last.startswith("vision_model."):
                keys["encoder"][last.replace("vision_model.", "vision.", 1)] = name
    return keys


def _read(files: dict[str, Path], expected: dict[str, Tensor]) -> dict[str, Tensor]:
    """The weights of files by the model's names."""
    state: dict[str, Tensor] = {}
    for component, path in files.items():
        names = published_keys(expected)[component]
        found = dict(_tensors(path))
        for kind, keys in (
            ("missing", names.keys() - found.keys()),
            ("unknown", found.keys() - names.keys()),
        ):
            refuse_weights(kind, keys, where=str(path))
        for key, tensor in found.items():
            shape = tuple(expected[names[key]].shape)
            if tuple(tensor.shape) != shape:
                raise ModelError(
                    f"{key} is {tuple(tensor.shape)}", where=str(path), expected=str(shape)
                )
            if not torch.equal(state.setdefault(names[key], tensor), tensor):
                raise ModelError(
                    f"{key} differs from another copy of {names[key]}",
                    where=str(path),
                    expected="equal copies of a weight",
                )
    tied = "language_model.lm_head.weight", "language_model.transformer.wte.weight"
    if tied[0] in state and not torch.equal(state[tied[0]], state[tied[1]]):
        raise ModelError(f"{tied[0]} and {tied[1]} differ", expected="one weight, stored twice")
    return state


def _tensors(path: Path) -> Iterator[tuple[str, Tensor]]:
    try:
        with safe_open(path, framework="pt") as stream:
            for key in stream.keys():  # noqa: SIM118
                yield key, stream.get_tensor(key)
    except (OSError, SafetensorError) as error:
        raise ModelError(f"cannot be read: {error}", where=str(path)) from error
