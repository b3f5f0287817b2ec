"""QVision through the programs: made of two checkpoints, trained in phases, merged, asked."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoTokenizer, CLIPConfig, CLIPModel, GPTNeoConfig, GPTNeoForCausalLM
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from qvft import load_model
from qvft.checking.check_recipe import check_model
from qvft.eval import main as evaluate
from qvft.recipe.load import load_recipe
from qvft.train import main as train
from qvft.training.objectives.build import packer_of
from qvft.training.objectives.language import LanguageModelling
from qvft.training.prepare_training import prepare_training
from qvft.weights.merge import merge_run

SIDE = 32


@pytest.fixture(scope="module")
def components(tmp_path_factory: pytest.TempPathFactory, tiny_folder: Path) -> tuple[Path, Path]:
    """A small CLIP and a small GPT-Neo, as folders of safetensors."""
    folder = tmp_path_factory.mktemp("components")
    tower = {
        "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
        "num_attention_heads": 2, "image_size": SIDE, "patch_size": 8,
    }  # fmt: skip
    words = {
        "vocab_size": 40, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1,
        "num_attention_heads": 2, "max_position_embeddings": 8,
    }  # fmt: skip
    torch.manual_seed(0)
    clip = CLIPModel(CLIPConfig(vision_config=tower, text_config=words, projection_dim=12))
    clip.save_pretrained(folder / "clip")
    size = {"height": SIDE, "width": SIDE}
    CLIPImageProcessorPil(size={"shortest_edge": SIDE}, crop_size=size).save_pretrained(
        folder / "clip"
    )
    tokenizer = AutoTokenizer.from_pretrained(tiny_folder)
    config = GPTNeoConfig(
        vocab_size=len(tokenizer),
        hidden_size=48,
        num_layers=4,
        num_heads=4,
        attention_types=[[["global", "local"], 2]],
        window_size=64,
        max_position_embeddings=96,
        initializer_range=0.08,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    GPTNeoForCausalLM(config).save_pretrained(folder / "gpt_neo")
    tokenizer.save_pretrained(folder / "gpt_neo")
    return folder / "clip", folder / "gpt_neo"


@pytest.fixture(scope="module")
def qvision_recipe(tmp_path_factory, components: tuple[Path, Path], shapes: Path) -> Path:
    path = tmp_path_factory.mktemp("recipe") / "qvision.yaml"
    clip, decoder = components
    path.write_text(
        f"""
name: qvision
model: {{family: qvision, id: "{clip}", decoder: "{decoder}"}}
data:
  train: {{path: "{shapes / "train.jsonl"}"}}
  eval: {{path: "{shapes / "test.jsonl"}", name: shapes-test}}
  max_text_tokens: 40
  num_workers: 0
trainable: {{decoder: full}}
train:
  max_steps: 3
  per_device_train_batch_size: 8
  learning_rate: {{qformer: 1.0e-3, decoder: 1.0e-3}}
phases:
  - {{name: two_frozen, trainable: {{frozen_decoder_fraction: 0.7}}}}
  - {{name: one_frozen, trainable: {{frozen_decoder_fraction: 0.4}},
     train: {{per_device_train_batch_size: 4, gradient_accumulation_steps: 2}}}}
eval: {{batch_size: 8, blind: false, answer: {{max_new_tokens: 4}}, caption: {{max_new_tokens: 4}}}}
run: {{threads: 1}}
"""
    )
    return path


@pytest.fixture(scope="module")
def qvision_run(tmp_path_factory: pytest.TempPathFactory, qvision_recipe: Path) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "qvision"
    assert train([str(qvision_recipe), f"run.dir={folder}"]) == 0
    return folder


def test_a_reward_phase_trains(qvision_recipe: Path, tmp_path: Path) -> None:
    phases = "phases=[{name: reward, objective: reward, trainable: {frozen_decoder_fraction: 0.4}}]"
    section = "{funcs: {tests.training.rewards.functions.remainder: 1.0}, num_iterations: 2}"
    given = [str(qvision_recipe), f"run.dir={tmp_path}", phases, f"reward={section}"]
    assert train([*given, "train.max_steps=2", "train.logging_steps=1"]) == 0
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [row["grad_norm"] > 0 for row in rows if "grad_norm" in row] == [True, True]


def test_packed_rows_have_the_loss_of_separate_ones(qvision_recipe: Path) -> None:
    """GPT-Neo's local layers look back by index: within a row that stands whole it is the same."""
    work = prepare_training(load_recipe(qvision_recipe))
    work.counts(work.plans[0])
    model = work.loaded.model.double()
    rows = list(enumerate(work.rows(work.plans[0], work.train, training=True)[:20]))
    found = []
    for packer in (None, packer_of(work.loaded.base)):
        batch = replace(work.loaded.collator, packer=packer)(rows)
        batch.pop("row_index")
        objective = LanguageModelling(model).eval()
        objective.zero_grad()
        outputs = objective(**{**batch, "pixel_values": batch["pixel_values"].double()})
        outputs["loss_sum"].backward()
        weight = model.language_model.transformer.h[-1].mlp.c_fc.weight
        found.append((outputs["row_loss"], weight.grad.clone()))
    # float64: sums of some hundred terms in another order, each within 2e-16
    torch.testing.assert_close(found[1], found[0], rtol=1e-10, atol=1e-10)
    assert float(found[0][1].abs().max()) > 1e-3


def test_the_published_counts() -> None:
    recipe = load_recipe(Path(__file__).resolve().parents[2] / "recipes" / "qvision_coco.yaml")
    first, second = (
        {
            row.title or row.component: (round(row.total / 1e6, 2), round(row.trainable / 1e6, 2))
            for row in (*phase.components, phase.total)
        }
        for phase in check_model(recipe).phases
    )
    assert first["GPT-Neo decoder"] == (355.80, 152.21)
    assert second["CLIP encoder"] == (152.06, 0.0)
    assert second["GPT-Neo decoder"] == (355.80, 240.36)
    assert second["Q-Former"] == (66.20, 66.20)
    assert second["total"] == (574.06, 306.56)


