"""When processes exchange gradients after a step's passes, and what they make of them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.testing._internal.distributed.fake_pg import FakeStore

from qvft.training.distributed import grad_sync as exchange
from qvft.training.distributed.grad_sync import average_gradients, exchanges_afterwards


@pytest.fixture
def alone_of_two() -> Iterator[None]:
    """This process as the first of two; the other is not there, and all it says is nothing."""
    dist.init_process_group("fake", store=FakeStore(), rank=0, world_size=2)
    yield
    dist.destroy_process_group()


def test_gradients_are_averaged_in_pieces(
    alone_of_two: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent = []
    monkeypatch.setattr(dist, "all_reduce", lambda flat, **_: sent.append(flat.clone()))
    monkeypatch.setattr(exchange, "AT_ONCE", 5)
    module = nn.ParameterList([torch.zeros(shape) for shape in ((2, 2), (1,), (7,), (3,))])
    module[3].requires_grad_(False)
    for number in (0, 2):  # no text of this process has reached the second
        module[number].grad = torch.full_like(module[number], 6.0)
    average_gradients(module)
    # Their mean is with nothing here: 6 / 2.
    assert [one.tolist() for one in sent] == [[3.0, 3.0, 3.0, 3.0, 0.0], [3.0] * 7]
    assert torch.equal(module[0].grad, torch.full((2, 2), 3.0))
    assert module[1].grad.tolist() == [0.0] and module[2].grad.tolist() == [3.0] * 7
    assert module[3].grad is None


class Objective(nn.Linear):
    """A module that says whether its batches can be taken in parts, two thirds of it frozen."""

    def __init__(self, adds: bool, *, frozen: bool = True) -> None:
        super().__init__(2, 2)
        self.adds_over_rows = adds
        self.weight.requires_grad_(not frozen)


def test_only_what_is_silent_within_a_pass_is_exchanged_afterwards(alone_of_two: None) -> None:
    assert not exchanges_afterwards(Objective(adds=True))  # alone, or cut among processes
    assert exchanges_afterwards(DistributedDataParallel(Objective(adds=True)))
    # Contrast gathers texts of all processes, and its pass cannot be taken anew by one.
    assert not exchanges_afterwards(DistributedDataParallel(Objective(adds=False)))
    # So many gradients are sent while others are computed.
    assert not exchanges_afterwards(DistributedDataParallel(Objective(adds=True, frozen=False)))
