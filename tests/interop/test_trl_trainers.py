"""One step each of trl's own trainers with the policy of a run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

trl = pytest.importorskip("trl", reason="needs qvft[trl]")

from datasets import Dataset  # noqa: E402

from qvft.interop.trl import Policy, policy  # noqa: E402
from qvft.setup.start_run import start_run  # noqa: E402

# trl 1.16 uses names that transformers is about to take away (now `activation_checkpointing`).
pytestmark = pytest.mark.filterwarnings("ignore:`gradient_checkpointing:FutureWarning")

COLOURS = ("red", "green", "blue", "teal")


def asked(question: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": question}]


def said(answer: str) -> list[dict[str, str]]:
    return [{"role": "assistant", "content": answer}]


def dataset(**columns: Callable[[int, str], Any]) -> Dataset:
    """Plain images with the columns of a trl dataset, by number and colour."""
    return Dataset.from_list(
        [
            {
                "image": Image.new("RGB", (40, 30), colour),
                "prompt": asked("Which colour is it?" if number % 2 else ""),
                **{name: make(number, colour) for name, make in columns.items()},
            }
            for number, colour in enumerate(COLOURS)
        ]
    )


def lengths(completions: list[Any], **_: Any) -> list[float]:
    """A reward that no two samples of a group need to share."""
    return [float(len(one[0]["content"])) for one in completions]


def settings(folder: Path, **further: Any) -> dict[str, Any]:
    return {
        "output_dir": str(folder),
        "max_steps": 1,
        "per_device_train_batch_size": 4,
        "learning_rate": 1e-3,
        "lr_scheduler_type": "constant",
        "logging_steps": 1,
        "report_to": "none",
        "use_cpu": True,
        "bf16": False,
        "save_strategy": "no",
        "disable_tqdm": True,
        **further,
    }


def sft(made: Policy, folder: Path, **further: Any) -> Any:
    return trl.SFTTrainer(
        model=made.model,
        processing_class=made.processor,
        args=trl.SFTConfig(**settings(folder, **further)),
        train_dataset=dataset(completion=lambda _, colour: said(colour)),
    )


def dpo(made: Policy, folder: Path, **further: Any) -> Any:
    return trl.DPOTrainer(
        model=made.model,
        ref_model=made.reference,
        processing_class=made.processor,
        args=trl.DPOConfig(**settings(folder, **further)),
        train_dataset=dataset(
            chosen=lambda _, colour: said(colour), rejected=lambda *_: said("no idea")
        ),
    )


def kto(made: Policy, folder: Path, **further: Any) -> Any:
    return trl.KTOTrainer(
        model=made.model,
        ref_model=made.reference,
        processing_class=made.processor,
        args=trl.KTOConfig(**settings(folder, **further)),
        train_dataset=dataset(
            completion=lambda _, colour: said(colour), label=lambda number, _: number < 2
        ),
    )


def sampled(kind: str) -> Callable[..., Any]:
    def make(made: Policy, folder: Path, **further: Any) -> Any:
        trainer, config = getattr(trl, f"{kind}Trainer"), getattr(trl, f"{kind}Config")
        sampling = {"num_generations": 2, "max_completion_length": 6, "beta": 0.0}
        done = trainer(
            model=made.model,
            processing_class=made.processor,
            reward_funcs=lengths,
            args=config(**settings(folder, **sampling, **further)),
            train_dataset=dataset(),
        )
        made.add_reference(done, beta=0.04)
        return done

    return make


TRAINERS = {"SFT": sft, "DPO": dpo, "KTO": kto, "GRPO": sampled("GRPO"), "RLOO": sampled("RLOO")}


def weights(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: weight.detach().clone() for name, weight in model.named_parameters()}


@pytest.mark.parametrize("name", TRAINERS)
def test_a_step_trains_the_bridge_and_leaves_the_reference(
    name: str, tiny_run: Path, tmp_path: Path
) -> None:
    made = policy(tiny_run)
    before = weights(made.model)
    trainer = TRAINERS[name](made, tmp_path)
    trainer.train()
    after, reference = weights(made.model), weights(made.reference)
    assert all(torch.equal(reference[key], before[key]) for key in before)
    moved = {key for key in before if not torch.equal(after[key], before[key])}
    assert moved
    trained = {key for key, weight in made.model.named_parameters() if weight.requires_grad}
    assert moved <= trained
    for part in ("query_tokens", "qformer.", "language_projection.", "lora_B"):
        assert any(part in key for key in moved), part


@pytest.mark.parametrize("bf16", [True, False])
@pytest.mark.parametrize("name", ["DPO", "GRPO"])
def test_a_bfloat16_base_keeps_trained_weights_in_float32(
    name: str, bf16: bool, tiny_folder: Path, tmp_path: Path
) -> None:
    """With trl's mixed precision (its default) and without."""
    made = policy(tiny_folder, **{"model.dtype": "bfloat16"})
    trainer = TRAINERS[name](made, tmp_path, bf16=bf16)
    trainer.train()
    assert trainer.state.global_step == 1
    types = {weight.requires_grad: weight.dtype for weight in made.model.parameters()}
    assert types == {True: torch.float32, False: torch.bfloat16}


