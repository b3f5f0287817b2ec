"""The plan: each weight of the model has one source, each of a source a use or a reason."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from qvft.errors import ModelError
from qvft.models.checkpoint_tensors import open_checkpoint
from qvft.models.question_aware.graft import find_graft

# Word and position embedding; two layers with weight and bias of `intermediate.dense`,
# `output.dense` and `output.LayerNorm`.
TEXT_WEIGHTS = 2 + 2 * 6


@pytest.fixture
def altered(tmp_path: Path) -> Callable[..., Path]:
    """A function that copies a single-file checkpoint with its weights changed."""

    def alter(folder: Path, change: Callable[[dict[str, Tensor]], None]) -> Path:
        copy = tmp_path / "altered"
        shutil.copytree(folder, copy)
        weights = load_file(copy / "model.safetensors")
        change(weights)
        save_file(weights, copy / "model.safetensors", metadata={"format": "pt"})
        return copy

    return alter


@pytest.mark.parametrize("source", ["retrieval_folder", "bert_folder"])
def test_the_text_branch_and_nothing_else_is_the_text_sources(
    source: str, blip2_folder: Path, request: pytest.FixtureRequest
) -> None:
    graft = find_graft(str(blip2_folder), str(request.getfixturevalue(source)))
    weights = graft.origins.weights
    text = {key for key, origin in weights.items() if origin.source == "text"}
    assert text == {
        "qformer.embeddings.word_embeddings.weight",
        "qformer.embeddings.position_embeddings.weight",
        *(
            f"qformer.encoder.layer.{layer}.{name}.{kind}"
            for layer in range(2)
            for name in ("intermediate.dense", "output.dense", "output.LayerNorm")
            for kind in ("weight", "bias")
        ),
    }
    assert graft.origins.summary()["weights"] == {
        "base": len(weights) - TEXT_WEIGHTS - 1,
        "text": TEXT_WEIGHTS,
        "tied": 1,
    }


@pytest.mark.parametrize("source", ["retrieval_folder", "bert_folder"])
def test_every_weight_of_both_sources_is_used_once_or_has_a_reason(
    source: str, blip2_folder: Path, request: pytest.FixtureRequest
) -> None:
    folder = request.getfixturevalue(source)
    graft = find_graft(str(blip2_folder), str(folder))
    used = [(o.source, o.key) for o in graft.origins.weights.values() if o.source != "tied"]
    assert len(used) == len(set(used))
    held = {("base", key) for key in open_checkpoint(str(blip2_folder), where="model.id").shapes}
    held |= {("text", key) for key in load_file(folder / "model.safetensors")}
    assert set(used) | set(graft.origins.unused) == held
    assert not set(used) & set(graft.origins.unused)


def test_what_bert_has_and_a_q_former_has_not_is_left_behind_by_name(
    blip2_folder: Path, bert_folder: Path
) -> None:
    unused = find_graft(str(blip2_folder), str(bert_folder)).origins.unused
    assert unused["text", "bert.embeddings.token_type_embeddings.weight"] == (
        "the Q-Former has no segments"
    )
    assert unused["text", "cls.seq_relationship.weight"] == "a head of BERT's pretraining"
    assert ("text", "bert.embeddings.LayerNorm.gamma") in unused
    assert not [key for source, key in unused if source == "base"]


def test_a_text_weight_that_is_missing_is_named(
    altered: Callable[..., Path], blip2_folder: Path, bert_folder: Path
) -> None:
    lost = "bert.encoder.layer.1.output.LayerNorm.gamma"
    folder = altered(bert_folder, lambda weights: weights.pop(lost))
    with pytest.raises(
        ModelError, match=r"1 missing weights: encoder\.layer\.1\.output\.LayerNorm\.weight"
    ):
        find_graft(str(blip2_folder), str(folder))


def test_a_text_weight_without_a_place_is_named(
    altered: Callable[..., Path], blip2_folder: Path, retrieval_folder: Path
) -> None:
    def add(weights: dict[str, Tensor]) -> None:
        weights["qformer.encoder.layer.2.output.dense.weight"] = torch.zeros(2)

    folder = altered(retrieval_folder, add)
    with pytest.raises(ModelError, match=r"1 unexpected weights: qformer\.encoder\.layer\.2\.out"):
        find_graft(str(blip2_folder), str(folder))


def test_a_text_weight_of_another_shape_is_named(
    altered: Callable[..., Path], blip2_folder: Path, retrieval_folder: Path
) -> None:
    key = "qformer.encoder.layer.0.intermediate.dense.bias"
    folder = altered(retrieval_folder, lambda weights: weights.update({key: torch.zeros(31)}))
    with pytest.raises(ModelError, match=r"1 ill-sized weights: .*is \(31,\), expected \(32,\)"):
        find_graft(str(blip2_folder), str(folder))


def test_a_base_weight_that_is_missing_is_named(
    altered: Callable[..., Path], tiny_folder: Path
) -> None:
    folder = altered(tiny_folder, lambda weights: weights.pop("query_tokens"))
    with pytest.raises(ModelError, match=r"1 missing weights: query_tokens \(of the base"):
        find_graft(str(folder), "fresh")


def test_a_model_that_writes_text_is_no_text_branch(blip2_folder: Path) -> None:
    with pytest.raises(ModelError, match="no embeddings.position_embeddings.weight"):
        find_graft(str(blip2_folder), str(blip2_folder))


def test_a_retrieval_model_is_no_base(retrieval_folder: Path, bert_folder: Path) -> None:
    with pytest.raises(ModelError, match=r"missing weights: language_model\..*of the base"):
        find_graft(str(retrieval_folder), str(bert_folder))


def test_a_pickle_is_refused_by_name(tmp_path: Path, blip2_folder: Path, bert_folder: Path) -> None:
    folder = tmp_path / "pickled"
    shutil.copytree(bert_folder, folder)
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(ModelError, match=r"but the pickle pytorch_model\.bin"):
        find_graft(str(blip2_folder), str(folder))


def test_files_beside_those_of_the_index_are_not_read(
    tmp_path: Path, blip2_folder: Path, bert_folder: Path
) -> None:
    folder = tmp_path / "strays"
    shutil.copytree(blip2_folder, folder)
    save_file({"query_tokens": torch.zeros(1)}, folder / "old.safetensors")
    graft = find_graft(str(folder), str(bert_folder))
    assert graft.base.files["query_tokens"].name != "old.safetensors"


def test_a_folder_that_is_not_there_is_named_with_its_recipe_key(blip2_folder: Path) -> None:
    with pytest.raises(ModelError, match=r"model\.text_branch=/no/such/folder"):
        find_graft(str(blip2_folder), "/no/such/folder")


def test_a_base_that_stores_its_tied_head_too_is_read_once(
    altered: Callable[..., Path], tiny_folder: Path
) -> None:
    def store(weights: dict[str, Tensor]) -> None:
        embedding = weights["language_model.model.decoder.embed_tokens.weight"]
        weights["language_model.lm_head.weight"] = embedding.clone()

    graft = find_graft(str(altered(tiny_folder, store)), "fresh")
    assert graft.origins.unused == {
        ("base", "language_model.lm_head.weight"): "the same tensor as "
        "language_model.model.decoder.embed_tokens.weight"
    }


def test_a_base_that_stores_the_head_alone_gives_it_to_the_embedding(
    altered: Callable[..., Path], tiny_folder: Path
) -> None:
    embedding, head = (
        "language_model.model.decoder.embed_tokens.weight",
        "language_model.lm_head.weight",
    )
    folder = altered(
        tiny_folder, lambda weights: weights.update({head: weights.pop(embedding).clone()})
    )
    assert find_graft(str(folder), "fresh").origins.weights[embedding].key == head


def test_a_base_whose_tied_weights_differ_is_refused(
    altered: Callable[..., Path], tiny_folder: Path
) -> None:
    from qvft.models.graft import graft_state

    def store(weights: dict[str, Tensor]) -> None:
        embedding = weights["language_model.model.decoder.embed_tokens.weight"]
        weights["language_model.lm_head.weight"] = embedding + 1

    graft = find_graft(str(altered(tiny_folder, store)), "fresh")
    with pytest.raises(ModelError, match="differ; expected one tensor"):
        graft_state(graft)


def test_a_missing_shard_is_named(tmp_path: Path, blip2_folder: Path, bert_folder: Path) -> None:
    folder = tmp_path / "partial"
    shutil.copytree(blip2_folder, folder)
    lost = sorted(folder.glob("*.safetensors"))[1]
    lost.unlink()
    with pytest.raises(ModelError, match=f"no {lost.name}; expected weights in safetensors"):
        find_graft(str(folder), str(bert_folder))


@pytest.mark.parametrize("rows", [33, 162])
def test_a_tokenizer_of_another_vocabulary_is_refused(
    altered: Callable[..., Path], blip2_folder: Path, bert_folder: Path, rows: int
) -> None:
    # 34 words: one has no row, or there are more rows left than padding to 128 explains.
    def resize(weights: dict[str, Tensor]) -> None:
        key = "bert.embeddings.word_embeddings.weight"
        weights[key] = torch.zeros(rows, weights[key].shape[1])

    folder = altered(bert_folder, resize)
    with pytest.raises(ModelError, match=f"has 34 tokens, its word embedding {rows} rows"):
        find_graft(str(blip2_folder), str(folder))
