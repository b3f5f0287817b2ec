"""BLIP-2 with a T5 decoder through the programs: trained, resumed, evaluated, merged, refused."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers import Blip2ForImageTextRetrieval

from qvft.bench import main as bench
from qvft.check import main as check
from qvft.data.rows import Row, training_rows
from qvft.errors import ModelError, RecipeError
from qvft.eval import main as evaluate
from qvft.export import main as export
from qvft.json_files import complete_lines
from qvft.log import collected_warnings
from qvft.predict import main as predict
from qvft.recipe.load import load_recipe
from qvft.setup.data import read_split
from qvft.setup.model import base_of
from qvft.train import main as train
from qvft.training.distributed.fsdp import require_shardable
from qvft.training.objectives.build import packer_of
from qvft.training.objectives.language import LanguageModelling
from qvft.training.prepare_training import prepare_training
from qvft.training.training_run import TrainingRun
from qvft.weights.merge import merge_run
from tests.models.decoder_models import TEXT, write_model
from tools.faithfulness import measure
from tools.tiny_blip2.geometry import tiny_config

STEPS = ["train.max_steps=4", "train.texts_per_image=3", "train.eval_steps=4"]
LORA = "trainable.lora.target_modules=[q,v,wi_0]"


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory, tiny_folder: Path) -> list[str]:
    folder = tmp_path_factory.mktemp("models") / "t5"
    return [f"model.id={write_model(folder, tiny_folder, TEXT['t5'])}", LORA]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, recipe_file: Path, given: list[str]) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "t5"
    assert train([str(recipe_file), *given, *STEPS, f"run.dir={folder}"]) == 0
    return folder


@pytest.fixture(scope="module")
def work(recipe_file: Path, given: list[str]) -> TrainingRun:
    return prepare_training(load_recipe(recipe_file, given))


@pytest.fixture(scope="module")
def rows(recipe_file: Path) -> list[Row]:
    """Two captions and two questions of each of two images."""
    samples = read_split(load_recipe(recipe_file), "train").samples[:2]
    two = [replace(s, captions=(*s.captions, "another text")) for s in samples]
    return training_rows(two)


def test_a_resumed_run_ends_as_one_that_was_not_stopped(
    run: Path, recipe_file: Path, given: list[str], tmp_path: Path
) -> None:
    cut = shutil.copytree(run, tmp_path / "cut")
    shutil.rmtree(cut / "adapter")
    shutil.rmtree(cut / "checkpoints" / "0" / "checkpoint-4")
    assert train([str(recipe_file), *given, *STEPS, f"run.dir={cut}", "train.resume=auto"]) == 0
    for name in ("adapter_model.safetensors", "bridge.safetensors"):
        whole, resumed = (load_file(one / "adapter" / name) for one in (run, cut))
        assert all(torch.equal(value, resumed[key]) for key, value in whole.items())


def test_texts_are_generated_while_training(run: Path) -> None:
    assert {line["step"] for line in complete_lines(run / "completions.jsonl")} == {0, 4}


def test_a_run_is_evaluated_asked_and_explained(run: Path, shapes: Path, tmp_path: Path) -> None:
    assert evaluate([str(run), "data.eval.limit=4"]) == 0
    report = json.loads(next(run.glob("eval/*/report.json")).read_text())
    assert report["n"]
    out = tmp_path / "said.jsonl"
    image = str(shapes / "test1.png")
    assert predict([str(run), image, "--question", "Is it red?", "--out", str(out)]) == 0
    assert len(out.read_text().splitlines()) == 1
    assert measure(str(run), limit=2).n


def test_what_is_written_is_base_and_adapter(run: Path, tmp_path: Path) -> None:
    """Merging and exporting compare logits and texts, the card says how to read these."""
    with collected_warnings("transformers") as said:
        record = merge_run(run, tmp_path / "merged")
    assert not said, "of a head that should be tied"
    assert record["verification"]["behaviour"]["parted"] == ()
    assert "shape[1]" not in (tmp_path / "merged" / "README.md").read_text()
    assert export([str(run), str(tmp_path / "peft"), "--to", "peft"]) == 0


@pytest.mark.parametrize(
    "overrides",
    [
        ["model.quantization.load_in_4bit=true", "trainable.decoder_dropout=0.1"],
        ["train.batch_tokens=160", "train.gradient_checkpointing=true"],
        ["trainable.decoder=full", "train.packing=false"],
    ],
    ids=["nf4", "token budget", "full"],
)
def test_other_ways_of_training(
    recipe_file: Path, given: list[str], tmp_path: Path, overrides: list[str]
) -> None:
    steps = ["train.max_steps=1", f"run.dir={tmp_path / 'run'}"]
    if "trainable.decoder=full" in overrides:
        given = [item for item in given if item != LORA]
    assert train([str(recipe_file), *given, *steps, *overrides]) == 0


def test_alignment_takes_the_words_of_another_checkpoint(
    recipe_file: Path, given: list[str], tiny_folder: Path, tmp_path: Path
) -> None:
    """Its own tokenizer begins no text with a special token, as the text branch needs."""
    words = shutil.copytree(
        tiny_folder, tmp_path / "words", ignore=lambda *_: ["model.safetensors"]
    )
    config = tiny_config()
    config.qformer_config.use_qformer_text_input = True
    Blip2ForImageTextRetrieval(config).save_pretrained(words)
    for named, status in ((f", text_branch: {words}", 0), ("", 2)):
        weights = f"objectives={{lm: 1.0, itc: 1.0, itm: 1.0{named}}}"
        steps = ["train.max_steps=1", f"run.dir={tmp_path / f'run{status}'}"]
        assert train([str(recipe_file), *given, *steps, weights]) == status


def test_each_prompt_is_encoded_once(work: TrainingRun, rows: list[Row]) -> None:
    """Captions of an image share their prompt; its questions have one each."""
    batch = work.loaded.collator(list(enumerate(rows)))
    seen: dict[str, int] = {}
    model = work.loaded.model
    hooks = [
        module.register_forward_hook(
            lambda module, inputs, output, name=name: seen.update(
                {name: len(output.last_hidden_state)}
            )
        )
        for name, module in (
            ("vision", model.vision_model),
            ("qformer", model.qformer),
            ("encoder", model.language_model.encoder),
        )
    ]
    batch.pop("row_index")
    LanguageModelling(model)(**batch)
    for hook in hooks:
        hook.remove()
    assert len(rows) == 8
    assert seen == {"vision": 2, "qformer": 2, "encoder": 2 * (1 + 2)}


def test_the_decoder_reads_neither_image_nor_prompt(work: TrainingRun, rows: list[Row]) -> None:
    template = work.loaded.template
    batch = work.loaded.collator(list(enumerate(rows)))
    image_token = work.loaded.base.config.image_token_index
    assert (batch["input_ids"] != image_token).all()
    assert (batch["encoder_input_ids"] == image_token).sum() == 6 * template.num_query_tokens
    assert set(batch["input_ids"][:, 0].tolist()) == {template.start_id}
    ends = batch["encoder_attention_mask"].sum(dim=1) - 1
    last = batch["encoder_input_ids"][torch.arange(6), ends]
    assert set(last.tolist()) == {template.tokenizer.eos_token_id}


def test_rows_are_packed_by_prompt_where_that_is_shorter(
    work: TrainingRun, rows: list[Row]
) -> None:
    def layout(chosen: list[Row]) -> Tensor | None:
        packed = replace(work.loaded.collator, packer=packer_of(work.loaded.base))
        return packed(list(enumerate(chosen))).get("packed_owner")

    captions = [row for row in rows if row.kind == "caption"]
    owner = layout(captions)
    assert owner is not None and len(owner) == 2
    questions = [row for row in rows if row.kind == "question"]
    uneven = layout([*captions[:2], *questions])
    assert uneven is None


@pytest.mark.parametrize(
    ("overrides", "where"),
    [
        (["model.dtype=float16"], "model.dtype"),
        (
            ["trainable.decoder=full", "trainable.frozen_decoder_fraction=0.5"],
            "trainable.frozen_decoder_fraction",
        ),
        (["model.attn_implementation=flex"], "model.attn_implementation"),
        (["model.text_branch=fresh"], "model.id"),
    ],
)
def test_what_it_does_not_support_is_refused_by_name(
    recipe_file: Path, given: list[str], overrides: list[str], where: str
) -> None:
    with pytest.raises((RecipeError, ModelError), match="t5") as refusal:
        prepare_training(load_recipe(recipe_file, [given[0], *overrides]))
    assert (refusal.value.where or "").startswith(where)


def test_sharding_and_comparing_its_training_are_refused(
    recipe_file: Path, given: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    base = base_of(load_recipe(recipe_file, given))
    with pytest.raises(RecipeError, match="t5.*FSDP"):
        require_shardable(base, custom=())
    assert bench([str(recipe_file), *given, "--only", "train"]) == 2
    assert "t5" in capsys.readouterr().err


def test_the_published_model_is_checked_without_a_download(recipe_file: Path) -> None:
    """Of its configuration alone; float16 is refused there too."""
    named = [str(recipe_file), "model.id=Salesforce/blip2-flan-t5-xl", "--only", "model"]
    assert check([*named, LORA]) == 0
    assert check([*named, LORA, "model.dtype=float16"]) == 2


def test_a_configuration_without_a_start_token_is_refused(
    recipe_file: Path, tmp_path: Path, tiny_folder: Path
) -> None:
    text = type(TEXT["t5"])(**TEXT["t5"].to_dict() | {"decoder_start_token_id": None})
    folder = write_model(tmp_path / "t5", tiny_folder, text)
    with pytest.raises(ModelError, match="decoder_start_token_id"):
        prepare_training(load_recipe(recipe_file, [f"model.id={folder}", LORA]))
