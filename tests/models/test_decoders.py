"""Other decoders than OPT in BLIP-2: trained, generated from, merged and exported like OPT's."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import Blip2ForConditionalGeneration, LlamaConfig, Qwen2Config, T5Config
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from qvft.adapters.targets import linear_names
from qvft.data.packing import Packer
from qvft.data.rows import evaluation_rows
from qvft.errors import ModelError, RecipeError
from qvft.export import main as export
from qvft.inference import predict
from qvft.inference.predict import outcomes
from qvft.merge import main as merge
from qvft.models.decoders import DECODERS, Decoder, decoder_of, register_decoder
from qvft.models.qvision.configuration import DECODER_BLOCKS
from qvft.recipe.load import load_recipe
from qvft.setup.model import base_model, base_of
from qvft.train import main as train
from qvft.training.objectives.language import LanguageModelling
from qvft.training.setup_phases import TrainingSetup
from qvft.training.training_setup import training_setup
from tools.tiny_blip2.geometry import PAD_ID, VOCABULARY_SIZE, tiny_config

GEOMETRY: dict[str, Any] = {
    "vocab_size": VOCABULARY_SIZE,
    "hidden_size": 64,
    "intermediate_size": 160,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "initializer_range": 0.1,
    "bos_token_id": 0,
    "eos_token_id": 2,
    "pad_token_id": PAD_ID,
}
TEXT = {
    "llama": LlamaConfig(**{**GEOMETRY, "pad_token_id": None}, tie_word_embeddings=False),
    "qwen2": Qwen2Config(**GEOMETRY, tie_word_embeddings=True),
}
TARGETS = "trainable.lora.target_modules=[q_proj,v_proj,down_proj]"
GREEDY = {"max_new_tokens": 6, "do_sample": False, "num_beams": 1}


def write_model(folder: Path, processor: Path, text: Any) -> Path:
    """A BLIP-2 with this decoder and fresh weights.

    As published, Llama's tokenizer has no padding token, and Qwen2's no first one.
    """
    shutil.copytree(processor, folder)
    for weights in folder.glob("model*"):
        weights.unlink()
    config = tiny_config().to_dict() | {"text_config": text.to_dict()}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = Blip2ForConditionalGeneration(type(tiny_config()).from_dict(config))
        torch.nn.init.normal_(model.query_tokens, std=0.1)
        # Fresh output weights are so small that every text is the same; larger ones differ.
        with torch.no_grad():
            model.language_projection.weight *= 100
    model.save_pretrained(folder)
    lacks = {"llama": {"pad_token": None}, "qwen2": {"bos_token": None, "add_bos_token": False}}
    file = folder / "tokenizer_config.json"
    content = json.loads(file.read_text()) | lacks.get(text.model_type, {})
    file.write_text(json.dumps(content))
    if text.model_type == "qwen2":
        file = folder / "tokenizer.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | {"post_processor": None}))
    return folder


@pytest.fixture(scope="module", params=sorted(TEXT))
def base(request, tmp_path_factory: pytest.TempPathFactory, tiny_folder: Path) -> Path:
    kind = request.param
    return write_model(tmp_path_factory.mktemp("decoders") / kind, tiny_folder, TEXT[kind])


@pytest.fixture(scope="module")
def overrides(base: Path) -> list[str]:
    return [f"model.id={base}", TARGETS]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, recipe_file: Path, overrides: list[str]) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "other"
    assert train([str(recipe_file), *overrides, "train.max_steps=3", f"run.dir={folder}"]) == 0
    return folder


def losses(work: TrainingSetup, batch: dict[str, Tensor]) -> dict[str, Tensor]:
    """What the objective returns, with every gradient."""
    objective = LanguageModelling(work.loaded.model).eval()
    objective.zero_grad()
    outputs = objective(**batch)
    outputs["loss_sum"].backward()
    gradients = {n: p.grad.clone() for n, p in objective.named_parameters() if p.grad is not None}
    return {**gradients, **{name: value.detach() for name, value in outputs.items()}}


def test_packed_rows_have_the_losses_and_gradients_of_separate_ones(
    recipe_file: Path, overrides: list[str]
) -> None:
    work = training_setup(load_recipe(recipe_file, overrides))
    work.counts(work.plans[0])
    for name, parameter in work.loaded.model.named_parameters():
        if ".lora_B" in name:  # it starts at zero, where A has no gradient
            torch.nn.init.normal_(parameter, std=0.05)
    work.loaded.model.double()
    rows = list(enumerate(work.rows(work.plans[0], work.train, training=True)[:12]))
    found = []
    for packer in (None, Packer(True, budget=100)):
        batch = replace(work.loaded.collator, packer=packer)(rows)
        batch.pop("row_index")
        batch["pixel_values"] = batch["pixel_values"].double()
        found.append(losses(work, batch))
    assert found[0].keys() == found[1].keys()
    for name, value in found[0].items():
        # Rotary embeddings and norms of transformers compute in float32, whose last bits (6e-8)
        # differ by where a row stands in a batch; sums of some hundred terms of size 1.
        torch.testing.assert_close(found[1][name], value, rtol=1e-4, atol=1e-5, msg=name)
    assert max(float(v.abs().max()) for n, v in found[0].items() if "lora" in n) > 1e-3


def test_texts_with_shared_prefixes_are_those_of_rows_decoded_whole(
    recipe_file: Path, overrides: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = load_recipe(recipe_file, overrides)
    loaded = base_model(recipe, base_of(recipe))
    work = training_setup(recipe, given=None)
    rows = evaluation_rows(work.train.samples[:6])

    def said() -> list[tuple[str, ...]]:
        generation = dict.fromkeys(("caption", "question"), GREEDY)
        texts: list[tuple[str, ...]] = [()] * len(rows)
        for found in outcomes(
            loaded.model, loaded.collator, rows, generation=generation, batch_size=5, workers=0
        ):
            texts[found.number] = found.texts
        return texts

    shared = said()
    monkeypatch.setattr(predict, "continues_prefix", lambda *_: False)
    assert shared == said()
    assert len(set(shared)) > 2


def test_a_run_is_merged_and_exported(run: Path, tmp_path: Path) -> None:
    """Merging compares merged and adapted model, and exporting what plain PEFT computes."""
    assert merge([str(run), str(tmp_path / "merged")]) == 0
    record = json.loads((tmp_path / "merged" / "merge.json").read_text())
    assert record["verification"]["behaviour"]["parted"] == []
    assert export([str(run), str(tmp_path / "peft"), "--to", "peft"]) == 0
    # A stock transformers class reads what was written.
    Blip2ForConditionalGeneration.from_pretrained(tmp_path / "merged")


def test_the_rows_say_what_transformers_has(base: Path, recipe_file: Path) -> None:
    recipe = load_recipe(recipe_file, [f"model.id={base}"])
    found = base_of(recipe)
    decoder = decoder_of(found.config)
    model = base_model(recipe, found).model
    assert sorted(decoder.lora_targets) == linear_names(model, found.family)
    assert not any("position" in name for name, _ in model.language_model.named_parameters())


def test_a_decoder_without_dropout_refuses_it(recipe_file: Path, overrides: list[str]) -> None:
    recipe = load_recipe(recipe_file, [*overrides, "trainable.decoder_dropout=0.1"])
    with pytest.raises(RecipeError) as refusal:
        base_model(recipe, base_of(recipe))
    assert refusal.value.where == "trainable.decoder_dropout"


def test_qvision_has_the_blocks_of_the_table() -> None:
    """QVision's file travels with its weights, so that it cannot import the table."""
    assert {
        kind: decoder.layers for kind, decoder in DECODERS.items() if "qvision" in decoder.families
    } == DECODER_BLOCKS


def test_another_decoder_is_refused_until_it_has_a_row(
    tmp_path: Path, tiny_folder: Path, recipe_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = CONFIG_MAPPING["mistral"](**GEOMETRY)
    folder = write_model(tmp_path / "mistral", tiny_folder, text)
    recipe = load_recipe(recipe_file, [f"model.id={folder}"])
    with pytest.raises(ModelError, match="mistral.*opt, llama, qwen2"):
        base_of(recipe)
    with pytest.raises(ValueError, match="already"):
        register_decoder(Decoder("opt", "", ()))
    monkeypatch.setitem(DECODERS, "mistral", replace(DECODERS["llama"], model_type="mistral"))
    assert base_of(recipe).family.blocks(base_of(recipe).config).endswith("model.layers")


def test_an_encoder_decoder_is_refused(tmp_path: Path, recipe_file: Path) -> None:
    config = tiny_config().to_dict() | {"text_config": T5Config().to_dict()}
    type(tiny_config()).from_dict(config).save_pretrained(tmp_path)
    with pytest.raises(ModelError, match="encoder-decoder"):
        base_of(load_recipe(recipe_file, [f"model.id={tmp_path}"]))
