"""Sizes, room, and the configuration that is written."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from qvft.errors import SpaceError, UserError
from qvft.weights.requirements import check_shard_size
from qvft.weights.write import require_room, written_config
from tools.tiny_blip2.geometry import tiny_config


@pytest.mark.parametrize("size", ["5GB", "500MB", "1KB"])
def test_a_size_with_its_unit_is_taken(size) -> None:
    assert check_shard_size(size) == size


@pytest.mark.parametrize("size", ["5", "0GB", "5 GB", "five", "1.5GB", ""])
def test_other_sizes_are_refused(size) -> None:
    with pytest.raises(UserError, match="--shard-size"):
        check_shard_size(size)


def test_more_weights_than_the_disk_holds_are_refused(tmp_path: Path) -> None:
    require_room(tmp_path, 1000, torch.float32)
    with pytest.raises(SpaceError, match="GB free"):
        require_room(tmp_path, 10**15, torch.bfloat16)


def test_the_configuration_says_class_type_and_stop_tokens_and_leaves_the_bases_alone() -> None:
    base = tiny_config()
    config = written_config(base, model_class="Blip2", dtype=torch.bfloat16, stop_ids=[7, 2])
    assert config.architectures == ["Blip2"]
    assert config.text_config.eos_token_id == [7, 2]
    assert {config.dtype, config.text_config.dtype} == {torch.bfloat16}
    assert base.text_config.eos_token_id == 2
    assert base.dtype is None
