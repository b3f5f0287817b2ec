"""From a hub id or folder to a model and its processor, or to one message that says why not."""

from __future__ import annotations

import functools
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import AutoConfig, AutoProcessor, PretrainedConfig, PreTrainedModel, set_seed

from qvft.errors import ModelError
from qvft.files import sha256_file, sha256_json
from qvft.models.families import Family, family_of
from qvft.models.quantize import quantization_config
from qvft.models.tiny import init_tiny

if not sys.stderr.isatty():
    transformers.utils.logging.disable_progress_bar()

TINY_ID = "qvft/tiny-blip2"
_TINY_FOLDER = Path(__file__).parent / "tiny_blip2"


@dataclass(frozen=True)
class Base:
    """A base checkpoint that was found.

    Attributes:
        id: what the user called it.
        location: what `from_pretrained` is given: a folder, or the hub id.
        revision: hub revision, None for folders.
        config: its configuration.
        family: its family.
    """

    id: str
    location: str
    revision: str | None
    config: PretrainedConfig
    family: Family


def gpu_has_bf16() -> bool:
    """Whether there is a GPU that computes in bfloat16 itself, rather than emulating it."""
    return torch.cuda.is_available() and torch.cuda.is_bf16_supported(including_emulation=False)


def find_base(model_id: str, *, revision: str | None = None, family: str = "auto") -> Base:
    """Reads the configuration of a checkpoint and decides its family.

    Raises:
        ModelError: not there (with what to do offline), no config, or an unknown family.
    """
    location = str(_TINY_FOLDER) if model_id == TINY_ID else model_id
    is_folder = Path(location).is_dir()
    if is_folder and not (Path(location) / "config.json").is_file():
        raise ModelError(
            "no config.json", where=model_id, expected="a folder that save_pretrained wrote"
        )
    try:
        config = AutoConfig.from_pretrained(
            location, revision=None if is_folder else revision, trust_remote_code=False
        )
    except (OSError, ValueError) as error:
        raise _not_found(model_id, error) from error
    found = family_of(config.model_type, wanted=family)
    if not getattr(config, "use_decoder_only_language_model", True):
        raise ModelError(
            f"its decoder is {config.text_config.model_type}, an encoder-decoder",
            where=model_id,
            expected="an OPT decoder",
            do="qvft.check --only model still counts its weights",
        )
    commit = None if is_folder else _commit(location, revision)
    return Base(model_id, location, commit, config, found)


def _commit(hub_id: str, revision: str | None) -> str | None:
    """The commit that a hub revision means, as the local cache names its snapshot."""
    path = transformers.utils.cached_file(hub_id, "config.json", revision=revision)
    return Path(path).parent.name if path else revision


def load_model(
    base: Base,
    *,
    dtype: torch.dtype,
    attention: str = "sdpa",
    quantize: str = "none",
    double_quantize: bool = True,
    device: torch.device | None = None,
    random_seed: int | None = None,
) -> PreTrainedModel:
    """The model of a base checkpoint in evaluation mode, on one device.

    Args:
        dtype: type of all weights (of those not quantised).
        attention: attention kernel, as transformers names it.
        quantize: `none`, or the decoder's 4-bit type `nf4` or `fp4`.
        device: where it goes; one process uses one device, never a `device_map="auto"`.
        random_seed: None loads the weights; a seed draws fresh ones in the same geometry.

    Raises:
        ModelError: weights are missing, are not safetensors, or do not fit the configuration.
    """
    model_class = getattr(transformers, base.family.model_class)
    if random_seed is not None:
        return _fresh_model(base, random_seed, dtype, attention).to(device or "cpu").eval()
    extra: dict[str, Any] = {}
    if quantize != "none":
        extra["quantization_config"] = quantization_config(
            base.family, quantize, double=double_quantize, compute_dtype=dtype
        )
        extra["device_map"] = {"": device or torch.device("cpu")}
    try:
        model, loading = model_class.from_pretrained(
            base.location,
            config=base.config,
            revision=base.revision,
            dtype=dtype,
            attn_implementation=attention,
            use_safetensors=True,
            output_loading_info=True,
            **extra,
        )
    except (OSError, ValueError) as error:
        raise _not_found(base.id, error) from error
    _check_loading(base.id, loading)
    if not extra:
        model = model.to(device or "cpu")
    _bridge_in_float32(base.family, model)
    return model.eval()


