"""Which rows are asked, and what is asked of them."""

from __future__ import annotations

from pathlib import Path

from PIL import Image
from transformers import AutoProcessor

from qvft.data.collate import Collator
from qvft.data.prompt import PromptTemplate
from qvft.data.rows import Row
from qvft.data.sample import Sample
from qvft.weights.probe_outputs import make_probes
from tools.tiny_blip2.geometry import QUERY_TOKENS, VOCABULARY_SIZE
from tools.tiny_blip2.scene_format import DrawnImage


def row(kind: str, image: int, number: int = 0) -> Row:
    sample = Sample(f"image{image}", DrawnImage(0, image, 48))
    question = "What is it?" if kind == "question" else None
    return Row(f"{kind}{image}#{number}", sample, kind, question, "red", ("red",), {})


def test_a_probe_is_what_the_collator_makes_of_a_row(tiny_folder: Path) -> None:
    processor = AutoProcessor.from_pretrained(tiny_folder)
    template = PromptTemplate(processor.tokenizer, QUERY_TOKENS, VOCABULARY_SIZE - 1, "\n")
    collator = Collator(template, processor.image_processor, 10_000)
    (probe,) = make_probes(collator, [row("question", 3)])
    batch = collator([(0, row("question", 3))])
    assert list(probe.prompt_ids + probe.target_ids) == batch["input_ids"][0].tolist()
    assert probe.target_ids[-1] == template.stop_id
    assert probe.prompt == "Question: What is it? Answer:"
    assert probe.pixel_values.equal(batch["pixel_values"])
    assert isinstance(probe.image, Image.Image)
