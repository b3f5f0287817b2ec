"""What is trained, in flags, in types and in counts."""

import pytest
import torch

from qvft.adapters.freeze import count_blocks, count_components, mark_trainable, total_count
from qvft.adapters.lora import add_lora, lora_targets
from qvft.adapters.targets import resolve_targets
from qvft.models.families import FAMILIES
from qvft.models.reference_configs import meta_model, reference_qvision
from tools.tiny_blip2.geometry import QUERY_TOKENS, WIDTH, init_tiny

FAMILY = FAMILIES["blip2"]
USUAL = {
    "vision": "frozen",
    "qformer": "full",
    "query_tokens": "full",
    "language_projection": "full",
    "decoder": "lora",
}
RANK = 4


def with_lora(**options: bool) -> torch.nn.Module:
    model = init_tiny(0)
    add_lora(
        model, resolve_targets(model, FAMILY, ["q_proj", "fc1"]), r=RANK, lora_alpha=8, **options
    )
    return model


def counted(model: torch.nn.Module) -> dict[str, tuple[int, int]]:
    return {row.component: (row.total, row.trainable) for row in count_components(model, FAMILY)}


def test_the_usual_recipe_trains_the_bridge_and_the_adapters() -> None:
    model = with_lora()
    mark_trainable(model, FAMILY, USUAL)
    counts = counted(model)
    assert counts["vision"][1] == counts["decoder"][1] == 0
    for component in ("qformer", "query_tokens", "language_projection", "adapters"):
        total, trained = counts[component]
        assert total == trained > 0


def test_counts_are_what_the_geometry_says() -> None:
    model = with_lora()
    mark_trainable(model, FAMILY, USUAL)
    counts = counted(model)
    blocks = model.config.text_config.num_hidden_layers
    # r x (in + out) for each target: q_proj is W x W, fc1 is W x 4W.
    assert counts["adapters"][0] == blocks * RANK * (2 * WIDTH + 5 * WIDTH)
    assert counts["query_tokens"][0] == QUERY_TOKENS * WIDTH
    assert counts["language_projection"][0] == WIDTH * WIDTH + WIDTH
    total = total_count(count_components(model, FAMILY))
    assert total.total == sum(parameter.numel() for parameter in model.parameters())
    assert total.trainable == sum(p.numel() for p in model.parameters() if p.requires_grad)


def test_doras_magnitudes_count_as_adapters() -> None:
    blocks = init_tiny(0).config.text_config.num_hidden_layers
    plain, dora = counted(with_lora()), counted(with_lora(use_dora=True))
    assert dora["adapters"][0] - plain["adapters"][0] == blocks * (WIDTH + 4 * WIDTH)


def test_trained_weights_become_float32_and_frozen_ones_keep_their_type() -> None:
    """Trap 4: a bfloat16 Q-Former loses small updates to rounding."""
    model = with_lora().to(torch.bfloat16)
    mark_trainable(model, FAMILY, USUAL)
    types = {p.dtype for p in model.parameters() if p.requires_grad}
    assert types == {torch.float32}
    assert model.vision_model.post_layernorm.weight.dtype == torch.bfloat16
    assert model.get_input_embeddings().weight.dtype == torch.bfloat16


@pytest.mark.parametrize(("decoder", "adapters"), [("frozen", 0), ("full", 0), ("lora", 1)])
def test_the_decoders_mode_decides_about_its_adapters(decoder: str, adapters: int) -> None:
    model = with_lora()
    mark_trainable(model, FAMILY, {**USUAL, "decoder": decoder})
    counts = counted(model)
    assert bool(counts["adapters"][1]) == bool(adapters)
    assert bool(counts["decoder"][1]) == (decoder == "full")


def test_marking_twice_leaves_what_the_second_says() -> None:
    model = with_lora()
    mark_trainable(model, FAMILY, {**USUAL, "vision": "full"})
    mark_trainable(model, FAMILY, USUAL)
    assert counted(model)["vision"][1] == 0


def test_lora_reports_the_layers_it_was_given() -> None:
    model = init_tiny(0)
    wanted = resolve_targets(
        model, FAMILY, ["q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2"]
    )
    handle = add_lora(model, wanted, r=RANK, lora_alpha=8)
    assert sorted(lora_targets(handle)) == sorted(wanted)


def test_blocks_with_adapters_alone_are_frozen_and_those_of_a_full_decoder_trained() -> None:
    model = with_lora()
    blocks = model.config.text_config.num_hidden_layers
    mark_trainable(model, FAMILY, USUAL)
    assert count_blocks(model, FAMILY) == (blocks, 0)
    model = init_tiny(0)
    mark_trainable(model, FAMILY, {**USUAL, "decoder": "full"})
    assert count_blocks(model, FAMILY) == (blocks, blocks)


@pytest.mark.parametrize(
    ("share", "blocks", "weights"), [(0.7, 8, 152_212_480), (0.4, 15, 240_364_544)]
)
def test_the_published_phases_train_so_many_of_24_blocks(
    share: float, blocks: int, weights: int
) -> None:
    """240.36 M is published for the second phase; the first has seven blocks less of 12,593,152."""
    config = reference_qvision("openai/clip-vit-base-patch32", "xhyi/PT_GPTNEO350_ATG")
    assert config is not None
    model, family = meta_model(config), FAMILIES["qvision"]
    modes = {"vision": "frozen", "qformer": "full", "decoder": "full"}
    mark_trainable(model, family, modes, frozen_share=share)
    assert count_blocks(model, family) == (24, blocks)
    decoder = next(row for row in count_components(model, family) if row.component == "decoder")
    assert (decoder.total, decoder.trainable) == (355_800_064, weights)
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    assert "language_model.transformer.wte.weight" in trained
    assert "language_model.transformer.wpe.weight" not in trained
    assert "language_model.transformer.ln_f.weight" in trained


def test_a_share_is_rounded_down_to_whole_blocks_of_any_decoder() -> None:
    """The bundled OPT has three blocks: 0.65 of them are one, and positions go with it."""
    model = init_tiny(0)
    mark_trainable(model, FAMILY, {**USUAL, "decoder": "full"}, frozen_share=0.65)
    assert count_blocks(model, FAMILY) == (3, 2)
    decoder = model.language_model.model.decoder
    assert not decoder.embed_positions.weight.requires_grad
    assert decoder.embed_tokens.weight.requires_grad
    assert decoder.final_layer_norm.weight.requires_grad
