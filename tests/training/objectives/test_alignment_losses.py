"""Contrast, matching and text generation: values by arithmetic, negatives, processes."""

from __future__ import annotations

import math
import sys
from pathlib import Path

import programs
import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.nn.parallel import DistributedDataParallel
from transformers import Blip2ForConditionalGeneration

from qvft.models.alignment.heads import PARTS, AlignmentHeads
from qvft.models.alignment.initial_weights import fresh_heads
from qvft.models.alignment.pairs import Pairs, matching_pairs
from qvft.models.alignment.qformer_states import (
    generation_logits,
    image_embeddings,
    matching_logits,
    text_embeddings,
)
from qvft.models.blip2 import query_states
from qvft.training.objectives.alignment_losses import (
    LossSum,
    alignment_losses,
    combined_loss,
    contrastive_loss,
    hard_negatives,
    item_counts,
)
from tools.tiny_blip2.geometry import IMAGE_SIZE_PX, PAD_ID, VOCABULARY_SIZE, init_tiny

OBJECTIVES = ("itc", "itm", "itg")
SMOOTHING = 0.1


def built() -> tuple[Blip2ForConditionalGeneration, AlignmentHeads]:
    """The bundled geometry with fresh weights in float64, without dropout."""
    model = init_tiny(0).eval()
    heads = fresh_heads(
        model, vocab_size=VOCABULARY_SIZE, pad_id=PAD_ID, positions=20, seed=1, text_generation=True
    )
    return model.double(), heads.double()


def batch() -> tuple[Tensor, Pairs]:
    """Four images, six texts of unequal length; the last two images have two texts each."""
    generator = torch.Generator().manual_seed(2)
    pixels = torch.randn(4, 3, IMAGE_SIZE_PX, IMAGE_SIZE_PX, generator=generator).double()
    lengths = torch.tensor([3, 7, 4, 5, 3, 6])
    ids = torch.randint(4, 1000, (6, 7), generator=generator)
    mask = (torch.arange(7) < lengths[:, None]).long()
    return pixels, Pairs(
        image_ids=torch.tensor([11, 5, 8, 2]),
        image_index=torch.tensor([0, 1, 2, 2, 3, 3]),
        input_ids=ids.masked_fill(mask == 0, PAD_ID),
        text_mask=mask,
    )


def part(pixels: Tensor, pairs: Pairs, images: slice, texts: slice) -> tuple[Tensor, Pairs]:
    """Some images with their texts, cut to their longest text as a process's own batch is."""
    mask = pairs.text_mask[texts]
    width = max([1, *mask.sum(dim=1).tolist()])
    return pixels[images], Pairs(
        image_ids=pairs.image_ids[images],
        image_index=pairs.image_index[texts] - images.start,
        input_ids=pairs.input_ids[texts, :width],
        text_mask=mask[:, :width],
    )


def losses_of(
    model: Blip2ForConditionalGeneration, heads: AlignmentHeads, pixels: Tensor, pairs: Pairs
) -> dict[str, LossSum]:
    features = model.vision_model(pixel_values=pixels).last_hidden_state
    return alignment_losses(
        model,
        heads,
        pairs,
        features=features,
        states=query_states(model, features),
        objectives=OBJECTIVES,
        seed=3,
    )


def gradients(model: torch.nn.Module, heads: torch.nn.Module) -> dict[str, Tensor]:
    named = [*model.named_parameters(), *heads.named_parameters(prefix="heads")]
    return {name: p.grad.clone() for name, p in named if p.grad is not None}


@pytest.fixture(scope="module")
def model_and_heads() -> tuple[Blip2ForConditionalGeneration, AlignmentHeads]:
    return built()


@pytest.fixture(scope="module")
def whole(model_and_heads) -> tuple[dict[str, LossSum], dict[str, Tensor]]:
    """Losses of the whole batch in one process, and the gradients of their means' sum."""
    model, heads = model_and_heads
    pixels, pairs = batch()
    losses = losses_of(model, heads, pixels, pairs)
    counts = item_counts(pairs, OBJECTIVES)
    combined_loss(losses, dict.fromkeys(OBJECTIVES, 1.0), counts).backward()
    found = gradients(model, heads)
    model.zero_grad(), heads.zero_grad()
    return {name: LossSum(x.total.detach(), x.count) for name, x in losses.items()}, found


def test_one_match_is_the_ordinary_smoothed_cross_entropy() -> None:
    logits = torch.tensor([[2.0, -1.0, 0.5], [0.0, 3.0, 1.0]])
    matches = torch.tensor([[True, False, False], [False, True, False]])
    expected = cross_entropy(
        logits, torch.tensor([0, 1]), label_smoothing=SMOOTHING, reduction="sum"
    )
    torch.testing.assert_close(contrastive_loss(logits, matches), expected)


