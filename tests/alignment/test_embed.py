"""`qvft embed` and `qvft search`: vectors of images and texts, and what they find."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file, save_file

from qvft.data.formats import read_samples
from qvft.data.write_jsonl import write_jsonl
from qvft.embed import main as embed
from qvft.errors import DataError
from qvft.eval import main as evaluate
from qvft.evaluation.metrics.retrieval import retrieval_scores
from qvft.inference.embedding_model import load_embedding_model
from qvft.inference.vector_file import read_vectors
from qvft.inference.vector_search import similarities
from qvft.predict import main as predict
from qvft.search import main as search

EIGHT = "seed=6,count=8,size=48"
SUFFIXES = (".parquet", ".npy", ".safetensors")


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight scenes with their captions, as custom JSONL."""
    path = tmp_path_factory.mktemp("drawn") / "drawn.jsonl"
    write_jsonl(list(read_samples("drawn", EIGHT)), path)
    return path


@pytest.fixture(scope="module")
def image_vectors(aligned_run: Path, drawn: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("vectors") / "images.parquet"
    assert embed([str(aligned_run), str(drawn), "--out", str(out), "--workers", "0"]) == 0
    return out


def found(out: Path) -> list[dict]:
    return [json.loads(line) for line in out.read_text().splitlines()]


def test_vectors_rank_as_the_report_says(
    aligned_run: Path, drawn: Path, image_vectors: Path, tmp_path: Path
) -> None:
    texts = tmp_path / "texts.npy"
    given = [str(aligned_run), str(drawn), "--captions", "--out", str(texts)]
    assert embed([*given, "--batch-size", "3"]) == 0
    images, captions = read_vectors(image_vectors), read_vectors(texts)
    samples = list(read_samples("drawn", EIGHT))
    assert captions.names == [caption for sample in samples for caption in sample.captions]
    owners = [place for place, sample in enumerate(samples) for _ in sample.captions]
    scores = retrieval_scores(similarities(images.array(), captions.array()), owners)

    out = tmp_path / "eval"
    assert evaluate([str(aligned_run), "eval.metrics=[retrieval]", "--out", str(out)]) == 0
    report = json.loads((out / "report.json").read_text())["metrics"]
    for k in (1, 5, 10):
        # The same share of the same queries, up to the last digit of a float64.
        assert report[f"image_to_text_recall_at_{k}"] == pytest.approx(scores.image_to_text[k])
        assert report[f"text_to_image_recall_at_{k}"] == pytest.approx(scores.text_to_image[k])


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_every_kind_of_file_holds_the_same(
    aligned_run: Path, drawn: Path, image_vectors: Path, tmp_path: Path, suffix: str
) -> None:
    out = tmp_path / f"vectors{suffix}"
    assert embed([str(aligned_run), str(drawn), "--out", str(out), "--workers", "0"]) == 0
    expected, read = read_vectors(image_vectors), read_vectors(out)
    assert np.array_equal(read.array(), expected.array())
    assert (read.names, read.shape) == (expected.names, expected.shape)
    assert read.settings == expected.settings
    assert np.array_equal(np.concatenate(list(read.blocks(3))), expected.array())


def test_an_exported_folder_embeds_and_classifies_as_the_run(
    aligned_run: Path, retrieval_folder: Path, drawn: Path, image_vectors: Path, tmp_path: Path
) -> None:
    model = load_embedding_model(retrieval_folder)
    vectors = model.embed_images([drawn.parent / one for one in ("drawn_images/6-0.png",)])
    # float32, in batches of another size.
    np.testing.assert_allclose(vectors, read_vectors(image_vectors).array()[:1], atol=1e-5)
    texts = load_embedding_model(aligned_run).embed_texts(["a circle"])
    np.testing.assert_allclose(model.embed_texts("a circle"), texts, atol=1e-5)
    rows = []
    for name, folder in (("run", aligned_run), ("exported", retrieval_folder)):
        out = tmp_path / f"{name}.jsonl"
        asked = ["--classes", "circle,star", "--out", str(out), "--workers", "0"]
        assert predict([str(folder), str(drawn), *asked]) == 0
        rows.append(found(out))
    assert [row["text"] for row in rows[0]] == [row["text"] for row in rows[1]]


def test_no_images_and_no_texts_are_refused(aligned_run: Path) -> None:
    model = load_embedding_model(aligned_run)
    for method in (model.embed_images, model.embed_texts):
        with pytest.raises(DataError, match="an empty list"):
            method([])


def test_search_finds_by_text_and_by_image_and_writes_rows(
    aligned_run: Path, image_vectors: Path, tmp_path: Path
) -> None:
    vectors, out = read_vectors(image_vectors), tmp_path / "found.jsonl"
    asked = ["--text", "a circle", "a star", "--top", "3", "--out", str(out)]
    assert search([str(image_vectors), *asked]) == 0
    texts = load_embedding_model(aligned_run).embed_texts(["a circle", "a star"])
    expected = similarities(vectors.array(), texts).T
    for place, scores in enumerate(expected):
        rows = found(out)[3 * place : 3 * place + 3]
        assert [row["rank"] for row in rows] == [1, 2, 3]
        best = [vectors.names[index] for index in np.argsort(-scores)[:3]]
        assert [row["image"] for row in rows] == best
        # Six decimals are written.
        assert [row["similarity"] for row in rows] == pytest.approx(
            np.sort(scores)[:-4:-1], abs=1e-6
        )
    out = tmp_path / "by_image.jsonl"
    assert search([str(image_vectors), "--image", vectors.names[4], "--out", str(out)]) == 0
    first = found(out)[0]
    assert first["image"] == vectors.names[4] and first["similarity"] == pytest.approx(1, abs=1e-5)


def test_the_model_that_moved_is_named_and_another_refused(
    aligned_run: Path, retrieval_folder: Path, image_vectors: Path, tmp_path: Path, capsys
) -> None:
    moved = tmp_path / "moved"
    moved.symlink_to(aligned_run)
    assert search([str(image_vectors), "--text", "a circle", "--model", str(moved)]) == 0
    given = [str(image_vectors), "--text", "a circle", "--model", str(retrieval_folder)]
    capsys.readouterr()
    assert search(given) == 2
    assert "is not the model of" in capsys.readouterr().err


def test_a_model_without_contrast_finds_copies_and_refuses_texts(
    tiny_folder: Path, drawn: Path, tmp_path: Path, capsys
) -> None:
    from PIL import Image

    images, out = tmp_path / "images", tmp_path / "vectors.safetensors"
    images.mkdir()
    for index, sample in enumerate(read_samples("drawn", "seed=6,count=4,size=48")):
        sample.image.open().save(images / f"{index}.png")
    Image.open(images / "2.png").convert("RGB").save(images / "copy of 2.jpg", quality=95)
    (images / "broken.png").write_bytes((images / "1.png").read_bytes()[:200])
    given = [
        str(tiny_folder),
        str(images),
        "--out",
        str(out),
        "--workers",
        "0",
        "--batch-size",
        "1",
    ]
    assert embed(given) == 0
    said = capsys.readouterr().err
    assert "no contrast heads" in said and "left out: 1 of 6" in said
    assert read_vectors(out).shape[:2] == (5, 1)
    pairs = tmp_path / "pairs.jsonl"
    asked = ["--duplicates", "--threshold", "-1", "--top", "1", "--out", str(pairs)]
    assert search([str(out), *asked]) == 0
    assert "10 pairs" in capsys.readouterr().out
    (pair,) = found(pairs)
    names = {Path(pair[key]).name for key in ("first", "second")}
    assert names == {"2.png", "copy of 2.jpg"}
    assert search([str(out), "--text", "a circle"]) == 2
    assert (
        embed([str(tiny_folder), str(drawn), "--captions", "--out", str(tmp_path / "t.npy")]) == 2
    )


def test_a_retrieval_checkpoint_is_refused_where_it_cannot_serve(
    retrieval_folder: Path, drawn: Path, tmp_path: Path, capsys
) -> None:
    assert predict([str(retrieval_folder), str(drawn)]) == 2
    assert "has no decoder" in capsys.readouterr().err
    folder = tmp_path / "of matching alone"
    shutil.copytree(retrieval_folder, folder)
    record = json.loads((folder / "export.json").read_text())
    record["verification"]["objectives"] = ["itm"]
    (folder / "export.json").write_text(json.dumps(record))
    assert embed([str(folder), str(drawn), "--out", str(tmp_path / "v.npy")]) == 2
    assert "no contrast heads" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["other.parquet", "other.npy", "other.safetensors"])
def test_a_file_of_another_program_is_refused(name: str, tmp_path: Path, capsys) -> None:
    path = tmp_path / name
    if name.endswith(".npy"):
        np.save(path, np.zeros((2, 3)))
    else:
        path.write_bytes(b"PAR1 something else PAR1")
    assert search([str(path), "--duplicates"]) == 2
    assert name in capsys.readouterr().err


def test_a_nan_weight_makes_no_vector_and_no_class(
    retrieval_folder: Path, drawn: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = Path(shutil.copytree(retrieval_folder, tmp_path / "damaged"))
    weights = load_file(folder / "model.safetensors")
    weights["query_tokens"][0, 0, 0] = float("nan")
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    assert embed([str(folder), str(drawn), "--out", str(tmp_path / "v.npy")]) == 1
    assert predict([str(folder), str(drawn), "--classes", "circle,star", "--workers", "0"]) == 1
    assert capsys.readouterr().out == "" and not (tmp_path / "v.npy").exists()
