"""What a launcher may ask for, what is refused under FSDP, and files for the launcher."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from accelerate.commands.config.config_args import load_config_from_file
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from torch.testing._internal.distributed.fake_pg import FakeStore

from qvft.errors import RecipeError
from qvft.models.distributed import processes
from qvft.models.sharded_weights import full_tensor, local_scalar, replicate_scalars
from qvft.recipe.load import load_recipe
from qvft.train import main as train
from qvft.training.distributed.fsdp import asked_to_shard, lay_out_state, shard, whole_state
from qvft.training.objectives.language import LanguageModelling
from qvft.training.phase_setup import phase_setup
from qvft.training.prepare_training import prepare_training
from qvft.training.training_run import TrainingRun

CONFIGS = sorted((Path(__file__).resolve().parents[3] / "recipes" / "accelerate").glob("*.yaml"))
FSDP = {"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2"}


@pytest.fixture
def launcher(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """The environment of a launcher, put back afterwards whatever reads it."""
    for variable in (*FSDP, "QVFT_SHARDS_WEIGHTS", "FSDP_OFFLOAD_PARAMS"):
        monkeypatch.setenv(variable, "false")
    return monkeypatch


def test_the_files_for_accelerate_are_read_by_it() -> None:
    read = {path.stem: load_config_from_file(str(path)) for path in CONFIGS}
    assert {name: one.distributed_type.value for name, one in read.items()} == {
        "ddp": "MULTI_GPU",
        "fsdp": "FSDP",
    }
    assert read["fsdp"].fsdp_config["fsdp_version"] == 2


def test_fsdp_is_noticed_once_and_hidden_from_accelerate(launcher: pytest.MonkeyPatch) -> None:
    assert not asked_to_shard()
    for variable, value in FSDP.items():
        launcher.setenv(variable, value)
    assert asked_to_shard()
    assert "ACCELERATE_USE_FSDP" not in os.environ
    assert asked_to_shard()


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({**FSDP, "FSDP_VERSION": "1"}, "FSDP 1"),
        ({**FSDP, "FSDP_OFFLOAD_PARAMS": "true"}, "CPU offload"),
    ],
)
def test_other_ways_of_sharding_are_refused(
    launcher: pytest.MonkeyPatch, variables: dict[str, str], said: str
) -> None:
    for variable, value in variables.items():
        launcher.setenv(variable, value)
    with pytest.raises(RecipeError, match=said):
        asked_to_shard()


def test_deepspeed_is_refused_with_what_to_use_instead(
    launcher: pytest.MonkeyPatch, recipe_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    launcher.setenv("ACCELERATE_USE_DEEPSPEED", "true")
    assert train([str(recipe_file)]) == 2
    said = capsys.readouterr().err
    assert "DeepSpeed" in said and "ddp.yaml" in said and "fsdp.yaml" in said
    assert said.count("qvft:") == 1


@pytest.fixture
def group() -> Iterator[Callable[[int], None]]:
    """Makes this process the first of several, whose others are not there and send nothing."""

    def join(size: int) -> None:
        processes()  # Accelerate is to know of one
        dist.init_process_group("fake", store=FakeStore(), rank=0, world_size=size)

    yield join
    if dist.is_initialized():
        dist.destroy_process_group()


def objective(recipe_file: Path, *changes: str) -> tuple[LanguageModelling, dict, TrainingRun]:
    """An objective, its first batch, and the work it is of."""
    work = prepare_training(load_recipe(recipe_file, ["data.features=off", *changes]))
    work.counts(work.plans[0])
    rows = work.rows(work.plans[0], work.train, training=True)
    module, collator = work.objective(work.plans[0], rows)
    batch = collator(list(enumerate(rows[:6])))
    return module, {name: value for name, value in batch.items() if name != "row_index"}, work


FP4 = ["model.quantization={load_in_4bit: true, bnb_4bit_quant_type: fp4}",
       "model.quantization.bnb_4bit_use_double_quant=false"]  # fmt: skip


@pytest.mark.parametrize(
    "changes",
    [["model.quantization.load_in_4bit=true"], FP4,
     ["model.quantization.load_in_4bit=true", "trainable.lora.use_dora=true"]],
    ids=["nf4", "fp4_single", "dora"],
)  # fmt: skip
def test_4_bit_weights_that_are_cut_compute_what_they_did(
    recipe_file: Path, group: Callable[[int], None], changes: list[str]
) -> None:
    module, batch, work = objective(recipe_file, *changes)
    plan, model = work.plans[0], work.loaded.model
    counted = work.counts(plan)
    module(**batch)["loss_sum"].backward()
    before = {name: p.grad for name, p in module.named_parameters() if p.grad is not None}
    module.zero_grad()

    group(1)
    shard(module, model, work.loaded.base.family)
    for _ in range(2):  # what the first pass leaves must not be in the way of the second
        module.zero_grad()
        module(**batch)["loss_sum"].backward()
    assert work.counts(plan) == counted
    after = {name: p.grad for name, p in module.named_parameters() if p.grad is not None}
    assert after.keys() == before.keys() != set()
    # The same operations on the same numbers.
    assert all(torch.equal(full_tensor(after[name]), before[name]) for name in before)


def packed_bytes() -> int:
    """Memory of all tensors of bytes that this process has: 4-bit weights, two in each."""
    gc.collect()
    # Not `isinstance`, which asks objects that warn when they are asked.
    tensors = [one for one in gc.get_objects() if issubclass(type(one), Tensor)]
    own = [getattr(one, "_local_tensor", one) for one in tensors if one.dtype == torch.uint8]
    storages = [one.untyped_storage() for one in own]
    return sum({storage._cdata: storage.nbytes() for storage in storages}.values())


def test_each_process_holds_its_part_of_4_bit_weights_alone(
    recipe_file: Path, group: Callable[[int], None]
) -> None:
    others = packed_bytes()
    module, batch, work = objective(
        recipe_file,
        "model.quantization.load_in_4bit=true",
        "model.quantization.bnb_4bit_use_double_quant=false",
    )
    packed = packed_bytes() - others
    assert packed > 100_000
    group(2)
    shard(module, work.loaded.model, work.loaded.base.family)
    assert packed_bytes() - others == packed / 2
    loss = module(**batch)["loss_sum"]
    # The backward pass gathers each block again; nothing of it is kept until then.
    assert loss.requires_grad and packed_bytes() - others == packed / 2
    loss.backward()
    assert packed_bytes() - others == packed / 2


def test_what_a_later_phase_trains_is_cut_as_float32_and_by_the_same_module(
    recipe_file: Path, group: Callable[[int], None], tmp_path: Path
) -> None:
    phases = (
        "phases=[{name: a, trainable: {decoder: frozen}}, {name: b, trainable: {decoder: full}}]"
    )
    given = [phases, "model.dtype=bfloat16", "data.features=off", "train.preflight=false"]
    work = prepare_training(load_recipe(recipe_file, given))
    work.sharded = True
    decoder = work.loaded.model.language_model
    group(1)
    first = phase_setup(work, work.plans[0], tmp_path)
    assert not any(weight.requires_grad for weight in decoder.parameters())
    assert {weight.dtype for weight in decoder.parameters()} == {torch.float32}
    second = phase_setup(work, work.plans[1], tmp_path)
    assert first.module is second.module
    assert all(isinstance(one, DTensor) and one.requires_grad for one in decoder.parameters())
    asked = [sum(len(one["params"]) for one in setup.groups) for setup in (first, second)]
    assert asked[1] - asked[0] == len(list(decoder.parameters()))


class Scaled(nn.Module):
    """A weight that can be cut and a number that cannot."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([[1.0, 2.0], [3.0, 5.0]]))
        self.scale = nn.Parameter(torch.tensor(2.0))

    def forward(self, x: Tensor) -> Tensor:
        """The sum of weighted and scaled inputs."""
        return (x @ self.weight.T / local_scalar(self.scale)).sum()


def test_the_state_of_a_number_is_laid_out_as_it_is(group: Callable[[int], None]) -> None:
    group(1)
    module = Scaled()
    mesh = init_device_mesh("cpu", (1,))
    fully_shard(module, mesh=mesh, ignored_params=replicate_scalars(module, mesh))
    optimizer = torch.optim.AdamW(module.parameters())
    module(torch.ones(1, 2)).backward()
    # -(1 + 2 + 3 + 5) / 2 ** 2
    assert full_tensor(module.scale.grad) == -2.75
    optimizer.step()
    state = whole_state(optimizer)
    moment = state["state"][1]["exp_avg"]
    assert moment.shape == () and moment == pytest.approx(-0.275)

    again = torch.optim.AdamW(module.parameters())
    again.load_state_dict(state)
    lay_out_state(again)
    assert isinstance(again.state[module.scale]["exp_avg"], DTensor)
    assert not isinstance(again.state[module.scale]["step"], DTensor)
    again.step()
