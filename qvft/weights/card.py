"""Model cards of what is written: a merged checkpoint, an adapter for plain PEFT."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined

_CARD = """\
---
library_name: transformers
pipeline_tag: image-text-to-text
base_model: {{ base_id }}
tags: [blip-2, qvft]
---
# {{ name }}

{{ base_id }}{% if base_revision %} (revision {{ base_revision }}){% endif %}, fine-tuned \
{%- if data %} on {{ data | join(", ") }}{% endif %} with qvft {{ qvft_version }} and merged \
into one checkpoint of plain transformers classes ({{ dtype }}).

## Use

```python
import torch
from PIL import Image
from transformers import AutoProcessor, {{ model_class }}

processor = AutoProcessor.from_pretrained("{{ folder }}")
model = {{ model_class }}.from_pretrained("{{ folder }}", dtype=torch.{{ dtype }})
inputs = processor(Image.open("IMAGE").convert("RGB"), {{ prompt }}, return_tensors="pt")
inputs = inputs.to(model.device, model.dtype)
written = model.generate(**inputs, max_new_tokens=30)[:, inputs["input_ids"].shape[1] :]
print(processor.batch_decode(written, skip_special_tokens=True)[0].strip())
```

The prompts it was trained with: captions `{{ caption }}`, questions `{{ question }}`. It stops on \
a line break.

## Training

Recipe `{{ name }}` (hash `{{ recipe_sha256[:12] }}`). Trained: {{ trained | join(", ") }}.

{% if quantized != "none" %}
The decoder was quantised ({{ quantized }}) while its adapters were trained; they are merged into \
its unquantised weights here, and merge.json says what that changes.

{% endif %}
## Measured

{% if reports %}
{% for report in reports %}
**{{ report.name }}** (n = {{ report.n }})

| metric | value |
|---|---|
{% for name, value in report.metrics %}
| {{ name }} | {{ "%.4g" | format(value) }} |
{% endfor %}

{% endfor %}
{% else %}
Nothing was measured before merging.

{% endif %}
merge.json holds the base's revision and hash, library versions, how the merge was verified, and \
a checksum of each file.
"""

_PEFT_CARD = """\
---
library_name: peft
base_model: {{ base_id }}
tags: [blip-2, qvft, lora]
---
# {{ name }}, adapter

LoRA weights for {{ base_id }}, and beside them `bridge.safetensors` with the Q-Former, the query \
tokens and the language projection, which were trained with them: without it the model is another.

```python
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import Blip2ForConditionalGeneration

base = Blip2ForConditionalGeneration.from_pretrained("{{ base_id }}", dtype=torch.float32)
base.load_state_dict(load_file("FOLDER/bridge.safetensors"), strict=False)
model = PeftModel.from_pretrained(base, "FOLDER")
```

`qvft.merge` writes the same model as one checkpoint.
"""


@dataclass(frozen=True)
class CardFacts:
    """What a card says, beside the measured figures.

    Attributes:
        name: the recipe's. folder: what the checkpoint is called.
        data: names of the data trained on. trained: names of the components trained.
        caption, question: prompts.
    """

    name: str
    folder: str
    base_id: str
    base_revision: str | None
    model_class: str
    dtype: str
    data: list[str]
    trained: list[str]
    caption: str
    question: str
    recipe_sha256: str
    quantized: str
    qvft_version: str


def model_card(facts: CardFacts, run_dir: Path) -> str:
    """The card as Markdown, with the figures of `run_dir`/eval/*/report.json."""
    asked = facts.question.replace("{question}", "What is shown?").rstrip()
    template = Environment(
        undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    ).from_string(_CARD)
    reports = [read for path in sorted(run_dir.glob("eval/*/report.json")) if (read := _read(path))]
    return template.render(**vars(facts), prompt=json.dumps(asked), reports=reports)


def peft_card(base_id: str, name: str) -> str:
    """The card of an adapter folder, with how to load it."""
    template = Environment(undefined=StrictUndefined, trim_blocks=True).from_string(_PEFT_CARD)
    return template.render(base_id=base_id, name=name)


def _read(path: Path) -> dict[str, Any] | None:
    """Name, n and figures of a report; None for what is not one."""
    try:
        report = json.loads(path.read_text(encoding="utf-8"))
        metrics = list(_numbers(report["metrics"], ""))
        return {"name": path.parent.name, "n": report["n"], "metrics": metrics}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _numbers(metrics: Mapping[str, Any], lead: str) -> Iterator[tuple[str, float]]:
    """The plain figures of a report; those of breakdowns, two mappings deep, stay in it."""
    for name, value in metrics.items():
        if isinstance(value, bool) or value is None:
            continue
        if isinstance(value, int | float):
            yield f"{lead}{name}", float(value)
        elif isinstance(value, Mapping) and not lead:
            yield from _numbers(value, f"{name} ")
