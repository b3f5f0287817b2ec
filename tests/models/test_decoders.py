"""Each decoder in BLIP-2 and question-aware models: as plain transformers has it, and one run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor
from transformers import AutoProcessor
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from qvft.adapters.targets import linear_names
from qvft.data.rows import Row, evaluation_rows
from qvft.errors import ModelError, RecipeError
from qvft.export import main as export
from qvft.inference import predict
from qvft.models.attention_capture import attention_kernels
from qvft.models.attention_maps import attend
from qvft.models.decoders import DECODERS, Decoder, decoder_of, register_decoder
from qvft.recipe.load import load_recipe
from qvft.setup.data import read_split
from qvft.setup.model import Loaded, base_model, base_of
from qvft.train import main as train
from qvft.training.objectives.build import packer_of
from qvft.training.objectives.language import LanguageModelling
from qvft.training.prepare_training import prepare_training
from qvft.weights.merge import merge_run
from tests.models.compared_passes import batch_of, require_close, said, with_gradients
from tests.models.decoder_models import GEOMETRY, TEXT, write_model

QUESTION_AWARE = ("llama", "qwen2", "t5")
CASES = [*(("blip2", k) for k in TEXT), *(("blip2_question", k) for k in QUESTION_AWARE)]
TARGETS = {
    "gpt2": ["c_attn", "c_fc"],
    "gpt_neo": ["q_proj", "v_proj", "c_fc"],
    "t5": ["q", "k", "v", "o", "wi_0", "wi_1", "wo"],
}
GREEDY = {"max_new_tokens": 6, "do_sample": False, "num_beams": 1}
BEAMS = {"max_new_tokens": 6, "do_sample": False, "num_beams": 3, "length_penalty": 0.5}


@pytest.fixture(scope="module", params=CASES, ids="-".join)
def base(request, tmp_path_factory: pytest.TempPathFactory, tiny_folder: Path) -> Path:
    family, kind = request.param
    folder = tmp_path_factory.mktemp(family) / kind
    return write_model(folder, tiny_folder, TEXT[kind], family=family)


@pytest.fixture(scope="module")
def targets(base: Path) -> list[str]:
    return TARGETS.get(base.name, ["q_proj", "v_proj", "down_proj"])


@pytest.fixture(scope="module")
def loaded(base: Path, recipe_file: Path) -> Loaded:
    recipe = load_recipe(recipe_file, [f"model.id={base}"])
    return base_model(recipe, base_of(recipe))


@pytest.fixture(scope="module")
def doubled(base: Path, recipe_file: Path, targets: list[str]) -> Loaded:
    """In float64, with LoRA layers that matter."""
    given = [f"model.id={base}", f"trainable.lora.target_modules=[{','.join(targets)}]"]
    work = prepare_training(load_recipe(recipe_file, given))
    for name, parameter in work.loaded.model.named_parameters():
        if ".lora_B" in name:  # it starts at zero, where A has no gradient
            torch.nn.init.normal_(parameter, std=0.05)
    work.loaded.model.double().requires_grad_(True)
    return work.loaded


@pytest.fixture(scope="module")
def rows(recipe_file: Path) -> list[Row]:
    return evaluation_rows(read_split(load_recipe(recipe_file), "train").samples[:4])


def plain_batch(batch: dict[str, Tensor]) -> dict[str, Tensor]:
    """What plain transformers takes: an image per row, and in T5 a prompt and the target."""
    given = {key: value for key, value in batch.items() if key != "image_index"}
    given["pixel_values"] = given["pixel_values"][batch["image_index"]]
    if "encoder_index" not in batch:
        return given
    each = given.pop("encoder_index")
    given = {key: value for key, value in given.items() if not key.startswith("encoder")}
    given["input_ids"] = batch["encoder_input_ids"][each]
    given["attention_mask"] = batch["encoder_attention_mask"][each]
    given["labels"] = batch["labels"][:, 1:].contiguous()
    return given | {key: given[key][each] for key in given if key.startswith("qformer")}


def test_loss_and_gradients_are_plain_transformers(doubled: Loaded, rows: list[Row]) -> None:
    model: Any = doubled.model
    batch = batch_of(doubled, rows, None)
    objective = LanguageModelling(model).eval()
    ours = objective(**batch)
    found = with_gradients(model, ours["loss_sum"])
    plain = model(**plain_batch(batch)).loss * ours["count"]
    expected = with_gradients(model, plain)
    require_close(found, expected)


def test_packed_rows_are_separate_ones(doubled: Loaded, rows: list[Row]) -> None:
    objective = LanguageModelling(doubled.model).eval()
    packer = replace(packer_of(doubled.base), budget=100)
    # A question is part of the visual prefix, and GPT-Neo's windows count packed columns.
    decoder = decoder_of(doubled.base.config)
    own = doubled.base.family.reads_question or decoder.local_window or decoder.encoder_layers
    assert packer.shares == (not own)
    found = [
        with_gradients(doubled.model, objective(**batch_of(doubled, rows, used))["loss_sum"])
        for used in (packer, None)
    ]
    require_close(*found)


@pytest.mark.parametrize("settings", [GREEDY, BEAMS], ids=["greedy", "beams"])
def test_texts_are_those_of_plain_generate(
    loaded: Loaded, rows: list[Row], settings: dict[str, Any]
) -> None:
    texts = said(loaded, rows, settings)
    processor = AutoProcessor.from_pretrained(loaded.base.location)
    template = loaded.template
    for row, text in zip(rows, texts, strict=True):
        inputs = processor(
            images=loaded.collator.decode(row.sample.image),
            text=template.written_prompt(row.kind, row.question),
            return_tensors="pt",
        )
        new = loaded.model.generate(
            **inputs,
            **settings,
            eos_token_id=[template.stop_id, template.tokenizer.eos_token_id],
            pad_token_id=template.pad_id,
        )[0, 1 if template.start_id is not None else inputs["input_ids"].shape[1] :]
        assert text == (template.decode(new.tolist()),)
    assert len(set(texts)) > 2


def test_texts_with_shared_prefixes_are_those_of_rows_decoded_whole(
    loaded: Loaded, rows: list[Row], monkeypatch: pytest.MonkeyPatch
) -> None:
    shared = said(loaded, rows, GREEDY)
    monkeypatch.setattr(predict, "continues_prefix", lambda *_: False)
    assert shared == said(loaded, rows, GREEDY)


def test_attention_maps_have_every_block(loaded: Loaded, rows: list[Row]) -> None:
    before = attention_kernels(loaded.model)
    batch = loaded.collator(list(enumerate(rows)))
    pixels = batch["pixel_values"][batch["image_index"]]
    found = attend(loaded.model, pixels, batch)
    assert found.text_layers == (0, 1)
    # Softmax in float32: rows sum to 1 up to its rounding.
    sums = found.text.sum(dim=-1)[:, batch["attention_mask"].bool()]
    torch.testing.assert_close(sums, torch.ones_like(sums), rtol=1e-5, atol=0)
    assert attention_kernels(loaded.model) == before


# Others differ from these in their attention alone, which the tests above hold.
MERGED = [
    *(("blip2", kind) for kind in ("llama", "gemma2", "qwen3", "gpt2", "t5")),
    ("blip2_question", "llama"),
    ("blip2_question", "t5"),
]


@pytest.mark.parametrize("base", MERGED, ids="-".join, indirect=True)
def test_the_merged_model_is_base_and_adapter(
    base: Path, targets: list[str], make_run: Callable[..., Path], tmp_path: Path
) -> None:
    """Merging compares logits and texts of what it wrote, loaded by a stock class."""
    lora = {"target_modules": targets, "r": 4, "lora_alpha": 8}
    run = make_run(tmp_path / "run", model={"id": str(base)}, trainable={"lora": lora})
    record = merge_run(run, tmp_path / "merged")
    assert record["verification"]["behaviour"]["parted"] == ()
    family = base_of(load_recipe(run / "recipe.lock.yaml")).family
    getattr(transformers, family.model_class).from_pretrained(tmp_path / "merged")


def test_the_rows_say_what_transformers_has(loaded: Loaded) -> None:
    decoder = decoder_of(loaded.base.config)
    model: Any = loaded.model
    assert linear_names(model, loaded.base.family)
    positions = [n for n, _ in model.language_model.named_parameters() if ".wpe." in n]
    assert bool(positions) == decoder.learned_positions


def test_a_run_is_trained_and_exported(
    tmp_path: Path, tiny_folder: Path, recipe_file: Path
) -> None:
    """Exporting compares what plain PEFT computes."""
    folder = write_model(tmp_path / "qwen2", tiny_folder, TEXT["qwen2"])
    given = [str(recipe_file), f"model.id={folder}", "train.max_steps=2"]
    lora = "trainable.lora.target_modules=[q_proj,v_proj]"
    assert train([*given, lora, f"run.dir={tmp_path / 'run'}"]) == 0
    assert export([str(tmp_path / "run"), str(tmp_path / "peft"), "--to", "peft"]) == 0


def test_a_decoder_without_dropout_refuses_it(
    tmp_path: Path, tiny_folder: Path, recipe_file: Path
) -> None:
    folder = write_model(tmp_path / "llama", tiny_folder, TEXT["llama"])
    recipe = load_recipe(recipe_file, [f"model.id={folder}", "trainable.decoder_dropout=0.1"])
    with pytest.raises(RecipeError) as refusal:
        base_model(recipe, base_of(recipe))
    assert refusal.value.where == "trainable.decoder_dropout"


@pytest.mark.parametrize(
    ("kind", "window"),
    [("mistral", "sliding_window"), ("gemma3_text", "sliding_window"), ("gpt_neo", "window_size")],
)
def test_rows_longer_than_a_window_are_refused(
    kind: str, window: str, tmp_path: Path, tiny_folder: Path, recipe_file: Path
) -> None:
    """Inside its window, sliding attention is plain attention, which packing's mask is."""
    text = CONFIG_MAPPING[kind](**TEXT[kind].to_dict() | {window: 100})
    folder = write_model(tmp_path / kind, tiny_folder, text)
    recipe = load_recipe(recipe_file, [f"model.id={folder}"])
    with pytest.raises(RecipeError, match="at most 93") as refusal:
        base_model(recipe, base_of(recipe))
    assert refusal.value.where == "data.max_text_tokens"
    shorter = load_recipe(recipe_file, [f"model.id={folder}", "data.max_text_tokens=70"])
    base_model(shorter, base_of(shorter))


def test_another_decoder_is_refused_until_it_has_a_row(
    tmp_path: Path, tiny_folder: Path, recipe_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = CONFIG_MAPPING["starcoder2"](**GEOMETRY)
    folder = write_model(tmp_path / "starcoder2", tiny_folder, text)
    recipe = load_recipe(recipe_file, [f"model.id={folder}"])
    with pytest.raises(ModelError, match=r"starcoder2.*opt, llama, qwen2.*layers"):
        base_of(recipe)
    with pytest.raises(ValueError, match="already"):
        register_decoder(Decoder("opt", ""))
    monkeypatch.setitem(DECODERS, "starcoder2", replace(DECODERS["llama"], model_type="starcoder2"))
    assert base_of(recipe).family.blocks(base_of(recipe).config) == ("language_model.model.layers",)
