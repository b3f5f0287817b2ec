"""Beam search that drops the rows that are done, for `generate(custom_generate=...)`.

Shape letters: B rows, R rows that are not done, K beams, T tokens, V vocabulary, C candidates.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from qvft.models.prefix_cache import CACHE, can_continue, setting

_MINUS = -1.0e9  # score of beams that do not exist, as in transformers

_WITHOUT = (
    "do_sample",
    "low_memory",  # refused by transformers
    "return_dict_in_generate",
    "stop_strings",  # `generate` hands no tokenizer to a custom loop
    "watermarking_config",
)


def drops_done_rows(model: Any, settings: Mapping[str, Any]) -> bool:
    """Whether `beam_search` can replace transformers' own for these settings of `generate`.

    Args:
        model: the language model, whose generation config holds the defaults.
    """
    several = (setting(model, settings, "num_beams") or 1) > 1
    if not several or model.config.is_encoder_decoder or not can_continue(model, settings):
        return False
    # Its processor counts the padding of the rows that it began with.
    if (setting(model, settings, "repetition_penalty") or 1.0) != 1.0:
        return False
    return not any(setting(model, settings, name) for name in _WITHOUT)


def beam_search(
    model: Any,
    input_ids: Tensor,
    logits_processor: Any,
    stopping_criteria: Any,
    generation_config: Any,
    **inputs: Any,
) -> Tensor:
    """The best `num_return_sequences` of K beams for each row, padded on the right.

    Each row's texts are those of a call with that row alone. transformers' loop decodes all rows of
    a batch until the last is done, and prompts once per beam; here a row goes when it is done, and
    prompts are decoded once. A KV cache that is given has one row per prompt.

    Source: `GenerationMixin._beam_search` in transformers, whose arithmetic this repeats.

    Args:
        input_ids: (B * K, T) tokens before the new ones, each row K times, as are `inputs`.
    """
    config, beams = generation_config, generation_config.num_beams
    penalty, early = config.length_penalty, config.early_stopping
    start, stop = input_ids.shape[1], config.max_length
    place, kept = input_ids.device, max(2, 1 + len(config._eos_token_tensor)) * beams

    prompts = {name: _of_rows(value, slice(None, None, beams)) for name, value in inputs.items()}
    output = model._prefill(input_ids[::beams], config, prompts)
    output.logits = output.logits.repeat_interleave(beams, dim=0)
    cache = getattr(output, CACHE)
    cache.batch_repeat_interleave(beams)
    prompt_length = cache.get_seq_length()
    inputs.pop("inputs_embeds", None)

    left = torch.arange(len(input_ids) // beams, device=place)
    shape = (len(left), beams)
    texts = input_ids.new_full((*shape, stop), int(config._pad_token_tensor))
    texts[:, :, :start] = input_ids.view(*shape, start)
    found = texts.clone()
    done_texts, done_scores = texts.clone(), torch.full(shape, _MINUS, device=place)
    is_done = torch.zeros(shape, dtype=torch.bool, device=place)
    scores = done_scores.clone()
    scores[:, 0] = 0
    improvable = torch.ones(len(left), 1, dtype=torch.bool, device=place)
    for length in range(start, stop):
        inputs = model._update_model_kwargs_for_generation(output, inputs)
        log_probs = output.logits[:, -1].float().log_softmax(dim=-1)
        log_probs = logits_processor(texts[:, :, :length].flatten(0, 1), log_probs)
        total = log_probs.view(len(left), beams, -1) + scores[:, :, None]
        best, place_of = total.flatten(1).topk(kept)  # (R, C)
        beam, token = place_of // total.shape[-1], place_of % total.shape[-1]
        candidates = _chosen(texts, beam)
        candidates[:, :, length] = token
        ends = stopping_criteria(candidates[:, :, : length + 1].flatten(0, 1), None)
        ends = ends.view(len(left), kept)

        scores, chosen = (best + ends.float() * _MINUS).topk(beams)
        texts, source = _chosen(candidates, chosen), _chosen(beam, chosen)

        # Of candidates that end, those among the K best count.
        counts = ends & (torch.arange(kept, device=place) < beams)
        full = is_done.all(dim=1, keepdim=True) & (early is True)
        ended = best / (length + 1 - start) ** penalty
        ended += full * _MINUS
        ended += ~improvable * _MINUS
        ended += ~counts * _MINUS
        done_scores, chosen = torch.cat([done_scores, ended], dim=1).topk(beams)
        done_texts = _chosen(torch.cat([done_texts, candidates], dim=1), chosen)
        is_done = _chosen(torch.cat([is_done, counts], dim=1), chosen)

        longest = stop - start if early == "never" and penalty > 0 else length + 1 - start
        worst = torch.where(is_done, done_scores.amin(dim=1, keepdim=True), _MINUS)
        improvable = improvable & (scores[:, :1] / longest**penalty > worst).any(1, keepdim=True)
        goes_on = improvable.squeeze(1) & ~(is_done.all(dim=1) & (early is True)) & ~ends.all(dim=1)
        found[left[~goes_on]] = done_texts[~goes_on]
        if not goes_on.any():
            break
        rows = goes_on.nonzero().squeeze(1)
        _reorder(inputs[CACHE], (rows[:, None] * beams + source[rows]).flatten(), prompt_length)
        if len(rows) < len(left):
            of_beams = (rows[:, None] * beams + torch.arange(beams, device=place)).flatten()
            inputs = {name: _of_rows(value, of_beams) for name, value in inputs.items()}
            left, texts, scores, improvable = (t[rows] for t in (left, texts, scores, improvable))
            done_texts, done_scores, is_done = (t[rows] for t in (done_texts, done_scores, is_done))
        ids = texts[:, :, : length + 1].flatten(0, 1)
        step = model.prepare_inputs_for_generation(ids, next_sequence_length=1, **inputs)
        output = model(**step, return_dict=True)
    found = found[:, : config.num_return_sequences].flatten(0, 1)
    written = (found != config._pad_token_tensor).any(dim=0).nonzero()
    return found[:, : int(written.max()) + 1 if len(written) else start]


def _chosen(some: Tensor, index: Tensor) -> Tensor:
    """(R, C, ...) entries (R, K, ...) of each row by index (R, C)."""
    return some.take_along_dim(index.view(*index.shape, *[1] * (some.ndim - 2)), dim=1)


def _reorder(cache: Any, beams: Tensor, prompt_length: int) -> None:
    """Moves the KV cache of each beam to where it goes on; that of prompts is the same for the
    beams of a row, and stays if every row does.
    """
    for layer in cache.layers:
        if layer.is_sliding or len(beams) < len(layer.keys):
            layer.reorder_cache(beams)
            continue
        for states in (layer.keys, layer.values):
            new = states[:, :, prompt_length:]
            new.copy_(new.index_select(0, beams))


def _of_rows(value: Any, rows: Any) -> Any:
    return value[rows] if isinstance(value, Tensor) and value.ndim else value
