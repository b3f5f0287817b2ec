"""Fresh heads, and heads from a retrieval checkpoint with every key accounted for."""

import copy
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import Blip2Config

from qvft.errors import ModelError
from qvft.models.alignment.heads import PARTS, TEMPERATURE_RANGE, AlignmentHeads
from qvft.models.alignment.initial_weights import (
    fresh_heads,
    heads_from_retrieval,
    load_heads,
)


def fresh(twins, seed: int = 0, **options) -> AlignmentHeads:
    return fresh_heads(twins.model, vocab_size=50, pad_id=3, positions=9, seed=seed, **options)


def from_folder(twins, files: list[Path], config: Blip2Config | None = None) -> AlignmentHeads:
    return heads_from_retrieval(
        twins.model, config=config or twins.plain.config, files=files, source="there"
    )


@pytest.fixture
def edited(twins, tmp_path: Path):
    """A function that writes the checkpoint's weights after an edit, and returns the file."""

    def write(edit) -> list[Path]:
        state = load_file(twins.folder / "model.safetensors")
        edit(state)
        save_file(state, tmp_path / "model.safetensors", metadata={"format": "pt"})
        return [tmp_path / "model.safetensors"]

    return write


def test_equal_seeds_give_equal_heads_and_leave_the_random_state(twins) -> None:
    before = torch.get_rng_state()
    one, same, other = fresh(twins), fresh(twins), fresh(twins, seed=1)
    assert torch.equal(before, torch.get_rng_state())
    states = [heads.state_dict() for heads in (one, same, other)]
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])
    words = [state["embeddings.word_embeddings.weight"] for state in states]
    assert not torch.equal(words[0], words[2])


def test_fresh_heads_take_size_and_padding_of_the_tokenizer(twins) -> None:
    words = fresh(twins).embeddings.word_embeddings
    assert words.weight.shape == (50, 24) and words.padding_idx == 3
    assert not words.weight[3].any() and words.weight[4].any()


def test_fresh_feed_forward_layers_start_as_the_queries(twins) -> None:
    heads = fresh(twins)
    for text_layer, layer in zip(heads.text_layers, twins.model.qformer.encoder.layer, strict=True):
        theirs = layer.intermediate_query.dense.weight
        assert torch.equal(text_layer.intermediate.dense.weight, theirs.float())
        assert text_layer.intermediate.dense.weight is not theirs


def test_no_part_of_fresh_heads_starts_at_zero_width(twins) -> None:
    for name, parameter in fresh(twins, text_generation=True).named_parameters():
        if parameter.dim() == 2:
            # Normal draws of spread 0.2; the smallest matrix has 48 of them.
            assert 0.1 < parameter.std() < 0.3, name


def test_every_key_of_the_checkpoint_is_taken_or_left(twins, caplog) -> None:
    keys = set(load_file(twins.folder / "model.safetensors"))
    with caplog.at_level("INFO", logger="qvft.train"):
        from_folder(twins, [twins.folder / "model.safetensors"])
    # Two embeddings, three linear layers with bias, three text layers of two linears and a norm.
    taken = 2 + 3 * 2 + 3 * 6
    assert f"{taken} weights loaded" in caplog.text
    assert f"{len(keys) - taken} unused; initialised: temperature" in caplog.text


def test_positions_that_older_versions_saved_are_left(twins, edited) -> None:
    from_folder(
        twins, edited(lambda s: s.update({"embeddings.position_ids": torch.arange(12)[None]}))
    )


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda s: s.pop("itm_head.bias"), "1 missing weights: itm_head.bias"),
        (lambda s: s.update(extra=torch.zeros(1)), "1 unknown weights: extra"),
        (
            lambda s: s.update({"qformer.encoder.layer.7.output.dense.bias": torch.zeros(24)}),
            "1 unknown weights: qformer.encoder.layer.7",
        ),
        (
            lambda s: s.update({"itm_head.weight": torch.zeros(3, 24)}),
            "1 ill-sized weights: itm_head.weight",
        ),
    ],
)
def test_a_checkpoint_with_a_wrong_key_is_refused(twins, edited, edit, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        from_folder(twins, edited(edit))


def test_a_q_former_of_another_geometry_is_refused(twins) -> None:
    config = copy.deepcopy(twins.plain.config)
    config.qformer_config.num_hidden_layers = 12
    with pytest.raises(ModelError, match="num_hidden_layers 12; expected 3"):
        from_folder(twins, [twins.folder / "model.safetensors"], config)


def test_saved_heads_come_back(twins) -> None:
    saved = fresh(twins, text_generation=True).state_dict()
    restored = fresh(twins, seed=1, text_generation=True)
    load_heads(restored, saved, source="run")
    assert all(torch.equal(tensor, saved[key]) for key, tensor in restored.state_dict().items())


def test_heads_of_other_objectives_do_not_load(twins) -> None:
    saved: dict[str, Tensor] = fresh(twins, text_generation=True).state_dict()
    with pytest.raises(ModelError, match="unknown weights: lm_head"):
        load_heads(fresh(twins), saved, source="run")


def test_what_no_objective_reaches_is_frozen(twins) -> None:
    heads = fresh(twins, text_generation=True)
    heads.train_only(["itc"])
    trained = {n.partition(".")[0] for n, p in heads.named_parameters() if p.requires_grad}
    assert trained == set(PARTS["itc"])
    heads.train_only(["itc", "itm", "itg"])
    assert all(parameter.requires_grad for parameter in heads.parameters())


@pytest.mark.parametrize(("given", "kept"), [(-1.0, 0), (9.0, 1), (0.07, None)])
def test_the_temperature_stays_in_its_range(twins, given: float, kept: int | None) -> None:
    heads = fresh(twins)
    with torch.no_grad():
        heads.temperature.fill_(given)
    heads.clamp_temperature_()
    expected = given if kept is None else TEMPERATURE_RANGE[kept]
    assert float(heads.temperature.detach()) == pytest.approx(expected)
