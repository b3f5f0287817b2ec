"""Model cards of merged checkpoints and of exported adapters."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined

_ACTED_ON = re.compile(r"[\\`<>\[\]|&]")
_UNPRINTABLE = re.compile(
    r"[\x00-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]+"
)
_SIMPLE = re.compile(r"[A-Za-z][\w./-]*")
_CARD = """\
---
library_name: transformers
pipeline_tag: image-text-to-text
base_model: {{ base_id | yaml }}
tags: [blip-2, qvft]
---
# {{ name | plain }}

{{ base_id | plain }}{% if base_revision %} (revision {{ base_revision | plain }}){% endif %}, \
{% if decoder %}
with the decoder {{ decoder | plain }}, \
{% endif %}
fine-tuned \
{%- if data %} on {{ data | join(", ") | plain }}{% endif %} with qvft \
{{ qvft_version }} and merged \
into one checkpoint of plain transformers classes ({{ dtype }}).

## Use

```python
import torch
from PIL import Image
from transformers import AutoProcessor, {{ model_class }}

processor = AutoProcessor.from_pretrained({{ folder | quoted }})
model = {{ model_class }}.from_pretrained({{ folder | quoted }}, dtype=torch.{{ dtype }})
inputs = processor(Image.open("IMAGE").convert("RGB"), {{ prompt }}, return_tensors="pt")
inputs = inputs.to(model.device, model.dtype)
written = model.generate(**inputs, max_new_tokens=30)\
{% if not encoder_decoder %}[:, inputs["input_ids"].shape[1] :]{% endif %}

print(processor.batch_decode(written, skip_special_tokens=True)[0].strip())
```

Prompts it was trained with: captions \
{% if caption %}`{{ caption | code }}`{% else %}none{% endif %}, \
questions `{{ question | code }}`.
{% if chat_prompt %}
They are the user's turn of the tokenizer's chat template, as in the example.
{% endif %}
{% if cleaned %}
Questions, and the captions it was trained on, were cleaned as BLIP-2's own program does \
(lower case, without `.!"()*#:;~`, 50 words): clean a question so before you ask it.
{% endif %}

## Training

Recipe `{{ name | code }}` (hash `{{ recipe_sha256[:12] }}`). Trained: {{ trained | join(", ") }}.
{% if started %}
{{ started }}
{% endif %}
{% for source in sources %}
{{ "\nSources:\n\n" if loop.first }}- {{ source | plain }}
{% endfor %}

{% if quantized != "none" %}
The decoder was quantised ({{ quantized }}) while its adapters were trained; they are merged into \
its unquantised weights here, and merge.json says what that changes.

{% endif %}
{{ measured }}
merge.json holds the base's revision and hash, library versions, how the merge was verified, and \
a checksum of each file.
"""

_PEFT_CARD = """\
---
library_name: peft
base_model: {{ base_id | yaml }}
tags: [blip-2, qvft, lora]
---
# {{ name | plain }}, adapter

LoRA weights for {{ base_id | plain }}, \
and `bridge.safetensors` with the Q-Former, the query \
tokens and the language projection, which were trained with them: without it the model is another.
{% if started %}

{{ started }}
{% endif %}

```python
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import {{ model_class }}

base = {{ model_class }}.from_pretrained({{ base_id | quoted }}, dtype=torch.float32)
base.load_state_dict(load_file("FOLDER/bridge.safetensors"), strict=False)
model = PeftModel.from_pretrained(base, "FOLDER")
```

{{ measured }}
`qvft.merge` writes the same model as one checkpoint.
"""

_MEASURED = """\
## Measured

{% for report in reports %}
**{{ report.name | plain }}** (n = {{ report.n | plain }})

{{ report.table }}

