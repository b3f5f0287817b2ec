"""`recipes/new_decoder.yaml` with tiny checkpoints: trained in two phases, evaluated, merged."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from transformers import AutoProcessor, Blip2ForConditionalGeneration

from qvft import load_model
from qvft.data.images.decoding import decode
from qvft.data.sample import ImageFile
from qvft.errors import ModelError, RecipeError
from qvft.eval import main as evaluate
from qvft.recipe.load import load_recipe
from qvft.setup.model import base_model, base_of
from qvft.train import main as train
from qvft.training import prepare_training
from qvft.weights.merge import merge_run

RECIPE = Path(__file__).resolve().parents[2] / "recipes" / "new_decoder.yaml"
QUESTION = "Which colour is it?"


@pytest.fixture(scope="module")
def overrides(tiny_folder: Path, language_folder: Path, shapes: Path) -> list[str]:
    data = [
        f"data.{split}.{key}={value}"
        for split, file in (("train", "train.jsonl"), ("eval", "test.jsonl"))
        for key, value in (
            ("format", "jsonl"),
            ("path", shapes / file),
            ("split", "null"),
            ("name", "shapes"),
        )
    ]
    short = ["train.per_device_train_batch_size=8", "train.gradient_accumulation_steps=1"]
    short += [f"phases.{number}.train.max_steps=3" for number in (0, 1)]
    short += ["train.eval_steps=null", "data.num_workers=0", "run.threads=1"]
    short += ["eval.caption.num_beams=1", "eval.caption.arguments={}"]
    short += ["eval.caption.max_new_tokens=4", "eval.answer.max_new_tokens=4"]
    high = [f"phases.{number}.train.learning_rate=1e-2" for number in (0, 1)]
    return [f"model.id={tiny_folder}", f"model.decoder={language_folder}", *data, *short, *high]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, overrides: list[str]) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "decoder"
    assert train([str(RECIPE), *overrides, f"run.dir={folder}"]) == 0
    return folder


@pytest.fixture(scope="module")
def merged_folder(tmp_path_factory: pytest.TempPathFactory, run: Path) -> Path:
    out = tmp_path_factory.mktemp("merged") / "decoder"
    merge_run(run, out)
    return out


def test_the_adapter_says_which_decoder_and_holds_the_projection(
    run: Path, language_folder: Path
) -> None:
    manifest = json.loads((run / "adapter" / "manifest.json").read_text())
    assert manifest["decoder_id"] == str(language_folder)
    assert manifest["decoder_revision"] is None
    assert {"language_projection.weight", "query_tokens"} <= manifest["bridge"].keys()
    assert (run / "adapter" / "adapter_model.safetensors").is_file()


def test_a_merged_folder_answers_the_same_through_plain_transformers(
    run: Path, merged_folder: Path, shapes: Path
) -> None:
    """The merge itself has compared logits and greedy text; here a user's own call."""
    image = shapes / "test1.png"
    ours = load_model(run).answer(image, QUESTION)
    assert load_model(merged_folder).answer(image, QUESTION) == ours
    model = Blip2ForConditionalGeneration.from_pretrained(merged_folder)
    processor = AutoProcessor.from_pretrained(merged_folder)
    prompt = processor.tokenizer.apply_chat_template(
        [{"role": "user", "content": QUESTION}], tokenize=False, add_generation_prompt=True
    )
    inputs = processor(images=decode(ImageFile(image)), text=prompt, return_tensors="pt")
    ids = model.generate(**inputs, max_new_tokens=4, do_sample=False)
    new = ids[:, inputs["input_ids"].shape[1] :]
    assert processor.batch_decode(new, skip_special_tokens=True)[0].strip() == ours


def test_the_card_shows_the_prompt_as_it_was_trained(merged_folder: Path) -> None:
    assert "<|turn|>user\\nWhich colour is it?</s>\\n" in (merged_folder / "README.md").read_text()


def test_the_run_is_evaluated_and_the_report_names_the_decoder(
    run: Path, language_folder: Path, tmp_path: Path
) -> None:
    given = [str(run), "data.eval.limit=2", "eval.blind=false", "--out", str(tmp_path / "eval")]
    assert evaluate(given) == 0
    report = json.loads((tmp_path / "eval" / "report.json").read_text())
    assert report["model"]["decoder"] == str(language_folder)
    assert report["decode"]["prompt"]["chat_template"] is True


def test_a_decoder_in_four_bits_trains_and_merges(overrides: list[str], tmp_path: Path) -> None:
    quantized = ["model.quantization.load_in_4bit=true", f"run.dir={tmp_path / 'run'}"]
    assert train([str(RECIPE), *overrides, *quantized]) == 0
    assert merge_run(tmp_path / "run", tmp_path / "out")["quantized"] == "nf4"


def test_without_a_chat_template_prompts_are_plain(
    overrides: list[str], language_folder: Path, tmp_path: Path
) -> None:
    plain = Path(shutil.copytree(language_folder, tmp_path / "plain"))
    (plain / "chat_template.jinja").unlink()
    named = [*overrides, f"model.decoder={plain}"]
    recipe = load_recipe(RECIPE, named)
    with pytest.raises(ModelError, match=r"data\.prompt\.chat_template.*has no chat template"):
        base_model(recipe, base_of(recipe))
    recipe = load_recipe(RECIPE, [*named, "data.prompt.chat_template=false"])
    template = base_model(recipe, base_of(recipe)).template
    assert template.written_prompt("question", QUESTION) == QUESTION


def test_a_prompt_that_does_not_fit_is_refused_before_the_images_are_read(
    overrides: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prepare_training, "read_split", lambda *_: pytest.fail("read the data"))
    given = [str(RECIPE), *overrides, f"run.dir={tmp_path / 'run'}", "data.max_text_tokens=8"]
    assert train(given) == 2


def test_a_chat_template_that_leaves_no_room_is_refused(overrides: list[str]) -> None:
    recipe = load_recipe(RECIPE, [*overrides, "data.max_text_tokens=8"])
    with pytest.raises(RecipeError, match=r"data\.max_text_tokens.*chat template"):
        base_model(recipe, base_of(recipe))


def test_a_tokenizer_without_an_end_token_is_refused(
    overrides: list[str], language_folder: Path, tmp_path: Path
) -> None:
    endless = Path(shutil.copytree(language_folder, tmp_path / "endless"))
    file = endless / "tokenizer_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"eos_token": None}))
    recipe = load_recipe(RECIPE, [*overrides, f"model.decoder={endless}"])
    with pytest.raises(ModelError, match=r"model\.decoder.*no end-of-text token"):
        base_model(recipe, base_of(recipe))


def test_export_to_peft_says_what_to_do_instead(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from qvft.export import main as export

    assert export([str(run), str(tmp_path / "out"), "--to", "peft"]) == 2
    assert "qvft.merge" in capsys.readouterr().err
