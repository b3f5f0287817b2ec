"""Contrast, matching and text generation, held against the numbers of LAVIS' own program.

The fixture's weights go the way of a user's: the base and the retrieval checkpoint are folders that
a recipe names. docs/lavis.md says where qvft has another number on purpose.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers import (
    AutoConfig,
    AutoTokenizer,
    Blip2ForConditionalGeneration,
    Blip2Processor,
    BlipImageProcessor,
)

import qvft.training.objectives.alignment_losses as losses_module
from qvft.models.alignment.qformer_states import (
    generation_logits,
    joint_states,
    matching_logits,
    text_states,
)
from qvft.models.alignment.scoring import best_candidates, matching_scores, reranked, similarity
from qvft.models.alignment.text_tokens import MAX_TOKENS
from qvft.models.blip2 import encode_vision, query_states
from qvft.recipe.load import parse_recipe
from qvft.setup.alignment_heads import generation_start, new_branch
from qvft.setup.alignment_model import AlignmentModel, load_alignment_model
from qvft.setup.model import base_model, base_of
from qvft.training.objectives.alignment import AlignmentObjective
from qvft.training.objectives.alignment_losses import LABEL_SMOOTHING, LossSum, hard_negatives

BATCHES = ("plain", "image_id")
# float32's rounding in other orders of sums. The largest differences seen are 1e-5 of states of
# size 4, 4e-6 of unit vectors, 4e-5 of cosines over a temperature of 0.05, 7e-6 of matching logits,
# 6e-5 of text logits of size 30, 3e-6 of losses, and 6e-5 of gradients of which the largest has
# norm 33.
STATES, EMBEDDINGS, LOGITS, MATCHING, TEXT_LOGITS = 3e-5, 1e-5, 1e-4, 2e-5, 2e-4
LOSS, GRADIENT = 5e-6, 2e-4
LAVIS_EPSILON = 1e-5
"""Of `ln_vision`; transformers' class has the ViT's own 1e-6 there."""
EVALUATION_TOKENS = 35
"""LAVIS cuts texts here where it evaluates retrieval."""


@dataclass(frozen=True)
class Reference:
    """What LAVIS was given and what it computed."""

    inputs: dict[str, Any]
    expected: dict[str, Any]
    given: dict[str, Tensor]
    tensors: dict[str, Tensor]

    def tensor(self, name: str) -> Tensor:
        return self.tensors[name]


@pytest.fixture(scope="module")
def reference(stage1: Path) -> Reference:
    return Reference(
        json.loads((stage1 / "inputs.json").read_text()),
        json.loads((stage1 / "expected.json").read_text()),
        load_file(stage1 / "inputs.safetensors"),
        load_file(stage1 / "expected.safetensors"),
    )


@pytest.fixture(scope="module")
def retrieval_checkpoint(stage1: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The fixture as a retrieval checkpoint lies on the hub."""
    folder = tmp_path_factory.mktemp("lavis") / "retrieval"
    folder.mkdir()
    for file in (stage1 / "hf").iterdir():
        (folder / file.name).symlink_to(file.resolve())
    _processor(stage1).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def aligned(
    stage1: Path, retrieval_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory
) -> AlignmentModel:
    """The fixture as a base model whose alignment starts from a retrieval checkpoint.

    The two things that the checkpoint's class has no place for are set from LAVIS' own file, and
    `ln_vision` gets LAVIS' epsilon.
    """
    base = tmp_path_factory.mktemp("lavis") / "base"
    _write_base(stage1, base)
    recipe = parse_recipe(
        {
            "name": "lavis",
            "model": {"id": str(base)},
            "data": {"max_text_tokens": 16},  # the decoder is a stand-in of 64 positions
            "objectives": {"itc": 1, "itm": 1, "itg": 1, "text_branch": str(retrieval_checkpoint)},
            "run": {"threads": 1},
        }
    )
    loaded = base_model(recipe, base_of(recipe))
    loaded.model.vision_model.post_layernorm.eps = LAVIS_EPSILON
    branch = new_branch(recipe, loaded)
    assert branch is not None
    stored = load_file(stage1 / "lavis.safetensors")
    heads = branch.heads
    lost = {
        "dense.weight": "transform.dense.weight",
        "dense.bias": "transform.dense.bias",
        "layer_norm.weight": "transform.LayerNorm.weight",
        "layer_norm.bias": "transform.LayerNorm.bias",
        "bias": "bias",
    }
    assert heads.lm_head is not None
    heads.lm_head.load_state_dict(
        {name: stored[f"Qformer.cls.predictions.{theirs}"] for name, theirs in lost.items()}
    )
    heads.temperature.data = stored["temp"]
    return AlignmentModel(loaded, branch)


