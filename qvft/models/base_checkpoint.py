"""Finds a base checkpoint by hub id or folder and reads its configuration."""

from __future__ import annotations

import functools
from dataclasses import dataclass, replace
from pathlib import Path

import transformers
from transformers import AutoConfig, PretrainedConfig

from qvft.errors import ModelError
from qvft.files import sha256_file
from qvft.json_files import sha256_json
from qvft.models.checkpoint_safety import INDEX, require_safe_checkpoint, shard_names
from qvft.models.decoders import require_decoder
from qvft.models.families import FAMILIES, Family, family_of
from qvft.models.image_size import config_with_image_size
from qvft.models.model_path import TINY_ID, names_folder, require_folder
from qvft.models.query_count import config_with_queries
from qvft.models.question_aware.graft import Graft, find_graft
from qvft.models.qvision.components import components_config
from qvft.models.qvision.published import is_published, published_config, published_files

_TINY_FOLDER = Path(__file__).parent / "tiny_blip2"


@dataclass(frozen=True)
class BaseCheckpoint:
    """A resolved base checkpoint.

    Attributes:
        id: the user's name for it.
        location: argument of `from_pretrained`: a folder, or the hub id.
        revision: hub revision, None for folders.
        config: configuration of the model to load.
        family: its family.
        graft: plan of a model made from two checkpoints.
        stored_queries: query tokens of the checkpoint, if fewer are used.
        stored_image_size: image size of the checkpoint, if another one is used.
        decoder: decoder checkpoint of a model made from components, with `location` as vision
            model; missing weights are initialised with `seed`.
        published: whether it is a QVision in its published layout.
    """

    id: str
    location: str
    revision: str | None
    config: PretrainedConfig
    family: Family
    graft: Graft | None = None
    stored_queries: int | None = None
    stored_image_size: int | None = None
    decoder: str | None = None
    seed: int = 0
    published: bool = False


def find_checkpoint(
    model_id: str,
    *,
    revision: str | None = None,
    family: str = "auto",
    text_branch: str | None = None,
    query_tokens: int | None = None,
    image_size: int | None = None,
    decoder: str | None = None,
    seed: int = 0,
) -> BaseCheckpoint:
    """Reads the configuration of a checkpoint and determines its family.

    Args:
        model_id: folder or hub id; `TINY_ID` is bundled.
        revision: hub revision.
        family: expected family, or `auto`.
        text_branch: text branch that makes a BLIP-2 checkpoint question-aware, see `find_graft`.
        query_tokens: keep this many, the first ones; None keeps all.
        image_size: pixels per side of the ViT's images; None: the checkpoint's.
        decoder: decoder of a QVision made from it and the vision model `model_id`.
        seed: initialises weights that no checkpoint has.

    Raises:
        ModelError: not found (with help for offline use), no config, or an unknown family.
    """
    require_config(model_id, revision)
    published = model_id != TINY_ID and is_published(model_id, revision)
    if decoder is not None:
        if published:
            raise ModelError(
                f'"{decoder}"',
                where="model.decoder",
                expected="null: model.id is a whole QVision, decoder and all",
            )
        return _components(model_id, revision, family, decoder, seed)
    if published:
        base = _published(model_id, revision, family)
    else:
        base = _stored_base(model_id, revision, family if text_branch is None else "auto")
    if base.family.name == "qvision":
        for key, given in (
            ("text_branch", text_branch),
            ("query_tokens", query_tokens),
            ("image_size", image_size),
        ):
            if given is not None:
                raise ModelError(
                    f"{given}", where=f"model.{key}", expected="null: model.id is a QVision"
                )
    if text_branch is not None:
        base = _grafted(base, family, text_branch, seed)
    if query_tokens is not None and query_tokens != base.config.num_query_tokens:
        held = base.config.num_query_tokens
        config = config_with_queries(base.config, query_tokens)
        base = replace(base, config=config, stored_queries=held)
    if image_size is not None:
        config = config_with_image_size(base.config, image_size)
        held = base.config.vision_config.image_size
        if held != image_size:
            base = replace(base, config=config, stored_image_size=held)
    return base


def require_config(model_id: str, revision: str | None) -> None:
    """Looks once for the config.json of a hub id: each request to an unreachable hub takes half a
    minute. Raises ModelError if there is none.
    """
    if model_id == TINY_ID or Path(model_id).is_dir():
        return
    require_folder(model_id)
    try:
        transformers.utils.cached_file(model_id, "config.json", revision=revision)
    except (OSError, ValueError) as error:
        raise not_found(model_id, error) from error


def _components(
    model_id: str, revision: str | None, family: str, decoder: str, seed: int
) -> BaseCheckpoint:
    if family not in ("auto", "qvision"):
        raise ModelError(
            f'"{decoder}"', where="model.decoder", expected="nothing, unless family is qvision"
        )
    config = components_config(model_id, decoder, vision_revision=revision)
    commit = None if Path(model_id).is_dir() else _commit(model_id, revision)
    found = FAMILIES["qvision"]
    return BaseCheckpoint(model_id, model_id, commit, config, found, decoder=decoder, seed=seed)


