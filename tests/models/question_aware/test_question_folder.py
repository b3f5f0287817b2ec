"""Stages against plain transformers."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image
from transformers import (
    AutoProcessor,
    GenerationConfig,
    InstructBlipForConditionalGeneration,
    InstructBlipProcessor,
)

from qvft.models.blip2 import decode_hidden, encode_vision, insert_prefix
from qvft.models.forward_stages import logits_of
from qvft.models.graft import Graft, graft_model, graft_processor
from qvft.models.question_aware.forward_stages import encode_rows
from qvft.models.question_aware.graft import find_graft

# The same operations on the same values in another batching: float32 rounding (6e-8) through two
# layers of each tower, on logits near 1.
ROUNDING = 1e-4
QUESTIONS = ["is a q?", "is the fox on the left of a?"]


@pytest.fixture(scope="module")
def graft(blip2_folder: Path, retrieval_folder: Path) -> Graft:
    return find_graft(str(blip2_folder), str(retrieval_folder))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, graft: Graft) -> Path:
    out = tmp_path_factory.mktemp("grafted") / "model"
    model = graft_model(graft, dtype=torch.float32)
    text = graft.config.text_config
    model.generation_config = GenerationConfig(
        bos_token_id=text.bos_token_id,
        eos_token_id=text.eos_token_id,
        pad_token_id=text.pad_token_id,
    )
    model.save_pretrained(out)
    graft_processor(graft).save_pretrained(out)
    return out


@pytest.fixture(scope="module")
def model(folder: Path) -> InstructBlipForConditionalGeneration:
    loaded, info = InstructBlipForConditionalGeneration.from_pretrained(
        folder, output_loading_info=True
    )
    assert not info["missing_keys"] and not info["unexpected_keys"]
    return loaded.eval()


@pytest.fixture(scope="module")
def batch(folder: Path) -> dict[str, torch.Tensor]:
    processor = AutoProcessor.from_pretrained(folder)
    images = [Image.new("RGB", (9, 9), colour) for colour in ("red", "navy")]
    return dict(
        processor(images, QUESTIONS, padding=True, padding_side="left", return_tensors="pt")
    )


def staged(
    model: InstructBlipForConditionalGeneration, batch: dict[str, torch.Tensor]
) -> torch.Tensor:
    """The decoder's input by stages: each image once, each row with its question."""
    prefix = encode_rows(
        model,
        encode_vision(model, batch["pixel_values"]),
        image_index=torch.arange(2),
        qformer_input_ids=batch["qformer_input_ids"],
        qformer_attention_mask=batch["qformer_attention_mask"],
    )
    return insert_prefix(model, batch["input_ids"], prefix=prefix, image_index=torch.arange(2))


def test_the_processor_loads_with_both_tokenizers(folder: Path, batch) -> None:
    processor = InstructBlipProcessor.from_pretrained(folder)
    assert processor.num_query_tokens == 6
    assert processor.tokenizer.convert_tokens_to_ids("<image>") == 1199
    assert processor.qformer_tokenizer.bos_token == "[DEC]"
    assert (batch["input_ids"] == 1199).sum(dim=1).tolist() == [6, 6]
    words = processor.qformer_tokenizer.decode(batch["qformer_input_ids"][0])
    assert "[CLS] is a q? [SEP]" in words


def test_every_id_the_question_tokenizer_gives_has_a_row(folder: Path, model) -> None:
    tokenizer = InstructBlipProcessor.from_pretrained(folder).qformer_tokenizer
    rows = model.qformer.embeddings.word_embeddings.num_embeddings
    assert max(tokenizer.get_vocab().values()) == rows - 1
    assert max(tokenizer("<image> [DEC] zz?")["input_ids"]) == rows - 1


def test_the_stages_give_the_plain_forwards_logits_and_loss(model, batch) -> None:
    labels = batch["input_ids"].masked_fill(batch["attention_mask"] == 0, -100)
    with torch.no_grad():
        plain = model(**batch, labels=labels)
        hidden = decode_hidden(model, staged(model, batch), batch["attention_mask"])
        kept = labels[:, 1:] != -100
        logits = logits_of(model, hidden[:, :-1][kept])
        loss = torch.nn.functional.cross_entropy(logits, labels[:, 1:][kept])
    assert torch.allclose(logits, plain.logits[:, :-1][kept], atol=ROUNDING, rtol=0)
    assert abs(float(loss - plain.loss)) <= ROUNDING


def test_generation_from_the_stages_is_plain_generation(model, batch) -> None:
    settings = {"max_new_tokens": 6, "do_sample": False, "num_beams": 2}
    with torch.no_grad():
        ours = model.language_model.generate(
            inputs_embeds=staged(model, batch), attention_mask=batch["attention_mask"], **settings
        )
        theirs = model.generate(**batch, **settings)
    # The plain call gives the prompt back in front of what is new.
    new = theirs[:, batch["input_ids"].shape[1] :]
    assert ours.tolist() == new.tolist()
    assert ours[0].tolist() != ours[1].tolist()