def _processor(folder: Path) -> Blip2Processor:
    tokenizer = AutoTokenizer.from_pretrained(folder / "tokenizer")
    tokenizer.add_tokens(["<image>"], special_tokens=True)
    size = {"height": 32, "width": 32}
    return Blip2Processor(BlipImageProcessor(size=size), tokenizer, num_query_tokens=8)


def _write_base(folder: Path, out: Path) -> None:
    """The ViT, the queries and the Q-Former of the fixture as a model that generates.

    Dropout is 0 instead of 0.1: the reference has it off, training has it on.
    """
    config = AutoConfig.from_pretrained(folder / "hf")
    config.qformer_config.use_qformer_text_input = False
    config.qformer_config.hidden_dropout_prob = 0.0
    config.qformer_config.attention_probs_dropout_prob = 0.0
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = Blip2ForConditionalGeneration(config)
    stored = load_file(folder / "hf" / "model.safetensors")
    own = model.state_dict()
    shared = {name: tensor for name, tensor in stored.items() if name in own}
    left = [name for name in own if name not in shared]
    assert all(name.startswith(("language_model.", "language_projection.")) for name in left)
    model.load_state_dict({**own, **shared})
    model.save_pretrained(out)
    _processor(folder).save_pretrained(out)


@dataclass(frozen=True)
class Batch:
    """One of the two batches, as `AlignmentCollator` lays it out."""

    name: str
    reference: Reference
    aligned: AlignmentModel

    @property
    def images(self) -> tuple[Tensor, list[int], list[int]]:
        """Pixels of the different images, their ids, and each text's image."""
        if self.name == "plain":
            rows = list(range(6))
            return self.reference.given["pixel_values"], rows, rows
        ids = self.reference.inputs["image_id"]
        different = list(dict.fromkeys(ids))
        pixels = self.reference.given["pixel_values_image_id"]
        first = [ids.index(number) for number in different]
        return pixels[first], different, [different.index(number) for number in ids]

    def losses(self) -> dict[str, LossSum]:
        """Through the objective that training calls."""
        pixels, numbers, pairs = self.images
        ids, mask = self.aligned.encode(self.reference.inputs["texts"])
        objective = AlignmentObjective(
            self.aligned.loaded.model,
            self.aligned.branch.heads,
            weights={"itc": 1.0, "itm": 1.0, "itg": 1.0},
            seed=0,
        ).train()
        nothing = torch.zeros(len(ids), 1, dtype=torch.long)  # no language loss is asked for
        found = objective(
            pixel_values=pixels,
            image_index=torch.tensor(pairs),
            input_ids=nothing,
            attention_mask=nothing,
            labels=nothing,
            image_ids=torch.tensor(numbers),
            pair_images=torch.tensor(pairs),
            text_ids=ids,
            text_mask=mask,
        )
        return found["losses"]

    def tensor(self, name: str) -> Tensor:
        return self.reference.tensor(f"{self.name}.{name}")

    @property
    def numbers(self) -> dict[str, Any]:
        return self.reference.expected[self.name]


@dataclass
class Draws:
    """Hands out LAVIS' negatives in place of draws, and keeps what was to be drawn from."""

    texts: list[int]
    images: list[int]
    logits: list[Tensor]
    matches: list[Tensor]

    def __call__(self, logits: Tensor, matches: Tensor, _uniform: Tensor) -> tuple[Tensor, Tensor]:
        drawn = self.images if self.logits else self.texts  # texts for images are drawn first
        self.logits.append(logits.detach())
        self.matches.append(matches)
        return torch.tensor(drawn), torch.ones(len(drawn), dtype=torch.bool)


@pytest.fixture(params=BATCHES)
def batch(request: pytest.FixtureRequest, reference: Reference, aligned: AlignmentModel) -> Batch:
    return Batch(request.param, reference, aligned)


@pytest.fixture
def lavis_draws(monkeypatch: pytest.MonkeyPatch, reference: Reference) -> Callable[[str], Draws]:
    def put(batch: str) -> Draws:
        found = reference.expected[batch]
        draws = Draws(found["negative_texts"], found["negative_images"], [], [])
        monkeypatch.setattr(losses_module, "hard_negatives", draws)
        return draws

    return put


def close(found: Tensor, expected: Tensor, tolerance: float) -> None:
    torch.testing.assert_close(found, expected, rtol=0, atol=tolerance)


