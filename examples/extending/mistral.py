"""A language decoder: Mistral behind BLIP-2's Q-Former."""

from qvft.models.decoders import Decoder

DECODER = Decoder(
    "mistral",
    layers="language_model.model.layers",
    lora_targets=(
        "q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj",
    ),
    title="Mistral decoder",
)  # fmt: skip
