"""Saved folders: bit-equal, known to the Auto classes, and usable where qvft is not installed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
)

from qvft.models.qvision.modeling import QVisionForConditionalGeneration
from qvft.weights.write import write_code
from tests.models.qvision_models import DECODER_TYPES, PAIRS

WITHOUT_QVFT = """
import sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "qvft":
            raise ModuleNotFoundError("qvft is blocked here")

sys.meta_path.insert(0, Blocked())
import torch
import transformers

for files in zip(*[iter(sys.argv[1:])] * 4):
    folder, asked, answered, again = files
    inputs = torch.load(asked, weights_only=True)
    answers = {}
    for name in ("AutoModel", "AutoModelForCausalLM", "AutoModelForImageTextToText"):
        auto = getattr(transformers, name)
        model = auto.from_pretrained(folder, trust_remote_code=True)
        assert type(model).__module__.startswith("transformers_modules"), type(model).__module__
        with torch.no_grad():
            answers[name] = model(**inputs).logits
    answers["generated"] = model.generate(**inputs, do_sample=False, max_new_tokens=5)
    assert not any(name.partition(".")[0] == "qvft" for name in sys.modules)
    torch.save(answers, answered)
    model.save_pretrained(again)
"""


def save_with_code(model: QVisionForConditionalGeneration, folder: Path) -> None:
    model.save_pretrained(folder)
    write_code(folder)


def same_weights(first: torch.nn.Module, second: torch.nn.Module) -> bool:
    ours, theirs = first.state_dict(), second.state_dict()
    return ours.keys() == theirs.keys() and all(torch.equal(ours[k], theirs[k]) for k in ours)


@pytest.mark.parametrize(("vision", "text"), PAIRS)
def test_a_saved_model_is_read_back_bit_by_bit(make_model, tmp_path, vision, text) -> None:
    model = make_model(vision, text)
    model.save_pretrained(tmp_path)
    loaded, loading = QVisionForConditionalGeneration.from_pretrained(
        tmp_path, output_loading_info=True
    )
    assert not any(loading.values())
    assert same_weights(model, loaded)
    tied = loaded.get_input_embeddings().weight is loaded.get_output_embeddings().weight
    assert tied == model.config.text_config.tie_word_embeddings
    assert [path.name for path in tmp_path.glob("*.safetensors")] == ["model.safetensors"]


def test_the_same_images_and_texts_give_the_same_logits(make_model, tmp_path, pixels, ids) -> None:
    """Buffers such as GPT-Neo's masks are made anew while loading."""
    model = make_model("clip")
    model.save_pretrained(tmp_path)
    loaded = QVisionForConditionalGeneration.from_pretrained(tmp_path)
    inputs = {"input_ids": ids, "pixel_values": pixels}
    assert torch.equal(loaded(**inputs).logits, model(**inputs).logits)


def test_saving_again_writes_the_same_bytes(make_model, tmp_path) -> None:
    model = make_model("clip")
    for folder in ("made", "once", "twice"):
        model.save_pretrained(tmp_path / folder)
        model = QVisionForConditionalGeneration.from_pretrained(tmp_path / folder)

    def content(folder: str) -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in (tmp_path / folder).iterdir()}

    assert content("twice") == content("once")
    # A model that was not loaded has no type noted in its configuration; its weights are the same.
    assert content("made")["model.safetensors"] == content("once")["model.safetensors"]


def test_a_tied_head_is_stored_once(make_model, tmp_path) -> None:
    make_model().save_pretrained(tmp_path)
    with safe_open(tmp_path / "model.safetensors", "pt") as file:
        shapes = [file.get_slice(key).get_shape() for key in file.keys()]  # noqa: SIM118
    assert shapes.count([61, 32]) == 1


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("text", DECODER_TYPES)
def test_a_folder_loads_with_either_attention(make_model, tmp_path, text, attention) -> None:
    make_model(text=text).save_pretrained(tmp_path)
    model = QVisionForConditionalGeneration.from_pretrained(
        tmp_path, attn_implementation=attention, dtype=torch.bfloat16
    )
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}
    assert model.vision_model.tower.config._attn_implementation == attention
    decoder = "eager" if text in ("gpt_neo", "gemma2") else attention
    assert model.language_model.config._attn_implementation == decoder


@pytest.mark.parametrize("auto", [AutoModel, AutoModelForCausalLM, AutoModelForImageTextToText])
def test_the_auto_classes_know_the_folder_without_its_code(make_model, tmp_path, auto) -> None:
    model = make_model()
    save_with_code(model, tmp_path / "out")
    loaded = auto.from_pretrained(tmp_path / "out", trust_remote_code=False)
    assert type(loaded) is QVisionForConditionalGeneration
    assert same_weights(model, loaded)


def test_exported_folders_work_where_qvft_is_not(make_model, tmp_path: Path, pixels, ids) -> None:
    models = [make_model("clip"), make_model("dinov2_with_registers", "gemma2")]
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "pixel_values": pixels}
    torch.save(inputs, tmp_path / "asked.pt")
    files = []
    for number, model in enumerate(models):
        save_with_code(model, tmp_path / f"out{number}")
        written = (f"out{number}", "asked.pt", f"answered{number}.pt", f"again{number}")
        files += [str(tmp_path / name) for name in written]
    subprocess.run(
        [sys.executable, "-W", "error::FutureWarning", "-c", WITHOUT_QVFT, *files],
        env={**os.environ, "HF_MODULES_CACHE": str(tmp_path / "modules"), "HF_HUB_OFFLINE": "1"},
        cwd=tmp_path,
        check=True,
        timeout=300,
    )
    for number, model in enumerate(models):
        answers = torch.load(tmp_path / f"answered{number}.pt", weights_only=True)
        generated = answers.pop("generated")
        with torch.no_grad():
            expected = model(**inputs).logits
        assert len(answers) == 3
        for logits in answers.values():
            # Another process: float32 sums may be taken with other threads.
            assert torch.allclose(logits, expected, atol=1e-5)
        assert torch.equal(generated, model.generate(**inputs, do_sample=False, max_new_tokens=5))
        # What is saved there takes the code along.
        code = {path.name for path in (tmp_path / f"out{number}").glob("*.py")}
        assert {path.name for path in (tmp_path / f"again{number}").glob("*.py")} == code


def test_the_code_beside_the_weights_names_no_qvft_import(make_model, tmp_path) -> None:
    save_with_code(make_model(), tmp_path / "out")
    files = sorted(path.name for path in (tmp_path / "out").glob("*.py"))
    assert files == ["configuration.py", "encoder.py", "modeling.py", "qformer.py"]
    for file in files:
        lines = (tmp_path / "out" / file).read_text().splitlines()
        assert not [line for line in lines if "import" in line.split() and "qvft" in line]
    auto_map = json.loads((tmp_path / "out" / "config.json").read_text())["auto_map"]
    assert auto_map["AutoConfig"] == "configuration.QVisionConfig"
    assert type(AutoConfig.from_pretrained(tmp_path / "out")).__module__.startswith("qvft.")