def test_a_run_holds_what_either_phase_trained(qvision_run: Path) -> None:
    manifest = json.loads((qvision_run / "adapter" / "manifest.json").read_text())
    assert manifest["family"] == "qvision"
    decoder = {name for name in manifest["bridge"] if name.startswith("language_model")}
    blocks = {int(name.split(".")[3]) for name in decoder if ".h." in name}
    assert blocks == {1, 2, 3}  # int(0.4 * 4) = 1 is frozen in the second phase
    assert any("wte" in name for name in decoder) and any("ln_f" in name for name in decoder)
    assert not any("wpe" in name for name in decoder)


def test_a_run_starts_from_another(qvision_run: Path, qvision_recipe: Path, tmp_path: Path) -> None:
    still = ["phases=[]", "train.max_steps=1", "train.learning_rate=0", "train.preflight=false"]
    given = [f"train.from={qvision_run}", f"run.dir={tmp_path / 'run'}", *still]
    assert train([str(qvision_recipe), *given]) == 0
    name = "bridge.safetensors"
    here, there = (load_file(run / "adapter" / name) for run in (tmp_path / "run", qvision_run))
    assert here.keys() > there.keys()  # all blocks of the decoder are trained now
    assert all(torch.equal(here[key], there[key]) for key in there)


def test_a_run_is_evaluated_and_asked(qvision_run: Path, shapes: Path) -> None:
    assert evaluate([str(qvision_run)]) == 0
    report = json.loads((qvision_run / "eval" / "shapes-test" / "report.json").read_text())
    assert report["n"] == 24
    model = load_model(qvision_run)
    questions = ["Is it red?", "Which colour is it?"]
    beams = model.answer(shapes / "test0.png", questions, num_beams=3, num_return_sequences=2)
    assert [len(texts) for texts in beams] == [2, 2]
    together = model.caption([shapes / f"test{n}.png" for n in range(3)])
    assert together == [model.caption(shapes / f"test{n}.png") for n in range(3)]


def test_a_merged_folder_says_the_same_and_needs_no_qvft(
    qvision_run: Path, qvision_recipe: Path, tmp_path: Path, shapes: Path
) -> None:
    """In a process that cannot import qvft, with the code beside the weights."""
    merge_run(qvision_run, tmp_path / "out")
    recipe = ["--recipe", str(qvision_recipe), "--out", str(tmp_path / "eval")]
    assert evaluate([str(tmp_path / "out"), *recipe, "data.eval.limit=1"]) == 0
    ours = load_model(qvision_run).caption(shapes / "test0.png")
    assert load_model(tmp_path / "out").caption(shapes / "test0.png") == ours
    code = f"""
import sys
sys.modules["qvft"] = None
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor
folder = {str(tmp_path / "out")!r}
model = AutoModelForImageTextToText.from_pretrained(folder, trust_remote_code=True).eval()
processor = AutoProcessor.from_pretrained(folder, trust_remote_code=True)
image = Image.open({str(shapes / "test0.png")!r}).convert("RGB")
pixels = processor(images=image, return_tensors="pt")["pixel_values"]
ids = model.generate(pixel_values=pixels, max_new_tokens=4, do_sample=False)
print("It says", processor.tokenizer.decode(ids[0], skip_special_tokens=True).strip())
"""
    # The card's own example as well, in the same process, whose start takes the most time.
    card = re.findall(r"```python\n(.*?)```", (tmp_path / "out" / "README.md").read_text(), re.S)[0]
    command = [sys.executable, "-c", f"{code}\n{card}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert f"It says {ours}" in done.stdout.splitlines()


def test_lora_reaches_the_decoders_blocks(
    qvision_recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["phases=[]", "trainable.decoder=lora", f"run.dir={tmp_path / 'run'}"]
    assert train([str(qvision_recipe), *given]) == 0
    config = json.loads((tmp_path / "run" / "adapter" / "adapter_config.json").read_text())
    assert all("language_model.transformer.h." in name for name in config["target_modules"])
    merge_run(tmp_path / "run", tmp_path / "out")


def test_pairs_are_learnt_packed_and_without_dropout(
    qvision_recipe: Path, pairs_recipe: Path, tmp_path: Path
) -> None:
    """The Q-Former has dropout of 0.1 in its attention, outside any dropout module."""
    data = f"data.train.path={pairs_recipe.parent / 'shapes' / 'train.jsonl'}"
    phases = "phases=[{name: pairs, objective: preference}]"
    assert train([str(qvision_recipe), f"run.dir={tmp_path / 'run'}", data, phases]) == 0
    work = prepare_training(load_recipe(qvision_recipe, [data, phases]))
    (plan,) = work.plans
    work.counts(plan)
    work.loaded.model.double()
    rows = work.rows(plan, work.train, training=True)
    module, packing = work.objective(plan, rows)
    found = []
    for packer in (packer_of(work.loaded.base), None):
        packing.collator = replace(packing.collator, packer=packer)
        batch = packing(list(enumerate(rows))[:6])
        batch.pop("row_index")
        batch["pixel_values"] = batch["pixel_values"].double()
        with torch.no_grad():
            found += [module.train(mode).logps(**batch) for mode in (True, False)]
    assert torch.equal(found[0], found[1]) and torch.equal(found[2], found[3])
    # float64 sums of some hundred terms of size 1 in another order
    torch.testing.assert_close(found[0], found[2], rtol=1e-10, atol=1e-10)
