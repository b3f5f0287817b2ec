"""Configurations: written and read back, refused where they do not fit."""

from __future__ import annotations

import json

import pytest
from transformers import AutoConfig, BertConfig, GPTNeoConfig, T5Config

from qvft.errors import ModelError
from qvft.models.base_checkpoint import find_checkpoint
from qvft.models.families import FAMILIES
from qvft.models.qvision.configuration import QVisionConfig
from tests.models.qvision_models import DECODER_TYPES, PAIRS


@pytest.mark.parametrize(("vision", "text"), PAIRS)
def test_a_configuration_is_written_and_read_back(make_config, tmp_path, vision, text) -> None:
    config = make_config(vision, text, num_query_tokens=3)
    config.save_pretrained(tmp_path)
    loaded = AutoConfig.from_pretrained(tmp_path)
    assert type(loaded) is QVisionConfig
    written, read = config.to_dict(), loaded.to_dict()
    assert written.pop("_name_or_path") == ""
    assert read.pop("_name_or_path") == str(tmp_path)
    assert read == written
    assert type(loaded.vision_config) is type(config.vision_config)
    assert type(loaded.text_config) is type(config.text_config)


def test_the_defaults_are_the_published_system() -> None:
    config = QVisionConfig()
    assert config.patch_grid == (7, 7)
    assert config.num_states == 65
    assert config.qformer_hidden_size // config.qformer_num_heads == 128
    assert config.text_config.num_heads == 16
    assert config.text_config.attention_layers == ["global", "local"] * 12


def test_the_qformer_is_as_wide_as_the_token_embeddings() -> None:
    with pytest.raises(ValueError, match="1024.*2048"):
        QVisionConfig(text_config=GPTNeoConfig())


def test_the_width_is_a_multiple_of_the_heads() -> None:
    with pytest.raises(ValueError, match="multiple of qformer_num_heads"):
        QVisionConfig(qformer_num_heads=7)


def test_another_kind_of_model_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match='"bert"; expected one of'):
        QVisionConfig(vision_config=BertConfig())
    with pytest.raises(ValueError, match='"bert"; expected one of'):
        QVisionConfig(vision_config={"model_type": "bert"})
    with pytest.raises(ValueError, match="no model_type"):
        QVisionConfig(text_config={"hidden_size": 8})
    with pytest.raises(ValueError, match='"t5", an encoder-decoder'):
        QVisionConfig(text_config=T5Config())


@pytest.mark.parametrize("text", DECODER_TYPES)
def test_the_decoders_blocks_stand_where_the_table_says(make_model, text) -> None:
    model = make_model(text=text)
    (prefix,) = FAMILIES["qvision"].blocks(model.config)
    blocks = model.get_submodule(prefix)
    assert len(blocks) == model.config.text_config.num_hidden_layers == 2


def test_a_configuration_of_the_old_function_is_refused(make_config, tmp_path) -> None:
    make_config().save_pretrained(tmp_path)
    old = json.loads((tmp_path / "config.json").read_text()) | {"global_context_token": True}
    (tmp_path / "config.json").write_text(json.dumps(old))
    with pytest.raises(ModelError, match="qvft 0.1.0, whose QVision computed another function"):
        find_checkpoint(str(tmp_path))
