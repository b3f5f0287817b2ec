"""A QVision in its published layout through the programs, and back into it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from qvft import load_model
from qvft.check import main as check
from qvft.eval import main as evaluate
from qvft.explain import main as explain
from qvft.export import main as export
from qvft.models.qvision.published import COMPONENTS
from qvft.predict import main as predict
from qvft.train import main as train


@pytest.fixture(scope="module")
def recipe(tmp_path_factory, published_qvision: Path, shapes: Path) -> Path:
    path = tmp_path_factory.mktemp("recipe") / "qvision.yaml"
    path.write_text(
        f"""
name: qvision
model: {{id: "{published_qvision}"}}
data:
  train: {{path: "{shapes / "train.jsonl"}", texts: captions, captions_per_image: 1}}
  eval: {{path: "{shapes / "test.jsonl"}", texts: captions, name: shapes-test}}
  max_text_tokens: 24
  num_workers: 0
trainable: {{decoder: full, frozen_decoder_fraction: 0.5}}
train:
  max_steps: 2
  per_device_train_batch_size: 8
  max_grad_norm: 5.0
  min_lr_rate: 0.05
  learning_rate: {{qformer: 1.0e-4, decoder: 1.0e-4}}
eval: {{batch_size: 8, blind: false, answer: {{max_new_tokens: 4}}, caption: {{max_new_tokens: 4}}}}
run: {{threads: 1}}
"""
    )
    return path


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, recipe: Path) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "published"
    assert train([str(recipe), f"run.dir={folder}"]) == 0
    return folder


def test_predict_writes_the_originals_greedy_texts(published_qvision: Path, tmp_path: Path) -> None:
    """Without the blank in front, as all of qvft's texts."""
    out = tmp_path / "texts.jsonl"
    greedy = ["--num_beams", "1", "--max_new_tokens", "20"]
    images = str(published_qvision / "images")
    assert predict([str(published_qvision), images, *greedy, "--out", str(out)]) == 0
    rows = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    expected = json.loads((published_qvision / "expected.json").read_text(encoding="utf-8"))
    assert [row["text"] for row in rows] == [one.strip() for one in expected["greedy"]["texts"]]
    plain = tmp_path / "plain.jsonl"
    options = [*greedy, "--preprocessing", "plain", "--out", str(plain)]
    assert predict([str(published_qvision), images, *options]) == 0
    assert plain.read_text() != out.read_text()
    with_classes = [*options[-4:], "--classes", "cat,dog"]
    assert predict([str(published_qvision), images, *with_classes]) == 2


def test_it_is_checked_and_counted(recipe: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert check([str(recipe), "--only", "model"]) == 0
    said = capsys.readouterr().out
    assert "GPT-Neo decoder" in said and "Q-Former" in said


def test_a_run_is_evaluated_explained_and_asked(run: Path, shapes: Path, tmp_path: Path) -> None:
    assert evaluate([str(run)]) == 0
    report = json.loads((run / "eval" / "shapes-test" / "report.json").read_text())
    assert report["n"] > 0 and "cider" in " ".join(report["metrics"]).lower()
    out = tmp_path / "figure.png"
    assert explain([str(run), str(shapes / "test0.png"), "--out", str(out)]) == 0
    assert out.stat().st_size > 10_000


def test_an_export_is_the_base_with_what_was_trained(
    run: Path, published_qvision: Path, shapes: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    assert export([str(run), str(out), "--to", "qvision"]) == 0
    names = {path.name for path in out.iterdir()}
    assert {f"{name}.safetensors" for name in COMPONENTS} < names
    assert {"config.json", "clip", "gpt_neo", "tokenizer", "export.json"} < names
    trained = json.loads((run / "adapter" / "manifest.json").read_text())["bridge"]
    moved: set[str] = set()
    for name in COMPONENTS:
        written, base = (
            load_file(folder / f"{name}.safetensors") for folder in (out, published_qvision)
        )
        assert written.keys() == base.keys()
        moved |= {f"{name}: {key}" for key in base if not torch.equal(written[key], base[key])}
    # Of four blocks the upper two are trained, and nothing of the encoder.
    assert not [key for key in moved if key.startswith("encoder") or ".h.1." in key]
    assert "decoder: gpt_decoder.transformer.h.2.mlp.c_fc.weight" in moved
    assert "gpt_decoder: lm_head.weight" in moved and "decoder: cross_scale" in moved
    # Counted as trained, used by nothing and changed by nothing.
    assert "qformer.query_proj.weight" in trained
    assert not [key for key in moved if "query_proj" in key]
    # As transformers 4 names the marks, with which the original runs; 5 reads it too.
    settings = json.loads((out / "tokenizer" / "tokenizer_config.json").read_text())
    assert settings["additional_special_tokens"] == ["<START>", "<END>"]
    assert "extra_special_tokens" not in settings
    images = [shapes / f"test{n}.png" for n in range(4)]
    assert load_model(out).caption(images) == load_model(run).caption(images)


def test_an_export_has_lora_merged_in(
    recipe: Path, published_qvision: Path, shapes: Path, tmp_path: Path, capsys
) -> None:
    """Trained on plain pixels, which the written folder makes too."""
    run, out = tmp_path / "run", tmp_path / "out"
    lora = [
        "trainable.decoder=lora",
        "trainable.frozen_decoder_fraction=0",
        "trainable.lora.target_modules=[c_fc, q_proj]",
    ]
    further = ["train.learning_rate.adapters=0.01", "train.max_steps=3", "data.preprocessing=plain"]
    assert train([str(recipe), f"run.dir={run}", *lora, *further]) == 0
    assert export([str(run), str(out), "--to", "qvision"]) == 0
    written, base = (load_file(f / "gpt_decoder.safetensors") for f in (out, published_qvision))
    moved = {key for key in base if not torch.equal(written[key], base[key])}
    assert moved and all(key.endswith(("c_fc.weight", "q_proj.weight")) for key in moved)
    clip = json.loads((out / "clip" / "preprocessor_config.json").read_text())
    assert not clip["do_normalize"] and not clip["do_center_crop"]
    # PEFT would load the base with transformers, which has no such class.
    assert export([str(run), str(tmp_path / "peft"), "--to", "peft"]) == 2
    assert "--to qvision" in capsys.readouterr().err


def test_another_family_has_no_such_layout(drawn_run: Path, tmp_path: Path, capsys) -> None:
    assert export([str(drawn_run), str(tmp_path / "out"), "--to", "qvision"]) == 2
    assert "is of family blip2" in capsys.readouterr().err