def test_targets_are_spread_evenly_over_the_matches() -> None:
    logits = torch.tensor([[2.0, -1.0, 0.0]])
    matches = torch.tensor([[True, True, False]])
    log_z = math.log(math.exp(2) + math.exp(-1) + 1)
    # Targets 0.9 / 2 + 0.1 / 3 twice, 0.1 / 3 once.
    expected = (0.45 + SMOOTHING / 3) * (2 * log_z - 1.0) + SMOOTHING / 3 * log_z
    assert float(contrastive_loss(logits, matches)) == pytest.approx(expected, rel=1e-6)


def test_texts_of_one_image_and_equal_texts_belong_to_each_other() -> None:
    _, pairs = batch()
    ids, mask = pairs.input_ids.clone(), pairs.text_mask
    ids[4, :3] = ids[0, :3]  # both are 3 tokens long; pads differ
    ids[4, 3:] = 999
    expected = torch.eye(6, dtype=torch.bool)
    for one, other in ((2, 3), (4, 5), (0, 4)):
        expected[one, other] = expected[other, one] = True
    found = matching_pairs(Pairs(pairs.image_ids, pairs.image_index, ids, mask))
    assert torch.equal(found, expected)


def test_one_image_loaded_twice_is_one_image() -> None:
    pairs = Pairs(
        image_ids=torch.tensor([7, 7]),
        image_index=torch.tensor([0, 1]),
        input_ids=torch.tensor([[1, 2], [1, 3]]),
        text_mask=torch.ones(2, 2, dtype=torch.long),
    )
    assert matching_pairs(pairs).all()