@torch.no_grad()
def test_texts_are_lavis_tokens(reference: Reference, aligned: AlignmentModel) -> None:
    ids, mask = aligned.encode(reference.inputs["texts"])
    width = ids.shape[1]
    assert width == MAX_TOKENS  # the third text is cut
    assert torch.equal(mask, reference.given["text_mask"])
    assert torch.equal(ids, reference.given["input_ids"])


@torch.no_grad()
def test_image_features_with_either_epsilon(reference: Reference, aligned: AlignmentModel) -> None:
    model, pixels = aligned.loaded.model, reference.given["pixel_values"]
    expected = reference.tensor("image_features")
    close(encode_vision(model, pixels), expected, STATES)
    norm = model.vision_model.post_layernorm
    norm.eps = aligned.loaded.base.config.vision_config.layer_norm_eps
    try:
        assert norm.eps == 1e-6
        # The README's bound of what the other epsilon moves.
        close(encode_vision(model, pixels), expected, 2e-4)
    finally:
        norm.eps = LAVIS_EPSILON


@torch.no_grad()
def test_states_and_embeddings(reference: Reference, aligned: AlignmentModel) -> None:
    pixels = reference.given["pixel_values"]
    states = query_states(aligned.loaded.model, aligned.features(pixels))
    close(states, reference.tensor("query_states"), STATES)
    close(aligned.image_vectors(pixels), reference.tensor("image_embeddings"), EMBEDDINGS)
    ids, mask = aligned.encode(reference.inputs["texts"])
    model, heads = aligned.loaded.model, aligned.branch.heads
    texts = text_states(model, heads, input_ids=ids, text_mask=mask)
    close(texts[:, 0], reference.tensor("text_states_cls"), STATES)
    vectors = aligned.text_vectors(reference.inputs["texts"])
    close(vectors, reference.tensor("text_embeddings"), EMBEDDINGS)


def test_a_retrieval_checkpoint_embeds_as_it_is(
    reference: Reference, retrieval_checkpoint: Path
) -> None:
    # The decoder that its configuration names, a stand-in, has 64 positions.
    model = load_alignment_model(retrieval_checkpoint, ["data.max_text_tokens=16"])
    model.loaded.model.vision_model.post_layernorm.eps = LAVIS_EPSILON
    images = model.image_vectors(reference.given["pixel_values"])
    close(images, reference.tensor("image_embeddings"), EMBEDDINGS)
    texts = model.text_vectors(reference.inputs["texts"])
    close(texts, reference.tensor("text_embeddings"), EMBEDDINGS)


@torch.no_grad()
def test_states_of_queries_that_see_the_text(reference: Reference, aligned: AlignmentModel) -> None:
    rows = reference.expected["multimodal_rows"]
    ids, mask = aligned.encode([reference.inputs["texts"][row] for row in rows])
    states = joint_states(
        aligned.loaded.model,
        aligned.branch.heads,
        features=aligned.features(reference.given["pixel_values"][rows]),
        input_ids=ids,
        text_mask=mask,
        kind="bidirectional",
    )
    expected = reference.tensor("multimodal_query_states")
    close(states[:, : expected.shape[1]], expected, STATES)


def test_contrast(batch: Batch, lavis_draws: Callable[[str], Draws]) -> None:
    draws = lavis_draws(batch.name)
    loss = batch.losses()["itc"]
    close(draws.logits[0], batch.tensor("i2t_logits"), LOGITS)
    close(draws.logits[1], batch.tensor("t2i_logits"), LOGITS)
    mean = float(loss.total.detach() / loss.count)
    assert mean == pytest.approx(batch.numbers["itc_loss"], abs=LOSS)


def test_negatives_are_drawn_from_lavis_weights(
    batch: Batch, lavis_draws: Callable[[str], Draws]
) -> None:
    draws = lavis_draws(batch.name)
    batch.losses()
    points = 20_000
    uniform = (torch.arange(points, dtype=torch.float64) + 0.5) / points
    for logits, matches, name in zip(
        draws.logits,
        draws.matches,
        ("negative_text_weights", "negative_image_weights"),
        strict=True,
    ):
        weights = batch.tensor(name).double()
        for row in range(len(logits)):
            drawn, _ = hard_negatives(
                logits[row].expand(points, -1), matches[row].expand(points, -1), uniform
            )
            share = torch.bincount(drawn, minlength=len(weights)) / points
            # A grid tells a share to one point; cosines over temperature move it by LOGITS.
            close(share.double(), weights[row] / weights[row].sum(), 2 / points + LOGITS)


def test_matching(batch: Batch, lavis_draws: Callable[[str], Draws]) -> None:
    lavis_draws(batch.name)
    loss = batch.losses()["itm"]
    mean = float(loss.total.detach() / loss.count)
    assert mean == pytest.approx(batch.numbers["itm_loss"], abs=LOSS)


