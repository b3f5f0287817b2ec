"""The written folder is transformers' own and scores as what it was written from."""

import json
from pathlib import Path

import numpy as np
import pytest
import tiny_models
import torch
from PIL import Image
from safetensors import safe_open
from transformers import AutoProcessor, Blip2ForConditionalGeneration, Blip2ForImageTextRetrieval

from qvft.errors import VerificationError
from qvft.models.alignment import retrieval
from qvft.models.alignment.heads import AlignmentHeads
from qvft.models.alignment.initial_weights import fresh_heads
from qvft.models.alignment.qformer_states import (
    image_embeddings,
    matching_logits,
    text_embeddings,
)
from qvft.models.alignment.retrieval import fill_retrieval
from qvft.models.alignment.scoring import similarity
from qvft.models.alignment.text_tokens import encode_texts
from qvft.models.blip2 import query_states
from tools.tiny_blip2.drawn import draw, sample_scene
from tools.tiny_blip2.geometry import PAD_ID, VOCABULARY_SIZE, init_tiny

TEXTS = ["a circle", "a small red square at the top left"]


@pytest.fixture(scope="module")
def model() -> Blip2ForConditionalGeneration:
    return init_tiny(0).eval()


@pytest.fixture(scope="module")
def heads(model) -> AlignmentHeads:
    return fresh_heads(
        model, vocab_size=VOCABULARY_SIZE, pad_id=PAD_ID, positions=40, seed=0, text_generation=True
    ).eval()


@pytest.fixture(scope="module")
def processor():
    return tiny_models.processor()


@pytest.fixture(scope="module")
def images() -> list[Image.Image]:
    return [draw(sample_scene(0, index), 60) for index in range(2)]


def write(out: Path, model, heads, processor, **options) -> dict:
    tokenizer = processor.tokenizer
    out.mkdir()
    return fill_retrieval(
        out, model, heads, image_processor=processor.image_processor, tokenizer=tokenizer, **options
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, model, heads, processor) -> Path:
    out = tmp_path_factory.mktemp("written") / "retrieval"
    write(out, model, heads, processor)
    return out


@pytest.mark.parametrize("matching", [False, True])
@torch.no_grad()
def test_images_and_texts_score_the_same_in_plain_transformers(
    folder, model, heads, processor, images, matching: bool
) -> None:
    plain = Blip2ForImageTextRetrieval.from_pretrained(folder).eval()
    inputs = AutoProcessor.from_pretrained(folder)(
        images=images, text=TEXTS, padding=True, return_tensors="pt"
    )
    theirs = plain(**inputs, use_image_text_matching_head=matching).logits_per_image
    pixels = processor.image_processor(images=images, return_tensors="pt")["pixel_values"]
    features = model.vision_model(pixel_values=pixels).last_hidden_state
    ids, mask = encode_texts(processor.tokenizer, TEXTS)
    texts = {"input_ids": ids, "text_mask": mask}
    if matching:
        ours = matching_logits(model, heads, features=features, **texts)
    else:
        ours = similarity(
            image_embeddings(heads, query_states(model, features)),
            text_embeddings(model, heads, **texts),
        )
    assert np.ptp(ours.numpy()) > 1e-2
    # float32 through eleven layers; another kernel where there is no mask: some 1e-6.
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)


def test_the_folder_is_whole(folder, heads) -> None:
    model, loading = Blip2ForImageTextRetrieval.from_pretrained(folder, output_loading_info=True)
    assert not any(loading[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    config = json.loads((folder / "config.json").read_text())
    assert config["architectures"] == ["Blip2ForImageTextRetrieval"]
    assert config["qformer_config"]["use_qformer_text_input"] is True
    assert model.config.image_text_hidden_size == heads.embedding_width


def test_what_has_no_place_in_the_class_is_named(tmp_path: Path, model, heads, processor) -> None:
    written = write(tmp_path / "out", model, heads, processor)
    assert set(written["left_out"]) == {
        name for name in heads.state_dict() if name.startswith(("temperature", "lm_head"))
    }
    plain = Blip2ForImageTextRetrieval.from_pretrained(tmp_path / "out")
    assert written["weights"] == sum(parameter.numel() for parameter in plain.parameters())


@pytest.mark.parametrize(
    ("dtype", "bridge"),
    [(torch.bfloat16, torch.bfloat16), (torch.float16, torch.float32)],
    ids=["bfloat16", "float16"],
)
def test_a_half_type_is_written_as_transformers_loads_it(
    tmp_path: Path, model, heads, processor, dtype: torch.dtype, bridge: torch.dtype
) -> None:
    written = write(tmp_path / "out", model, heads, processor, dtype=dtype)
    with safe_open(tmp_path / "out" / "model.safetensors", framework="pt") as stream:
        types = {name: stream.get_tensor(name).dtype for name in stream.keys()}  # noqa: SIM118
    plain = Blip2ForImageTextRetrieval.from_pretrained(tmp_path / "out")
    assert types == {name: tensor.dtype for name, tensor in plain.state_dict().items()}
    assert types["vision_model.post_layernorm.weight"] == types["itm_head.weight"] == dtype
    assert types["qformer.layernorm.weight"] == types["query_tokens"] == bridge
    assert 0 < written["largest_difference"] <= retrieval.TOLERANCE[dtype]


def test_neither_model_nor_tokenizer_is_altered(tmp_path: Path, model, heads, processor) -> None:
    processor.tokenizer.padding_side = "left"
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    config = model.config.to_dict()
    try:
        write(tmp_path / "out", model, heads, processor)
        assert processor.tokenizer.padding_side == "left"
    finally:
        processor.tokenizer.padding_side = "right"
    assert model.config.to_dict() == config
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    saved = AutoProcessor.from_pretrained(tmp_path / "out").tokenizer
    assert saved.padding_side == "right"


def test_a_folder_that_scores_differently_is_refused(
    tmp_path: Path, model, heads, processor, monkeypatch
) -> None:
    right = retrieval.retrieval_state

    def wrong(*args, **kwargs):
        state, left_out = right(*args, **kwargs)
        name = "text_projection.weight"
        return {**state, name: state[name].flip(0).contiguous()}, left_out

    monkeypatch.setattr(retrieval, "retrieval_state", wrong)
    with pytest.raises(VerificationError, match="a score differs by"):
        write(tmp_path / "out", model, heads, processor)
