"""QVision with a GPT-2 decoder and LoRA in it, through the programs: trained, resumed, merged."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import (
    AutoTokenizer,
    CLIPVisionConfig,
    CLIPVisionModel,
    GPT2Config,
    GPT2LMHeadModel,
)
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from qvft.check import main as check
from qvft.setup.model import Loaded
from qvft.setup.resolve_model import load_resolved, resolve_model
from qvft.train import main as train
from qvft.weights.merge import merge_run
from qvft.weights.probe_outputs import make_probes, toolkit_logits
from qvft.weights.run_probes import require_rows
from qvft.weights.tolerance import logit_errors

SIDE = 32
BLOCKS = 2
KINDS = {
    "lora": [],
    "rslora": ["trainable.lora.use_rslora=true"],
    "dora": ["trainable.lora.use_dora=true"],
}


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory, tiny_folder: Path, shapes: Path) -> Path:
    """A recipe of a small CLIP and a small GPT-2, with rates that move the logits in a step."""
    folder = tmp_path_factory.mktemp("gpt2")
    tokenizer = AutoTokenizer.from_pretrained(tiny_folder)
    tower = CLIPVisionConfig(
        hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2,
        image_size=SIDE, patch_size=8,
    )  # fmt: skip
    words = GPT2Config(
        vocab_size=len(tokenizer), n_embd=48, n_layer=BLOCKS, n_head=4, n_positions=96,
        initializer_range=0.08, bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        CLIPVisionModel(tower).save_pretrained(folder / "clip")
        GPT2LMHeadModel(words).save_pretrained(folder / "gpt2")
    crop = {"height": SIDE, "width": SIDE}
    CLIPImageProcessorPil(size={"shortest_edge": SIDE}, crop_size=crop).save_pretrained(
        folder / "clip"
    )
    tokenizer.save_pretrained(folder / "gpt2")
    path = folder / "recipe.yaml"
    path.write_text(
        f"""
name: gpt2
model: {{family: qvision, id: "{folder / "clip"}", decoder: "{folder / "gpt2"}"}}
data:
  train: {{path: "{shapes / "train.jsonl"}"}}
  eval: {{path: "{shapes / "test.jsonl"}", name: shapes-test}}
  max_text_tokens: 40
  num_workers: 0
trainable: {{decoder: lora, lora: {{r: 4, lora_alpha: 8, target_modules: [c_attn, c_proj, c_fc]}}}}
train:
  max_steps: 1
  warmup_steps: 0
  lr_scheduler_type: constant
  per_device_train_batch_size: 8
  learning_rate: {{qformer: 1.0e-3, adapters: 3.0e-2}}
run: {{threads: 1}}
"""
    )
    return path


def trained(recipe: Path, folder: Path, *overrides: str) -> Path:
    assert train([str(recipe), f"run.dir={folder}", *overrides]) == 0
    return folder


def logits(loaded: Loaded, run: Path) -> list[torch.Tensor]:
    rows = require_rows(resolve_model(str(run)).recipe, loaded.base)
    return toolkit_logits(loaded.model, make_probes(loaded.collator, rows))


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_a_run_of_one_step_merges_to_a_model_with_its_logits(
    recipe: Path, tmp_path: Path, kind: str
) -> None:
    run = trained(recipe, tmp_path / "run", *KINDS[kind])
    content = merge_run(run, tmp_path / "out")
    # c_attn and c_proj in attention, c_fc and c_proj in the layers after it.
    assert content["keys"]["lora"] == 4 * BLOCKS
    adapter = load_resolved(resolve_model(str(run)))
    merged = load_resolved(resolve_model(str(tmp_path / "out"), recipe_path=str(recipe)))
    said = logits(adapter, run)
    # Sums in another order: floats of size 1 are 6e-8 apart, products are 192 long at most, and
    # the logits' spread is below 2.
    assert logit_errors(said, logits(merged, run))[0] < 1e-5
    assert adapter.handle is not None
    with adapter.handle.disable_adapter():
        without = logits(adapter, run)
    assert logit_errors(said, without)[0] > 0.05


def test_a_resumed_run_ends_with_the_same_weights(recipe: Path, tmp_path: Path) -> None:
    steps = [
        "train.max_steps=2",
        "train.save_steps=1",
        "train.resume=auto",
        "trainable.lora.use_dora=true",
    ]
    whole = trained(recipe, tmp_path / "whole", *steps)
    cut = Path(shutil.copytree(whole, tmp_path / "cut"))
    shutil.rmtree(cut / "adapter")
    shutil.rmtree(cut / "checkpoints" / "0" / "checkpoint-2")
    trained(recipe, cut, *steps)
    for name in ("adapter_model.safetensors", "bridge.safetensors"):
        once, again = (load_file(run / "adapter" / name) for run in (whole, cut))
        assert once.keys() == again.keys() and len(once) > 4
        assert all(torch.equal(once[key], again[key]) for key in once)


def test_adapters_saved_by_a_run_say_how_the_weights_are_stored(
    recipe: Path, tmp_path: Path, recwarn: pytest.WarningsRecorder
) -> None:
    run = trained(recipe, tmp_path / "run")
    load_resolved(resolve_model(str(run)))
    config = json.loads((run / "adapter" / "adapter_config.json").read_text())
    assert config["fan_in_fan_out"] is True
    assert [w for w in recwarn if "fan_in_fan_out" in str(w.message)] == []


def test_the_names_of_another_decoder_are_answered_with_those_of_gpt2(
    recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = [str(recipe), f"run.dir={tmp_path}", "trainable.lora.target_modules=[q_proj, v_proj]"]
    assert train(given) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert '"q_proj" is not a linear layer of the decoder' in said
    assert "c_attn, c_fc, c_proj" in said


def test_the_component_table_counts_the_adapters(
    recipe: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert check([str(recipe), "--only", "model"]) == 0
    # Rank 4 on 48 to 144, 48 to 48, 48 to 192 and 192 to 48, in both blocks.
    count = BLOCKS * 4 * ((48 + 144) + (48 + 48) + (48 + 192) + (192 + 48))
    rows = [line for line in capsys.readouterr().out.splitlines() if "adapters" in line]
    assert len(rows) == 1 and f"adapters {count}" in rows[0]


@pytest.mark.slow
def test_a_four_bit_decoder_takes_adapters_that_merge_into_the_base_it_was_made_from(
    recipe: Path, tmp_path: Path
) -> None:
    """4-bit layers turn the weight round; what is merged into is stored (in, out) again."""
    pytest.importorskip("bitsandbytes")
    base = tmp_path / "base"
    merge_run(trained(recipe, tmp_path / "first"), base)
    again = [f"model.id={base}", "model.decoder=null", "model.quantization.load_in_4bit=true"]
    run = trained(recipe, tmp_path / "run", *again)
    content = merge_run(run, tmp_path / "out")
    assert content["keys"]["lora"] == 4 * BLOCKS and content["quantized"] == "nf4"
    assert content["verification"]["behaviour"]["largest_error"] < 1e-5  # as above
