"""One prefix of keys and values an image: the same texts, with fewer tokens through the decoder."""

from __future__ import annotations

import weakref
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import DynamicCache

from qvft.data.rows import Row, evaluation_rows
from qvft.inference import encoding, predict
from qvft.inference.decode import WIDTH_STEP
from qvft.inference.predict import outcomes
from qvft.models.forward_stages import continues_prefix, decode_prefix, encode_images, encode_vision
from qvft.models.prefix_cache import cache_from_prefixes
from qvft.recipe.load import load_recipe
from qvft.setup.data import read_split
from qvft.setup.model import Loaded, base_model, base_of

GREEDY = {"max_new_tokens": 6, "do_sample": False, "num_beams": 1}
LONG = "Which colour is it that the picture shows from its left to its right?"


@pytest.fixture(scope="module")
def loaded(recipe_file: Path) -> Loaded:
    recipe = load_recipe(recipe_file)
    made = base_model(recipe, base_of(recipe))
    # Fresh output weights are so small that every text is the same; larger ones tell texts apart.
    with torch.no_grad():
        made.model.language_projection.weight *= 100
    return made


@pytest.fixture(scope="module")
def rows(recipe_file: Path) -> list[Row]:
    """Five images with a caption and three questions of different lengths each."""
    found = evaluation_rows(read_split(load_recipe(recipe_file), "eval").samples[:5])
    several = []
    for row in found:
        several.append(row)
        if row.question == "Is it red?":
            several.append(replace(row, id=f"{row.id}-long", question=LONG))
    return several


@pytest.fixture(scope="module")
def mixed(rows: list[Row]) -> list[Row]:
    """Of the first two images a single row each, of the others all four."""
    return [rows[0], rows[7], *rows[8:]]


def said(
    loaded: Loaded, rows: Sequence[Row], *, size: int = 5, **settings: Any
) -> list[tuple[str, ...]]:
    """The texts of each row; sampling begins anew. A setting of None is left to the model."""
    torch.manual_seed(0)
    texts: list[tuple[str, ...]] = [()] * len(rows)
    given = {name: value for name, value in {**GREEDY, **settings}.items() if value is not None}
    generation = dict.fromkeys(("caption", "question"), given)
    for outcome in outcomes(
        loaded.model, loaded.collator, rows, generation=generation, batch_size=size, workers=0
    ):
        texts[outcome.number] = outcome.texts
    return texts


def said_apart(loaded: Loaded, rows: Sequence[Row], **settings: Any) -> list[tuple[str, ...]]:
    """The texts where every row goes through the decoder whole."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(predict, "continues_prefix", lambda *_: False)
        return said(loaded, rows, **settings)


@contextmanager
def prefixes_decoded() -> Iterator[list[int]]:
    """How many images' prefixes each call decodes, in the order of calls."""
    counts: list[int] = []

    def counting(model: Any, images: torch.Tensor, ids: Sequence[int]) -> torch.Tensor:
        counts.append(len(images))
        return decode_prefix(model, images, ids)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(encoding, "decode_prefix", counting)
        yield counts


@contextmanager
def decoder_passes(loaded: Loaded) -> Iterator[list[tuple[int, int]]]:
    """(rows, tokens) of each pass through the decoder's first block."""
    seen: list[tuple[int, int]] = []
    block = loaded.model.language_model.get_decoder().layers[0]
    hook = block.self_attn.q_proj.register_forward_pre_hook(
        lambda _module, given: seen.append(tuple(given[0].shape[:2]))
    )
    try:
        yield seen
    finally:
        hook.remove()


