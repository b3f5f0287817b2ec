"""`qvft.explain` for QVision, whose text attends to the visual tokens after the decoder."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import (
    AutoTokenizer,
    CLIPVisionConfig,
    CLIPVisionModel,
    GPT2Config,
    GPT2LMHeadModel,
    GPTNeoConfig,
    GPTNeoForCausalLM,
    OPTConfig,
    OPTForCausalLM,
    SiglipVisionConfig,
    SiglipVisionModel,
)
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

from qvft import load_model
from qvft.data.formats import read_samples
from qvft.data.predict_inputs import resolve_inputs
from qvft.data.rows import evaluation_rows
from qvft.evaluation.explanation.chart import explanation_figure, method_text
from qvft.evaluation.explanation.explain import seen_image
from qvft.evaluation.explanation.maps import explain_texts, target_batch
from qvft.explain import main
from qvft.models.qvision.processing import processor_from_components
from qvft.setup.resolve_model import load_resolved, resolve_model
from tests.models.qvision_models import of_components
from tools.faithfulness import faithfulness

TOWER = {
    "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
    "num_attention_heads": 2, "image_size": 32, "patch_size": 8,
}  # fmt: skip
SIZE = {"height": 32, "width": 32}
# About 1 / sqrt(3 * width), as 0.02 is for widths near 1,000: the image has to be felt.
SPREAD = 0.1


@dataclass(frozen=True)
class Parts:
    """Folders of small checkpoints, by kind."""

    clip: Path
    siglip: Path
    gpt_neo: Path
    opt: Path
    gpt2: Path


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory, tiny_folder: Path) -> Parts:
    folder = tmp_path_factory.mktemp("parts")
    tokenizer = AutoTokenizer.from_pretrained(tiny_folder)
    ends = {name: getattr(tokenizer, name) for name in ("bos_token_id", "eos_token_id")}
    words = {"vocab_size": len(tokenizer), **ends}
    neo = GPTNeoConfig(
        **words, hidden_size=32, num_layers=2, num_heads=4, max_position_embeddings=192,
        attention_types=[[["global", "local"], 1]], initializer_range=SPREAD,
    )  # fmt: skip
    opt = OPTConfig(
        **words, hidden_size=32, word_embed_proj_dim=32, num_hidden_layers=2, ffn_dim=64,
        num_attention_heads=4, max_position_embeddings=192, dropout=0.0, init_std=SPREAD,
        pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    gpt2 = GPT2Config(
        **words, n_embd=32, n_layer=2, n_head=4, n_positions=192, initializer_range=SPREAD
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        models = {
            "clip": CLIPVisionModel(CLIPVisionConfig(**TOWER, initializer_range=SPREAD)),
            "siglip": SiglipVisionModel(SiglipVisionConfig(**TOWER)),
            "gpt_neo": GPTNeoForCausalLM(neo),
            "opt": OPTForCausalLM(opt),
            "gpt2": GPT2LMHeadModel(gpt2),
        }
    for name, model in models.items():
        model.save_pretrained(folder / name)
        if name in ("gpt_neo", "opt", "gpt2"):
            tokenizer.save_pretrained(folder / name)
    CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size=SIZE).save_pretrained(
        folder / "clip"
    )
    SiglipImageProcessorPil(size=SIZE).save_pretrained(folder / "siglip")
    return Parts(**{name: folder / name for name in models})


@pytest.fixture(scope="module")
def run(
    tmp_path_factory: pytest.TempPathFactory, parts: Parts, make_run: Callable[..., Path]
) -> Path:
    """A run of CLIP and GPT-Neo, with LoRA in the decoder."""
    return make_run(
        tmp_path_factory.mktemp("runs") / "qvision",
        model={"family": "qvision", "id": str(parts.clip), "decoder": str(parts.gpt_neo)},
        trainable={"lora": {"target_modules": ["q_proj", "v_proj", "c_fc"]}},
        data={"max_text_tokens": 100},
    )


@pytest.fixture(scope="module", params=["opt", "gpt2"])
def folder(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, parts: Parts
) -> Path:
    """A model folder of SigLIP, which has no class token, and an OPT or a GPT-2."""
    out = tmp_path_factory.mktemp("folder") / request.param
    pair = str(parts.siglip), str(getattr(parts, request.param))
    of_components(*pair, seed=0, num_query_tokens=6, initializer_range=SPREAD).save_pretrained(out)
    processor_from_components(*pair).save_pretrained(out)
    return out


def test_a_figure_is_written_of_what_the_model_says(
    run: Path, shapes: Path, tmp_path: Path, capsys
) -> None:
    image, out = str(shapes / "test0.png"), tmp_path / "figure.png"
    question = "Which colour is it?"
    assert main([str(run), image, "--question", question, "--out", str(out)]) == 0
    said = load_model(run).answer(image, question)
    # What an untrained model says may hold control characters, which no terminal gets to see.
    seen = "".join(one for one in said if one >= " ")
    assert seen and capsys.readouterr().out == f"{seen}\nwritten to {out}\n"
    with Image.open(out) as figure:
        assert figure.width > 1000 and figure.height > 800
        assert len(figure.convert("RGB").getcolors(1 << 24)) > 200  # maps, not an empty page


def test_a_model_folder_is_explained(folder: Path, shapes: Path, tmp_path: Path) -> None:
    out = tmp_path / "figure.svg"
    assert main([str(folder), str(shapes / "test0.png"), "--out", str(out)]) == 0
    assert "<svg" in out.read_text()


def test_a_words_map_is_what_the_place_before_it_reads_times_where_that_looks(run: Path) -> None:
    loaded = load_resolved(resolve_model(str(run)))
    rows = evaluation_rows(read_samples("drawn", "seed=5,count=1,size=32"), texts="questions")[:2]
    texts = ["a red circle", "seven blue"]
    found = explain_texts(loaded.model, loaded.collator, rows, texts)
    batch = target_batch(loaded.collator, rows, texts, place="cpu")
    with torch.no_grad():
        given = loaded.model(
            input_ids=batch["input_ids"],
            attention_mask=batch["attention_mask"],
            pixel_values=batch["pixel_values"],
            output_attentions=True,
        )
    text = given.text_attention.mean(dim=1)
    cross = torch.stack(given.query_attentions).mean(dim=(0, 2))
    for row, explained in enumerate(found):
        words = (batch["labels"][row] != -100).nonzero()[:-1, 0].tolist()
        maps = [
            sum(text[row, place - 1, query] * cross[row, query] for query in range(len(cross[row])))
            for place in words
        ]
        # Float32 sums of 65 terms below 1 / 16.
        expected = torch.stack(maps).mean(dim=0).view(4, 4).numpy()
        np.testing.assert_allclose(explained.map, expected, rtol=0, atol=1e-6)
        first = len(loaded.template.tokenizer(" " + explained.words[0].text)["input_ids"])
        expected = torch.stack(maps[:first]).mean(dim=0).view(4, 4).numpy()
        np.testing.assert_allclose(explained.words[0].map, expected, rtol=0, atol=1e-6)


def test_the_words_of_a_prompt_move_a_map(folder: Path) -> None:
    """The decoder has read them before a word reads the visual tokens."""
    loaded = load_resolved(resolve_model(str(folder)))
    rows = evaluation_rows(read_samples("drawn", "seed=5,count=1,size=32"), texts="questions")
    short, long = (
        min(rows, key=lambda r: len(r.question)),
        max(rows, key=lambda r: len(r.question)),
    )
    assert len(long.question) > len(short.question)
    asked = [short, long, short]
    found = explain_texts(loaded.model, loaded.collator, asked, ["red circle"] * 3)
    for one, other, again in zip(*(item.words for item in found), strict=True):
        assert one.map.shape == (4, 4)
        np.testing.assert_allclose(one.map, again.map, rtol=0, atol=1e-6)  # rounding, as above
        assert np.abs(one.used - other.used).max() > 1e-4  # shares of seven queries
        # Every share of the text's attention lies on a query, every query's on a patch.
        assert one.on_image == pytest.approx(1, abs=1e-5)
        assert one.map.sum() == pytest.approx(1, abs=1e-5)
    assert np.abs(found[0].words[0].map - found[0].words[1].map).max() > 1e-5


def test_the_figure_shows_cosines_of_visual_tokens_and_patches(run: Path, drawn_run: Path) -> None:
    """Of QVision, whose context token is named; BLIP-2's queries and patches differ in width."""
    rows = evaluation_rows(read_samples("drawn", "seed=5,count=1,size=48"), texts="questions")[:1]
    titles = {}
    for name in (run, drawn_run):
        loaded = load_resolved(resolve_model(str(name)))
        (found,) = explain_texts(loaded.model, loaded.collator, rows, ["red"])
        assert (found.cosines is None) == (name == drawn_run)
        if found.cosines is not None:
            tokens = len(found.queries)
            # The same numbers by way of the matrix that the figure shows too; float32 divisions.
            np.testing.assert_allclose(
                found.cosines.context_to_queries, found.similarity[0, 1:], rtol=0, atol=1e-6
            )
            assert found.cosines.context_to_queries.shape == (tokens - 1,)
            assert found.cosines.queries_to_patches.shape == (4, 4)
        figure = explanation_figure(found, np.zeros((32, 32, 3)), title="", model="")
        titles[name] = " ".join(axis.get_title() for axis in figure.axes)
    for part in ("context (", "context token and each query token", "query tokens (mean)"):
        assert part in titles[run] and part not in titles[drawn_run]