{% endfor %}
{% if excluded %}
Not included, because they were measured with other weights than these: \
{{ excluded | join(", ") | plain }}.
{% elif not reports %}
Nothing was measured before this was written.
{% endif %}
"""


def model_card(
    run_dir: Path,
    *,
    adapter_sha256: Mapping[str, str],
    started_from: Mapping[str, str] | None = None,
    **facts: Any,
) -> str:
    """The card as Markdown, with the scores of `run_dir`/eval/*/report.json.

    Args:
        adapter_sha256: hashes of the adapter's files by name. A report of other weights is named
            but not included.
        started_from: manifest entry of the run that this one started from.
        facts: values of the card's template; a missing one raises `jinja2.UndefinedError`.
    """
    plain = facts["question"].replace("{question}", "What is shown?").rstrip()
    prompt = json.dumps(facts["chat_prompt"] or plain)
    measured = _measured(run_dir, adapter_sha256)
    return _render(_CARD, prompt=prompt, measured=measured, started=_started(started_from), **facts)


def peft_card(
    base_id: str,
    name: str,
    run_dir: Path,
    *,
    adapter_sha256: Mapping[str, str],
    model_class: str = "Blip2ForConditionalGeneration",
    started_from: Mapping[str, str] | None = None,
) -> str:
    """The card of an adapter folder, with how to load it; `run_dir` as in `model_card`."""
    return _render(
        _PEFT_CARD,
        base_id=base_id,
        name=name,
        measured=_measured(run_dir, adapter_sha256),
        model_class=model_class,
        started=_started(started_from),
    )


def _started(start: Mapping[str, str] | None) -> str:
    """A sentence on the run that this one started from; empty without."""
    if not start:
        return ""
    return (
        f"Training started from the weights of {_plain(start['path'])} "
        f"(recipe hash `{start['recipe_sha256'][:12]}`, weights `{start['weights_sha256'][:12]}`)."
    )


def _render(template: str, **values: Any) -> str:
    environment = Environment(undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {
        "plain": _plain, "code": _inline_code, "quoted": _quoted, "yaml": _yaml_value
    }  # fmt: skip
    return environment.from_string(template).render(**values)


def _measured(run_dir: Path, adapter_sha256: Mapping[str, str]) -> str:
    found = [
        (path.parent.name, report)
        for path in sorted(run_dir.glob("eval/*/report.json"))
        if (report := _report(path)) is not None
    ]
    included, excluded = [], []
    for name, report in found:
        if (report.get("model") or {}).get("adapter_sha256") == dict(adapter_sha256):
            included.append({"name": name, "n": report["n"], "table": _table(report)})
        else:
            excluded.append(name)
    return _render(_MEASURED, reports=included, excluded=excluded)


def _report(path: Path) -> dict[str, Any] | None:
    """Content of a report; None if it is not one."""
    try:
        report = json.loads(path.read_text(encoding="utf-8"))
        return report if {"n", "metrics"} <= report.keys() else None
    except (OSError, ValueError, AttributeError):
        return None


def _table(report: Mapping[str, Any]) -> str:
    """A report's scores as a Markdown table, with units and baselines."""
    units, intervals = report.get("units", {}), report.get("intervals", {})
    baselines = report.get("baselines", {})

    def shown(metric: str, value: float | None) -> str:
        if value is None:
            return ""
        return f"{value:.1f} %" if units.get(metric) == "percent" else f"{value:.3f}"

    names = [_plain(name.replace("_", " ")) for name in baselines]
    lines = [["metric", "value", "95 % interval", *names], ["---"] * (3 + len(names))]
    for metric, value in report["metrics"].items():
        interval = " to ".join(shown(metric, end) for end in intervals.get(metric) or ())
        others = [shown(metric, values.get(metric)) for values in baselines.values()]
        lines.append([_plain(metric), shown(metric, value), interval, *others])
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _plain(value: object) -> str:
    """A text escaped for Markdown."""
    return _ACTED_ON.sub(r"\\\g<0>", _one_line(value)).replace("\\<", "&lt;")


def _inline_code(value: object) -> str:
    """A text escaped for inline code."""
    return _one_line(value).replace("`", "'")


def _quoted(value: object) -> str:
    """A text as a Python string literal."""
    return json.dumps(str(value))


def _yaml_value(value: object) -> str:
    """A text as a YAML value, quoted if necessary."""
    return str(value) if _SIMPLE.fullmatch(str(value)) else json.dumps(str(value))


def _one_line(value: object) -> str:
    return _UNPRINTABLE.sub(" ", str(value))