def test_negatives_follow_the_softmax_and_never_match() -> None:
    draws = 4000
    logits = torch.tensor([1.0, 0.0, 2.0, -1.0]).expand(draws, 4)
    matches = torch.tensor([False, False, True, False]).expand(draws, 4)
    uniform = torch.rand(draws, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    drawn, found = hard_negatives(logits, matches, uniform)
    assert found.all()
    shares = torch.bincount(drawn, minlength=4) / draws
    weights = torch.tensor([math.e, 1.0, 0.0, 1 / math.e])
    assert shares[2] == 0
    # Standard error of a share of 4,000 draws is at most 0.008; four of them.
    torch.testing.assert_close(shares, weights / weights.sum(), rtol=0, atol=0.032)


@pytest.mark.parametrize(("uniform", "drawn"), [(0.0, 1), (0.4999, 1), (0.5, 3), (1 - 1e-16, 3)])
def test_a_draw_lands_where_the_cumulative_weight_says(uniform: float, drawn: int) -> None:
    logits = torch.zeros(1, 5)
    matches = torch.tensor([[True, False, True, False, True]])
    found, _ = hard_negatives(logits, matches, torch.tensor([uniform], dtype=torch.float64))
    assert found.tolist() == [drawn]


def test_a_match_far_above_all_candidates_is_not_drawn() -> None:
    """Cosines of 1 and -1 at the least temperature: a plain softmax gives the rest weight 0."""
    logits = torch.tensor([[1000.0, -1000.0, 1000.0, -1000.0]])
    matches = torch.tensor([[True, False, True, False]])
    drawn = [
        int(hard_negatives(logits, matches, torch.tensor([uniform]))[0]) for uniform in (0.2, 0.8)
    ]
    assert drawn == [1, 3]


def test_a_row_that_everything_matches_has_no_negative() -> None:
    matches = torch.tensor([[True, True], [True, False]])
    drawn, found = hard_negatives(torch.zeros(2, 2), matches, torch.zeros(2))
    assert found.tolist() == [False, True] and drawn[1] == 1


def test_counts_are_known_before_the_forward_pass(whole) -> None:
    losses, _ = whole
    _, pairs = batch()
    counts = item_counts(pairs, OBJECTIVES)
    # Six texts of 3 + 7 + 4 + 5 + 3 + 6 tokens, of which the first of each is not predicted.
    assert counts == {"itc": 6, "itm": 6, "itg": 22}
    assert {name: int(loss.count) for name, loss in losses.items()} == counts


def test_losses_start_near_a_blind_guess(whole) -> None:
    losses, _ = whole
    means = {name: float(loss.total / loss.count) for name, loss in losses.items()}
    # Fresh weights say little: one class of two, and about one word of all.
    assert means["itm"] == pytest.approx(math.log(2), abs=0.3)
    assert means["itg"] == pytest.approx(math.log(VOCABULARY_SIZE), abs=1.0)


@torch.no_grad()
def test_contrast_is_the_mean_of_both_directions_over_temperature(model_and_heads, whole) -> None:
    model, heads = model_and_heads
    pixels, pairs = batch()
    states = query_states(model, model.vision_model(pixel_values=pixels).last_hidden_state)
    images = image_embeddings(heads, states)
    texts = text_embeddings(model, heads, input_ids=pairs.input_ids, text_mask=pairs.text_mask)
    whose = pairs.image_index.tolist()
    total = 0.0
    for pair, image in enumerate(whose):
        matched = [1 / whose.count(image) if other == image else 0.0 for other in whose]
        targets = torch.tensor([0.9 * share + 0.1 / 6 for share in matched])
        of_image = torch.stack([(images[image] @ text).max() for text in texts])
        of_text = torch.stack([(images[other] @ texts[pair]).max() for other in whose])
        for cosines in (of_image, of_text):
            total -= float((targets * (cosines / 0.07).log_softmax(dim=0)).sum()) / 2
    # float32 cosines over 0.07.
    assert float(whole[0]["itc"].total) == pytest.approx(total, rel=1e-5)


def test_images_given_once_or_once_a_text_are_the_same(model_and_heads, whole) -> None:
    pixels, pairs = batch()
    repeated = Pairs(
        image_ids=pairs.image_ids[pairs.image_index],
        image_index=torch.arange(6),
        input_ids=pairs.input_ids,
        text_mask=pairs.text_mask,
    )
    with torch.no_grad():
        found = losses_of(*model_and_heads, pixels[pairs.image_index], repeated)
    for name, loss in whole[0].items():
        # Embeddings are normalised in float32, 6e-8, and divided by a temperature of 0.07.
        torch.testing.assert_close(found[name].total, loss.total, rtol=1e-5, atol=0, msg=name)


def test_padding_changes_nothing(model_and_heads, whole) -> None:
    pixels, pairs = batch()
    wider = Pairs(
        pairs.image_ids,
        pairs.image_index,
        torch.nn.functional.pad(pairs.input_ids, (0, 5), value=500),
        torch.nn.functional.pad(pairs.text_mask, (0, 5)),
    )
    with torch.no_grad():
        found = losses_of(*model_and_heads, pixels, wider)
    for name, loss in whole[0].items():
        torch.testing.assert_close(found[name].total, loss.total, rtol=1e-5, atol=0, msg=name)


def test_text_generation_is_the_smoothed_next_token_loss(model_and_heads, whole) -> None:
    model, heads = model_and_heads
    pixels, pairs = batch()
    with torch.no_grad():
        logits = generation_logits(
            model,
            heads,
            features=model.vision_model(pixel_values=pixels).last_hidden_state[pairs.image_index],
            input_ids=pairs.input_ids,
            text_mask=pairs.text_mask,
        )
    labels = pairs.input_ids.masked_fill(pairs.text_mask == 0, -100)
    expected = cross_entropy(
        logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten(), label_smoothing=SMOOTHING
    )
    found = whole[0]["itg"]
    # Ours is summed in float32: 7 digits.
    torch.testing.assert_close((found.total / found.count).double(), expected, rtol=1e-6, atol=0)


def test_matching_alone_trains_no_projection_and_no_temperature(model_and_heads, whole) -> None:
    model, heads = model_and_heads
    pixels, pairs = batch()
    features = model.vision_model(pixel_values=pixels).last_hidden_state
    found = alignment_losses(
        model,
        heads,
        pairs,
        features=features,
        states=query_states(model, features),
        objectives=["itm"],
        seed=3,
    )
    assert list(found) == ["itm"]
    torch.testing.assert_close(found["itm"].total.detach(), whole[0]["itm"].total)
    found["itm"].total.backward()
    reached = {name.partition(".")[0] for name, p in heads.named_parameters() if p.grad is not None}
    heads.zero_grad(), model.zero_grad()
    assert reached == set(PARTS["itm"])


@torch.no_grad()
def test_with_one_image_matching_has_its_own_texts_alone(model_and_heads) -> None:
    model, heads = model_and_heads
    pixels, pairs = part(*batch(), slice(2, 3), slice(2, 4))
    features = model.vision_model(pixel_values=pixels).last_hidden_state[pairs.image_index]
    logits = matching_logits(
        model, heads, features=features, input_ids=pairs.input_ids, text_mask=pairs.text_mask
    )
    found = losses_of(model, heads, pixels, pairs)["itm"]
    expected = -logits.log_softmax(dim=1)[:, 1].sum()
    torch.testing.assert_close(found.total, expected)
    assert int(found.count) == 2


def test_every_weight_that_an_objective_trains_has_a_gradient(model_and_heads, whole) -> None:
    _, found = whole
    silent = [name for name, gradient in found.items() if not gradient.any()]
    _, heads = model_and_heads
    assert {f"heads.{name}" for name, _ in heads.named_parameters()} <= set(found)
    # Attention's softmax does not move with the bias of its keys; rounding may still show there.
    assert not [name for name in silent if not name.endswith("key.bias")]


def test_a_step_on_contrast_and_matching_lowers_them() -> None:
    model, heads = built()
    pixels, pairs = batch()
    trained = [*model.qformer.parameters(), *heads.parameters(), model.query_tokens]
    optimizer = torch.optim.AdamW(trained, lr=2e-3)
    history = []
    for _ in range(8):
        losses = losses_of(model, heads, pixels, pairs)
        counts = item_counts(pairs, OBJECTIVES)
        loss = combined_loss(losses, {"itc": 1.0, "itm": 1.0, "itg": 0.1}, counts)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        history.append({name: float(x.total.detach() / x.count) for name, x in losses.items()})
    assert all(history[-1][name] < 0.9 * history[0][name] for name in ("itc", "itm"))


def test_the_combined_loss_weighs_means() -> None:
    losses = {
        "itc": LossSum(torch.tensor(6.0), torch.tensor(2)),
        "itm": LossSum(torch.tensor(1.0), torch.tensor(2)),
    }
    found = combined_loss(losses, {"itc": 0.5, "itm": 2.0}, {"itc": 4, "itm": 8})
    assert float(found) == 0.5 * 6.0 / 4 + 2.0 * 1.0 / 8


class Alignment(nn.Module):
    """All losses in one forward pass, as DDP needs it; what they do not reach is frozen."""

    def __init__(self) -> None:
        super().__init__()
        self.model, self.heads = built()
        for idle in (self.model.language_model, self.model.language_projection):
            idle.requires_grad_(False)

    def forward(self, pixels: Tensor, pairs: Pairs) -> dict[str, LossSum]:
        return losses_of(self.model, self.heads, pixels, pairs)


# Images and texts of each of two processes. First: unequal numbers, texts of unequal length.
# Second: one has an image without a text, which the other has as well.
CASES = {
    "unequal": [(slice(0, 1), slice(0, 1)), (slice(1, 4), slice(1, 6))],
    "no texts": [(slice(0, 1), slice(0, 0)), (slice(0, 4), slice(0, 6))],
}


def one_of_two(folder: Path) -> None:
    """Runs one process's part of each case under DDP; saves its sums, counts and gradients."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    rank = dist.get_rank()
    objective = DistributedDataParallel(Alignment())
    whole_pixels, whole_pairs = batch()
    found = {}
    for case, parts in CASES.items():
        pixels, pairs = part(whole_pixels, whole_pairs, *parts[rank])
        losses = objective(pixels, pairs)
        counts = item_counts(whole_pairs, OBJECTIVES)
        # DDP takes the mean over processes of what is to be summed.
        (2 * combined_loss(losses, dict.fromkeys(OBJECTIVES, 1.0), counts)).backward()
        inner = objective.module
        found[case] = {
            "sums": {name: (float(x.total.detach()), int(x.count)) for name, x in losses.items()},
            "gradients": gradients(inner.model, inner.heads),
        }
        objective.zero_grad()
    torch.save(found, folder / f"{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> list[dict]:
    folder = tmp_path_factory.mktemp("two")
    script = folder / "script.py"
    script.write_text(
        f"import pathlib, runpy, sys\nsys.path = {sys.path!r}\n"
        f"module = runpy.run_path({__file__!r})\n"
        f"module['one_of_two'](pathlib.Path({str(folder)!r}))\n"
    )
    done = programs.run_two([str(script)])
    assert done.returncode == 0, done.stderr
    return [torch.load(folder / f"{rank}.pt") for rank in range(2)]


@pytest.mark.parametrize("case", CASES)
def test_two_processes_add_up_to_the_losses_of_one(whole, two, case: str) -> None:
    for name, loss in whole[0].items():
        sums, counts = zip(*[process[case]["sums"][name] for process in two], strict=True)
        assert sum(counts) == int(loss.count), name
        # float32 sums of logits over a temperature of 0.07.
        assert sum(sums) == pytest.approx(float(loss.total), rel=1e-5), name


@pytest.mark.parametrize("case", CASES)
def test_two_processes_have_the_gradients_of_one(whole, two, case: str) -> None:
    alone = whole[1]
    for process in two:
        found = process[case]["gradients"]
        assert found.keys() == alone.keys()
        for name, gradient in alone.items():
            # Embeddings and logits pass through float32: 6e-8 of gradients up to 0.4, times a few.
            torch.testing.assert_close(found[name], gradient, rtol=0, atol=1e-6, msg=name)
