"""Beam search without done rows: the tokens of transformers' own loop, from fewer rows."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM, OPTConfig, OPTForCausalLM

from qvft.models.beam_search import beam_search, drops_done_rows

STOP, PAD, ROWS, WIDTH, LENGTH = 3, 1, 7, 16, 5
SETTINGS = {"num_beams": 4, "max_new_tokens": 12, "eos_token_id": [STOP, 2], "pad_token_id": PAD}


@pytest.fixture(scope="module", params=["opt", "llama"])
def model(request: pytest.FixtureRequest) -> Any:
    """A decoder of few tokens, whose texts end after 1 to 12 of them."""
    torch.manual_seed(1)
    sizes = {"vocab_size": 40, "hidden_size": WIDTH, "num_hidden_layers": 2}
    heads = {"num_attention_heads": 2, "pad_token_id": PAD}
    if request.param == "opt":
        made: Any = OPTForCausalLM(
            OPTConfig(**sizes, **heads, ffn_dim=32, word_embed_proj_dim=WIDTH, init_std=0.5)
        )
    else:
        made = LlamaForCausalLM(
            LlamaConfig(**sizes, **heads, intermediate_size=32, initializer_range=0.5)
        )
    return made.eval()


@pytest.fixture(scope="module")
def prompts() -> dict[str, Tensor]:
    """Embedded prompts of which some begin with padding."""
    torch.manual_seed(0)
    mask = torch.ones(ROWS, LENGTH, dtype=torch.long)
    mask[1, :2] = mask[4, :1] = 0
    return {"inputs_embeds": torch.randn(ROWS, LENGTH, WIDTH), "attention_mask": mask}


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"length_penalty": -1.0},
        {"length_penalty": 2.0, "early_stopping": "never"},
        {"early_stopping": True, "num_return_sequences": 3},
        {"min_new_tokens": 6, "bad_words_ids": [[5], [6, 7]], "no_repeat_ngram_size": 2},
        {"num_beams": 2, "max_new_tokens": 1},
    ],
    ids=lambda settings: ",".join(settings) or "defaults",
)
@pytest.mark.filterwarnings("ignore:Passing:UserWarning")
def test_tokens_are_those_of_each_row_alone_in_transformers(
    model: Any, prompts: dict[str, Tensor], settings: dict[str, Any]
) -> None:
    given = {**SETTINGS, **settings}
    assert drops_done_rows(model, given)
    found = model.generate(**prompts, **given, custom_generate=beam_search)
    several = given.get("num_return_sequences", 1)
    for row in range(ROWS):
        alone = {name: value[row : row + 1] for name, value in prompts.items()}
        expected = model.generate(**alone, **given)
        own = found[row * several : (row + 1) * several]
        assert torch.equal(own[:, : expected.shape[1]], expected)
        assert (own[:, expected.shape[1] :] == PAD).all()


def test_a_row_goes_when_it_is_done_and_prompts_are_decoded_once(
    model: Any, prompts: dict[str, Tensor]
) -> None:
    settings = {**SETTINGS, "early_stopping": True, "max_new_tokens": 30}
    seen: list[tuple[int, ...]] = []
    first = model.get_decoder().layers[0].self_attn.q_proj
    hook = first.register_forward_pre_hook(lambda _, given: seen.append(given[0].shape[:2]))
    try:
        for row in range(ROWS):
            model.generate(
                **{key: some[row : row + 1] for key, some in prompts.items()}, **settings
            )
        steps_alone = sum(rows for rows, tokens in seen if tokens == 1)
        seen.clear()
        model.generate(**prompts, **settings, custom_generate=beam_search)
    finally:
        hook.remove()
    assert seen[0] == (ROWS, LENGTH)
    assert sum(rows for rows, _ in seen[1:]) == steps_alone
    assert len({rows for rows, _ in seen[1:]}) > 1


@pytest.mark.parametrize(
    "settings",
    [
        {"num_beams": 1},
        {"do_sample": True},
        {"stop_strings": ["e"]},
        {"return_dict_in_generate": True},
        {"guidance_scale": 2.0},
        {"repetition_penalty": 1.5},
    ],
    ids=lambda settings: ",".join(settings),
)
def test_transformers_own_loop_keeps_what_this_one_lacks(
    model: Any, settings: dict[str, Any]
) -> None:
    assert not drops_done_rows(model, {**SETTINGS, **settings})