def test_the_reference_of_dpo_says_what_the_run_said_before(tiny_run: Path, tmp_path: Path) -> None:
    """After a step the reward of a text is beta times how far its log-probability has moved."""
    trainer = dpo(policy(tiny_run), tmp_path, max_steps=3)
    trainer.train()
    lines = [line for line in trainer.state.log_history if "logps/chosen" in line]
    first, last = lines[0], lines[-1]
    assert first["rewards/chosen"] == 0
    moved = last["logps/chosen"] - first["logps/chosen"]
    # float32 sums of some ten tokens, logged with six digits.
    assert last["rewards/chosen"] == pytest.approx(0.1 * moved, abs=1e-3)


def test_samples_end_in_the_stop_token(tiny_run: Path, tmp_path: Path) -> None:
    made = policy(tiny_run)
    trainer = TRAINERS["RLOO"](made, tmp_path)
    batch = trainer._generate_and_score_completions(list(trainer.train_dataset))
    stop = made.processor.template.stop_id
    rows = [
        ids[mask.bool()].tolist()
        for ids, mask in zip(batch["completion_ids"], batch["completion_mask"], strict=True)
    ]
    assert rows
    for ids in rows:
        assert stop not in ids[:-1]
        assert ids[-1] == stop or len(ids) == 6  # cut at max_completion_length


def test_a_trainer_without_reference_is_told_what_to_give(tiny_run: Path, tmp_path: Path) -> None:
    made = policy(tiny_run)
    with pytest.raises(OSError, match=r"policy\.add_reference"):
        trl.GRPOTrainer(
            model=made.model,
            processing_class=made.processor,
            reward_funcs=lengths,
            args=trl.GRPOConfig(**settings(tmp_path, num_generations=2, beta=0.1)),
            train_dataset=dataset(),
        )
    with pytest.raises(OSError, match=r"ref_model=policy\.reference"):
        trl.DPOTrainer(
            model=made.model,
            processing_class=made.processor,
            args=trl.DPOConfig(**settings(tmp_path)),
            train_dataset=dataset(
                chosen=lambda _, colour: said(colour), rejected=lambda *_: said("no")
            ),
        )


def test_a_checkpoint_of_trl_is_an_adapter_folder(tiny_run: Path, tmp_path: Path) -> None:
    made = policy(tiny_run)
    trainer = dpo(made, tmp_path, save_strategy="steps", save_steps=1)
    trainer.train()
    folder = tmp_path / "checkpoint-1"
    recipe = made.recipe.model_copy(
        update={"train": made.recipe.train.model_copy(update={"from_": str(folder)})}
    )
    start = start_run(recipe)
    assert start is not None and start.folder == folder
    state = load_file(folder / "bridge.safetensors")
    assert torch.equal(state["query_tokens"], made.model.query_tokens)
    assert (folder / "tokenizer.json").is_file()
    assert "policy.reference" not in (tmp_path / "README.md").read_text()
