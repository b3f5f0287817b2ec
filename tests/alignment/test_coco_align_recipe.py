"""recipes/coco_align.yaml itself, on drawn scenes in the place of COCO."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from transformers import AutoProcessor, Blip2ForImageTextRetrieval

from qvft.data.formats import read_samples
from qvft.eval import main as evaluate
from qvft.export import main as export
from qvft.recipe.load import load_recipe
from qvft.train import main as train

RECIPE = Path(__file__).resolve().parents[2] / "recipes" / "coco_align.yaml"
SPLITS = {"train": 6, "restval": 2, "val": 4, "test": 5}


@pytest.fixture(scope="module")
def coco(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`dataset_coco.json` as Karpathy's splits have it, with drawn scenes in `val2014/`."""
    folder = tmp_path_factory.mktemp("coco")
    (folder / "val2014").mkdir()
    samples = iter(read_samples("drawn", f"seed=8,count={sum(SPLITS.values())},size=48"))
    records = []
    for split, count in SPLITS.items():
        for _ in range(count):
            sample, number = next(samples), len(records)
            name = f"COCO_val2014_{number:012}.png"
            sample.image.open().save(folder / "val2014" / name)
            sentences = [{"raw": caption, "sentid": 0} for caption in sample.captions]
            records.append(
                {"filepath": "val2014", "filename": name, "cocoid": number, "split": split}
                | {"sentences": sentences}
            )
    (folder / "dataset_coco.json").write_text(json.dumps({"images": records}))
    return folder


@pytest.fixture(scope="module")
def run(coco: Path, tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two steps with nothing changed but the model, where the data lies, and sizes."""
    folder = tmp_path_factory.mktemp("runs") / "coco_align"
    overrides = [
        f"model.id={tiny_folder}",
        "objectives.text_branch=null",
        f"data.train.path={coco / 'dataset_coco.json'}",
        f"data.eval.path={coco / 'dataset_coco.json'}",
        f"run.dir={folder}",
        "data.num_workers=0",
        "run.threads=1",
        "train.max_steps=2",
        "train.per_device_train_batch_size=4",
        "train.eval_steps=2",
        "train.save_steps=2",
        "train.logging_steps=1",
    ]
    assert train([str(RECIPE), *overrides]) == 0
    return folder


def test_it_trains_what_it_says(run: Path) -> None:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    steps = [line for line in lines if "loss_lm" in line]
    weights = load_recipe(RECIPE).objectives
    assert len(steps) == 2
    for line in steps:
        aligned = weights.itc * line["loss_itc"] + weights.itm * line["loss_itm"]
        expected = weights.lm * line["loss_lm"] + aligned
        # float32 sums in another order.
        assert line["loss"] == pytest.approx(expected, rel=1e-5)


def test_it_evaluates_with_retrieval_on_the_split_that_its_comment_names(run: Path) -> None:
    assert "data.eval.split=test data.eval.name=coco-test" in RECIPE.read_text()
    given = ["data.eval.split=test", "data.eval.name=coco-test", "eval.blind=false"]
    assert evaluate([str(run), *given]) == 0
    report = json.loads((run / "eval" / "coco-test" / "report.json").read_text())
    assert report["data"]["images"] == SPLITS["test"]
    assert report["decode"]["captions"]["num_beams"] == 5 and report["decode"]["rerank"] == 128
    assert report["n_by_group"] == {"captions": 5, "retrieval": 10}
    for way in ("image_to_text", "text_to_image"):
        for suffix in ("", "_reranked"):
            # Five images, ten texts: every image is among the ten best.
            found = [report["metrics"][f"{way}_recall_at_{k}{suffix}"] for k in (1, 5, 10)]
            assert 0 <= found[0] <= found[1] <= found[2] == 100.0


@torch.no_grad()
def test_it_exports_a_retrieval_model(run: Path, coco: Path, tmp_path: Path) -> None:
    out = tmp_path / "retrieval"
    assert export([str(run), str(out), "--to", "retrieval"]) == 0
    model = Blip2ForImageTextRetrieval.from_pretrained(out).eval()
    from PIL import Image

    image = Image.open(next((coco / "val2014").iterdir()))
    inputs = AutoProcessor.from_pretrained(out)(images=image, text="a circle", return_tensors="pt")
    cosine = model(**inputs, use_image_text_matching_head=False).logits_per_image
    assert cosine.shape == (1, 1) and -1 <= float(cosine) <= 1
