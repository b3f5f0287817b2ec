"""A language decoder: StarCoder2 behind BLIP-2's Q-Former."""

from qvft.models.decoders import Decoder

DECODER = Decoder(
    "starcoder2",
    layers="language_model.model.layers",
    title="StarCoder2 decoder",
)