@torch.no_grad()
def test_matching_logits(batch: Batch) -> None:
    pixels, _, pairs = batch.images
    ids, mask = batch.aligned.encode(batch.reference.inputs["texts"])
    rows = torch.arange(len(ids))
    wrong_images = torch.tensor(batch.numbers["negative_images"])
    wrong_texts = torch.tensor(batch.numbers["negative_texts"])
    images = torch.tensor(pairs)[torch.cat([rows, wrong_images, rows])]
    texts = torch.cat([rows, rows, wrong_texts])
    found = matching_logits(
        batch.aligned.loaded.model,
        batch.aligned.branch.heads,
        features=batch.aligned.features(pixels)[images],
        input_ids=ids[texts],
        text_mask=mask[texts],
    )
    close(found, batch.tensor("itm_logits"), MATCHING)


def test_text_generation(batch: Batch, lavis_draws: Callable[[str], Draws]) -> None:
    lavis_draws(batch.name)
    loss = batch.losses()["itg"]
    assert int(loss.count) == batch.numbers["itg_tokens"]
    mean = float(loss.total.detach() / loss.count)
    assert mean == pytest.approx(batch.numbers["itg_loss"], abs=LOSS)


@torch.no_grad()
def test_text_generation_token_by_token(batch: Batch) -> None:
    pixels, _, pairs = batch.images
    ids, mask = batch.aligned.encode(batch.reference.inputs["texts"])
    logits = generation_logits(
        batch.aligned.loaded.model,
        batch.aligned.branch.heads,
        features=batch.aligned.features(pixels)[torch.tensor(pairs)],
        input_ids=ids,
        text_mask=mask,
    )
    predicted = mask[:, 1:].bool()
    asked, targets = logits[:, :-1][predicted], ids[:, 1:][predicted]
    assert targets.tolist() == batch.numbers["itg_targets"]
    if batch.name == "plain":
        close(asked, batch.tensor("itg_logits"), TEXT_LOGITS)
    token_losses = torch.nn.functional.cross_entropy(
        asked, targets, reduction="none", label_smoothing=LABEL_SMOOTHING
    )
    close(token_losses, batch.tensor("itg_token_losses"), TEXT_LOGITS)


def test_text_generation_starts_with_lavis_token(
    reference: Reference, aligned: AlignmentModel
) -> None:
    start = reference.expected["dec_id"]
    assert aligned.branch.heads.generation_start_id == start
    tokenizer = copy.deepcopy(aligned.branch.tokenizer)
    tokenizer.bos_token = None  # where the word is there, but nothing says what it is for
    assert generation_start(tokenizer) == start


NAMES = {
    "temp": "temperature",
    "vision_proj": "vision_projection",
    "text_proj": "text_projection",
    "Qformer.cls.predictions.transform.dense": "lm_head.dense",
    "Qformer.bert.embeddings.LayerNorm": "qformer.layernorm",
    "Qformer.bert.embeddings": "embeddings",
    "Qformer.bert.encoder": "qformer.encoder",
    "attention.self": "attention.attention",
}


def our_name(theirs: str) -> str:
    """A weight of the reference as the model or the heads call it."""
    name = theirs
    for one, other in NAMES.items():
        name = name.replace(one, other)
    if ".output.dense" in name and "attention" not in name:
        name = name.replace("qformer.encoder.layer", "text_layers")
    return name


def gradients(loss: LossSum, aligned: AlignmentModel) -> dict[str, Tensor]:
    modules = (aligned.loaded.model, aligned.branch.heads)
    for module in modules:
        module.zero_grad()
    (loss.total / loss.count).backward()
    return {
        name: parameter.grad.clone()
        for module in modules
        for name, parameter in module.named_parameters()
        if parameter.grad is not None
    }


def compare(found: Mapping[str, Tensor], reference: Reference, kind: str) -> None:
    prefix = f"gradients.{kind}."
    expected = {
        name.removeprefix(prefix): tensor
        for name, tensor in reference.tensors.items()
        if name.startswith(prefix)
    }
    assert len(expected) == len(reference.expected["gradient_norms"][kind]) >= 6
    for name, gradient in expected.items():
        close(found[our_name(name)], gradient, GRADIENT)


@pytest.fixture
def plain(reference: Reference, aligned: AlignmentModel) -> Batch:
    return Batch("plain", reference, aligned)


