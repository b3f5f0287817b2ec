"""Plan of a model made from two checkpoints: a BLIP-2, and a text branch or another decoder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import Blip2Config, InstructBlipConfig

from qvft.models.checkpoint_tensors import Checkpoint
from qvft.models.weight_origins import Origins


@dataclass(frozen=True)
class Graft:
    """A checked plan; nothing is loaded yet.

    Attributes:
        sources: the checkpoints by the names that origins give them: `base`, the BLIP-2, first;
            then `text` or `decoder`, none for a fresh text branch.
        config: the model's configuration, which says its class.
        origins: source of each weight.
        tokenizer: what the second checkpoint brings: the Q-Former's tokenizer of questions, or the
            decoder's with `<image>`.
        seed: initialises the weights that no source has.
    """

    sources: dict[str, Checkpoint]
    config: Blip2Config | InstructBlipConfig
    origins: Origins
    tokenizer: Any
    seed: int

    @property
    def base(self) -> Checkpoint:
        """The BLIP-2 checkpoint."""
        return self.sources["base"]

    @property
    def files(self) -> dict[str, list[Path]]:
        """The weight files of each source, sorted by path."""
        return {name: sorted({*one.files.values()}) for name, one in self.sources.items()}
