"""Copies the model code into a checkpoint folder, for `trust_remote_code` without qvft.

`AutoModel.from_pretrained(folder, trust_remote_code=True)` then needs only transformers. The code
is this package's, with relative imports, as transformers requires.
"""

from __future__ import annotations

import json
from pathlib import Path

from qvft.models.qvision import AUTO_MODELS, configuration, encoder, modeling, qformer
from qvft.models.qvision.modeling import QVisionForConditionalGeneration

PACKAGE = "qvft.models.qvision."
CODE = (configuration, encoder, qformer, modeling)


def write_code(folder: Path) -> None:
    """Copies the model code next to saved weights and adds `auto_map` to their config.json."""
    for module in CODE:
        assert module.__file__ is not None
        source = Path(module.__file__)
        text = source.read_text(encoding="utf-8").replace(f"from {PACKAGE}", "from .")
        (folder / source.name).write_text(text, encoding="utf-8")
    model_class = f"modeling.{QVisionForConditionalGeneration.__name__}"
    config_file = folder / "config.json"
    config = json.loads(config_file.read_text(encoding="utf-8"))
    config["auto_map"] = {
        "AutoConfig": f"configuration.{configuration.QVisionConfig.__name__}",
        **{auto.__name__: model_class for auto in AUTO_MODELS},
    }
    config_file.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")