@pytest.mark.parametrize("objective", ["itm", "itg"])
def test_gradients_of_matching_and_generation(
    plain: Batch, lavis_draws: Callable[[str], Draws], objective: str
) -> None:
    lavis_draws("plain")
    found = gradients(plain.losses()[objective], plain.aligned)
    compare(found, plain.reference, objective)


def test_gradients_of_contrast_are_those_of_its_loss(
    plain: Batch, lavis_draws: Callable[[str], Draws]
) -> None:
    """Both sides of a similarity learn here, whichever process they come from."""
    lavis_draws("plain")
    found = gradients(plain.losses()["itc"], plain.aligned)
    compare(found, plain.reference, "itc_gathered_side_attached")


def test_gradients_of_contrast_are_lavis_where_the_gathered_side_has_none(
    plain: Batch, lavis_draws: Callable[[str], Draws], monkeypatch: pytest.MonkeyPatch
) -> None:
    """LAVIS gathers with torch's own all_gather, which no gradient passes: each pair of a text and
    an image teaches one of them. That this is the whole difference is what is shown."""
    lavis_draws("plain")
    monkeypatch.setattr(losses_module, "gathered", lambda rows, _counts: rows.detach())
    found = gradients(plain.losses()["itc"], plain.aligned)
    compare(found, plain.reference, "itc")


def cut_at(aligned: AlignmentModel, tokens: int) -> AlignmentModel:
    """The same heads with texts of this length."""
    return replace(aligned, branch=replace(aligned.branch, max_text_tokens=tokens))


@torch.no_grad()
def ranked(aligned: AlignmentModel, reference: Reference) -> dict[str, Tensor]:
    """Cosines, matching of every pair, candidates and scores after re-ranking, both ways."""
    pixels, texts = reference.given["pixel_values"], reference.inputs["rerank_texts"]
    vectors = aligned.text_vectors(texts)
    cosines = similarity(aligned.image_vectors(pixels), vectors)
    ids, mask = aligned.encode(texts)
    pairs = torch.cartesian_prod(torch.arange(len(pixels)), torch.arange(len(texts)))
    matching = matching_scores(
        aligned.loaded.model,
        aligned.branch.heads,
        features=aligned.features(pixels)[pairs[:, 0]],
        input_ids=ids[pairs[:, 1]],
        text_mask=mask[pairs[:, 1]],
    ).reshape(cosines.shape)
    top = reference.expected["rerank"]["k"]
    for_images, for_texts = best_candidates(cosines, top), best_candidates(cosines.T, top)
    return {
        "text_embeddings": vectors,
        "cosines": cosines,
        "itm_all_pairs": matching,
        "candidates_i2t": for_images,
        "candidates_t2i": for_texts,
        "i2t_scores": reranked(cosines, for_images, matching),
        "t2i_scores": reranked(cosines.T, for_texts, matching.T),
    }


def test_reranking(reference: Reference, aligned: AlignmentModel) -> None:
    found = ranked(cut_at(aligned, EVALUATION_TOKENS), reference)
    for name, tolerance in (
        ("text_embeddings", EMBEDDINGS),
        ("cosines", EMBEDDINGS),
        ("itm_all_pairs", MATCHING),
    ):
        close(found[name], reference.tensor(f"rerank.{name}"), tolerance)
    for way in ("i2t", "t2i"):
        candidates = found[f"candidates_{way}"]
        listed = [sorted(row) for row in candidates.tolist()]
        assert listed == reference.expected["rerank"][f"candidates_{way}"]
        scores, theirs = found[f"{way}_scores"], reference.tensor(f"rerank.{way}_scores")
        ours = scores.gather(1, candidates)
        close(ours, theirs.gather(1, candidates), MATCHING)
        # LAVIS gives all others -100, whose order is chance; here they follow by cosine.
        rest = theirs == -100
        assert int(rest.sum()) == scores.numel() - candidates.numel()
        for row in range(len(scores)):
            assert scores[row][rest[row]].max() < ours[row].min()


def test_retrieval_reads_the_tokens_that_training_read(
    reference: Reference, aligned: AlignmentModel
) -> None:
    """LAVIS trains on 32 tokens and evaluates on 35: of the nine texts the two that are longer than
    32 have other vectors there, the others the same."""
    found = ranked(aligned, reference)["text_embeddings"]
    moved = (found - reference.tensor("rerank.text_embeddings")).abs().amax(dim=1)
    lengths = reference.given["rerank.text_mask"].sum(dim=1)
    assert ((moved > 0.02) == (lengths > MAX_TOKENS)).all()
    assert int((lengths > MAX_TOKENS).sum()) == 2
    assert moved[lengths <= MAX_TOKENS].max() < EMBEDDINGS
