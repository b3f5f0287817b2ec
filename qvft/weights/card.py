"""Model cards of merged checkpoints and of exported adapters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined

from qvft.data.rows import Row
from qvft.models.model_path import TINY_ID
from qvft.recipe.schema import Recipe
from qvft.weights.card_metadata import front_matter
from qvft.weights.card_scores import (
    Scores,
    common_question,
    measured,
    read_scores,
    samples,
)
from qvft.weights.card_text import inline_code, named, plain, quoted

SAMPLES_BEGIN, SAMPLES_END = "<!-- samples -->", "<!-- end of samples -->"
"""Around the predictions of a card, which `qvft push` leaves out."""
_TUNED = (
    "epochs", "max_steps", "per_device_train_batch_size", "batch_tokens",
    "gradient_accumulation_steps", "weight_decay", "betas", "max_grad_norm", "warmup_steps",
    "lr_scheduler_type", "min_lr_rate", "mixed_precision",
)  # fmt: skip

_GENERATE = """\
image = Image.new("RGB", (224, 224), "white")  # yours: Image.open("photo.jpg").convert("RGB")
prompt = {{ prompt | quoted }}
inputs = processor(images=image, text=prompt, return_tensors="pt")
inputs = inputs.to(model.device, model.dtype)
written = model.generate(**inputs, max_new_tokens={{ new_tokens }})\
{% if not encoder_decoder %}[:, inputs["input_ids"].shape[1] :]{% endif %}

print(processor.batch_decode(written, skip_special_tokens=True)[0].strip())
```

Prompts it was trained with: captions \
{% if caption %}`{{ caption | code }}`{% else %}none{% endif %}, \
questions `{{ question | code }}`.
{% if chat %}
They are the user's turn of the tokenizer's chat template, as in the example.
{% endif %}
{% if cleaned %}
Questions, and the captions it was trained on, were cleaned as BLIP-2's own program does \
(lower case, without `.!"()*#:;~`, 50 words): clean a question so before you ask it.
{% endif %}
"""

_CARD = (
    """\
---
{{ metadata }}
---
# {{ name | plain }}

{{ base_id | named | plain }}\
{% if base_revision %} (revision {{ base_revision | plain }}){% endif %}, \
{% if decoder %}
with the decoder {{ decoder | named | plain }}, \
{% endif %}
fine-tuned \
{%- if data %} on {{ data | join(", ") | plain }}{% endif %} with qvft \
{{ qvft_version }} and merged \
into one checkpoint of {% if remote_code %}transformers, with its model code beside the weights\
{% else %}plain transformers classes{% endif %} ({{ dtype }}).

## Use

```python
import torch
from PIL import Image
from transformers import AutoProcessor, {{ model_class }}

model_id = {{ folder | quoted }}  # this folder, or its id on the hub
{% set trust = ", trust_remote_code=True" if remote_code else "" %}
processor = AutoProcessor.from_pretrained(model_id{{ trust }})
model = {{ model_class }}.from_pretrained(model_id, dtype=torch.{{ dtype }}{{ trust }})
"""
    + _GENERATE
    + """
## Training

Recipe `{{ name | code }}` (hash `{{ recipe_sha256[:12] }}`). Trained: {{ trained | join(", ") }}.
{% if started %}
{{ started }}
{% endif %}
{% for source in sources %}
{{ "\nSources:\n\n" if loop.first }}- {{ source | plain }}
{% endfor %}

{{ hyperparameters }}

{% if quantized != "none" %}
The decoder was quantised ({{ quantized }}) while its adapters were trained; they are merged into \
its unquantised weights here, and merge.json says what that changes.

{% endif %}
{{ measured }}
merge.json holds the base's revision and hash, library versions, how the merge was verified, and \
a checksum of each file.
"""
)

_ADAPTER_CARD = (
    """\
---
{{ metadata }}
---
# {{ name | plain }}, adapter

LoRA weights for {{ base_id | named | plain }}, \
and `bridge.safetensors` with the Q-Former, the query \
tokens and the language projection, which were trained with them: without it the model is another.
**Do not serve this folder as base plus LoRA** (vLLM's `--lora-modules`, \
`pipeline` or `load_adapter` alone): servers read only the LoRA weights, raise no error, and the \
answers are another model's. `qvft merge` writes the same model as one checkpoint, which any \
server of its class takes.
{% if started %}

{{ started }}
{% endif %}

## Use

```python
from pathlib import Path
{% if bundled %}
from importlib.resources import files
{% endif %}

import torch
from huggingface_hub import snapshot_download
from peft import PeftModel
from PIL import Image
from safetensors.torch import load_file
from transformers import AutoProcessor, {{ model_class }}

model_id = {{ folder | quoted }}  # this folder, or its id on the hub
folder = Path(model_id) if Path(model_id).is_dir() else Path(snapshot_download(model_id))
{% if bundled %}
base_id = str(files("qvft") / "models" / "tiny_blip2")  # comes with qvft
{% else %}
base_id = {{ base_id | quoted }}
{% endif %}
{% set revision = ", revision=" ~ (base_revision | quoted) if base_revision else "" %}
processor = AutoProcessor.from_pretrained(base_id{{ revision }})
base = {{ model_class }}.from_pretrained(base_id{{ revision }}, dtype=torch.float32)
base.load_state_dict(load_file(folder / "bridge.safetensors"), strict=False)
model = PeftModel.from_pretrained(base, str(folder)).eval()
"""
    + _GENERATE
    + """
## Training

Recipe `{{ name | code }}` (hash `{{ recipe_sha256[:12] }}`).

{{ hyperparameters }}

{{ measured }}
"""
)

_MEASURED = """\
## Measured

