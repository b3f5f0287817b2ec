"""How a batch is cut, and what counts as memory that ran out."""

from __future__ import annotations

import pytest
import torch

from qvft.training.recovery.out_of_memory import is_out_of_memory, parts_of


def test_a_cut_goes_between_images() -> None:
    assert parts_of(list("aaabbbbb"), halvings=1) == [[0, 1, 2], [3, 4, 5, 6, 7]]


def test_rows_of_one_image_are_cut_in_the_middle() -> None:
    assert parts_of(list("aaaaa"), halvings=1) == [[0, 1], [2, 3, 4]]


def test_parts_are_cut_again_until_rows_stand_alone() -> None:
    assert parts_of(list("abcd"), halvings=0) == [[0, 1, 2, 3]]
    assert parts_of(list("abcd"), halvings=2) == [[0], [1], [2], [3]]
    assert parts_of(list("abc"), halvings=5) == [[0], [1], [2]]


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
        RuntimeError(
            "[enforce fail at alloc_cpu.cpp:124] DefaultCPUAllocator: can't allocate memory"
        ),
        MemoryError(),
    ],
)
def test_memory_that_ran_out_is_told_by_its_error(error: BaseException) -> None:
    assert is_out_of_memory(error)


def test_a_real_allocation_that_fails_is_told() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(1 << 46, dtype=torch.float64)  # 0.5 PB: beyond any address space's room here
    assert is_out_of_memory(caught.value)


def test_other_errors_are_not() -> None:
    assert not is_out_of_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    assert not is_out_of_memory(ValueError("out of memory"))
