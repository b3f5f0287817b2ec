"""LoRA on the ViT and the Q-Former: what is trained, cached, merged and refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoProcessor, Blip2ForConditionalGeneration

from qvft import load_model
from qvft.data.images.decoding import decode
from qvft.data.sample import ImageFile
from qvft.errors import RecipeError
from qvft.recipe.load import load_recipe
from qvft.recipe.phases import phase_plans
from qvft.train import main as train
from qvft.training.prepare_training import prepare_training
from qvft.weights.merge import merge_run
from tools.tiny_blip2.geometry import tiny_config

EYES = ["trainable.vision=lora", "trainable.qformer=lora"]
QUESTION = "Which colour is it?"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, recipe_file: Path) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "eyes"
    rate = "train.learning_rate.adapters=1e-2"
    assert train([str(recipe_file), *EYES, rate, f"run.dir={folder}"]) == 0
    return folder


def test_layers_of_every_block_are_trained_and_their_bases_are_not(run: Path) -> None:
    lora = load_file(run / "adapter" / "adapter_model.safetensors")
    layers = {key.partition(".lora_")[0].removeprefix("base_model.model.") for key in lora}
    config = tiny_config()
    blocks = config.vision_config.num_hidden_layers
    vision = {layer for layer in layers if layer.startswith("vision_model.")}
    assert vision == {
        f"vision_model.encoder.layers.{block}.{name}"
        for block in range(blocks)
        for name in ("self_attn.qkv", "self_attn.projection", "mlp.fc1", "mlp.fc2")
    }
    # Self- and cross-attention of four linear layers each, and two of the feed-forward.
    qformer = [layer for layer in layers if layer.startswith("qformer.")]
    assert len(qformer) == 10 * config.qformer_config.num_hidden_layers
    assert all(tensor.any() for key, tensor in lora.items() if ".lora_B" in key)
    bridge = json.loads((run / "adapter" / "manifest.json").read_text())["bridge"]
    assert not [key for key in bridge if key.startswith(("vision_model.", "qformer."))]


def test_features_are_not_cached_and_the_log_says_what_that_costs(
    recipe_file: Path, tmp_path: Path, said: pytest.LogCaptureFixture
) -> None:
    work = prepare_training(load_recipe(recipe_file, [*EYES, f"run.dir={tmp_path}"]))
    work.counts(work.plans[0])
    with said.at_level("INFO", "qvft"):
        work.cache_features()
    assert work.loaded.collator.features is None
    assert "TFLOP per image" in said.text


def test_a_merged_folder_answers_the_same_through_plain_transformers(
    run: Path, shapes: Path, tmp_path: Path
) -> None:
    """The merge itself has compared logits and greedy text; here a user's own call."""
    content = merge_run(run, tmp_path / "out")
    assert content["keys"]["lora"] > 4 * tiny_config().vision_config.num_hidden_layers
    image = shapes / "test1.png"
    ours = load_model(run).answer(image, QUESTION)
    model = Blip2ForConditionalGeneration.from_pretrained(tmp_path / "out")
    processor = AutoProcessor.from_pretrained(tmp_path / "out")
    inputs = processor(
        images=decode(ImageFile(image)), text=f"Question: {QUESTION} Answer:", return_tensors="pt"
    )
    ids = model.generate(**inputs, max_new_tokens=4, do_sample=False)
    new = ids[:, inputs["input_ids"].shape[1] :]
    assert processor.batch_decode(new, skip_special_tokens=True)[0].strip() == ours


def test_a_merge_without_the_layers_of_the_vit_would_be_noticed(
    make_run: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from qvft.errors import VerificationError
    from qvft.weights import merge, merge_inputs

    run = make_run(tmp_path / "run", trainable={"vision": "lora", "decoder": "frozen"})
    whole = merge_inputs.read_lora

    def without_one(folder: Path) -> dict:
        layers = whole(folder)
        layers.pop(next(key for key in layers if "qkv" in key))
        return layers

    monkeypatch.setattr(merge_inputs, "read_lora", without_one)
    with pytest.raises(VerificationError):
        merge.merge_run(run, tmp_path / "out")


def test_the_export_for_plain_peft_has_them(run: Path, tmp_path: Path) -> None:
    from qvft.export import main as export

    assert export([str(run), str(tmp_path / "out"), "--to", "peft"]) == 0


def test_a_phase_may_train_them_and_another_not(recipe_file: Path) -> None:
    phases = "phases=[{name: a, trainable: {vision: frozen}}, {name: b, trainable: {vision: lora}}]"
    work = prepare_training(load_recipe(recipe_file, [phases]))
    trained = []
    for plan in work.plans:
        work.counts(plan)
        named = work.loaded.model.named_parameters()
        trained.append([n for n, p in named if p.requires_grad and n.startswith("vision_model.")])
    assert trained[0] == []
    assert trained[1] and all(".lora_" in name for name in trained[1])


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["phases=[{name: a, trainable: {vision: full}}, {name: b, trainable: {vision: lora}}]"],
         "phases have different LoRA settings.*trainable.vision"),
        (["trainable.qformer=lora", "objectives.itc=0.1"], r"trainable\.qformer.*itc"),
    ],
)  # fmt: skip
def test_what_does_not_go_with_them_is_refused(
    recipe_file: Path, overrides: list[str], said: str
) -> None:
    recipe = load_recipe(recipe_file, overrides)
    with pytest.raises(RecipeError, match=said):
        phase_plans(recipe)
        prepare_training(recipe)


def test_gradients_reach_the_vit(recipe_file: Path) -> None:
    work = prepare_training(load_recipe(recipe_file, ["trainable.vision=lora"]))
    work.counts(work.plans[0])
    rows = work.rows(work.plans[0], work.train, training=True)[:2]
    batch = work.loaded.collator(list(enumerate(rows)))
    module, _ = work.objective(work.plans[0], rows)
    batch.pop("row_index")
    module(**batch)["loss_sum"].backward()
    for name, parameter in work.loaded.model.named_parameters():
        if name.startswith("vision_model.") and ".lora_B" in name:
            assert parameter.grad is not None and bool(torch.any(parameter.grad)), name
