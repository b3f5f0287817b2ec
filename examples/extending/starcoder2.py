"""A language decoder: StarCoder2 behind BLIP-2's Q-Former."""

from qvft.models.decoders import Decoder

DECODER = Decoder(
    "starcoder2",
    layers="language_model.model.layers",
    lora_targets=("q_proj", "k_proj", "v_proj", "o_proj", "c_fc", "c_proj"),
    title="StarCoder2 decoder",
)
