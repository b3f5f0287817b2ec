"""Flex attention: the mask is sdpa's, the losses are, and where it cannot train it says so."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import GPT2Config, GPTNeoConfig, OPTConfig, PretrainedConfig

from qvft.data.packing import Packer, packed
from qvft.errors import RecipeError
from qvft.models.flex_attention import KERNEL, block_mask, require_flex, use_flex, uses_flex
from qvft.models.packed import SHARED_PREFIX, Packing
from qvft.models.qvision.configuration import QVisionConfig
from qvft.recipe.load import load_recipe
from qvft.recipe.model import Model
from qvft.train import main
from qvft.training.objectives.language import LanguageModelling
from qvft.training.prepare_training import prepare_training
from qvft.training.training_run import TrainingRun


def test_who_sees_whom_is_what_the_float_mask_says() -> None:
    rows = [[1, 1, 2, 3, 4], [1, 1, 5, 6], [1, 1, 7], [2, 3, 4, 5, 6, 7, 8], [9, 8, 7]]
    packing = Packing.of(packed(rows, [0, 0, 0, 1, 2], budget=12, most=12))
    lines, width = packing.owner.shape
    assert lines > 1 and (packing.owner == -1).any()  # several rows, and padding in one
    sees = block_mask(packing.owner, packing.text, SHARED_PREFIX).mask_mod
    found = torch.tensor(
        [
            [
                [bool(sees(*(torch.tensor(i) for i in (r, 0, q, k)))) for k in range(width)]
                for q in range(width)
            ]
            for r in range(lines)
        ]
    )
    assert torch.equal(found, packing.mask(torch.float32)[:, 0] == 0)


@pytest.fixture
def work(recipe_file: Path) -> Iterator[TrainingRun]:
    yield prepare_training(load_recipe(recipe_file, []))


def losses(work: TrainingRun) -> torch.Tensor:
    """Of packed rows, four texts of an image each."""
    rows = 3 * work.rows(work.plans[0], work.train, training=True)
    rows = [replace(row, sample=rows[index // 4].sample) for index, row in enumerate(rows)]
    collator = replace(work.loaded.collator, packer=Packer(True, budget=300))
    batch = collator(list(enumerate(rows)))
    assert batch["packed_source"].shape[1] > 128  # more than one block
    del batch["row_index"]
    with torch.no_grad():
        return LanguageModelling(work.loaded.model).eval()(**batch)["row_loss"]


def agree(work: TrainingRun) -> None:
    expected = losses(work)
    use_flex(work.loaded.model)
    assert uses_flex(work.loaded.model)
    assert work.loaded.model.qformer.config._attn_implementation != KERNEL
    found = losses(work)
    # float32 sums of some hundred terms, in another order
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    assert not torch.equal(found, expected), "it was not flex attention that ran"


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
def test_losses_are_those_of_sdpa(work: TrainingRun) -> None:
    with torch.compiler.set_stance("force_eager"):
        agree(work)


@pytest.mark.slow
def test_losses_of_the_compiled_kernel_are_those_of_sdpa(work: TrainingRun) -> None:
    agree(work)


def test_training_on_a_cpu_is_refused_before_anything_begins(
    recipe_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    run = tmp_path / "run"
    assert main([str(recipe_file), f"run.dir={run}", "model.attn_implementation=flex"]) == 2
    refusal = (
        "\nqvft: model.attn_implementation: flex on a CPU, for which torch has no backward pass"
    )
    assert refusal in capsys.readouterr().err
    assert not run.exists()


@pytest.mark.parametrize("text", [GPTNeoConfig(), GPT2Config()], ids=lambda text: text.model_type)
def test_decoders_without_it_are_named(text: PretrainedConfig) -> None:
    config = QVisionConfig()
    config.text_config = text
    with pytest.raises(RecipeError, match=f"in a qvision model with a {text.model_type} decoder"):
        require_flex(config, torch.device("cuda"))


def test_opt_is_trained_with_it_on_a_gpu() -> None:
    config = PretrainedConfig()
    config.text_config = OPTConfig()
    require_flex(config, torch.device("cuda"))


def test_everything_else_of_a_flex_recipe_runs_with_sdpa() -> None:
    kernels = [Model(id="x", attn_implementation=name).kernel for name in ("flex", "sdpa", "eager")]
    assert kernels == ["sdpa", "sdpa", "eager"]
