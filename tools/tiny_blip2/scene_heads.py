"""Stage one of pretraining: the vision model learns drawn scenes by place, under throw-away heads.

Legend: B batch, P patches (a square grid, without the class token), D width, C classes.
"""

import torch
from torch import Tensor, nn

from tools.tiny_blip2.drawn.scenes import COLOURS, IGNORED, NAMES, PLACES, SIZES

CENTRE = PLACES.index("centre")
CLASS_COUNTS = {"name": 1 + len(NAMES), "colour": 1 + len(COLOURS), "size": 1 + len(SIZES)}
# A name has many classes and is what the later stages build on; colour and size are learnt at once.
LOSS_WEIGHTS = {"name": 1.0, "colour": 0.4, "size": 0.2}


def pooled_places(hidden_states_bpd: Tensor) -> Tensor:
    """Return one vector a place: the mean patch of each quarter, then mean patch plus class token.

    Shapes: `hidden_states_bpd` (B, 1 + P, D) with the class token first; the result (B, 5, D), in
    the order of `PLACES`.

    Raises:
        ValueError: P is not the square of an even number, so that quarters would share patches.
    """
    batch, tokens, width = hidden_states_bpd.shape
    side = round((tokens - 1) ** 0.5)
    if side * side != tokens - 1 or side % 2:
        raise ValueError(
            f"the vision model gives {tokens - 1} patches; expected the square of an even number; "
            "choose image_size / patch_size even"
        )
    half = side // 2
    grid = hidden_states_bpd[:, 1:].reshape(batch, 2, half, 2, half, width)
    quarters = grid.mean(dim=(2, 4)).reshape(batch, 4, width)
    whole = hidden_states_bpd[:, 1:].mean(dim=1, keepdim=True) + hidden_states_bpd[:, :1]
    return torch.cat([quarters, whole], dim=1)


class SceneHeads(nn.Module):
    """A vision model under linear heads that say what stands at each place.

    The quarters share one head a property, the centre has its own. `vision_model` is trained in
    place and is what remains; the heads are thrown away.

    Args:
        vision_model: a `Blip2VisionModel` (or anything whose output has `last_hidden_state`).
        width: D of `vision_model`.
    """

    def __init__(self, vision_model: nn.Module, width: int) -> None:
        super().__init__()
        self.vision_model = vision_model
        self.quarter_heads = nn.ModuleDict(
            {key: nn.Linear(width, count) for key, count in CLASS_COUNTS.items()}
        )
        self.centre_heads = nn.ModuleDict(
            {key: nn.Linear(width, count) for key, count in CLASS_COUNTS.items()}
        )

    def forward(
        self,
        pixel_values: Tensor,
        name: Tensor | None = None,
        colour: Tensor | None = None,
        size: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """Return logits by place and, where targets are given, the loss.

        Input: `pixel_values` (B, 3, height, width); `name`, `colour`, `size` (B, 5) int64 as
        `tools.tiny_blip2.drawn.targets` gives them, `IGNORED` entries do not count.
        Output: "name", "colour", "size" (B, 5, C) and "loss" (scalar, a weighted sum of
        cross-entropies, the quarters' and the centre's apart, each the mean over its counted
        places; 0 for those without any).
        """
        places_bpd = pooled_places(self.vision_model(pixel_values=pixel_values).last_hidden_state)
        outputs: dict[str, Tensor] = {}
        for key in CLASS_COUNTS:
            quarters = self.quarter_heads[key](places_bpd[:, :4])
            centre = self.centre_heads[key](places_bpd[:, 4:])
            outputs[key] = torch.cat([quarters, centre], dim=1)
        given = {"name": name, "colour": colour, "size": size}
        losses = []
        for key, target in given.items():
            if target is None:
                continue
            for places in (slice(0, CENTRE), slice(CENTRE, None)):
                wanted = target[:, places].flatten()
                total = nn.functional.cross_entropy(
                    outputs[key][:, places].flatten(0, 1),
                    wanted,
                    ignore_index=IGNORED,
                    reduction="sum",
                )
                count = (wanted != IGNORED).sum().clamp(min=1)
                losses.append(LOSS_WEIGHTS[key] * total / count)
        if not losses:
            return outputs
        return {"loss": torch.stack(losses).sum(), **outputs}