def positions(passes: Sequence[tuple[int, int]]) -> int:
    return sum(rows * tokens for rows, tokens in passes)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"num_beams": 3},
        {"num_beams": 4, "num_return_sequences": 2, "length_penalty": -1.0},
        {"repetition_penalty": 2.0, "min_new_tokens": 6},
        {"stop_strings": ["e"]},
    ],
    ids=lambda settings: ",".join(settings) or "greedy",
)
def test_texts_are_those_of_rows_decoded_whole(
    loaded: Loaded, mixed: list[Row], settings: dict[str, Any]
) -> None:
    """Batches of five hold prompts of unequal length, rows of one image and of several."""
    with prefixes_decoded() as counts:
        found = said(loaded, mixed, **settings)
    assert sum(counts) == 3
    assert found == said_apart(loaded, mixed, **settings)
    assert len(set(found)) > 3


def test_sampling_draws_the_same_texts(loaded: Loaded, rows: list[Row]) -> None:
    """Where all rows share, batches are those of rows decoded whole, and so are draws."""
    settings = {"do_sample": True, "num_return_sequences": 2}
    found = said(loaded, rows[:12], **settings)
    assert found == said_apart(loaded, rows[:12], **settings)
    assert any(first != second for first, second in found)


def test_texts_are_the_same_with_features_from_a_cache(loaded: Loaded, mixed: list[Row]) -> None:
    with torch.no_grad():
        features = {
            row.sample.image: encode_vision(
                loaded.model, loaded.collator.pixels([row.sample.image])
            )
            for row in mixed
        }
    collator = replace(
        loaded.collator, features=lambda sources: torch.cat([features[s] for s in sources])
    )
    with prefixes_decoded() as counts:
        assert said(replace(loaded, collator=collator), mixed) == said(loaded, mixed)
    assert sum(counts) == 2 * 3


