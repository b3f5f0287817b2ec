"""Merging runs of every kind: adapter off is the base, merged is the adapter, saving is stable."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoProcessor, Blip2ForConditionalGeneration

from qvft.errors import VerificationError
from qvft.files import sha256_file
from qvft.recipe.recipe_lock import read_lock
from qvft.setup.model import trained_model
from qvft.weights.merge import merge_run
from qvft.weights.merge_plan import MergePlan
from qvft.weights.probe_outputs import make_probes, plain_outputs, toolkit_logits
from qvft.weights.run_probes import require_rows
from qvft.weights.tolerance import logit_errors
from qvft.weights.write import write_shards
from tools.tiny_blip2.geometry import tiny_config

FEW = {"data": {"eval": {"format": "drawn", "path": "seed=2,count=2", "texts": "captions"}}}
LORA = {"target_modules": ["q_proj", "v_proj", "fc1"], "r": 4, "lora_alpha": 8}


def figures(content) -> dict:
    return content["verification"]["behaviour"]


@pytest.mark.parametrize("option", ["use_dora", "use_rslora"])
def test_other_kinds_of_lora_merge_exactly(make_run, tmp_path: Path, option: str) -> None:
    run = make_run(tmp_path / "run", trainable={"lora": {**LORA, option: True}}, **FEW)
    content = merge_run(run, tmp_path / "out")
    assert content["keys"]["lora"] == 3 * tiny_config().text_config.num_hidden_layers
    assert figures(content)["equal_texts"] == 2
    # Sums in another order: 32-bit floats of size 1 are 6e-8 apart, products here are up to 512
    # long, and the logits' spread is below 1.
    assert figures(content)["largest_error"] < 1e-5


def test_a_qlora_run_is_measured_against_both_bases(make_run, tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", model={"quantization": {"load_in_4bit": True}}, **FEW)
    content = merge_run(run, tmp_path / "out")
    assert figures(content)["largest_error"] < 1e-5  # as above
    against_quantized = content["verification"]["quantized"]
    # Four bits keep about a tenth of each weight; that shows, and it does not fail the merge.
    assert against_quantized["largest_error"] > 1000 * figures(content)["largest_error"]
    assert content["quantized"] == "nf4"


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_a_narrower_type_is_written_and_loaded_in_it(make_run, tmp_path: Path, dtype: str) -> None:
    run = make_run(tmp_path / "run", **FEW)
    content = merge_run(run, tmp_path / "out", dtype=dtype)
    wanted = getattr(torch, dtype)
    model = Blip2ForConditionalGeneration.from_pretrained(tmp_path / "out")
    assert model.language_projection.weight.dtype == wanted
    # Only float16 keeps the Q-Former in float32, and then it has not been rounded.
    kept = torch.float32 if dtype == "float16" else wanted
    assert model.qformer.layernorm.weight.dtype == kept
    stored = load_file(tmp_path / "out" / "model.safetensors")
    assert stored["query_tokens"].dtype == kept
    assert 1 < figures(content)["headroom"] < 1000


def test_a_run_without_lora_merges(make_run, tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", trainable={"decoder": "frozen"}, **FEW)
    content = merge_run(run, tmp_path / "out")
    assert content["keys"]["lora"] == 0
    assert content["keys"]["bridge"] > 0


def test_what_training_alters_in_the_configuration_is_not_written(
    make_run, tiny_folder: Path, tmp_path: Path
) -> None:
    base = Path(shutil.copytree(tiny_folder, tmp_path / "base"))
    config = json.loads((base / "config.json").read_text())
    config["text_config"]["dropout"] = 0.125
    (base / "config.json").write_text(json.dumps(config))
    run = make_run(tmp_path / "run", model={"id": str(base)}, **FEW)
    loaded = trained_model(run, read_lock(run))
    assert {layer.dropout for layer in loaded.model.language_model.model.decoder.layers} == {0.0}
    merge_run(run, tmp_path / "out")
    written = json.loads((tmp_path / "out" / "config.json").read_text())
    assert written["text_config"]["dropout"] == 0.125


def test_adapters_switched_off_leave_the_base_with_its_bridge(drawn_run: Path, tiny_folder) -> None:
    recipe = read_lock(drawn_run)
    loaded = trained_model(drawn_run, recipe)
    probes = make_probes(loaded.collator, require_rows(recipe, loaded.base)[:2])
    with loaded.handle.disable_adapter():
        off = toolkit_logits(loaded.model, probes)
    base = Blip2ForConditionalGeneration.from_pretrained(tiny_folder).eval()
    bridge = load_file(drawn_run / "adapter" / "bridge.safetensors")
    assert not base.load_state_dict(bridge, strict=False).unexpected_keys
    assert logit_errors(off, toolkit_logits(base, probes)) == (0.0, 0.0)
    on = toolkit_logits(loaded.model, probes)
    assert logit_errors(on, off)[0] > 0.01  # the adapters do something


def test_saving_loading_and_saving_again_gives_the_same_bytes(merged: Path, tmp_path: Path) -> None:
    Blip2ForConditionalGeneration.from_pretrained(merged).save_pretrained(tmp_path)
    AutoProcessor.from_pretrained(merged).save_pretrained(tmp_path)
    for name in ("model.safetensors", "config.json", "tokenizer.json", "processor_config.json"):
        assert sha256_file(tmp_path / name) == sha256_file(merged / name), name


def test_a_base_read_weight_by_weight_and_one_loaded_whole_are_written_alike(
    drawn_run: Path, merged: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = json.loads((merged / "merge.json").read_text())
    # `merged` was read weight by weight; without a checkpoint that fits, the base is loaded.
    monkeypatch.setattr("qvft.weights.base_weights.stored_weights", lambda checkpoint, model: None)
    content = merge_run(drawn_run, tmp_path / "model")
    assert content["files"] == record["files"]


def test_merging_twice_gives_the_same_bytes_and_loads_no_base_to_write_them(
    drawn_run: Path, merged: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("the base was loaded")

    monkeypatch.setattr("qvft.weights.base_weights.base_model", refuse)
    content = merge_run(drawn_run, tmp_path / "model")
    assert content["files"] == json.loads((merged / "merge.json").read_text())["files"]


def test_plain_generation_stops_at_the_familys_stop_token(drawn_run: Path, merged: Path) -> None:
    model = Blip2ForConditionalGeneration.from_pretrained(merged).eval()
    recipe = read_lock(drawn_run)
    loaded = trained_model(drawn_run, recipe)
    stops = {loaded.template.stop_id, loaded.template.tokenizer.eos_token_id}
    assert set(model.config.text_config.eos_token_id) == stops
    assert set(model.generation_config.eos_token_id) == stops
    # A decoder whose final norm makes one state of every state writes one token: here, the stop.
    decoder = model.language_model.model.decoder
    with torch.no_grad():
        decoder.final_layer_norm.weight.zero_()
        decoder.final_layer_norm.bias.copy_(decoder.embed_tokens.weight[loaded.template.stop_id])
        decoder.embed_tokens.weight[loaded.template.stop_id] *= 10
    probes = make_probes(loaded.collator, require_rows(recipe, loaded.base)[:1])
    processor = AutoProcessor.from_pretrained(merged)
    inputs = processor(images=probes[0].image, text=probes[0].prompt, return_tensors="pt")
    written = model.generate(**inputs, max_new_tokens=5)
    assert written.shape[1] == inputs["input_ids"].shape[1] + 1


@pytest.mark.parametrize("forgotten", ["lora", "bridge"])
def test_a_model_with_something_left_out_fails_and_is_not_left_behind(
    make_run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, forgotten: str
) -> None:
    run = make_run(tmp_path / "run", **FEW)
    exact = MergePlan.value

    def forget(plan, key, base):
        leave = plan.actions[key] == forgotten and ("layers.1" in key or "layer.1" in key)
        return base if leave else exact(plan, key, base)

    # The plan itself forgets, so that the comparison of weights cannot see it: the outputs must.
    monkeypatch.setattr(MergePlan, "value", forget)
    with pytest.raises(VerificationError, match="logits of the merged model are off"):
        merge_run(run, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_a_weight_changed_after_the_plan_fails(make_run, tmp_path: Path, monkeypatch) -> None:
    run = make_run(tmp_path / "run", **FEW)

    def write_badly(folder: Path, *given, **options) -> None:
        write_shards(folder, *given, **options)
        with (folder / "model.safetensors").open("r+b") as stream:
            stream.seek(-1, io.SEEK_END)  # the last weight's sign, by the file's order of names
            last = stream.read(1)[0]
            stream.seek(-1, io.SEEK_END)
            stream.write(bytes([last ^ 0x80]))

    monkeypatch.setattr("qvft.weights.merge.write_shards", write_badly)
    with pytest.raises(VerificationError, match=r"1 of \d+ weights of vision_model.post_layernorm"):
        merge_run(run, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_processor_that_prepares_prompts_otherwise_fails(drawn_run: Path, merged: Path) -> None:
    recipe = read_lock(drawn_run)
    loaded = trained_model(drawn_run, recipe)
    probes = make_probes(loaded.collator, require_rows(recipe, loaded.base)[:1])
    model = Blip2ForConditionalGeneration.from_pretrained(merged).eval()
    processor = AutoProcessor.from_pretrained(merged)
    processor.num_query_tokens = 11
    with pytest.raises(VerificationError, match="tokens that are not the toolkit's"):
        plain_outputs(model, processor, loaded.template, probes)
    processor = AutoProcessor.from_pretrained(merged)
    processor.image_processor.image_mean = [0.5, 0.5, 0.5]
    with pytest.raises(VerificationError, match="other pixels"):
        plain_outputs(model, processor, loaded.template, probes)
