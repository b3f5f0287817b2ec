"""QVision with each causal decoder of the table, made of checkpoints by a recipe."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    AutoModelForImageTextToText,
    AutoTokenizer,
    OPTConfig,
    T5Config,
    T5ForConditionalGeneration,
)
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from qvft.data.rows import Row, evaluation_rows
from qvft.errors import ModelError, RecipeError
from qvft.models.decoders import DECODERS
from qvft.recipe.load import load_recipe
from qvft.setup.data import read_split
from qvft.setup.model import Loaded, base_model, base_of
from qvft.training.objectives.build import packer_of
from qvft.training.objectives.language import LanguageModelling
from qvft.training.prepare_training import prepare_training
from qvft.weights.merge import merge_run
from tests.models.compared_passes import batch_of, require_close, said, with_gradients
from tests.models.decoder_models import GEOMETRY, GPT, TEXT, write_decoder
from tests.models.qvision_models import DECODER_TYPES, write_tower

ROWS_OF_TEXT = 40
TARGETS = {
    "gpt2": ["c_attn", "c_fc"],
    "gpt_neo": ["q_proj", "v_proj", "c_fc"],
    "opt": ["q_proj", "v_proj", "fc1"],
}
OPT = OPTConfig(
    **{key: value for key, value in GPT.items() if key != "initializer_range"},
    word_embed_proj_dim=32,
    num_hidden_layers=2,
    num_attention_heads=4,
    ffn_dim=96,
    dropout=0.1,
    init_std=0.1,
)
CONFIGS = {"opt": OPT} | TEXT
GREEDY = {"max_new_tokens": 6, "do_sample": False, "num_beams": 1}


@pytest.fixture(scope="module")
def tower(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tower(tmp_path_factory.mktemp("tower") / "clip", "clip_vision_model")


@pytest.fixture(scope="module", params=DECODER_TYPES)
def decoder(request, tmp_path_factory: pytest.TempPathFactory, tiny_folder: Path) -> Path:
    kind = request.param
    return write_decoder(tmp_path_factory.mktemp("decoder") / kind, tiny_folder, CONFIGS[kind])


@pytest.fixture(scope="module")
def given(tower: Path, decoder: Path) -> list[str]:
    targets = TARGETS.get(decoder.name, ["q_proj", "v_proj", "down_proj"])
    return [
        f"model.id={tower}",
        f"model.decoder={decoder}",
        f"data.max_text_tokens={ROWS_OF_TEXT}",
        f"trainable.lora.target_modules=[{','.join(targets)}]",
    ]


@pytest.fixture(scope="module")
def loaded(given: list[str], recipe_file: Path) -> Loaded:
    """With larger initial weights of the projection, so that the image is felt in greedy texts."""
    recipe = load_recipe(recipe_file, given)
    found = base_model(recipe, base_of(recipe))
    with torch.no_grad():
        found.model.vision_model.projection.weight *= 100
    return found


@pytest.fixture(scope="module")
def doubled(given: list[str], recipe_file: Path) -> Loaded:
    """In float64, with LoRA layers that matter."""
    work = prepare_training(load_recipe(recipe_file, given))
    for name, parameter in work.loaded.model.named_parameters():
        if ".lora_B" in name:  # it starts at zero, where A has no gradient
            torch.nn.init.normal_(parameter, std=0.05)
    work.loaded.model.double().requires_grad_(True)
    return work.loaded


@pytest.fixture(scope="module")
def rows(recipe_file: Path) -> list[Row]:
    return evaluation_rows(read_split(load_recipe(recipe_file), "train").samples[:4])


def test_loss_and_gradients_are_the_plain_forward_pass(doubled: Loaded, rows: list[Row]) -> None:
    model: Any = doubled.model
    batch = batch_of(doubled, rows, None)
    ours = LanguageModelling(model).eval()(**batch)
    found = with_gradients(model, ours["loss_sum"])
    plain = {key: value for key, value in batch.items() if key != "image_index"}
    plain["pixel_values"] = plain["pixel_values"][batch["image_index"]]
    expected = with_gradients(model, model(**plain).loss * ours["count"])
    require_close(found, expected)


def test_packed_rows_are_separate_ones(doubled: Loaded, rows: list[Row]) -> None:
    objective = LanguageModelling(doubled.model).eval()
    packer = replace(packer_of(doubled.base), budget=100)
    assert not packer.shares  # the decoder sees no image
    found = [
        with_gradients(doubled.model, objective(**batch_of(doubled, rows, used))["loss_sum"])
        for used in (packer, None)
    ]
    require_close(*found)


def test_texts_are_those_without_a_cache_and_of_plain_generate(
    loaded: Loaded, rows: list[Row]
) -> None:
    """Beams of every decoder: test_qvision_generation.py."""
    texts = said(loaded, rows, GREEDY)
    assert texts == said(loaded, rows, GREEDY | {"use_cache": False})
    template, images = loaded.template, loaded.processor.image_processor
    for row, text in zip(rows, texts, strict=True):
        asked = template.encode(row.kind, question=row.question).ids
        pixels = images(images=[loaded.collator.decode(row.sample.image)], return_tensors="pt")
        new = loaded.model.generate(torch.tensor([asked]), **pixels, **GREEDY)[0, len(asked) :]
        assert text == (template.decode(new.tolist()),)
    assert len(set(texts)) > 1


def test_texts_are_enclosed_in_the_marks_alone(loaded: Loaded) -> None:
    """Whatever the decoder's own tokenizer puts in front of a text."""
    ids = loaded.template.encode("caption", target="a red picture").ids
    tokenizer = loaded.processor.tokenizer
    words = tokenizer(" a red picture ", add_special_tokens=False)["input_ids"]
    marks = tokenizer.convert_tokens_to_ids(["<START>", "<END>"])
    assert list(ids) == [marks[0], *words, marks[1]]
    assert max(ids) < loaded.model.get_input_embeddings().weight.shape[0]


