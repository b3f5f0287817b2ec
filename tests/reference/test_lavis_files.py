"""LAVIS' `.pth` files as checkpoints of transformers: key by key, and with LAVIS' own numbers."""

from __future__ import annotations

import json
import pickle
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import (
    AutoTokenizer,
    Blip2ForConditionalGeneration,
    Blip2ForImageTextRetrieval,
    Blip2Processor,
    BlipImageProcessor,
)

from qvft.export import main as export
from qvft.log import collected_warnings
from tests.models.decoder_models import TEXT, write_model


@pytest.fixture(scope="module")
def stored(stage1: Path) -> dict[str, Tensor]:
    """The weights by LAVIS' names."""
    return load_file(stage1 / "lavis.safetensors")


@pytest.fixture(scope="module")
def retrieval_base(stage1: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A retrieval checkpoint of the geometry with other weights: zeros."""
    folder = tmp_path_factory.mktemp("base") / "retrieval"
    shutil.copytree(stage1 / "hf", folder, copy_function=shutil.copyfile)
    folder.chmod(0o755)
    zeros = {key: 0 * tensor for key, tensor in load_file(folder / "model.safetensors").items()}
    save_file(zeros, folder / "model.safetensors", metadata={"format": "pt"})
    size = json.loads((folder / "config.json").read_text())["vision_config"]["image_size"]
    images = BlipImageProcessor(size={"height": size, "width": size})
    tokenizer = AutoTokenizer.from_pretrained(stage1 / "tokenizer")
    Blip2Processor(images, tokenizer, num_query_tokens=8).save_pretrained(folder)
    return folder


Convert = Callable[..., tuple[int, Path]]


@pytest.fixture
def convert(tmp_path: Path) -> Convert:
    """A function that writes a .pth file and exports it: exit status and folder."""

    def run(content: object, base: Path | None, *further: str) -> tuple[int, Path]:
        file, out = tmp_path / "checkpoint.pth", tmp_path / "out"
        torch.save(content, file)
        named = [] if base is None else ["--base", str(base)]
        return export([str(file), str(out), "--to", "transformers", *named, *further]), out

    return run


@pytest.mark.parametrize("nested", [True, False])
def test_a_stage_one_file_is_the_retrieval_model(
    stage1: Path, stored: dict, retrieval_base: Path, convert: Convert, nested: bool
) -> None:
    status, out = convert({"model": stored, "epoch": 3} if nested else stored, retrieval_base)
    assert status == 0
    expected = load_file(stage1 / "hf" / "model.safetensors")
    model = Blip2ForImageTextRetrieval.from_pretrained(out)
    found = model.state_dict()
    assert all(torch.equal(found[key], tensor) for key, tensor in expected.items())
    record = json.loads((out / "export.json").read_text())["keys"]
    assert record["mapped"] + len(record["dropped"]) == len(stored)
    assert {key.partition(".cls.")[0] for key in record["dropped"]} == {
        "temp",
        "Qformer",
        "Qformer.bert.embeddings.position_ids",
    }
    assert record["from_base"] == {}


def test_its_features_are_those_that_lavis_computed(
    stage1: Path, stored: dict, retrieval_base: Path, convert: Convert
) -> None:
    _, out = convert(stored, retrieval_base)
    model = Blip2ForImageTextRetrieval.from_pretrained(out).eval()
    model.vision_model.post_layernorm.eps = 1e-5  # LAVIS' `ln_vision`
    pixels = load_file(stage1 / "inputs.safetensors")["pixel_values"]
    expected = load_file(stage1 / "expected.safetensors")["image_features"]
    with torch.no_grad():
        found = model.vision_model(pixel_values=pixels).last_hidden_state
    # float32's rounding in other orders of sums: 1e-5 of states of size 4 is the largest seen.
    torch.testing.assert_close(found, expected, atol=3e-5, rtol=0)


def to_lavis(
    weights: dict[str, Tensor], *, trained_alone: bool, decoder: str = "opt"
) -> dict[str, Tensor]:
    """A stage-2 model by LAVIS' names, written the other way round; as LAVIS stores it, without
    the frozen ViT and decoder if `trained_alone`."""
    found: dict[str, Tensor] = {}
    for key, tensor in weights.items():
        if key.startswith("language_model."):
            if not trained_alone:
                found[f"{decoder}_model." + key.removeprefix("language_model.")] = tensor
        elif key.startswith("vision_model.post_layernorm."):
            found["ln_vision." + key.rpartition(".")[2]] = tensor
        elif key.startswith("vision_model."):
            name = key.removeprefix("vision_model.")
            for ours, theirs in (
                ("embeddings.class_embedding", "cls_token"),
                ("embeddings.position_embedding", "pos_embed"),
                ("embeddings.patch_embedding", "patch_embed.proj"),
                ("encoder.layers", "blocks"),
                ("layer_norm", "norm"),
                ("self_attn.projection", "attn.proj"),
                ("self_attn", "attn"),
            ):
                name = name.replace(ours, theirs)
            if trained_alone:
                continue
            if name.endswith("attn.qkv.bias"):
                query, _, value = tensor.chunk(3)
                prefix = "visual_encoder." + name.removesuffix("qkv.bias")
                found |= {prefix + "q_bias": query, prefix + "v_bias": value}
            else:
                found["visual_encoder." + name] = tensor
        elif key.startswith("qformer."):
            name = key.removeprefix("qformer.").replace("layernorm.", "embeddings.LayerNorm.", 1)
            found["Qformer.bert." + name.replace("attention.attention.", "attention.self.")] = (
                tensor
            )
        else:
            found[key.replace("language_projection", f"{decoder}_proj")] = tensor
    return {key: tensor.clone() for key, tensor in found.items()}


def another(tiny_folder: Path, out: Path) -> dict[str, Tensor]:
    """Weights of the tiny model with noise, and no bias of keys in the ViT, as LAVIS has none."""
    model = Blip2ForConditionalGeneration.from_pretrained(tiny_folder)
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(1)
        for name, parameter in model.named_parameters():
            parameter += 0.02 * torch.randn(parameter.shape)
            if name.endswith("qkv.bias"):
                parameter.chunk(3)[1].zero_()
    model.save_pretrained(out)
    return load_file(out / "model.safetensors")


@pytest.mark.parametrize("trained_alone", [True, False])
def test_a_stage_two_file_takes_frozen_parts_from_the_base(
    tiny_folder: Path, tmp_path: Path, convert: Convert, trained_alone: bool
) -> None:
    weights = another(tiny_folder, tmp_path / "other")
    lavis = to_lavis(weights, trained_alone=trained_alone)
    status, out = convert({"model": lavis}, tiny_folder)
    assert status == 0
    found = Blip2ForConditionalGeneration.from_pretrained(out).state_dict()
    base = load_file(tiny_folder / "model.safetensors")
    for key, tensor in weights.items():
        frozen = key.startswith(("language_model.", "vision_model.")) and "post_lay" not in key
        assert torch.equal(found[key], base[key] if trained_alone and frozen else tensor), key
    taken = json.loads((out / "export.json").read_text())["keys"]["from_base"]
    assert set(taken) == ({"vision_model", "language_model"} if trained_alone else set())


@pytest.mark.parametrize("trained_alone", [True, False])
def test_a_t5_keeps_the_head_that_is_not_its_embedding(
    tiny_folder: Path, tmp_path: Path, convert: Convert, trained_alone: bool
) -> None:
    base = write_model(tmp_path / "t5", tiny_folder, TEXT["t5"])
    weights = load_file(base / "model.safetensors")
    for key, tensor in weights.items():
        if key.endswith("qkv.bias"):
            tensor.chunk(3)[1].zero_()
    lavis = to_lavis(weights, trained_alone=trained_alone, decoder="t5")
    with collected_warnings("transformers") as said:
        status, out = convert({"model": lavis}, base)
    assert (status, said) == (0, [])
    written = load_file(out / "model.safetensors")
    assert written.keys() == weights.keys()
    assert all(torch.equal(written[key], tensor) for key, tensor in weights.items())


def test_positions_of_another_image_size_set_it(
    tiny_folder: Path, tmp_path: Path, convert: Convert
) -> None:
    lavis = to_lavis(another(tiny_folder, tmp_path / "other"), trained_alone=False)
    width = lavis["visual_encoder.pos_embed"].shape[-1]
    lavis["visual_encoder.pos_embed"] = torch.randn(1, 37, width)
    status, out = convert(lavis, tiny_folder)
    assert status == 0
    config = json.loads((out / "config.json").read_text())
    assert config["vision_config"]["image_size"] == 72
    processor = json.loads((out / "processor_config.json").read_text())
    assert processor["image_processor"]["size"] == {"height": 72, "width": 72}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda w: w | {"Qformer.bert.pooler.dense.weight": torch.ones(2)}, "unknown weights"),
        (lambda w: w | {"opt_proj.weight": torch.ones(3, 3)}, "ill-sized weights"),
        (lambda w: {k: v for k, v in w.items() if k != "query_tokens"}, "missing weights: query_"),
        (lambda w: {k: v for k, v in w.items() if ".blocks.1." not in k}, "missing weights"),
        (lambda w: {"model": {"config": 3}}, "holds no weights by name"),
    ],
)
def test_a_file_that_does_not_fit_is_refused(
    tiny_folder: Path, tmp_path: Path, convert: Convert, capsys, change: Callable, said: str
) -> None:
    lavis = to_lavis(another(tiny_folder, tmp_path / "other"), trained_alone=False)
    status, out = convert(change(lavis), tiny_folder)
    assert status == 2
    message = capsys.readouterr().err
    assert said in message and "Traceback" not in message
    assert not out.exists()


class Code:
    """An object that only a pickle that runs code can restore."""


def test_a_file_with_code_in_it_is_not_run(tiny_folder: Path, convert: Convert, capsys) -> None:
    status, out = convert({"model": {"query_tokens": torch.ones(1)}, "config": Code()}, tiny_folder)
    assert status == 2
    said = capsys.readouterr().err
    assert "cannot be read safely: it holds other objects than tensors" in said
    assert "Re-running" not in said  # torch's advice is to run the code
    assert not out.exists()


@pytest.mark.parametrize("content", [b"", b"hello", pickle.dumps({"model": 1}, protocol=4)])
def test_another_file_gets_one_message(
    tiny_folder: Path, tmp_path: Path, content: bytes, capsys
) -> None:
    file = tmp_path / "other.pth"
    file.write_bytes(content)
    given = [str(file), str(tmp_path / "out"), "--to", "transformers", "--base", str(tiny_folder)]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert export(given) == 2
    said = [line for line in capsys.readouterr().err.splitlines() if line]
    assert len(said) == 1 and "other.pth: cannot be read safely: it " in said[0]


def test_a_base_that_is_no_folder_is_not_looked_for_on_the_hub(tmp_path: Path, capsys) -> None:
    torch.save({"model": {"query_tokens": torch.ones(1)}}, tmp_path / "x.pth")
    missing = tmp_path / "missing"
    given = [str(tmp_path / "x.pth"), str(tmp_path / "out"), "--to", "transformers"]
    assert export([*given, "--base", str(missing)]) == 2
    assert f"--base={missing}: no such folder" in capsys.readouterr().err


def test_the_base_is_asked_for(convert: Convert, capsys) -> None:
    assert convert({"model": {}}, None)[0] == 2
    assert "--base" in capsys.readouterr().err
