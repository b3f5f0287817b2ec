"""The published layout: read with every key and copy accounted for, in whole or by component."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoConfig, AutoTokenizer, GPTNeoForCausalLM

from qvft.errors import ModelError
from qvft.models.base_checkpoint import find_checkpoint
from qvft.models.load import load_model, load_processor
from qvft.models.qvision import published_weights
from qvft.models.qvision.processing import processor_from_components
from qvft.models.qvision.publish import require_publishable, write_bases
from qvft.models.qvision.published import (
    COMPONENTS,
    gpt_neo_location,
    is_published,
    published_config,
    published_processor,
    tokenizer_location,
)
from qvft.models.qvision.published_weights import (
    load_component,
    published_keys,
    read_published,
)
from qvft.models.weight_files import weight_files

FILES = [f"{name}.safetensors" for name in COMPONENTS]


@pytest.fixture
def copied(published_qvision: Path, tmp_path: Path) -> Path:
    """A copy that may be changed."""
    out = tmp_path / "published"
    shutil.copytree(published_qvision, out, copy_function=shutil.copyfile)
    for path in [out, *out.rglob("*")]:
        path.chmod(0o755 if path.is_dir() else 0o644)
    return out


def edit(path: Path, change: Callable[[dict[str, Tensor]], Any]) -> None:
    weights = load_file(path)
    change(weights)
    save_file(weights, path, metadata={"format": "pt"})


def test_a_folder_is_found_as_what_it_is(published_qvision) -> None:
    base = find_checkpoint(str(published_qvision))
    assert (base.family.name, base.published) == ("qvision", True)
    assert [path.name for path in weight_files(base)] == sorted(FILES)
    text = base.config.text_config
    assert (text.bos_token_id, text.eos_token_id, text.pad_token_id) == (347, 348, 346)
    assert (base.config.num_states, base.config.qformer_num_heads) == (65, 8)
    with pytest.raises(ModelError, match="blip2"):
        find_checkpoint(str(published_qvision), family="blip2")


@pytest.mark.parametrize("stored", ["published", "saved"])
@pytest.mark.parametrize("key", ["decoder", "text_branch", "query_tokens"])
def test_what_a_whole_qvision_cannot_be_given_is_refused(
    stored: str, key: str, published_qvision: Path, tmp_path: Path
) -> None:
    folder = published_qvision
    if stored == "saved":
        published_config(str(published_qvision)).save_pretrained(folder := tmp_path / "saved")
    given = {"decoder": str(published_qvision / "gpt_neo"), "text_branch": "fresh"}
    with pytest.raises(ModelError, match="QVision|qvision"):
        find_checkpoint(str(folder), **{key: given.get(key, 8)})  # type: ignore[arg-type]


def test_a_round_trip_keeps_every_key_and_bit(published_qvision) -> None:
    model = load_model(find_checkpoint(str(published_qvision)), dtype=torch.float32)
    state = model.state_dict()
    found = published_keys(state)
    assert list(found) == list(COMPONENTS)
    for component, keys in found.items():
        stored = load_file(published_qvision / f"{component}.safetensors")
        assert stored.keys() == keys.keys()
        for key, name in keys.items():
            assert stored[key].dtype == state[name].dtype and torch.equal(stored[key], state[name])


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_named(copied, name) -> None:
    (copied / name).unlink()
    with pytest.raises(ModelError, match=f"no {name}"):
        load_model(find_checkpoint(str(copied)), dtype=torch.float32)


@pytest.mark.parametrize(
    ("file", "change", "message"),
    [
        ("encoder", lambda w: w.pop("proj.bias"), "1 missing weights: proj.bias"),
        ("decoder", lambda w: w.pop("cross_scale"), "1 missing weights: cross_scale"),
        # Another copy of it is there.
        ("encoder", lambda w: w.pop("vision.pre_layrnorm.bias"), "1 missing weights: vision.pre_l"),
        ("gpt_decoder", lambda w: w.pop("lm_head.weight"), "1 missing weights: lm_head.weight"),
        ("decoder", lambda w: w.update(extra=torch.ones(2)), "1 unknown weights: extra"),
        ("encoder", lambda w: w.update(extra=torch.ones(2)), "1 unknown weights: extra"),
        ("decoder", lambda w: w.update(cross_scale=torch.ones(2)), r"cross_scale is \(2,\)"),
        ("gpt_decoder", lambda w: w["transformer.ln_f.bias"].add_(1), "differs from another copy"),
        ("encoder", lambda w: w["vision.pre_layrnorm.bias"].add_(1), "differs from another copy"),
    ],
)
def test_every_key_and_copy_is_accounted_for(copied, file, change, message) -> None:
    edit(copied / f"{file}.safetensors", change)
    with pytest.raises(ModelError, match=message):
        read_published(str(copied), published_config(str(copied)))


def test_a_head_that_is_not_the_embeddings_is_refused(copied) -> None:
    for name, prefix in (("decoder", "gpt_decoder."), ("gpt_decoder", "")):
        edit(copied / f"{name}.safetensors", lambda w, p=prefix: w[f"{p}lm_head.weight"].add_(1))
    with pytest.raises(ModelError, match="one weight, stored twice"):
        read_published(str(copied), published_config(str(copied)))


def test_numbers_that_do_not_fit_the_bases_are_refused(copied) -> None:
    fields = json.loads((copied / "config.json").read_text())
    (copied / "config.json").write_text(json.dumps(fields | {"embed_size": 40}))
    with pytest.raises(ModelError, match="embed_size is 40, its GPT-Neo is 48 wide"):
        find_checkpoint(str(copied))
    (copied / "config.json").write_text(json.dumps(fields | {"vocab_size": 347}))
    with pytest.raises(ModelError, match="vocab_size is 347, its tokenizer has 349 tokens"):
        find_checkpoint(str(copied))


@pytest.mark.parametrize("content", [{}, {"embed_size": "48"}, {"model_type": "clip"}, []])
def test_another_config_is_not_taken_for_it(copied, content) -> None:
    (copied / "config.json").write_text(json.dumps(content))
    assert not is_published(str(copied))


def test_what_lies_beside_the_weights_is_used_and_the_hub_otherwise(copied) -> None:
    """The tests have no hub: what is not there is asked for by its published id."""
    shutil.rmtree(copied / "tokenizer")
    made = published_processor(str(copied)).tokenizer
    assert made.convert_tokens_to_ids(["<START>", "<END>"]) == [347, 348]
    shutil.rmtree(copied / "clip")
    with pytest.raises(ModelError, match="openai/clip-vit-base-patch32.*folder clip"):
        find_checkpoint(str(copied))
    shutil.copytree(copied / "gpt_neo", copied / "clip")
    with pytest.raises(ModelError, match='model_type "gpt_neo"'):
        find_checkpoint(str(copied))


def test_a_hub_id_is_read_from_the_cache(published_qvision, tmp_path, monkeypatch) -> None:
    snapshot = tmp_path / "models--someone--qvision" / "snapshots" / ("a" * 40)
    shutil.copytree(published_qvision, snapshot, copy_function=shutil.copyfile)
    refs = snapshot.parent.parent / "refs"
    refs.mkdir(parents=True)
    (refs / "main").write_text("a" * 40)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    base = find_checkpoint("someone/qvision")
    assert base.published and base.revision == "a" * 40
    model, processor = load_model(base, dtype=torch.float32), load_processor(base)
    folder = load_model(find_checkpoint(str(published_qvision)), dtype=torch.float32)
    assert torch.equal(model.qformer.query_tokens, folder.qformer.query_tokens)
    assert processor.tokenizer.bos_token_id == 347


class Counted:
    """`safe_open` that notes which files are opened, and the bytes of what is read of them."""

    def __init__(self) -> None:
        self.bytes: dict[str, int] = {}

    def __call__(self, path: Path, framework: str) -> Any:
        self.bytes[path.name] = 0
        return _CountedFile(self.bytes, path, framework)


class _CountedFile:
    def __init__(self, counts: dict[str, int], path: Path, framework: str) -> None:
        self._counts, self._name = counts, path.name
        self._file = safe_open(path, framework=framework)

    def __enter__(self) -> _CountedFile:
        self._file.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self._file.__exit__(*error)

    def keys(self) -> list[str]:
        return list(self._file.keys())

    def get_tensor(self, key: str) -> Tensor:
        tensor = self._file.get_tensor(key)
        self._counts[self._name] += tensor.nbytes
        return tensor


@pytest.mark.parametrize("name", COMPONENTS)
def test_a_component_alone_reads_its_own_bytes(copied, monkeypatch, name) -> None:
    counted = Counted()
    monkeypatch.setattr(published_weights, "safe_open", counted)
    own = load_file(copied / f"{name}.safetensors")
    load_component(str(copied), name)
    assert counted.bytes == {f"{name}.safetensors": sum(t.nbytes for t in own.values())}
    for other in COMPONENTS:
        if other != name:
            (copied / f"{other}.safetensors").unlink()
    assert not load_component(str(copied), name).training  # the others need not be there


def test_components_do_what_they_do_in_the_whole(published_qvision) -> None:
    folder = str(published_qvision)
    inputs = load_file(published_qvision / "inputs.safetensors")
    expected = load_file(published_qvision / "expected.safetensors")
    ids, mask = inputs["caption_ids"], inputs["attention_mask"]
    # float32 sums of some hundred terms in another order, on numbers of size 14.
    close = {"rtol": 0, "atol": 1e-5}
    with torch.no_grad():
        features = load_component(folder, "encoder")(inputs["pixel_values"])
        torch.testing.assert_close(features, expected["image_features"], **close)
        decoder = load_component(folder, "decoder")
        logits = decoder(input_ids=ids, attention_mask=mask, pixel_values=features).logits
        real = mask.bool()
        torch.testing.assert_close(logits[real], expected["logits"][real], **close)
        alone = load_component(folder, "gpt_decoder")
        assert type(alone) is GPTNeoForCausalLM
        hidden = alone.transformer(input_ids=ids, attention_mask=mask).last_hidden_state
        torch.testing.assert_close(hidden[real], expected["text_hidden_states"][real], **close)


def test_an_unknown_component_is_refused(published_qvision, tmp_path) -> None:
    with pytest.raises(ModelError, match="encoder, decoder, gpt_decoder"):
        load_component(str(published_qvision), "qformer")
    with pytest.raises(ModelError, match="not in the published layout"):
        load_component(str(tmp_path), "encoder")


def test_bases_are_written_as_the_original_reads_them(published_qvision, tmp_path) -> None:
    """Without marks beside GPT-Neo, with them in `tokenizer`, which pads as upstream has it."""
    folder = str(published_qvision)
    base = find_checkpoint(folder)
    write_bases(
        tmp_path,
        base.config,
        load_processor(base),
        gpt_neo=gpt_neo_location(folder),
        tokenizer=tokenizer_location(folder),
    )
    written = json.loads((tmp_path / "config.json").read_text())
    assert written == json.loads((published_qvision / "config.json").read_text())
    assert AutoConfig.from_pretrained(tmp_path / "gpt_neo").vocab_size == 347
    assert len(AutoTokenizer.from_pretrained(tmp_path / "gpt_neo")) == 347
    for part in ("tokenizer", "gpt_neo"):
        ours, theirs = (AutoTokenizer.from_pretrained(f / part) for f in (tmp_path, Path(folder)))
        for text in ("<START> a small dog <END>", "it's 5 o'clock\n"):
            assert ours(text)["input_ids"] == theirs(text)["input_ids"]
        assert (ours.eos_token, ours.pad_token, ours.padding_side) == (
            theirs.eos_token,
            theirs.pad_token,
            theirs.padding_side,
        )


def test_a_folder_of_other_parts_has_no_published_layout(make_config) -> None:
    with pytest.raises(ModelError, match="encoder: siglip"):
        require_publishable(make_config("siglip", "gpt_neo"))
    with pytest.raises(ModelError, match="decoder: opt"):
        require_publishable(make_config("clip", "opt"))
    with pytest.raises(ModelError, match="heads: 4"):
        require_publishable(make_config("clip", "gpt_neo"))
    require_publishable(make_config("clip", "gpt_neo", qformer_num_heads=8))


def test_marks_that_a_tokenizer_has_are_not_added_twice(published_qvision) -> None:
    clip, tokenizer = published_qvision / "clip", published_qvision / "tokenizer"
    processor = processor_from_components(str(clip), str(tokenizer))
    assert len(processor.tokenizer) == 349