def _published(model_id: str, revision: str | None, family: str) -> BaseCheckpoint:
    """A QVision in the layout it was published in."""
    found = family_of("qvision", wanted=family)
    is_folder = Path(model_id).is_dir()
    config = published_config(model_id, revision)
    commit = None if is_folder else _commit(model_id, revision)
    return BaseCheckpoint(model_id, model_id, commit, config, found, published=True)


def _grafted(base: BaseCheckpoint, family: str, text_branch: str, seed: int) -> BaseCheckpoint:
    if family not in ("auto", "blip2_question"):
        raise ModelError(
            f'"{text_branch}"',
            where="model.text_branch",
            expected="nothing, unless model.family is blip2_question",
        )
    graft = find_graft(
        base.id,
        text_branch,
        base_location=base.location,
        revision=base.revision,
        seed=seed,
    )
    return replace(base, config=graft.config, family=FAMILIES["blip2_question"], graft=graft)


def _stored_base(model_id: str, revision: str | None, family: str) -> BaseCheckpoint:
    """The base from one checkpoint."""
    location = str(_TINY_FOLDER) if model_id == TINY_ID else model_id
    is_folder = Path(location).is_dir()
    require_folder(model_id)
    try:
        config = AutoConfig.from_pretrained(
            location, revision=None if is_folder else revision, trust_remote_code=False
        )
    except Exception as error:  # a damaged config.json can raise nearly anything
        raise not_found(model_id, error) from error
    require_safe_checkpoint(config, where=model_id)
    if is_folder and (Path(location) / INDEX).is_file():
        shard_names(Path(location) / INDEX)
    if family == "blip2_question" and config.model_type == FAMILIES["blip2"].model_type:
        raise ModelError(
            "is not set",
            where="model.text_branch",
            expected="a BLIP-2 retrieval checkpoint, BERT, or fresh: its Q-Former reads no text",
        )
    found = family_of(config.model_type, wanted=family)
    require_decoder(config, family=found.decoders, where=model_id)
    commit = None if is_folder else _commit(location, revision)
    return BaseCheckpoint(model_id, location, commit, config, found)


def _commit(hub_id: str, revision: str | None) -> str | None:
    """Commit of a hub revision, from the snapshot's name in the local cache."""
    path = transformers.utils.cached_file(hub_id, "config.json", revision=revision)
    return Path(path).parent.name if path else revision


def weight_files(base: BaseCheckpoint) -> list[Path]:
    """The safetensors files of a base, sorted by name; downloads those of a hub id.

    Raises:
        ModelError: there are none.
    """
    if base.graft is not None:
        text = base.graft.text.files if base.graft.text is not None else {}
        return sorted({*map(Path, base.graft.base.files.values()), *map(Path, text.values())})
    if base.published:
        return sorted(published_files(base.location, base.revision).values())
    if base.decoder is not None:
        language = replace(base, location=base.decoder, revision=None, decoder=None)
        return [*weight_files(replace(base, decoder=None)), *weight_files(language)]
    folder = Path(base.location)
    files = sorted(folder.glob("*.safetensors") if folder.is_dir() else _hub_files(base))
    if not files:
        raise ModelError(
            "no safetensors weights", where=base.id, expected="a checkpoint in safetensors"
        )
    return files


def _hub_files(base: BaseCheckpoint) -> list[Path]:
    """A hub checkpoint's weight files in the local cache, downloaded if missing."""

    def cached(name: str) -> Path | None:
        try:
            path = transformers.utils.cached_file(base.location, name, revision=base.revision)
        except (OSError, ValueError):
            return None
        return Path(path) if path else None

    index = cached(INDEX)
    names = ["model.safetensors"] if index is None else shard_names(index)
    return [path for path in map(cached, names) if path is not None]


@functools.lru_cache(maxsize=8)
def _content_hash(path: Path, _size_bytes: int, _modified_ns: int) -> str:
    """SHA-256 of a weight file; cached, since files are several GB."""
    return sha256_file(path)


def weights_hash(base: BaseCheckpoint) -> str:
    """Hex SHA-256 that identifies the base's weights, by the content of its safetensors files."""
    hashes = {}
    for number, file in enumerate(weight_files(base)):
        status = file.stat()
        # Files of two checkpoints may have equal names.
        several = base.graft is not None or base.decoder is not None
        name = f"{number} {file.name}" if several else file.name
        hashes[name] = _content_hash(file, status.st_size, status.st_mtime_ns)
    if base.graft is not None:
        hashes["drawn"] = f"{base.graft.summary()} {base.graft.seed}"
    if base.decoder is not None:
        hashes["drawn"] = f"Q-Former and marks {base.seed}"
    return sha256_json(hashes)


def not_found(model_id: str, error: Exception) -> ModelError:
    reason = str(error).strip().split("\n")[0]
    if Path(model_id).exists():
        return ModelError(reason, where=model_id, expected="a complete checkpoint folder")
    if names_folder(model_id):
        return ModelError("no such folder", where=f"model.id={model_id}")
    return ModelError(
        "neither a folder here nor to be had from the hub or its local cache",
        where=f"model.id={model_id}",
        expected="a folder, or a hub id",
        do=f"where there is a network, run `hf download {model_id}` and copy the folder; "
        f"{TINY_ID} is bundled and needs none ({reason})",
    )
