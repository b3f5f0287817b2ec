"""Each known trap of fine-tuning a Q-Former model, by number: prevented, or caught and said.

The numbers are those of docs/traps.md.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from qvft.adapters.freeze import mark_trainable
from qvft.data.collate import IGNORED
from qvft.data.rows import training_rows
from qvft.errors import NonFiniteLossError, PreflightError, QvftError, RecipeError
from qvft.models.blip2 import insert_prefix
from qvft.models.decoders import DECODERS
from qvft.models.families import FAMILIES
from qvft.models.forward_stages import encode_images
from qvft.recipe.load import load_recipe
from qvft.setup.model import base_model, base_of, set_trainable, with_fresh_adapters
from qvft.training.arguments import training_arguments
from qvft.training.objectives.language import LanguageModelling
from qvft.training.phase_setup import phase_setup
from qvft.training.preflight import check_gradients, check_image_matters
from qvft.training.prepare_training import prepare_training

BLIP2 = FAMILIES["blip2"]


@pytest.fixture(scope="module")
def work(recipe_file: Path):
    built = prepare_training(load_recipe(recipe_file))
    set_trainable(built.loaded, built.plans[0].trainable)
    return built


@pytest.fixture
def batch(work):
    rows = training_rows(work.train.samples)
    return work.loaded.collator([(i, rows[i]) for i in (0, 4, 8, 9)])


def without_index(batch):
    return {key: value for key, value in batch.items() if key != "row_index"}


def test_trap_1_a_row_without_image_tokens_is_refused(work, batch) -> None:
    model = work.loaded.model
    prefix = encode_images(model, batch["pixel_values"])
    text_only = batch["input_ids"].clone()
    text_only[0, 0] = work.loaded.template.tokenizer.bos_token_id
    with pytest.raises(QvftError, match="image would be ignored"):
        insert_prefix(model, text_only, prefix=prefix, image_index=batch["image_index"])


def test_trap_1_the_preflight_notices_an_image_that_does_not_matter(work, batch) -> None:
    objective = LanguageModelling(work.loaded.model)
    assert check_image_matters(objective, batch) > 0
    same = {**batch, "pixel_values": torch.zeros_like(batch["pixel_values"])}
    with pytest.raises(PreflightError, match="bit-identical"):
        check_image_matters(objective, same)


def test_trap_2_query_tokens_are_trained_and_saved(tiny_run: Path, tiny_folder: Path) -> None:
    saved = load_file(tiny_run / "adapter" / "bridge.safetensors")["query_tokens"]
    base = load_file(tiny_folder / "model.safetensors")["query_tokens"]
    assert saved.shape == base.shape
    assert not torch.equal(saved, base)


def test_trap_3_targets_are_exact_names_of_the_decoder(work) -> None:
    injected = {n for n, _ in work.loaded.model.named_parameters() if ".lora_A." in n}
    layers = work.loaded.base.config.text_config.num_hidden_layers
    assert injected == {
        f"{DECODERS['opt'].layers}.{layer}.self_attn.{name}.lora_A.default.weight"
        for layer in range(layers)
        for name in ("q_proj", "v_proj")
    }


def test_trap_3_a_target_that_matches_nothing_is_an_error(recipe_file: Path) -> None:
    recipe = load_recipe(recipe_file, ["trainable.lora.target_modules=[q_prj]"])
    loaded = base_model(recipe, base_of(recipe))
    with pytest.raises(RecipeError, match="q_proj"):
        with_fresh_adapters(loaded, recipe.trainable)


def test_trap_4_trained_weights_are_float32_beside_a_bfloat16_base(recipe_file: Path) -> None:
    recipe = load_recipe(recipe_file, ["model.dtype=bfloat16"])
    loaded = with_fresh_adapters(base_model(recipe, base_of(recipe)), recipe.trainable)
    set_trainable(loaded, recipe.trainable)
    types = {(p.requires_grad, p.dtype) for p in loaded.model.parameters()}
    assert types == {(True, torch.float32), (False, torch.bfloat16)}


def test_trap_5_loss_is_on_targets_alone(work, batch) -> None:
    template = work.loaded.template
    rows = training_rows(work.train.samples)
    for place, index in enumerate((0, 4, 8, 9)):
        labels = batch["labels"][place]
        supervised = labels[labels != IGNORED].tolist()
        assert template.decode(supervised) == rows[index].target
        assert supervised[-1] == template.stop_id
    padding = batch["attention_mask"] == 0
    assert padding.any()
    assert (batch["labels"][padding] == IGNORED).all()


def test_trap_5_the_leading_end_of_text_token_is_attended_to(work, batch) -> None:
    first_text = work.loaded.base.config.num_query_tokens
    assert (batch["input_ids"][:, first_text] == work.loaded.template.tokenizer.eos_token_id).all()
    assert (batch["attention_mask"][:, first_text] == 1).all()


def test_trap_6_targets_end_in_the_newline_token(work) -> None:
    template = work.loaded.template
    row = template.encode("caption", target="a dog")
    assert template.tokenizer.convert_ids_to_tokens(row.ids[-1]) == "Ċ"
    assert row.ids[-1] != template.tokenizer.eos_token_id


def test_trap_7_a_fresh_model_sees_its_image(work, batch) -> None:
    assert work.loaded.base.config.vision_config.initializer_range >= 0.01
    with torch.no_grad():
        prefix = encode_images(work.loaded.model, batch["pixel_values"])
    # Images that differ in colour only move the prefix by more than float32 rounding (1e-7).
    assert (prefix[0] - prefix[1]).abs().max() > 1e-4


def test_trap_9_yaml_1_2_reads_what_is_written(tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    path.write_text(
        "name: x\nmodel: {id: y}\ntrain: {learning_rate: {adapters: 1e-4}}\n"
        "data: {prompt: {caption: no}, train: {limit: 0123}}\n"
    )
    recipe = load_recipe(path)
    assert recipe.train.learning_rate.adapters == 1e-4
    assert recipe.data.prompt.caption == "no"
    assert recipe.data.train.limit == 123
    path.write_text("name: x\nname: y\nmodel: {id: y}\n")
    with pytest.raises(RecipeError, match="r.yaml:2"):
        load_recipe(path)


def test_trap_10_saving_asks_no_hub(tiny_run: Path) -> None:
    # HF_HUB_OFFLINE is set for all tests: a question to the hub would have raised.
    assert (tiny_run / "adapter" / "adapter_model.safetensors").is_file()


def test_trap_11_a_loss_that_is_not_finite_stops_and_names_the_samples(
    recipe_file: Path, tmp_path: Path
) -> None:
    from qvft.training.phases import run_phases

    broken = prepare_training(
        load_recipe(recipe_file, [f"run.dir={tmp_path}", "train.preflight=false"])
    )
    with torch.no_grad():
        broken.loaded.model.language_projection.bias.fill_(float("nan"))
    with pytest.raises(NonFiniteLossError, match=r"step 1; samples: train\d+"):
        run_phases(tmp_path, broken)


def test_trap_12_max_length_is_refused(recipe_file: Path) -> None:
    from qvft.inference.generation_config import generation_fields

    recipe = load_recipe(recipe_file, ["eval.answer.arguments={max_length: 20}"])
    with pytest.raises(RecipeError, match="max_new_tokens"):
        generation_fields(recipe)


def test_trap_15_the_trainer_keeps_every_column(recipe_file: Path, tmp_path: Path) -> None:
    train = load_recipe(recipe_file).train.model_dump()
    arguments = training_arguments(train, output_dir=tmp_path, seed=0, workers=0, has_eval=False)
    assert arguments.remove_unused_columns is False


def test_trap_16_only_the_decoder_is_quantised(recipe_file: Path) -> None:
    recipe = load_recipe(recipe_file, ["model.quantization.load_in_4bit=true"])
    loaded = base_model(recipe, base_of(recipe))
    quantised = {
        BLIP2.component(name)
        for name, p in loaded.model.named_parameters()
        if p.dtype == torch.uint8
    }
    assert quantised == {"decoder"}
    assert loaded.model.language_model.get_output_embeddings().weight.is_floating_point()


@pytest.mark.parametrize("checkpointing", [False, True])
def test_trap_17_every_trained_component_has_a_gradient(
    recipe_file: Path, checkpointing: bool
) -> None:
    work = prepare_training(
        load_recipe(recipe_file, [f"train.gradient_checkpointing={str(checkpointing).lower()}"])
    )
    setup = phase_setup(work, work.plans[0], Path("unused"))
    rows = setup.train_rows
    batch = without_index(setup.collator([(i, rows[i]) for i in range(4)]))
    setup.module.train()
    setup.module(**batch)["loss_sum"].backward()
    largest = check_gradients(work.loaded.model, BLIP2)
    assert set(largest) == {"qformer", "query_tokens", "language_projection", "adapters"}


def test_trap_17_a_component_without_gradient_is_named(work) -> None:
    work.loaded.model.zero_grad(set_to_none=True)
    with pytest.raises(PreflightError, match="qformer"):
        check_gradients(work.loaded.model, BLIP2)


def test_trap_17_nothing_frozen_is_in_the_autograd_graph(work, batch) -> None:
    prefix_input = LanguageModelling(work.loaded.model)
    prefix_input.train()
    assert not work.loaded.model.vision_model.training
    prefix_input(**without_index(batch))["loss_sum"].backward()
    frozen = [p for p in work.loaded.model.parameters() if not p.requires_grad]
    assert all(p.grad is None for p in frozen)
    work.loaded.model.zero_grad(set_to_none=True)


def test_trap_19_evaluation_while_training_returns_three_numbers_a_row(
    recipe_file: Path, tmp_path: Path
) -> None:
    from qvft.training.trainer import QFormerTrainer

    work = prepare_training(load_recipe(recipe_file, ["train.eval_steps=1"]))
    trainer = QFormerTrainer(
        phase_setup(work, work.plans[0], tmp_path),
        save_weights=work.save_weights,
        restore_weights=work.restore_weights,
        metrics_file=tmp_path / "metrics.jsonl",
    )
    predictions = trainer.predict(trainer.eval_dataset).predictions
    assert predictions.shape == (len(trainer.eval_dataset), 3)


def test_trap_20_a_model_is_on_one_device(work) -> None:
    assert len({parameter.device for parameter in work.loaded.model.parameters()}) == 1


def test_frozen_means_frozen(tiny_run: Path) -> None:
    manifest = json.loads((tiny_run / "adapter" / "manifest.json").read_text())
    components = {entry["component"] for entry in manifest["bridge"].values()}
    assert components == {"qformer", "query_tokens", "language_projection"}


def test_mark_trainable_can_freeze_all(recipe_file: Path) -> None:
    recipe = load_recipe(recipe_file)
    loaded = base_model(recipe, base_of(recipe))
    everything = dict.fromkeys(BLIP2.parts, "frozen")
    mark_trainable(loaded.model, BLIP2, everything)
    assert not any(parameter.requires_grad for parameter in loaded.model.parameters())


@pytest.fixture(scope="module")
def evaluated(tiny_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from qvft.eval import main

    folder = tmp_path_factory.mktemp("evaluated") / "report"
    assert main([str(tiny_run), "--out", str(folder)]) == 0
    return folder


def test_trap_8_a_report_names_what_shapes_its_scores(evaluated: Path) -> None:
    report = json.loads((evaluated / "report.json").read_text())
    assert report["decode"]["questions"]["num_beams"] == 1
    assert report["decode"]["prompt"]["question"] == "Question: {question} Answer:"
    assert "coco-caption-1.2" in report["definitions"]["CIDEr"]
    assert {"torch", "transformers", "peft"} <= set(report["versions"])


def test_trap_13_predictions_hold_neither_prompt_nor_placeholders(evaluated: Path) -> None:
    rows = [json.loads(line) for line in (evaluated / "predictions.jsonl").open()]
    assert len(rows) == 24
    assert not any("Question:" in row["prediction"] for row in rows)
    assert not any("<image>" in row["prediction"] for row in rows)


def test_trap_14_training_and_evaluation_share_one_prompt(work) -> None:
    template = work.loaded.template
    for kind, question in (("caption", None), ("question", "Is it red?")):
        trained = template.encode(kind, question=question, target="yes")
        asked = template.encode(kind, question=question)
        assert trained.ids[: trained.target_start] == asked.ids


def test_trap_14_empty_and_repeated_outputs_are_counted(evaluated: Path) -> None:
    counts = json.loads((evaluated / "report.json").read_text())["counts"]
    rows = [json.loads(line) for line in (evaluated / "predictions.jsonl").open()]
    assert counts["empty_predictions"] == sum(not row["prediction"] for row in rows)
    assert counts["different_predictions"] == len({row["prediction"] for row in rows})


def test_trap_18_a_merge_starts_from_the_unquantised_base(
    recipe_file: Path, tmp_path: Path
) -> None:
    from qvft.merge import main as merge
    from qvft.train import main as train

    run, out = tmp_path / "run", tmp_path / "merged"
    overrides = ["model.quantization.load_in_4bit=true", "train.max_steps=1", f"run.dir={run}"]
    assert train([str(recipe_file), *overrides]) == 0
    assert merge([str(run), str(out)]) == 0
    weights = load_file(out / "model.safetensors")
    assert {tensor.dtype for tensor in weights.values()} == {torch.float32}
    assert "quantization_config" not in json.loads((out / "config.json").read_text())


def test_trap_21_images_are_decoded_by_workers(recipe_file: Path, tmp_path: Path) -> None:
    train = load_recipe(recipe_file).train.model_dump()
    arguments = training_arguments(train, output_dir=tmp_path, seed=0, workers=3, has_eval=False)
    assert arguments.dataloader_num_workers == 3


def test_trap_22_default_metrics_need_no_java(
    evaluated: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from qvft.evaluation.rows import PredictionRow
    from qvft.evaluation.scoring import score

    monkeypatch.setenv("PATH", "")
    row = PredictionRow("1", "a.png", "caption", None, "a red picture", ("a red picture",))
    other = PredictionRow("2", "b.png", "caption", None, "a blue one", ("a green one",))
    metrics = score([row, other]).metrics
    assert metrics["caption_exact_match"] == 50
    assert metrics["Bleu_1"] > 0


def test_trap_20_several_gpus_do_not_mean_data_parallel(
    recipe_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Several visible GPUs are what TrainingArguments counts; here it is told so.
    from transformers import TrainingArguments

    monkeypatch.setattr(TrainingArguments, "n_gpu", property(lambda self: self._n_gpu_seen))
    monkeypatch.setattr(TrainingArguments, "_n_gpu_seen", 4, raising=False)
    train = load_recipe(recipe_file).train.model_dump()
    arguments = training_arguments(train, output_dir=tmp_path, seed=0, workers=0, has_eval=False)
    assert arguments._n_gpu == 1


def test_trap_11_an_accelerate_config_cannot_ask_for_float16(
    recipe_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "fp16")
    train = load_recipe(recipe_file).train.model_dump()
    arguments = training_arguments(train, output_dir=tmp_path, seed=0, workers=0, has_eval=False)
    assert (arguments.fp16, arguments.bf16) == (False, False)


def test_the_first_fsdp_is_refused(
    recipe_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    train = load_recipe(recipe_file).train.model_dump()
    with pytest.raises(RecipeError, match="recipes/accelerate/fsdp.yaml"):
        training_arguments(train, output_dir=tmp_path, seed=0, workers=0, has_eval=False)


def test_trap_16_the_bridge_is_float32_whatever_the_base_is(recipe_file: Path) -> None:
    recipe = load_recipe(recipe_file, ["model.dtype=bfloat16", "trainable.qformer=frozen"])
    loaded = base_model(recipe, base_of(recipe))
    types = {(BLIP2.component(name), p.dtype) for name, p in loaded.model.named_parameters()}
    assert types == {
        ("vision", torch.bfloat16),
        ("decoder", torch.bfloat16),
        ("qformer", torch.float32),
        ("query_tokens", torch.float32),
        ("language_projection", torch.float32),
    }


def test_rows_longer_than_the_decoder_are_refused(recipe_file: Path) -> None:
    recipe = load_recipe(recipe_file, ["data.max_text_tokens=380"])
    with pytest.raises(RecipeError, match="at most 384"):
        base_model(recipe, base_of(recipe))


def test_frozen_parts_stay_in_evaluation_mode(recipe_file: Path) -> None:
    recipe = load_recipe(recipe_file, ["trainable.qformer=frozen"])
    loaded = with_fresh_adapters(base_model(recipe, base_of(recipe)), recipe.trainable)
    set_trainable(loaded, recipe.trainable)
    objective = LanguageModelling(loaded.model).train()
    assert not objective.model.vision_model.training
    assert not objective.model.qformer.training
    assert objective.model.language_model.training
