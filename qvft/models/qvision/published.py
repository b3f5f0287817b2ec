"""QVision in the layout it was published in: three files of weights, whose bases lie elsewhere.

`config.json` holds `PUBLISHED_FIELDS` and no `model_type`. The weights lie in `COMPONENTS`, some of
them twice or three times under different names, and copies must agree. CLIP and GPT-Neo
(configuration, image processor, tokenizer) are taken from the folders `clip`, `gpt_neo` and
`tokenizer` beside the weights, or else from the hub.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM, CLIPProcessor, PretrainedConfig
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from qvft.errors import ModelError
from qvft.models.inert import require_inert
from qvft.models.qvision.configuration import QVisionConfig
from qvft.models.qvision.encoder import QVisionEncoder
from qvft.models.qvision.modeling import QVisionForConditionalGeneration
from qvft.models.qvision.processing import marked_tokenizer, read_part

PUBLISHED_FIELDS = ("embed_size", "vocab_size", "num_img_tokens")
COMPONENTS = ("encoder", "decoder", "gpt_decoder")
CLIP, GPT_NEO = "openai/clip-vit-base-patch32", "xhyi/PT_GPTNEO350_ATG"
HEADS = 8
"""Of every attention of the Q-Former; the layout does not say it."""


@dataclass(frozen=True)
class Place:
    """Something that `from_pretrained` is given.

    Attributes:
        name: folder or hub id.
        options: which folder of it, and which revision.
    """

    name: str
    options: dict[str, str]


def is_published(location: str, revision: str | None = None) -> bool:
    """Whether a folder or hub id has the published layout, as far as its config.json says."""
    return _read_fields(location, revision) is not None


def published_config(location: str, revision: str | None = None) -> QVisionConfig:
    """The whole geometry of a published checkpoint.

    Raises:
        ModelError: CLIP or GPT-Neo is not to be had, or does not fit what config.json says.
    """
    fields = _read_fields(location, revision)
    assert fields is not None, "is_published says so"
    clip = _configuration(clip_place(location, revision), "clip")
    text = _configuration(gpt_neo_place(location, revision), "gpt_neo")
    if fields["embed_size"] != text.hidden_size:
        raise ModelError(
            f"embed_size is {fields['embed_size']}, its GPT-Neo is {text.hidden_size} wide",
            where=f"{location}: config.json",
        )
    text.vocab_size = fields["vocab_size"]
    tokenizer = published_tokenizer(location, revision)
    if len(tokenizer) != text.vocab_size:
        raise ModelError(
            f"vocab_size is {text.vocab_size}, its tokenizer has {len(tokenizer)} tokens",
            where=f"{location}: config.json",
        )
    text.bos_token_id = tokenizer.bos_token_id
    text.eos_token_id = tokenizer.eos_token_id
    text.pad_token_id = tokenizer.pad_token_id
    try:
        return QVisionConfig(
            vision_config=clip,
            text_config=text,
            qformer_hidden_size=fields["embed_size"],
            qformer_num_heads=HEADS,
            num_query_tokens=fields["num_img_tokens"],
        )
    except ValueError as error:
        raise ModelError(str(error), where=location) from error


def published_tokenizer(location: str, revision: str | None = None) -> Any:
    """The tokenizer with its two marks, padding on the left.

    Raises:
        ModelError: it is not to be had.
    """
    place = _beside(location, revision, "tokenizer", "tokenizer.json")
    place = place or gpt_neo_place(location, revision)
    return marked_tokenizer(place.name, **place.options)


def published_processor(location: str, revision: str | None = None) -> CLIPProcessor:
    """CLIP's image processor and the tokenizer in one.

    Raises:
        ModelError: one of them is not to be had.
    """
    place = clip_place(location, revision)
    images = read_part(CLIPImageProcessorPil, place.name, **place.options)
    return CLIPProcessor(images, published_tokenizer(location, revision))


def clip_place(location: str, revision: str | None = None) -> Place:
    """Where the configuration and the image processor of CLIP are."""
    return _beside(location, revision, "clip", "config.json") or Place(CLIP, {})


def gpt_neo_place(location: str, revision: str | None = None) -> Place:
    """Where the configuration and the tokenizer (without marks) of GPT-Neo are."""
    return _beside(location, revision, "gpt_neo", "config.json") or Place(GPT_NEO, {})


def published_files(location: str, revision: str | None = None) -> dict[str, Path]:
    """The weight file of each component; those of a hub id are fetched first.

    Raises:
        ModelError: one is not there.
    """
    return {name: _weight_file(location, revision, name) for name in COMPONENTS}


def read_published(
    location: str, config: QVisionConfig, revision: str | None = None
) -> dict[str, Tensor]:
    """The weights of a whole model by its own names, each key and copy accounted for.

    Raises:
        ModelError: a file is missing or damaged, a key is missing, unknown or of another shape, or
            two copies of a weight differ.
    """
    with torch.device("meta"):
        expected = QVisionForConditionalGeneration(config).state_dict()
    return _read(published_files(location, revision), expected)


def load_component(location: str, name: str, *, revision: str | None = None) -> nn.Module:
    """One component of a published checkpoint, of whose weights no other file is read.

    Args:
        location: folder or hub id in the published layout.
        name: `encoder`: images (I, 3, height, width) to patch features (I, P, D).
            `decoder`: a QVision model without an encoder, which takes such features as
            `pixel_values`.
            `gpt_decoder`: the `GPTNeoForCausalLM` alone.

    Returns:
        The module in evaluation mode, in the type it is stored in.

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
    state = _read({name: _weight_file(location, revision, name)}, expected)
    module = module.to(next(iter(state.values())).dtype)
    module.load_state_dict({key.removeprefix(prefix): value for key, value in state.items()})
    return module.eval()