def _bridge_in_float32(family: Family, model: PreTrainedModel) -> None:
    """Q-Former, query tokens and projection in float32, trained or not, so that a base and the
    runs made from it are measured in the same arithmetic."""
    for name, parameter in model.named_parameters():
        if family.component(name) in ("qformer", "query_tokens", "language_projection"):
            parameter.data = parameter.data.float()


def load_processor(base: Base) -> Any:
    """The processor (image processor and tokenizer) of a base checkpoint.

    Raises:
        ModelError: it is missing, or its image token is not the model's.
    """
    try:
        processor = AutoProcessor.from_pretrained(base.location, revision=base.revision)
    except (OSError, ValueError) as error:
        raise _not_found(base.id, error) from error
    processor.num_query_tokens = base.config.num_query_tokens
    token_id = processor.tokenizer.convert_tokens_to_ids("<image>")
    if token_id != base.config.image_token_index:
        raise ModelError(
            f"the tokenizer's <image> is {token_id}, the model's {base.config.image_token_index}",
            where=base.id,
            do="use the processor that belongs to the checkpoint",
        )
    return processor


def weight_files(base: Base) -> list[Path]:
    """The safetensors files of a base, sorted by name; those of a hub id are fetched first.

    Raises:
        ModelError: there are none.
    """
    folder = Path(base.location)
    files = sorted(folder.glob("*.safetensors") if folder.is_dir() else _hub_files(base))
    if not files:
        raise ModelError(
            "no safetensors weights", where=base.id, expected="a checkpoint in safetensors"
        )
    return files


def _hub_files(base: Base) -> list[Path]:
    """A hub checkpoint's weight files in the local cache, downloaded where they are missing."""

    def cached(name: str) -> Path | None:
        try:
            path = transformers.utils.cached_file(base.location, name, revision=base.revision)
        except (OSError, ValueError):
            return None
        return Path(path) if path else None

    index = cached("model.safetensors.index.json")
    if index is None:
        names = {"model.safetensors"}
    else:
        names = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
    return [path for path in map(cached, names) if path is not None]


@functools.lru_cache(maxsize=8)
def _content_hash(path: Path, _size_bytes: int, _modified_ns: int) -> str:
    """SHA-256 of a weight file; a process asks several times for files of several GB."""
    return sha256_file(path)


def weights_hash(base: Base) -> str:
    """Hex SHA-256 that identifies the base's weights, by the content of its safetensors files."""
    hashes = {}
    for file in weight_files(base):
        status = file.stat()
        hashes[file.name] = _content_hash(file, status.st_size, status.st_mtime_ns)
    return sha256_json(hashes)


def _fresh_model(base: Base, seed: int, dtype: torch.dtype, attention: str) -> PreTrainedModel:
    """Fresh weights in a base's geometry; the bundled model has its own way to draw them."""
    if base.id == TINY_ID:
        model = init_tiny(seed).to(dtype)
        model.set_attn_implementation(attention)
        return model
    set_seed(seed)
    model_class = getattr(transformers, base.family.model_class)
    return model_class._from_config(base.config, dtype=dtype, attn_implementation=attention)


def _check_loading(model_id: str, loading: dict[str, Any]) -> None:
    """Accounts for every key: none may be missing, surplus or of another shape."""
    missing = sorted(loading.get("missing_keys", ()))
    unexpected = sorted(loading.get("unexpected_keys", ()))
    mismatched = sorted(str(key) for key in loading.get("mismatched_keys", ()))
    for kind, keys in (("missing", missing), ("unexpected", unexpected), ("ill-sized", mismatched)):
        if keys:
            listed = ", ".join(keys[:3]) + (", ..." if len(keys) > 3 else "")
            raise ModelError(
                f"{len(keys)} {kind} weights: {listed}",
                where=model_id,
                expected="a complete checkpoint of this family",
            )


def _not_found(model_id: str, error: Exception) -> ModelError:
    reason = str(error).strip().split("\n")[0]
    if Path(model_id).exists():
        return ModelError(reason, where=model_id, expected="a complete checkpoint folder")
    if model_id.startswith(("/", ".", "~")) or model_id.count("/") > 1:
        return ModelError("no such folder", where=f"model.id={model_id}")
    return ModelError(
        "neither a folder here nor to be had from the hub or its local cache",
        where=f"model.id={model_id}",
        expected="a folder, or a hub id",
        do=f"where there is a network, run `hf download {model_id}` and copy the folder; "
        f"{TINY_ID} is bundled and needs none ({reason})",
    )
