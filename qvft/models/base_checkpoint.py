"""Finds a base checkpoint by hub id or folder and reads its configuration."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import transformers
from transformers import PretrainedConfig

from qvft.errors import ModelError
from qvft.models.checkpoint_files import INDEX, checkpoint_file, not_found, read_config, shard_names
from qvft.models.decoders import require_decoder_type
from qvft.models.families import FAMILIES, Family, add_family, family_of
from qvft.models.graft import Graft
from qvft.models.image_size import config_with_image_size, vision_of
from qvft.models.model_path import TINY_ID, require_folder
from qvft.models.new_decoder import find_decoder_graft
from qvft.models.query_count import config_with_queries
from qvft.models.question_aware.graft import find_graft
from qvft.models.qvision.components import components_config
from qvft.models.qvision.processing import default_image_size
from qvft.models.qvision.published import is_published, published_config

_TINY_FOLDER = Path(__file__).parent / "tiny_blip2"


@dataclass(frozen=True)
class BaseCheckpoint:
    """A resolved base checkpoint.

    Attributes:
        location: argument of `from_pretrained`: a folder, or the hub id.
        graft: plan of a BLIP-2 or question-aware model made from two checkpoints.
        stored_queries: query tokens of the checkpoint, if fewer are used.
        stored_image_size: image size of the checkpoint, if another one is used.
        decoder: decoder checkpoint of a QVision made from components, with `location` as vision
            model; missing weights are initialised with `seed`.
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
    decoder_revision: str | None = None
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
    decoder_revision: str | None = None,
    seed: int = 0,
) -> BaseCheckpoint:
    """Reads the configuration of a checkpoint and determines its family.

    Args:
        model_id: folder or hub id; `TINY_ID` is bundled.
        family: the expected one, or `auto`.
        text_branch: see `find_graft`. query_tokens: number of the first ones that are kept.
        image_size: pixels per side of the ViT's images; None: the checkpoint's.
        decoder: see `find_decoder_graft`, or the decoder of a QVision with vision model `model_id`.

    Raises:
        ModelError: not found (with help for offline use), no config, or an unknown family.
    """
    family = add_family(family)
    require_config(model_id, revision)
    published = model_id != TINY_ID and is_published(model_id, revision)
    if decoder is not None:
        if published:
            raise ModelError(
                f'"{decoder}"',
                where="model.decoder",
                expected="null: model.id is a QVision with its decoder",
            )
        kind = _model_type(model_id, revision)
        base = _with_decoder(model_id, revision, family, decoder, decoder_revision, seed, kind)
        unsupported: dict[str, Any] = {"text_branch": text_branch}
        if base.decoder is not None:
            unsupported["query_tokens"] = query_tokens
            if image_size is None:
                image_size = default_image_size(model_id, kind, revision)
        _require_null(unsupported, "model.decoder is set")
    elif published:
        base = BaseCheckpoint(
            model_id,
            model_id,
            _commit(model_id, revision),
            published_config(model_id, revision),
            family_of("qvision", expected=family),
            published=True,
        )
    else:
        base = _stored_base(model_id, revision, family if text_branch is None else "auto")
    if base.family.name == "qvision":
        both = {"text_branch": text_branch, "query_tokens": query_tokens}
        _require_null(both, "model.id is a QVision")
    if text_branch is not None:
        if family not in ("auto", "blip2_question"):
            raise ModelError(
                f'"{text_branch}"',
                where="model.text_branch",
                expected="null, unless model.family is blip2_question",
            )
        graft = find_graft(
            base.id, text_branch, base_location=base.location, revision=base.revision, seed=seed
        )
        base = replace(base, config=graft.config, family=FAMILIES["blip2_question"], graft=graft)
    stored = base.config
    if query_tokens is not None and query_tokens != stored.num_query_tokens:
        config = config_with_queries(stored, query_tokens)
        base = replace(base, config=config, stored_queries=stored.num_query_tokens)
    if image_size is not None:
        config = config_with_image_size(base.config, image_size)
        stored_size = vision_of(stored).image_size
        if stored_size != image_size:
            base = replace(base, config=config, stored_image_size=stored_size)
    return base


def _require_null(keys: Mapping[str, Any], reason: str) -> None:
    for key, value in keys.items():
        if value is not None:
            raise ModelError(f"{value}", where=f"model.{key}", expected=f"null: {reason}")


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


def _model_type(model_id: str, revision: str | None) -> str:
    """`model_type` of a checkpoint; empty if its config.json cannot be read."""
    location = _location(model_id)
    try:
        config, _ = PretrainedConfig.get_config_dict(location, revision=revision)
    except (OSError, ValueError):
        return ""
    return str(config.get("model_type", ""))


def _with_decoder(
    model_id: str,
    revision: str | None,
    family: str,
    decoder: str,
    decoder_revision: str | None,
    seed: int,
    kind: str,
) -> BaseCheckpoint:
    """A BLIP-2 checkpoint with another decoder, or a QVision of a vision model and a decoder."""
    own = FAMILIES["blip2" if kind == FAMILIES["blip2"].model_type else "qvision"]
    expected = None
    if kind == FAMILIES["blip2_question"].model_type:
        expected = f"null: model.id is of type {kind}, and only BLIP-2 gets another decoder"
    elif family not in ("auto", own.name):
        expected = f"null: model.family is {family}, and model.id of type {kind or None}"
    if expected is not None:
        raise ModelError(f'"{decoder}"', where="model.decoder", expected=expected)
    if own.name == "qvision":
        config = components_config(
            model_id, decoder, vision_revision=revision, decoder_revision=decoder_revision
        )
        return BaseCheckpoint(
            model_id,
            model_id,
            _commit(model_id, revision),
            config,
            own,
            decoder=decoder,
            decoder_revision=_commit(decoder, decoder_revision),
            seed=seed,
        )
    location = _location(model_id)
    graft = find_decoder_graft(
        model_id,
        decoder,
        base_location=location,
        revision=revision,
        decoder_revision=decoder_revision,
        seed=seed,
    )
    return BaseCheckpoint(
        model_id,
        location,
        graft.base.revision,
        graft.config,
        own,
        graft=graft,
        decoder_revision=graft.sources["decoder"].revision,
        seed=seed,
    )


def _stored_base(model_id: str, revision: str | None, family: str) -> BaseCheckpoint:
    """The base from one checkpoint."""
    location = _location(model_id)
    require_folder(model_id)
    config = read_config(model_id, location, revision)
    index = Path(location) / INDEX
    if index.is_file():
        shard_names(index)  # checks them
    if family == "blip2_question" and config.model_type == FAMILIES["blip2"].model_type:
        raise ModelError(
            "is not set",
            where="model.text_branch",
            expected="a BLIP-2 retrieval checkpoint, BERT, or fresh: its Q-Former reads no text",
        )
    found = family_of(config.model_type, expected=family)
    require_decoder_type(config.text_config.model_type, family=found.decoders, where=model_id)
    return BaseCheckpoint(model_id, location, _commit(location, revision), config, found)


def _location(model_id: str) -> str:
    return str(_TINY_FOLDER) if model_id == TINY_ID else model_id


def _commit(location: str, revision: str | None) -> str | None:
    """Commit of a hub revision, from the snapshot's name in the local cache; None for folders."""
    if Path(location).is_dir():
        return None
    path = checkpoint_file(location, "config.json", revision)
    return path.parent.name if path else revision