def _empty(component: str, config: QVisionConfig) -> tuple[nn.Module, str]:
    """A component to be filled, and where it stands in a whole model."""
    if component == "encoder":
        return QVisionEncoder(config), "vision_model."
    if component == "gpt_decoder":
        return AutoModelForCausalLM.from_config(config.text_config), "language_model."
    whole = QVisionForConditionalGeneration(config)
    whole.vision_model = nn.Identity()
    return whole, ""


def model_key(component: str, key: str) -> str:
    """The model's name of what a component's file calls `key`."""
    head, _, rest = key.partition(".")
    if component == "encoder":
        known = {
            "clip": "vision_model.tower",
            "vision": "vision_model.tower.vision_model",
            "proj": "vision_model.projection",
        }
        return f"{known.get(head, head)}.{rest}"
    if component == "gpt_decoder":
        return f"language_model.{key}"
    return f"language_model.{rest}" if head == "gpt_decoder" else f"qformer.{key}"


def _read(files: dict[str, Path], expected: dict[str, Tensor]) -> dict[str, Tensor]:
    """The weights of files by the model's names."""
    state: dict[str, Tensor] = {}
    for component, path in files.items():
        for key, tensor in _tensors(path):
            name = model_key(component, key)
            if name not in expected:
                raise ModelError(f"unknown weight {key}", where=str(path))
            if tensor.shape != expected[name].shape:
                raise ModelError(
                    f"{key} is {tuple(tensor.shape)}",
                    where=str(path),
                    expected=str(tuple(expected[name].shape)),
                )
            if name in state and not torch.equal(state[name], tensor):
                raise ModelError(
                    f"{key} differs from another copy of {name}",
                    where=str(path),
                    expected="equal copies of a weight",
                )
            state.setdefault(name, tensor)
    missing = sorted(expected.keys() - state.keys())
    if missing:
        listed = ", ".join(missing[:3]) + (", ..." if len(missing) > 3 else "")
        where = ", ".join(str(path) for path in files.values())
        raise ModelError(f"{len(missing)} missing weights: {listed}", where=where)
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


def _read_fields(location: str, revision: str | None) -> dict[str, int] | None:
    """The fields of a config.json in the published layout; None where it is another or none."""
    path = _found(location, revision, "config.json")
    if path is None:
        return None
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    if not isinstance(content, dict) or "model_type" in content:
        return None
    if not all(type(content.get(field)) is int for field in PUBLISHED_FIELDS):
        return None
    return {field: content[field] for field in PUBLISHED_FIELDS}


def _weight_file(location: str, revision: str | None, component: str) -> Path:
    path = _found(location, revision, f"{component}.safetensors")
    if path is None:
        raise ModelError(
            f"no {component}.safetensors",
            where=location,
            expected=", ".join(f"{name}.safetensors" for name in COMPONENTS),
        )
    return path


def _found(location: str, revision: str | None, name: str) -> Path | None:
    """A file of a folder or a hub id; None where there is none."""
    if Path(location).is_dir():
        path = Path(location) / name
        return path if path.is_file() else None
    try:
        found = transformers.utils.cached_file(location, name, revision=revision)
    except (OSError, ValueError):
        return None
    return Path(found) if found else None


def _beside(location: str, revision: str | None, folder: str, file: str) -> Place | None:
    """A folder beside the weights; None where there is none."""
    if _found(location, revision, f"{folder}/{file}") is None:
        return None
    if Path(location).is_dir():
        return Place(str(Path(location) / folder), {})
    return Place(location, {"subfolder": folder} | ({"revision": revision} if revision else {}))


def _configuration(place: Place, kind: str) -> PretrainedConfig:
    config = read_part(AutoConfig, place.name, trust_remote_code=False, **place.options)
    require_inert(config, where=place.name)
    if config.model_type != kind:
        raise ModelError(f'model_type "{config.model_type}"', where=place.name, expected=kind)
    return config