@pytest.mark.parametrize("preprocessing", ["checkpoint", "plain"])
def test_the_figure_shows_the_image_in_its_own_colours(
    folder: Path, preprocessing: str, tmp_path: Path
) -> None:
    Image.new("RGB", (40, 30), (200, 100, 0)).save(tmp_path / "plain.png")
    opened = resolve_model(str(folder), overrides=[f"data.preprocessing={preprocessing}"])
    (row,) = resolve_inputs([str(tmp_path / "plain.png")], question=None)
    seen = seen_image(load_resolved(opened), row)
    # Float32 after normalisation and back.
    np.testing.assert_allclose(seen, np.full((32, 32, 3), [200, 100, 0]) / 255, atol=1e-6)


def test_a_model_that_does_not_use_its_image_is_seen_through(folder: Path) -> None:
    """Where nothing of what the text reads goes on, maps are drawn and masking costs nothing."""
    loaded = load_resolved(resolve_model(str(folder)))
    samples = list(read_samples("drawn", "seed=5,count=2,size=32"))
    rows = [row for one in samples for row in evaluation_rows([one], texts="questions")[:2]]
    texts = ["red"] * 4
    used = faithfulness(loaded.model, loaded.collator, rows, texts, batch_size=4)
    assert used.brightest != 0
    out = loaded.model.qformer.decoder_cross_attn.out_proj
    torch.nn.init.zeros_(out.weight)
    found = faithfulness(loaded.model, loaded.collator, rows, texts, batch_size=4)
    assert (found.brightest, found.random) == (0, 0)
    assert "no better than random" in found.verdict


def test_the_figure_names_what_was_multiplied(run: Path, drawn_run: Path) -> None:
    rows = evaluation_rows(read_samples("drawn", "seed=5,count=1,size=48"), texts="questions")[:1]
    said = {}
    for name in (run, drawn_run):
        loaded = load_resolved(resolve_model(str(name)))
        (found,) = explain_texts(loaded.model, loaded.collator, rows, ["red"])
        said[name] = " ".join(method_text(found, "MODEL").split())
    assert "the text's attention to the visual tokens, after the decoder" in said[run]
    assert "(mean over heads and layer 0)" in said[run]
    assert "(mean over heads and layers 0, 1)" in said[run]
    assert "depends on the image and on these words" in said[run]
    assert "class token" not in said[run] and "In brackets" not in said[run]
    assert "the decoder's attention to the visual tokens" in said[drawn_run]
    assert "(mean over heads and layers 0 to 2)" in said[drawn_run]
    assert "class token" in said[drawn_run] and "In brackets" in said[drawn_run]
