"""Samples for the parity check, and model outputs on them: by qvft and by plain transformers.

Shape letters: L row length, T text tokens, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import pad

from qvft.data.collate import Collator
from qvft.data.images.decoding import decode
from qvft.data.prompt import PromptTemplate
from qvft.data.rows import Row
from qvft.data.token_stats import encode
from qvft.errors import VerificationError
from qvft.models.forward_stages import (
    decode_hidden,
    embed_rows,
    encode_images,
    encode_prompts,
    generate,
    logits_of,
    read_images,
)

NEW_TOKENS = 10
"""Number of tokens generated per sample."""


@dataclass(frozen=True)
class Probe:
    """One row as qvft prepares it, and the inputs of a plain processor.

    Attributes:
        prompt_ids: qvft's tokens of image and prompt.
        target_ids: tokens of the target and the stop token.
        pixel_values: (1, 3, height, width), from qvft's collator.
        read: the Q-Former's text inputs, (1, T) each; empty if it reads none.
        rows: model inputs of prompt and target besides the image, from `Collator.token_batch`.
    """

    row_id: str
    image: Image.Image
    prompt: str
    prompt_ids: tuple[int, ...]
    target_ids: tuple[int, ...]
    pixel_values: Tensor
    read: Mapping[str, Tensor] = field(default_factory=dict)
    rows: Mapping[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class Output:
    """A model's output for one sample.

    Attributes:
        logits: (L, V) float32, at every position of prompt and target.
        new_ids: greedily generated tokens, up to the first stop token, exclusive.
        margins: per generated token, including the stop token, the difference of the top two
            logits; empty if not recorded.
    """

    row_id: str
    logits: Tensor
    new_ids: tuple[int, ...]
    margins: tuple[float, ...]
    text: str


def make_probes(collator: Collator, rows: Sequence[Row]) -> list[Probe]:
    """Samples for the parity check, from rows that are not truncated."""
    template = collator.template
    probes = []
    for row in rows:
        encoded = encode(row, template)
        prompt = template.prompt_text(*row.asked)
        probes.append(
            Probe(
                row_id=row.id,
                image=decode(row.sample.image, max_pixels=collator.max_image_pixels),
                prompt=template.written_prompt(*row.asked),
                prompt_ids=encoded.ids[: encoded.target_start],
                target_ids=encoded.ids[encoded.target_start :],
                pixel_values=collator.pixels([row.sample.image]),
                read=collator.read([prompt]),
                rows=collator.token_batch([encoded], [0], [prompt]),
            )
        )
    return probes


@torch.no_grad()
def toolkit_outputs(model: Any, template: PromptTemplate, probes: Sequence[Probe]) -> list[Output]:
    """Outputs of a model loaded by qvft with adapters, through its forward stages."""
    outputs = []
    for probe in probes:
        place = model.device
        prompt = torch.tensor([probe.prompt_ids], device=place)
        rows = {"input_ids": prompt, "attention_mask": torch.ones_like(prompt)}
        written = generate(
            model,
            rows | {key: value.to(place) for key, value in probe.read.items()},
            images=encode_images(model, probe.pixel_values.to(place)),
            max_new_tokens=NEW_TOKENS,
            do_sample=False,
            num_beams=1,
            eos_token_id=[template.stop_id, template.tokenizer.eos_token_id],
            pad_token_id=template.pad_id,
            return_dict_in_generate=True,
            output_logits=True,
        )
        best = [step[0].float().topk(2).values.tolist() for step in written.logits]
        new_ids = written.sequences[0].tolist()
        outputs.append(
            Output(
                probe.row_id,
                _logits(model, probe),
                _until_stop(new_ids, template),
                tuple(first - second for first, second in best),
                template.decode(new_ids),
            )
        )
    return outputs


@torch.no_grad()
def toolkit_logits(model: Any, probes: Sequence[Probe]) -> list[Tensor]:
    """Only the logits of `toolkit_outputs`, (L, V) per sample."""
    return [_logits(model, probe) for probe in probes]


@torch.no_grad()
def plain_outputs(
    model: Any,
    processor: Any,
    template: PromptTemplate,
    probes: Sequence[Probe],
    *,
    stop_ids: list[int] | None = None,
) -> list[Output]:
    """Outputs by plain transformers: `processor(...)`, `model.generate`.

    Raises:
        VerificationError: the processor's tokens or pixels differ from qvft's.
    """
    place = model.device
    stop = {} if stop_ids is None else {"eos_token_id": stop_ids}
    outputs = []
    for probe in probes:
        inputs = processor(images=probe.image, text=probe.prompt, return_tensors="pt")
        _check_inputs(probe, inputs)
        inputs = inputs.to(place)
        target = torch.tensor([probe.target_ids], device=place)
        others = {key: inputs[key] for key in inputs if key not in ("input_ids", "attention_mask")}
        row, start = inputs["input_ids"], 1
        if template.start_id is None:
            row, start = torch.cat([row, target], dim=1), row.shape[1]
        else:
            others["decoder_input_ids"] = pad(target, (1, 0), value=template.start_id)
        logits = model(**others, input_ids=row).logits[0]
        written = model.generate(**inputs, max_new_tokens=NEW_TOKENS, **stop)
        new_ids = written[0, start:]
        text = processor.batch_decode([new_ids], skip_special_tokens=True)[0].strip()
        ids = _until_stop(new_ids.tolist(), template)
        outputs.append(Output(probe.row_id, logits.float().cpu(), ids, (), text))
    return outputs


def _logits(model: Any, probe: Probe) -> Tensor:
    """Logits (L, V) at every position of prompt and target."""
    place = model.device
    rows = {key: value.to(place) for key, value in probe.rows.items()}
    images = encode_images(model, probe.pixel_values.to(place))
    image_index = torch.zeros(1, dtype=torch.long, device=place)
    embeds = embed_rows(model, rows, images=images, image_index=image_index)
    prompts = encode_prompts(model, rows, images=images, image_index=image_index)
    hidden = decode_hidden(model, embeds, rows["attention_mask"], prompts=prompts)[0]
    row = torch.zeros(len(hidden), dtype=torch.long, device=place)
    read = read_images(model, hidden, row=row, images=images, image_index=image_index)
    return logits_of(model, read).float().cpu()


def _check_inputs(probe: Probe, inputs: Any) -> None:
    if tuple(inputs["input_ids"][0].tolist()) != probe.prompt_ids:
        raise VerificationError(
            f"the written processor turns the prompt of {probe.row_id} into "
            f"{inputs['input_ids'].shape[1]} tokens that are not the toolkit's "
            f"{len(probe.prompt_ids)}"
        )
    for key, tokens in probe.read.items():
        if not torch.equal(inputs[key], tokens):
            raise VerificationError(
                f"the written processor makes other {key} of the prompt of {probe.row_id}"
            )
    if not torch.equal(inputs["pixel_values"], probe.pixel_values):
        raise VerificationError(
            f"the written processor makes other pixels of the image of {probe.row_id}"
        )


def _until_stop(new_ids: Sequence[int], template: PromptTemplate) -> tuple[int, ...]:
    stops = {template.stop_id, template.tokenizer.eos_token_id}
    end = next((place for place, token in enumerate(new_ids) if token in stops), len(new_ids))
    return tuple(new_ids[:end])
