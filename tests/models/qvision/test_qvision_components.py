"""A model made of checkpoints: every weight is theirs, the Q-Former's hang on the seed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import tiny_models
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import AutoModel, AutoModelForCausalLM, AutoProcessor, CLIPProcessor
from transformers.models.bit.image_processing_pil_bit import BitImageProcessorPil
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

from qvft.errors import ModelError
from qvft.models.base_checkpoint import find_checkpoint
from qvft.models.qvision.configuration import VISION_TYPES
from qvft.models.qvision.modeling import QVisionForConditionalGeneration
from qvft.models.qvision.processing import marked_tokenizer, processor_from_components
from tests.models.qvision_models import PAIRS, of_components

SIDE = 16
FIELDS = {"qformer_num_heads": 4, "num_query_tokens": 6}


@pytest.fixture(scope="module")
def parts(tmp_path_factory, make_config) -> Callable[[str], Path]:
    """A function that gives the folder of a random checkpoint of a kind."""
    root = tmp_path_factory.mktemp("parts")

    def folder(kind: str) -> Path:
        path = root / kind
        if not path.exists():
            if kind in VISION_TYPES:
                model = AutoModel.from_config(make_config(kind).vision_config)
            else:
                model = AutoModelForCausalLM.from_config(make_config(text=kind).text_config)
                tiny_models.tokenizer().save_pretrained(path)
            if kind.startswith("dinov2"):
                size = {"height": SIDE, "width": SIDE}
                BitImageProcessorPil(size={"shortest_edge": 20}, crop_size=size).save_pretrained(
                    path
                )
            model.save_pretrained(path)
        return path

    return folder


def edited(folder: Path, out: Path, edit: Callable[[dict[str, torch.Tensor]], None]) -> str:
    """A copy of a checkpoint with other weights in its file."""
    out.mkdir()
    (out / "config.json").write_bytes((folder / "config.json").read_bytes())
    weights = load_file(folder / "model.safetensors")
    edit(weights)
    save_file(weights, out / "model.safetensors", metadata={"format": "pt"})
    return str(out)


@pytest.mark.parametrize(("vision", "text"), PAIRS)
def test_every_weight_of_both_checkpoints_arrives(parts, vision, text, pixels, ids) -> None:
    model = of_components(str(parts(vision)), str(parts(text)), seed=0, **FIELDS)
    tower = AutoModel.from_pretrained(parts(vision)).state_dict()
    decoder = AutoModelForCausalLM.from_pretrained(parts(text)).state_dict()
    for expected, part in ((tower, model.vision_model.tower), (decoder, model.language_model)):
        found = part.state_dict()
        assert found.keys() == expected.keys()
        # The vocabulary has grown, its first rows are the checkpoint's.
        assert all(
            torch.equal(found[k][: len(w)] if w.dim() else found[k], w) for k, w in expected.items()
        )
    assert model.config.qformer_hidden_size == model.config.token_width
    assert not model.training
    assert model(input_ids=ids, pixel_values=pixels).logits.isfinite().all()


def test_a_written_and_read_model_is_the_made_one(parts, tmp_path, pixels, ids) -> None:
    made = of_components(str(parts("clip")), str(parts("gpt_neo")), seed=0, **FIELDS)
    made.save_pretrained(tmp_path)
    read = QVisionForConditionalGeneration.from_pretrained(tmp_path)
    inputs = {"input_ids": ids, "pixel_values": pixels}
    assert torch.equal(read(**inputs).logits, made(**inputs).logits)
    tokenizer = marked_tokenizer(str(parts("gpt_neo")))
    ends = tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id
    assert tokenizer.convert_ids_to_tokens(list(ends)) == ["<START>", "<END>", "<pad>"]
    found = read.generation_config
    assert (found.bos_token_id, found.eos_token_id, found.pad_token_id) == ends


def test_the_qformer_hangs_on_the_seed_alone(parts) -> None:
    def bridge(vision: str, text: str, seed: int) -> dict[str, torch.Tensor]:
        model = of_components(str(parts(vision)), str(parts(text)), seed=seed, **FIELDS)
        return model.qformer.state_dict() | model.vision_model.projection.state_dict()

    state = torch.get_rng_state()
    first = bridge("clip", "gpt_neo", 0)
    again = bridge("siglip_vision_model", "gpt2", 0)
    other = bridge("clip", "gpt_neo", 1)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(first[key], again[key]) for key in first)
    drawn = [key for key in first if first[key].dim() > 1]
    assert len(drawn) > 20
    assert not any(torch.equal(first[key], other[key]) for key in drawn)


def test_a_fresh_weight_has_the_configured_spread(parts) -> None:
    qformer = of_components(
        str(parts("clip")), str(parts("gpt_neo")), seed=0, initializer_range=0.5, **FIELDS
    ).qformer.requires_grad_(False)
    # 1,024 and 4,096 draws: their spread is within 4 of its own standard errors, 1 / sqrt(2 n).
    assert qformer.query_proj.weight.std().item() == pytest.approx(0.5, rel=4 / 2048**0.5)
    assert qformer.ffn_layers[0][0].weight.std().item() == pytest.approx(0.5, rel=4 / 8192**0.5)
    # 3,072 draws.
    attention = qformer.decoder_cross_attn
    assert attention.in_proj_weight.std().item() == pytest.approx(0.5, rel=4 / 6144**0.5)
    assert not attention.in_proj_bias.any() and qformer.cross_scale.item() == 1


def test_rows_of_the_marks_are_drawn_with_the_seed(parts) -> None:
    def rows(seed: int) -> torch.Tensor:
        paths = str(parts("clip")), str(parts("gpt_neo"))
        return of_components(*paths, seed=seed, **FIELDS).get_input_embeddings().weight[61:]

    first = rows(0)
    assert len(first) == 1202 - 61 and torch.equal(first, rows(0))
    assert not torch.equal(first, rows(1))
    # Like the 61 rows that the decoder has, whose spread is known to 1 / sqrt(2 * 61 * 32).
    assert first.std().item() == pytest.approx(0.1, rel=4 / 3904**0.5)


def test_masks_that_old_checkpoints_hold_are_expected(parts, tmp_path) -> None:
    def as_old(weights: dict[str, torch.Tensor]) -> None:
        for block in range(2):
            prefix = f"transformer.h.{block}.attn.attention."
            weights[prefix + "bias"] = torch.ones(1, 1, 48, 48)
            weights[prefix + "masked_bias"] = torch.tensor(-1e9)

    def with_positions(weights: dict[str, torch.Tensor]) -> None:
        weights["vision_model.embeddings.position_ids"] = torch.arange(17)[None]

    decoder = edited(parts("gpt_neo"), tmp_path / "neo", as_old)
    vision = edited(parts("clip"), tmp_path / "clip", with_positions)
    of_components(vision, decoder, seed=0, **FIELDS)


@pytest.mark.parametrize("kind", ["clip", "gpt_neo"])
def test_a_missing_weight_is_named(parts, tmp_path, kind) -> None:
    paths = {"clip": str(parts("clip")), "gpt_neo": str(parts("gpt_neo"))}
    gone = next(
        key
        for key in load_file(parts(kind) / "model.safetensors")
        if "ln" in key or "layer_norm1" in key
    )
    paths[kind] = edited(parts(kind), tmp_path / "short", lambda weights: weights.pop(gone))
    with pytest.raises(ModelError, match=f"1 missing weights: {gone}"):
        of_components(*paths.values(), seed=0, **FIELDS)


def test_a_surplus_weight_is_named(parts, tmp_path) -> None:
    vision = edited(
        parts("clip"), tmp_path / "more", lambda weights: weights.update(extra=torch.ones(2))
    )
    with pytest.raises(ModelError, match="1 unexpected weights: extra"):
        of_components(vision, str(parts("gpt_neo")), seed=0, **FIELDS)


def test_checkpoints_in_each_others_place_are_refused(parts) -> None:
    with pytest.raises(ModelError, match='model_type "gpt_neo"'):
        of_components(str(parts("gpt_neo")), str(parts("gpt_neo")), seed=0)
    with pytest.raises(ModelError, match=r"its decoder is clip; expected a decoder of type opt"):
        of_components(str(parts("clip")), str(parts("clip")), seed=0)


def test_a_geometry_that_does_not_fit_is_refused(parts) -> None:
    with pytest.raises(ModelError, match="qformer_hidden_size is 64"):
        of_components(
            str(parts("clip")), str(parts("gpt_neo")), seed=0, **FIELDS, qformer_hidden_size=64
        )


def test_weights_that_are_no_safetensors_are_refused(parts, tmp_path) -> None:
    (tmp_path / "config.json").write_bytes((parts("gpt_neo") / "config.json").read_bytes())
    torch.save(load_file(parts("gpt_neo") / "model.safetensors"), tmp_path / "pytorch_model.bin")
    with pytest.raises(ModelError, match="safetensors"):
        of_components(str(parts("clip")), str(tmp_path), seed=0)


def test_the_processor_is_both_parts_in_one(parts, tmp_path) -> None:
    size = {"height": 16, "width": 16}
    tokenizer = tiny_models.tokenizer()
    tokenizer.pad_token = None
    tokenizer.save_pretrained(parts("gpt2"))
    CLIPImageProcessorPil(size={"shortest_edge": 16}, crop_size=size).save_pretrained(parts("clip"))
    processor = processor_from_components(str(parts("clip")), str(parts("gpt2")))
    processor.save_pretrained(tmp_path)
    loaded = AutoProcessor.from_pretrained(tmp_path)
    assert type(loaded) is CLIPProcessor
    assert loaded.tokenizer.pad_token == "</s>", "what ended texts before the marks came"
    assert (loaded.tokenizer.bos_token, loaded.tokenizer.eos_token) == ("<START>", "<END>")
    assert loaded.tokenizer("<START> a red")["input_ids"][0] == loaded.tokenizer.bos_token_id
    images = [Image.new("RGB", (40, 20), "red"), Image.new("RGB", (16, 30), "blue")]
    texts = ["a red", "a blue picture"]
    batch = loaded(images=images, text=texts, padding=True, return_tensors="pt")
    assert batch["pixel_values"].shape == (2, 3, 16, 16)
    mean, std = loaded.image_processor.image_mean, loaded.image_processor.image_std
    red = [(value - m) / s for value, m, s in zip((1, 0, 0), mean, std, strict=True)]
    # float32 arithmetic on values near 1.
    assert batch["pixel_values"][0].mean(dim=(1, 2)).tolist() == pytest.approx(red, abs=1e-5)
    assert batch["attention_mask"][:, -1].tolist() == [1, 1]
    assert batch["attention_mask"][0, 0] == 0


def test_a_siglip_brings_its_own_image_processor(parts, tmp_path) -> None:
    tiny_models.tokenizer().save_pretrained(parts("opt"))
    images = SiglipImageProcessorPil(size={"height": 16, "width": 16})
    images.save_pretrained(parts("siglip"))
    processor_from_components(str(parts("siglip")), str(parts("opt"))).save_pretrained(tmp_path)
    loaded = AutoProcessor.from_pretrained(tmp_path)
    pixels = loaded(images=Image.new("RGB", (40, 20), "white"), return_tensors="pt")["pixel_values"]
    # SigLIP maps 0 to 255 onto -1 to 1.
    assert torch.equal(pixels, torch.ones(1, 3, 16, 16))
    assert loaded.tokenizer.pad_token == "<pad>"


def test_a_processor_of_nothing_is_refused(parts, tmp_path) -> None:
    with pytest.raises(ModelError, match='model_type "gpt2"'):
        processor_from_components(str(parts("gpt2")), str(parts("gpt2")))
    with pytest.raises(ModelError, match="complete checkpoint"):
        processor_from_components(str(parts("clip_vision_model")), str(parts("gpt2")))


@pytest.mark.parametrize("key", ["query_tokens", "text_branch"])
def test_keys_of_a_blip2_checkpoint_are_refused(parts, key: str) -> None:
    vision, decoder = (str(parts(kind)) for kind in ("clip", "gpt_neo"))
    given = {key: "fresh" if key == "text_branch" else 4}
    with pytest.raises(ModelError, match=rf"model\.{key}.*null: model\.decoder is set"):
        find_checkpoint(vision, decoder=decoder, **given)
