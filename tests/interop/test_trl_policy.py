"""The policy for trl: rows as qvft trains them, its reference, what it refuses, what it saves."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import pytest
import torch
from PIL import Image
from transformers import Blip2ForConditionalGeneration

pytest.importorskip("trl", reason="needs qvft[trl]")

from qvft import extras
from qvft.api.evaluate import evaluate
from qvft.api.run import Run
from qvft.checking.check_run import check_run
from qvft.errors import (
    CheckpointError,
    DataError,
    MissingToolError,
    ModelError,
    RecipeError,
)
from qvft.inference.vision_language_model import load_model
from qvft.interop.trl import Policy, policy
from qvft.setup.start_run import start_run
from tests.models.decoder_models import TEXT, write_model

RED, TEAL = Image.new("RGB", (40, 30), "red"), Image.new("RGB", (30, 50), "teal")
QUESTION = "Which  colour\nis it?"


@pytest.fixture(scope="module")
def made(tiny_run: Path) -> Policy:
    return policy(tiny_run)


@pytest.fixture(scope="module", params=["opt", "llama", "qwen2", "gpt2"])
def of_decoder(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, tiny_folder: Path
) -> Policy:
    """A policy with that decoder: Qwen2 has no begin token, GPT-2 learned positions."""
    folder = tiny_folder
    if request.param != "opt":
        folder = tmp_path_factory.mktemp("models") / request.param
        write_model(folder, tiny_folder, TEXT[request.param])
    return policy(folder, **{"trainable.lora.target_modules": "all-linear"})


def asked(question: str) -> list[dict[str, Any]]:
    return [{"role": "user", "content": question}]


def shown(image: Image.Image, question: str, answer: str | None = None) -> list[dict[str, Any]]:
    """A conversation as trl hands it to a processor."""
    parts = [{"type": "image", "image": image}, {"type": "text", "text": question}]
    turns = [{"role": "user", "content": parts}]
    if answer is not None:
        turns.append({"role": "assistant", "content": [{"type": "text", "text": answer}]})
    return turns


@pytest.mark.parametrize(
    ("question", "answer"), [(QUESTION, "bright red"), ("", "a red picture"), (QUESTION, None)]
)
def test_a_conversation_becomes_the_row_that_training_has(
    question: str, answer: str | None, of_decoder: Policy
) -> None:
    made, template = of_decoder, of_decoder.processor.template
    kind = "question" if question else "caption"
    row = template.encode(kind, question=question, target=answer)
    text = made.processor.apply_chat_template(shown(RED, question, answer))
    assert tuple(made.processor(images=[RED], text=text)["input_ids"][0]) == row.ids
    if answer is None:
        found = made.processor.apply_chat_template(
            [shown(RED, question)], tokenize=True, return_dict=True
        )
        assert tuple(found["input_ids"][0]) == row.ids
    queries = made.model.config.num_query_tokens
    assert row.ids.count(made.model.config.image_token_id) == queries
    assert list(row.ids[queries : queries + len(template.begin_ids)]) == template.begin_ids
    assert (row.ids[-1] == template.stop_id) == (answer is not None)


def test_the_rows_of_trl_collator_are_those_of_training(of_decoder: Policy) -> None:
    from trl.trainer.dpo_trainer import DataCollatorForVisionPreference

    made = of_decoder
    pairs = [(RED, QUESTION, "red", "blue or green"), (TEAL, "", "a teal picture", "a dog")]
    examples = [
        {
            "image": image,
            "prompt": asked(question),
            "chosen": [{"role": "assistant", "content": chosen}],
            "rejected": [{"role": "assistant", "content": rejected}],
        }
        for image, question, chosen, rejected in pairs
    ]
    batch = DataCollatorForVisionPreference(made.processor)(examples)
    texts = [(pair[1], pair[2]) for pair in pairs] + [(pair[1], pair[3]) for pair in pairs]
    for number, (question, target) in enumerate(texts):
        kind = "question" if question else "caption"
        row = made.processor.template.encode(kind, question=question, target=target)
        seen = batch["attention_mask"][number].bool()
        assert tuple(batch["input_ids"][number][seen].tolist()) == row.ids
        assert batch["completion_mask"][number].sum() == len(row.ids) - row.target_start


def test_logits_equal_those_of_transformers_own_class(of_decoder: Policy) -> None:
    """Rows of different lengths, padded on either side, against each row alone."""
    made = of_decoder
    conversations = [shown(RED, QUESTION, "red"), shown(TEAL, "", "a much longer teal picture")]
    plain = copy.copy(made.model)
    plain.__class__ = Blip2ForConditionalGeneration
    texts = made.processor.apply_chat_template(conversations)
    for side in ("left", "right"):
        batch = made.processor(
            images=[RED, TEAL], text=texts, padding=True, padding_side=side, return_tensors="pt"
        )
        with torch.no_grad():
            logits = made.model(**batch).logits
            hidden = made.model.base_model(**batch).last_hidden_state
            for number in range(2):
                seen = batch["attention_mask"][number].bool()
                alone = plain(
                    input_ids=batch["input_ids"][number][seen][None],
                    attention_mask=torch.ones(1, int(seen.sum()), dtype=torch.long),
                    pixel_values=batch["pixel_values"][number][None],
                ).logits[0]
                # float32, in other batch sizes.
                torch.testing.assert_close(logits[number][seen], alone, rtol=1e-4, atol=1e-4)
            torch.testing.assert_close(made.model.get_output_embeddings()(hidden), logits)


def test_greedy_decoding_equals_that_of_the_run(made: Policy, tiny_run: Path) -> None:
    conversations = [shown(RED, QUESTION), shown(TEAL, "")]
    batch = made.processor.apply_chat_template(
        conversations, tokenize=True, return_dict=True,
        padding=True, padding_side="left", return_tensors="pt",
    )  # fmt: skip
    rows = made.model.generate(**batch, max_new_tokens=4, do_sample=False)
    assert rows.shape[0] == 2
    new = rows[:, batch["input_ids"].shape[1] :]
    texts = made.processor.batch_decode(new, skip_special_tokens=True)
    model = load_model(tiny_run)
    assert texts == [
        model.answer(RED, QUESTION, max_new_tokens=4), model.caption(TEAL, max_new_tokens=4)
    ]  # fmt: skip


def test_text_that_looks_like_a_special_token_is_plain(made: Policy) -> None:
    template = made.processor.template
    question = "is </s> or <image> here?"
    found = made.processor.apply_chat_template(
        shown(RED, question), tokenize=True, return_dict=True
    )
    assert tuple(found["input_ids"][0]) == template.encode("question", question=question).ids


def test_the_reference_shares_what_is_frozen(made: Policy) -> None:
    reference = dict(made.reference.named_parameters())
    for name, weight in made.model.named_parameters():
        assert not reference[name].requires_grad
        assert torch.equal(reference[name], weight)
        same = reference[name].data_ptr() == weight.data_ptr()
        assert same == (not weight.requires_grad), name


def test_it_is_saved_as_a_run(tiny_run: Path, tmp_path: Path) -> None:
    made = policy(Run(tiny_run))
    with torch.no_grad():
        made.model.query_tokens += 0.5
    folder = made.save(tmp_path / "trl_run")
    model = load_model(folder)
    assert torch.equal(model.model.query_tokens, made.model.query_tokens)
    report = evaluate(str(folder), overrides=["data.eval.limit=2", "eval.blind=false"]).report
    assert report.n == 6 and report.model.started_from["path"] == str(tiny_run)
    start = start_run(Run(folder).recipe)
    assert start is not None and start.run == tiny_run
    states = {one.what: one.state for one in check_run(folder).verified}
    assert states["recipe.lock.yaml"] == states[f"start {tiny_run}"] == "ok"
    assert not {"differs", "missing"} & set(states.values())
    with pytest.raises(CheckpointError, match="holds a run"):
        made.save(folder)


def test_a_plain_model_gets_lora_layers(tiny_folder: Path, tmp_path: Path) -> None:
    made = policy(tiny_folder, **{"trainable.lora.r": 2, "trainable.qformer": "frozen"})
    trained = {name for name, weight in made.model.named_parameters() if weight.requires_grad}
    assert any("lora_A" in name for name in trained)
    assert not any(name.startswith("qformer.") for name in trained)
    assert start_run(made.recipe) is None
    with torch.no_grad():
        made.model.query_tokens += 0.5
    model = load_model(made.save(tmp_path / "trl_run"))
    assert torch.equal(model.model.query_tokens, made.model.query_tokens)


def test_what_trl_would_train_wrongly_is_refused(
    tiny_folder: Path, tiny_run: Path, make_run: Callable[..., Path], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    with pytest.raises(ModelError, match="blip2_question"):
        policy(make_run(tmp_path / "aware", model={"text_branch": "fresh"}))
    with pytest.raises(ModelError, match="t5"):
        policy(write_model(tmp_path / "t5", tiny_folder, TEXT["t5"]))
    with pytest.raises(RecipeError, match="load_in_4bit"):
        policy(tiny_run, **{"model.quantization.load_in_4bit": True})
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    with pytest.raises(RecipeError, match="FSDP"):
        policy(tiny_run)


def test_other_conversations_are_refused(made: Policy) -> None:
    for messages in (
        [{"role": "system", "content": "be short"}, *asked("why?")],
        [*asked("a"), {"role": "assistant", "content": "b"}, *asked("c")],
    ):
        with pytest.raises(DataError, match="conversation"):
            made.processor.apply_chat_template(messages)
    with pytest.raises(DataError, match="images"):
        made.processor(images=[RED], text=["a", "b"])
    with pytest.raises(DataError, match="completion"):  # SFT on `messages`
        made.processor.apply_chat_template(shown(RED, QUESTION, "red"), tokenize=True)


def test_plain_texts_get_their_begin_token(made: Policy) -> None:
    """In data that are no conversations, prompt and stop token are written by hand."""
    row = made.processor.template.encode("question", question="why?", target="so")
    prompt = made.processor(images=[RED], text="Question: why? Answer:")["input_ids"][0]
    assert (*prompt, *made.processor(text=" so\n")["input_ids"][0]) == row.ids


def test_telemetry_is_off(tiny_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_DISABLE_TELEMETRY", False)
    policy(tiny_run)
    assert huggingface_hub.constants.HF_HUB_DISABLE_TELEMETRY


def test_without_trl_its_extra_is_named(tiny_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extras, "find_spec", lambda _: None)
    with pytest.raises(MissingToolError, match=r"qvft\[trl\]"):
        policy(tiny_run)