{% for report in reports %}
**{{ report.name | plain }}** (n = {{ report.n | plain }})

{% for line in report.verdict %}
- {{ line | plain }}
{% endfor %}

{{ report.table }}

{% endfor %}
{% if excluded %}
Not included, because they were measured with other weights than these: \
{{ excluded | join(", ") | plain }}.
{% elif not reports %}
Nothing was measured before this was written.
{% endif %}
{% if samples %}
{{ begin }}
| question | prediction | reference |
| --- | --- | --- |
{% for row in samples %}
| {{ row.question | plain }} | {{ row.prediction | plain }} | {{ row.reference | plain }} |
{% endfor %}
{{ end }}
{% endif %}
"""


def model_card(
    recipe: Recipe,
    run_dir: Path,
    *,
    adapter_sha256: Mapping[str, str],
    location: str,
    base_revision: str | None,
    template: Any,
    rows: Sequence[Row] = (),
    started_from: Mapping[str, str] | None = None,
    sources: Sequence[str] = (),
    **facts: Any,
) -> str:
    """The card of a merged model as Markdown, with the scores of `run_dir`/eval/*/report.json.

    Args:
        adapter_sha256: hashes of the adapter's files by name. A report of other weights is named
            but not included.
        location: the base's folder or hub id.
        template: the prompt template, which writes the example's prompt.
        rows: some rows of the data, whose most common question the example asks.
        started_from: manifest entry of the run that this one started from.
        sources: a line on each source of the training data, if there are several.
        facts: further values of the card's template; a missing one raises
            `jinja2.UndefinedError`.
    """
    scores = read_scores(run_dir, adapter_sha256)
    tags = ["blip-2", "qvft"]
    return _render(
        _CARD,
        **_common(recipe, scores, template, rows, started_from),
        metadata=front_matter(
            recipe, library="transformers", tags=tags, location=location, revision=base_revision,
            scores=scores,
        ),
        base_revision=base_revision,
        sources=sources,
        **facts,
    )  # fmt: skip


def adapter_card(
    recipe: Recipe,
    run_dir: Path,
    *,
    adapter_sha256: Mapping[str, str],
    location: str,
    base_revision: str | None,
    template: Any,
    rows: Sequence[Row] = (),
    started_from: Mapping[str, str] | None = None,
    **facts: Any,
) -> str:
    """The card of an adapter folder, with how to load it; arguments as of `model_card`."""
    scores = read_scores(run_dir, adapter_sha256)
    tags = ["blip-2", "qvft", "lora"]
    return _render(
        _ADAPTER_CARD,
        **_common(recipe, scores, template, rows, started_from),
        metadata=front_matter(
            recipe, library="peft", tags=tags, location=location, revision=base_revision,
            scores=scores,
        ),
        base_revision=base_revision,
        bundled=recipe.model.id == TINY_ID,
        **facts,
    )  # fmt: skip


def _common(
    recipe: Recipe,
    scores: Scores,
    template: Any,
    rows: Sequence[Row],
    started_from: Mapping[str, str] | None,
) -> dict[str, Any]:
    """Values that both cards hold."""
    asked = [(row.question, row.sample.id) for row in rows if row.question]
    is_caption = bool(rows) and not asked
    question = common_question(scores, asked) or "What is shown?"
    kind = "caption" if is_caption else "question"
    return {
        "name": recipe.name,
        "base_id": recipe.model.id,
        "prompt": template.written_prompt(kind, None if is_caption else question),
        "new_tokens": (recipe.eval.caption if is_caption else recipe.eval.answer).max_new_tokens,
        "caption": recipe.data.prompt.caption,
        "question": recipe.data.prompt.question,
        "chat": recipe.data.prompt.chat_template,
        "cleaned": recipe.data.text == "blip2",
        "started": _started(started_from),
        "hyperparameters": _hyperparameters(recipe),
        "measured": _render(
            _MEASURED,
            reports=measured(scores),
            excluded=scores.excluded,
            samples=samples(scores),
            begin=SAMPLES_BEGIN,
            end=SAMPLES_END,
        ),
    }


def _hyperparameters(recipe: Recipe) -> str:
    """Table of the recipe's training keys and values."""
    train, trainable = recipe.train.model_dump(), recipe.trainable
    values = {f"train.{key}": train[key] for key in _TUNED if train[key] is not None}
    if recipe.train.max_steps > 0:
        del values["train.epochs"]
    else:
        del values["train.max_steps"]
    for part, rate in train["learning_rate"].items():
        if getattr(trainable, part, "full") != "frozen":
            values[f"train.learning_rate.{part}"] = rate
    if "lora" in (trainable.decoder, trainable.vision, trainable.qformer):
        lora = trainable.lora.model_dump()
        values |= {f"trainable.lora.{key}": value for key, value in lora.items()}
    for phase in recipe.phases:
        changed = {"objective": phase.objective, **phase.trainable, **phase.train}
        values[f"phases.{phase.name}"] = changed
    values["run.seed"] = recipe.run.seed
    lines = [f"| `{key}` | {plain(value)} |" for key, value in values.items()]
    return "\n".join(["| key | value |", "| --- | --- |", *lines])


def _started(start: Mapping[str, str] | None) -> str:
    """A sentence on the run that this one started from; empty without."""
    if not start:
        return ""
    return (
        f"Training started from the weights of {plain(named(start['path']))} "
        f"(recipe hash `{start['recipe_sha256'][:12]}`, weights `{start['weights_sha256'][:12]}`)."
    )


def _render(template: str, **values: Any) -> str:
    environment = Environment(undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {"plain": plain, "code": inline_code, "quoted": quoted, "named": named}
    return environment.from_string(template).render(**values)