def test_fewer_tokens_go_through_the_decoder(loaded: Loaded, rows: list[Row]) -> None:
    """With one new token there is nothing but prompts; the sums are the shapes' own."""
    lengths = [
        len(loaded.template.encode(row.kind, question=row.question).ids)
        for row in rows
        if row.kind == "question"
    ]
    widths = [-(-length // WIDTH_STEP) * WIDTH_STEP for length in lengths]
    queries = loaded.model.config.num_query_tokens
    question = len(loaded.template.encode("question", question="").ids) - queries
    questions = [row for row in rows if row.kind == "question"]
    with decoder_passes(loaded) as apart:
        expected = said_apart(loaded, questions, size=5, max_new_tokens=1)
    with decoder_passes(loaded) as shared:
        assert said(loaded, questions, size=5, max_new_tokens=1) == expected
    # All prompts begin with `</s>` and "Question:".
    head = shared[0][1]
    assert queries + 1 < head < queries + question
    assert shared[0] == (5, head)
    assert positions(apart) == sum(widths)
    assert positions(shared) == 5 * head + sum(width - head for width in widths)
    assert positions(shared) < positions(apart)
    assert len(shared) == len(apart) + 1


def test_captions_without_words_share_the_visual_tokens(loaded: Loaded, rows: list[Row]) -> None:
    """Their rows end in `</s>`, which must go through the decoder itself."""
    captions = [replace(row, id=f"{row.id}-{n}") for row in rows[::4] for n in range(2)]
    queries = loaded.model.config.num_query_tokens
    with decoder_passes(loaded) as shared:
        found = said(loaded, captions, size=10, max_new_tokens=1)
    assert found == said_apart(loaded, captions, size=10, max_new_tokens=1)
    width = -(-(queries + 1) // WIDTH_STEP) * WIDTH_STEP
    assert shared == [(5, queries + 1), (10, width - queries)]


def test_an_image_of_a_single_row_costs_no_further_pass(loaded: Loaded, rows: list[Row]) -> None:
    with decoder_passes(loaded) as apart:
        expected = said_apart(loaded, rows[::4])
    with decoder_passes(loaded) as found, prefixes_decoded() as counts:
        assert said(loaded, rows[::4]) == expected
    assert counts == []
    assert found == apart


def test_rows_far_apart_are_decoded_whole(loaded: Loaded, rows: list[Row]) -> None:
    """In batches of one, eight rows may wait: a prefix is not kept for longer."""
    others = rows[4:11]
    with prefixes_decoded() as counts:
        said(loaded, [rows[0], *others[1:], rows[1]], size=1, max_new_tokens=1)
    assert sum(counts) == 3
    with prefixes_decoded() as counts:
        said(loaded, [rows[0], *others, rows[1]], size=1, max_new_tokens=1)
    assert sum(counts) == 2


@pytest.mark.parametrize(
    "settings",
    [{"cache_implementation": "dynamic"}, {"cache_implementation": "static"}],
    ids=lambda settings: ",".join(map(str, settings.values())),
)
def test_settings_with_a_cache_of_their_own_decode_rows_whole(
    loaded: Loaded, mixed: list[Row], settings: dict[str, Any]
) -> None:
    with prefixes_decoded() as counts:
        found = said(loaded, mixed[:8], max_new_tokens=3, **settings)
    assert counts == []
    assert found == said_apart(loaded, mixed[:8], max_new_tokens=3)


def test_a_models_own_generation_settings_count(
    loaded: Loaded, rows: list[Row], monkeypatch: pytest.MonkeyPatch
) -> None:
    own = loaded.model.language_model.generation_config
    monkeypatch.setattr(own, "num_return_sequences", 2)
    monkeypatch.setattr(own, "num_beams", 2)
    settings = {"num_beams": None}
    found = said(loaded, rows[:8], **settings)
    assert {len(texts) for texts in found} == {2}
    assert found == said_apart(loaded, rows[:8], **settings)
    assert continues_prefix(loaded.model, {})
    monkeypatch.setattr(own, "prefill_chunk_size", 4)
    assert not continues_prefix(loaded.model, {})


def test_a_prefix_takes_what_its_docstring_says_and_no_more(
    loaded: Loaded, rows: list[Row], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An image's prefix goes with its last row: of five images, no more than two are kept."""
    decoder = loaded.model.config.text_config
    alive: list[weakref.ref[torch.Tensor]] = []
    most = Counter[str]()
    answer = predict.generate_texts

    def watched(model: Any, collator: Any, batch: Any, settings: Any) -> Any:
        for row in batch:
            if not any(row.image.prefix is seen() for seen in alive):
                alive.append(weakref.ref(row.image.prefix))
        most["kept"] = max(most["kept"], sum(seen() is not None for seen in alive))
        stored = row.image.prefix
        numbers = 2 * decoder.num_hidden_layers * stored.shape[-2] * decoder.hidden_size
        assert stored.untyped_storage().nbytes() == numbers * stored.element_size()
        return answer(model, collator, batch, settings)

    monkeypatch.setattr(predict, "generate_texts", watched)
    said(loaded, rows, size=1, max_new_tokens=1)
    assert len(alive) == 5
    assert most["kept"] <= 2


def test_generation_leaves_a_prefix_as_it_is(loaded: Loaded, rows: list[Row]) -> None:
    pixels = loaded.collator.pixels([rows[0].sample.image])
    ids = loaded.template.encode("question", question="").ids
    with torch.no_grad():
        prefix = decode_prefix(loaded.model, encode_images(loaded.model, pixels), ids)[0]
    before = prefix.clone()
    cache = cache_from_prefixes([prefix, prefix], tokens=5, rows_per_prompt=3)
    assert isinstance(cache, DynamicCache)
    assert cache.get_seq_length() == 5
    assert all(len(layer.keys) == 6 for layer in cache.layers)
    for layer in cache.layers:
        layer.keys.zero_()
    assert torch.equal(prefix, before)


@pytest.mark.parametrize("model_type", ["instructblip", "qvision"])
def test_families_whose_rows_begin_differently_share_nothing(model_type: str) -> None:
    model = SimpleNamespace(config=SimpleNamespace(model_type=model_type))
    assert not continues_prefix(model, {})
