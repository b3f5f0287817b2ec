"""Batches of a stream: the same order wherever they begin, every record once a pass."""

from __future__ import annotations

import logging
from collections import Counter
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
from tar_shards import png, write_shards, write_tar

from qvft.data.formats.tar import stream
from qvft.data.images.decoding import decode
from qvft.data.streaming_collator import left_out_index
from qvft.errors import DataError, ImageError
from qvft.training.batches.numbered_rows import ViewDraw
from qvft.training.batches.streamed import StreamedBatches


def batches_of(path: Path, **changes: Any) -> StreamedBatches:
    plain = {
        "batch_size": 4,
        "group_size": 1,
        "buffer": 7,
        "seed": 5,
        "rank": 0,
        "world": 1,
        "texts": "captions",
        "on_bad": "error",
        "check": decode,
    }
    return StreamedBatches(stream(path), **{**plain, **changes})


def ids(batches: StreamedBatches, count: int) -> list[str]:
    return [row.sample.id for batch in islice(batches, count) for _, row in batch]


def test_the_order_begins_anew_the_same(tmp_path: Path) -> None:
    write_shards(tmp_path, [5, 4, 3])
    batches = batches_of(tmp_path)
    first, again = list(islice(batches, 9)), list(islice(batches, 9))
    assert first == again
    assert [number for batch in first for number, _ in batch] == list(range(36))


def test_a_pass_has_every_record_once_and_the_next_another_order(tmp_path: Path) -> None:
    write_shards(tmp_path, [5, 4, 3])
    order = ids(batches_of(tmp_path), 6)
    assert sorted(order[:12]) == sorted(order[12:]) == sorted(set(order))
    assert order[:12] != order[12:]


@pytest.mark.parametrize("sizes", [[4, 4, 4, 4], [7, 4, 5]])
def test_two_processes_have_every_record_once_a_pass(tmp_path: Path, sizes: list[int]) -> None:
    write_shards(tmp_path, sizes)
    halves = [ids(batches_of(tmp_path, rank=rank, world=2), 2) for rank in range(2)]
    assert Counter(sum(halves, [])) == Counter(ids(batches_of(tmp_path), 4))
    assert len(set(sum(halves, []))) == 16


def test_texts_of_an_image_stand_together(tmp_path: Path) -> None:
    write_shards(tmp_path, [8])
    together = batches_of(tmp_path, texts="all", batch_size=3, group_size=3)
    assert all(len({row.sample.id for _, row in batch}) == 1 for batch in islice(together, 8))


def test_the_seed_draws_the_order(tmp_path: Path) -> None:
    write_shards(tmp_path, [12])
    assert ids(batches_of(tmp_path), 3) != ids(batches_of(tmp_path, seed=6), 3)


def test_views_follow_the_pass(tmp_path: Path) -> None:
    write_shards(tmp_path, [4])
    draw = ViewDraw(2, 0)
    for number, batch in enumerate(islice(batches_of(tmp_path, views=draw), 3)):
        assert [row.view for _, row in batch] == [draw(number, r.sample.id) for _, r in batch]


def test_a_record_without_texts_stops_or_is_left_out_by_name(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_shards(tmp_path, [4])
    write_tar(tmp_path / "odd.tar", {"7.png": png((1, 2, 3))})
    with pytest.raises(DataError, match=r"odd\.tar, 7: neither KEY\.json nor KEY\.txt"):
        ids(batches_of(tmp_path), 1)
    kept = batches_of(tmp_path, on_bad="skip")
    with caplog.at_level(logging.WARNING, logger="qvft.data"):
        assert len(set(ids(kept, 1))) == 4
    assert kept.skipped == 1
    assert "odd.tar, 7" in caplog.text


def test_a_broken_image_stops_or_is_left_out_by_name(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_tar(tmp_path / "a.tar", {"7.png": png((1, 2, 3))[:60], "7.txt": b"a picture"})
    index = torch.tensor([left_out_index(0), -1])
    strict, lenient = (batches_of(tmp_path, batch_size=1, on_bad=one) for one in ("error", "skip"))
    for batches in (strict, lenient):
        next(iter(batches))
    with pytest.raises(ImageError, match=r"a\.tar, 7\.png"):
        strict.check_images(index)
    with caplog.at_level(logging.WARNING, logger="qvft.data"):
        lenient.check_images(index)
    assert lenient.skipped == 1
    assert "a.tar, 7.png" in caplog.text


def test_a_stream_without_a_text_ends_with_a_message(tmp_path: Path) -> None:
    write_tar(tmp_path / "a.tar", {"7.png": png((1, 2, 3))})
    with pytest.raises(DataError, match="gives process 0 of 1 no text"):
        next(iter(batches_of(tmp_path, on_bad="skip")))


def test_only_the_rows_on_their_way_are_remembered(tmp_path: Path) -> None:
    write_shards(tmp_path, [12])
    batches = batches_of(tmp_path)
    batches.keep(8)
    (*_, last) = islice(batches, 50)
    assert len(batches.rows) == 8
    number, row = last[-1]
    assert batches.rows[number] == (number, row)
    assert batches.rows[left_out_index(number)] == (-1, row)
