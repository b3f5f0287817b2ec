"""What a run with alignment heads is used for: retrieval, export, classes by prompts, merging."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from transformers import AutoProcessor, Blip2ForImageTextRetrieval

from qvft.adapters.checkpoint import ALIGNMENT
from qvft.adapters.manifest import read_manifest
from qvft.data.blip_text import clean_caption
from qvft.data.formats import read_samples
from qvft.data.rows import evaluation_rows
from qvft.eval import main as evaluate
from qvft.evaluation import image_text_retrieval as retrieval
from qvft.evaluation.image_text_retrieval import retrieval_group
from qvft.evaluation.metric import ScoreValue
from qvft.evaluation.metrics.retrieval import retrieval_scores
from qvft.evaluation.rows import prediction_rows
from qvft.evaluation.zero_shot import Classes
from qvft.export import main as export
from qvft.merge import main as merge
from qvft.models.blip2 import encode_vision
from qvft.setup.alignment_model import AlignmentModel, load_alignment_model
from qvft.train import main as train

# As tests/alignment/conftest.py has it.
DRAWN = [
    "data.train={format: drawn, path: 'seed=5,count=40,size=48', texts: captions}",
    "train.save_steps=null",
]


@torch.no_grad()
def plain_scores(folder: Path, images: list[Image.Image], texts: list[str], *, matching: bool):
    """(I, M) as transformers alone computes them: cosines, or logits of "belongs"."""
    model = Blip2ForImageTextRetrieval.from_pretrained(folder).eval()
    processor = AutoProcessor.from_pretrained(folder)
    rows = []
    for image in images:
        inputs = processor(images=image, text=texts, return_tensors="pt", padding=True)
        if matching:
            inputs["pixel_values"] = inputs["pixel_values"].expand(len(texts), -1, -1, -1)
        logits = model(**inputs, use_image_text_matching_head=matching).logits_per_image
        rows.append(logits[:, 1] if matching else logits[0])
    return torch.stack(rows)


def samples():
    return list(read_samples("drawn", "seed=6,count=8,size=48"))


def retrieved(aligned: AlignmentModel, *, top: int, batch_size: int = 3) -> dict[str, ScoreValue]:
    """Recalls over the captions of `samples`, by name."""
    rows = evaluation_rows(samples())
    items = prediction_rows(rows, [""] * len(rows))
    sources = [row.sample.image for row in rows]
    group = retrieval_group(aligned, items, sources, top=top, batch_size=batch_size, workers=0)
    return {metric.name: metric for metric in group.metrics}


def test_captions_are_looked_for_as_they_are_cleaned(
    aligned: AlignmentModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []
    vectors = AlignmentModel.text_vectors

    def reading(self: AlignmentModel, texts: list[str], **options: int) -> torch.Tensor:
        read.extend(texts)
        return vectors(self, texts, **options)

    monkeypatch.setattr(AlignmentModel, "text_vectors", reading)
    template = replace(aligned.loaded.template, text="blip2")
    retrieved(replace(aligned, loaded=replace(aligned.loaded, template=template)), top=2)
    captions = [caption for sample in samples() for caption in sample.captions]
    assert read == [clean_caption(caption) for caption in captions]
    assert read != captions


def test_the_report_holds_retrieval_both_ways(aligned_run: Path, tmp_path: Path) -> None:
    out = tmp_path / "eval"
    assert evaluate([str(aligned_run), "--out", str(out)]) == 0
    report = json.loads((out / "report.json").read_text())
    names = {
        f"{way}_recall_at_{k}{suffix}"
        for way in ("image_to_text", "text_to_image")
        for k in (1, 5, 10)
        for suffix in ("", "_reranked")
    }
    assert names <= report["metrics"].keys()
    assert names <= report["definitions"].keys()
    assert {report["units"][name] for name in names} == {"percent"}
    assert report["n_by_group"]["retrieval"] == sum(len(s.captions) for s in samples())
    # Eight images: every one is among the ten best.
    assert report["metrics"]["text_to_image_recall_at_10"] == 100.0
    assert "CIDEr" in report["metrics"]


def test_metrics_that_are_named_leave_retrieval_out(aligned_run: Path, tmp_path: Path) -> None:
    out = tmp_path / "eval"
    assert evaluate([str(aligned_run), "eval.metrics=[captions]", "--out", str(out)]) == 0
    report = json.loads((out / "report.json").read_text())
    assert "retrieval" not in report["n_by_group"]


def test_retrieval_of_a_run_without_heads_is_refused(tiny_run: Path, capsys) -> None:
    assert evaluate([str(tiny_run), "eval.metrics=[retrieval]"]) == 2
    assert "without contrast heads" in capsys.readouterr().err


def test_figures_are_those_of_plain_transformers_scores(
    aligned: AlignmentModel, retrieval_folder: Path
) -> None:
    chosen = samples()
    images = [sample.image.open() for sample in chosen]
    texts = [caption for sample in chosen for caption in sample.captions]
    owners = [place for place, sample in enumerate(chosen) for _ in sample.captions]
    cosines = plain_scores(retrieval_folder, images, texts, matching=False)
    metrics = retrieved(aligned, top=99)
    found = {name: metric.value for name, metric in metrics.items()}
    expected = retrieval_scores(cosines.numpy(), owners)
    # What an image's row keeps: its own hit, and the share of its two captions that hit.
    hits = (expected.text_ranks < 5).reshape(8, 2).mean(axis=1)
    assert list(metrics["text_to_image_recall_at_5"].items.values()) == hits.tolist()
    hits = (expected.image_ranks < 5).astype(float)
    assert list(metrics["image_to_text_recall_at_5"].items.values()) == hits.tolist()
    for k in (1, 5, 10):
        # The same share of the same queries, up to the last digit of a float64.
        assert found[f"image_to_text_recall_at_{k}"] == pytest.approx(expected.image_to_text[k])
        assert found[f"text_to_image_recall_at_{k}"] == pytest.approx(expected.text_to_image[k])
    # Among as many as there are, matching orders all of them.
    both = cosines + plain_scores(retrieval_folder, images, texts, matching=True)
    expected = retrieval_scores(both.numpy(), owners)
    for k in (1, 5, 10):
        to_text = found[f"image_to_text_recall_at_{k}_reranked"]
        to_image = found[f"text_to_image_recall_at_{k}_reranked"]
        assert to_text == pytest.approx(expected.image_to_text[k])
        assert to_image == pytest.approx(expected.text_to_image[k])


def test_features_are_held_for_a_chunk_of_images_and_each_pair_is_matched_once(
    aligned: AlignmentModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    held: list[int] = []
    pairs: list[int] = []
    scores_of = retrieval.matching_scores

    def noted(model: Any, heads: Any, **inputs: Any) -> torch.Tensor:
        pairs.append(len(inputs["features"]))
        return scores_of(model, heads, **inputs)

    def features(self: AlignmentModel, pixels: torch.Tensor) -> torch.Tensor:
        held.append(len(pixels))
        return encode_vision(self.loaded.model, pixels)

    monkeypatch.setattr(retrieval, "matching_scores", noted)
    monkeypatch.setattr(AlignmentModel, "features", features)
    expected = retrieved(aligned, top=99, batch_size=8)
    texts = sum(len(sample.captions) for sample in samples())
    # Every image is a candidate of every text and the other way round: one score serves both.
    assert sum(pairs) == 8 * texts and max(pairs) <= retrieval.PAIRS_AT_ONCE
    held.clear(), pairs.clear()
    monkeypatch.setattr(retrieval, "PAIRS_AT_ONCE", 5)
    found = retrieved(aligned, top=99, batch_size=3)
    # Once for the vectors, once for matching.
    assert held == [3, 3, 2] * 2
    assert sum(pairs) == 8 * texts and max(pairs) == 5
    assert {n: dict(m.items) for n, m in found.items()} == {
        n: dict(m.items) for n, m in expected.items()
    }


def test_the_exported_folder_scores_as_the_run_does(
    aligned: AlignmentModel, retrieval_folder: Path
) -> None:
    images = [sample.image.open() for sample in samples()[:3]]
    texts = ["a circle", "a small red square at the top left"]
    vectors = aligned.image_vectors(aligned.loaded.collator.normalise(images))
    ours = (vectors @ aligned.text_vectors(texts).T).amax(dim=1)
    plain = plain_scores(retrieval_folder, images, texts, matching=False)
    # float32, summed in another order.
    torch.testing.assert_close(ours, plain, rtol=0, atol=1e-5)
    record = json.loads((retrieval_folder / "export.json").read_text())
    assert record["form"] == "retrieval"
    assert record["verification"]["objectives"] == ["itc", "itm"]
    assert "temperature" in record["verification"]["left_out"]


def test_a_run_without_heads_has_no_retrieval_model(tiny_run: Path, tmp_path: Path, capsys) -> None:
    assert export([str(tiny_run), str(tmp_path / "out"), "--to", "retrieval"]) == 2
    assert "has no alignment heads" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_class_is_the_mean_of_its_prompts(aligned: AlignmentModel) -> None:
    names = ["circle", "square", "star"]
    found = Classes(tuple(names), ("a {}", "one {} here")).vectors(aligned)
    prompts = [f"a {name}" for name in names], [f"one {name} here" for name in names]
    means = aligned.text_vectors(prompts[0]) + aligned.text_vectors(prompts[1])
    # Float32 rounding of a sum of two unit vectors.
    torch.testing.assert_close(found, means / means.norm(dim=1, keepdim=True), rtol=0, atol=1e-6)


def test_alignment_starts_from_a_retrieval_checkpoint(
    aligned_run: Path, retrieval_folder: Path, recipe_file: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    given = f"objectives={{itc: 1.0, itm: 1.0, text_branch: {retrieval_folder}}}"
    still = ["train.max_steps=1", "train.learning_rate.heads=0.0"]
    assert train([str(recipe_file), f"run.dir={run}", given, *DRAWN, *still]) == 0
    first, second = (load_file(r / "adapter" / ALIGNMENT) for r in (aligned_run, run))
    assert first.keys() == second.keys()
    for name, tensor in first.items():
        # The class has no place for the temperature, which starts anew.
        assert torch.equal(tensor, second[name]) == (not name.endswith("temperature")), name
    entry = read_manifest(run / "adapter")["alignment"]
    assert entry["tokenizer"] == str(retrieval_folder)
    texts = ["a circle", "two squares"]
    found = load_alignment_model(run).branch.tokenizer(texts)["input_ids"]
    assert found == load_alignment_model(aligned_run).branch.tokenizer(texts)["input_ids"]
    # What text generation begins with: this tokenizer puts it in front of every text anyway.
    assert {ids[0] for ids in found} == {entry["generation_start_id"]}


def test_merging_leaves_the_heads_out(aligned_run: Path, tmp_path: Path) -> None:
    out = tmp_path / "merged"
    assert merge([str(aligned_run), str(out)]) == 0
    index = json.loads((out / "merge.json").read_text())
    assert "model.safetensors" in index["files"]
    assert not any("alignment" in name for name in index["files"])