@pytest.mark.parametrize("decoder", ["gpt2", "gpt_neo", "gemma3_text"], indirect=True)
def test_the_merged_model_is_base_and_adapter(
    tower: Path, decoder: Path, given: list[str], make_run: Callable[..., Path], tmp_path: Path
) -> None:
    """Merging compares logits and texts of what it wrote with those of the run."""
    targets = TARGETS.get(decoder.name, ["q_proj", "v_proj", "down_proj"])
    run = make_run(
        tmp_path / "run",
        model={"id": str(tower), "decoder": str(decoder)},
        data={"max_text_tokens": 60},
        trainable={"lora": {"target_modules": targets, "r": 4, "lora_alpha": 8}},
    )
    record = merge_run(run, tmp_path / "merged")
    assert record["keys"]["lora"] == 2 * len(targets)
    assert record["verification"]["behaviour"]["parted"] == ()
    model = AutoModelForImageTextToText.from_pretrained(tmp_path / "merged")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "merged")
    assert (tokenizer.bos_token, tokenizer.eos_token) == ("<START>", "<END>")
    assert model.generation_config.eos_token_id in (
        tokenizer.eos_token_id,
        [tokenizer.eos_token_id],
    )


def test_rows_of_the_marks_are_like_the_others(loaded: Loaded, decoder: Path) -> None:
    rows = CONFIGS[decoder.name].vocab_size
    model: Any = loaded.model
    for layer in (model.get_input_embeddings(), model.get_output_embeddings()):
        old, new = layer.weight[:rows], layer.weight[rows:]
        assert len(new) == 2
        # 2 rows of 32 values or more, around a spread known from 1,200.
        assert new.std().item() == pytest.approx(old.std().item(), rel=4 / (2 * 64) ** 0.5)


@pytest.mark.parametrize("share", [0.0, 0.25])
def test_dropout_of_the_decoder_is_the_recipes(
    tower: Path, tiny_folder: Path, recipe_file: Path, tmp_path: Path, share: float
) -> None:
    folder = write_decoder(tmp_path / "opt", tiny_folder, OPT)
    given = [f"model.id={tower}", f"model.decoder={folder}", "data.max_text_tokens=40"]
    recipe = load_recipe(recipe_file, [*given, f"trainable.decoder_dropout={share}"])
    model: Any = base_model(recipe, base_of(recipe)).model
    assert {block.dropout for block in model.language_model.model.decoder.layers} == {share}


def test_four_bits_are_for_a_finished_model(
    tower: Path, tiny_folder: Path, recipe_file: Path, tmp_path: Path
) -> None:
    folder = write_decoder(tmp_path / "llama", tiny_folder, TEXT["llama"])
    given = [f"model.id={tower}", f"model.decoder={folder}"]
    recipe = load_recipe(recipe_file, [*given, "model.quantization.load_in_4bit=true"])
    with pytest.raises(RecipeError, match="merge a run of this model"):
        base_of(recipe)


def test_a_narrow_type_leaves_rotary_frequencies_exact(
    tower: Path, tiny_folder: Path, recipe_file: Path, tmp_path: Path
) -> None:
    folder = write_decoder(tmp_path / "llama", tiny_folder, TEXT["llama"])
    given = [f"model.id={tower}", f"model.decoder={folder}", "data.max_text_tokens=40"]
    found = []
    for dtype in ("float32", "bfloat16"):
        recipe = load_recipe(recipe_file, [*given, f"model.dtype={dtype}"])
        model: Any = base_model(recipe, base_of(recipe)).model
        found.append(model.language_model.model.rotary_emb.inv_freq)
    assert model.get_input_embeddings().weight.dtype == torch.bfloat16
    assert torch.equal(*found)


def test_a_decoder_without_a_row_is_refused_until_it_has_one(
    tower: Path,
    tiny_folder: Path,
    recipe_file: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    text = CONFIG_MAPPING["starcoder2"](**GEOMETRY)
    folder = write_decoder(tmp_path / "starcoder2", tiny_folder, text)
    recipe = load_recipe(recipe_file, [f"model.id={tower}", f"model.decoder={folder}"])
    with pytest.raises(ModelError, match=r"its decoder is starcoder2.*opt, llama.*layers"):
        base_of(recipe)
    row = replace(DECODERS["llama"], model_type="starcoder2")
    monkeypatch.setitem(DECODERS, "starcoder2", row)
    (prefix,) = base_of(recipe).family.blocks(base_of(recipe).config)
    assert prefix == "language_model.model.layers"


def test_an_encoder_decoder_is_refused(tower: Path, recipe_file: Path, tmp_path: Path) -> None:
    plain: Any = TEXT["t5"]
    T5ForConditionalGeneration(T5Config(**plain.to_dict())).save_pretrained(tmp_path / "t5")
    recipe = load_recipe(recipe_file, [f"model.id={tower}", f"model.decoder={tmp_path / 't5'}"])
    with pytest.raises(ModelError, match=r"its decoder is t5; expected a decoder of type opt"):
        base_of(recipe)


def test_random_weights_with_a_decoder_of_their_own_are_refused(recipe_file: Path) -> None:
    recipe = load_recipe(recipe_file, ["model.decoder=Qwen/Qwen3-0.6B", "model.init=random"])
    with pytest.raises(RecipeError, match=r"model\.init: random with model\.decoder"):
        base_of(recipe)
