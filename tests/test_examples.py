"""The examples run, on the bundled model and without a network, and do what they say."""

from __future__ import annotations

import importlib.util
import io
import re
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from PIL import Image
from test_notebooks import execute

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
FOR_NOTEBOOKS = EXAMPLES / "train_from_python.ipynb"


def test_the_plain_loop_learns(capsys: pytest.CaptureFixture) -> None:
    spec = importlib.util.spec_from_file_location("plain_loop", EXAMPLES / "plain_loop.py")
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    losses = example.main(epochs=3)
    assert len(losses) == 3
    # 72 texts of which half are one of three colours: to halve the loss is to read the image.
    assert losses[-1] < losses[0] / 2


def test_dpo_with_trl_prefers_the_chosen_text(tmp_path: Path) -> None:
    pytest.importorskip("trl", reason="needs qvft[trl]")
    spec = importlib.util.spec_from_file_location("dpo_with_trl", EXAMPLES / "dpo_with_trl.py")
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    lines = example.main(tmp_path)
    assert lines[0]["rewards/margins"] == 0  # the reference is the model itself
    assert lines[-1]["rewards/margins"] > 0 and lines[-1]["loss"] < lines[0]["loss"]
    assert (tmp_path / "run" / "adapter" / "manifest.json").is_file()


def test_the_plain_loop_uses_no_recipe_and_no_trainer() -> None:
    code = (EXAMPLES / "plain_loop.py").read_text()
    assert not re.search(r"import.*(Recipe|Trainer)|qvft\.recipe", code)


def test_the_notebook_trains_evaluates_and_merges(tmp_path: Path) -> None:
    (tmp_path / "examples").mkdir()
    (tmp_path / "recipes").symlink_to(EXAMPLES.parent / "recipes")
    space = execute(FOR_NOTEBOOKS, tmp_path / "examples").space
    assert space["losses"].values[-1] < space["losses"].values[0]
    report = space["report"]
    assert report.n == 24 * 3
    # It has learnt to look: the same model is worse with the images shuffled.
    assert report.metrics["exact_match"] > report.baselines["blind"]["exact_match"]
    assert (tmp_path / "examples" / "merged" / "shapes" / "merge.json").is_file()
    assert space["again"].folder == space["run"].folder


def test_the_colab_notebook_runs_from_data_to_the_merged_model(tmp_path: Path) -> None:
    (tmp_path / "recipes").symlink_to(EXAMPLES.parent / "recipes")
    few = '"train.max_steps": 3, "data.train.limit": 64, "data.eval.limit": 8, "run.dir"'
    replaced = {"recipe": ('"run.dir"', few)}
    space = execute(EXAMPLES / "finetune_on_colab.ipynb", tmp_path, replaced=replaced).space
    assert space["report"].n == 8 * 4
    assert (tmp_path / "merged" / "digits" / "merge.json").is_file()
    assert space["said"] == space["answer"]


def test_the_server_answers_waiting_requests_in_one_batch_and_refuses_bad_images(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pytest.importorskip("fastapi", reason="needs fastapi, python-multipart and httpx")
    testclient = pytest.importorskip("starlette.testclient", reason="needs httpx")
    monkeypatch.setenv("MODEL", "qvft/tiny-blip2")
    spec = importlib.util.spec_from_file_location(
        "serve_with_fastapi", EXAMPLES / "serve_with_fastapi.py"
    )
    example = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "serve_with_fastapi", example)
    spec.loader.exec_module(example)
    requests, batches, started = 5, [], threading.Event()

    def one_after_another(images: list[bytes], questions: list[str]) -> list[str | None]:
        batches.append(len(images))
        started.set()
        while len(batches) == 1 and example.waiting.qsize() < requests - 1:
            time.sleep(0.01)  # the first batch ends when all others wait
        return answers(images, questions)

    answers = example.answers
    monkeypatch.setattr(example, "answers", one_after_another)
    images = []
    for colour in ("red", "green", "blue", "black"):
        stream = io.BytesIO()
        Image.new("RGB", (48, 48), colour).save(stream, "PNG")
        images.append(stream.getvalue())
    expected = example.model.answer(images, "Which colour is it?")
    with testclient.TestClient(example.app) as client, ThreadPoolExecutor(requests) as pool:

        def ask(content: bytes):
            data = {"question": "Which colour is it?"}
            return client.post("/answer", files={"image": content}, data=data)

        said = [pool.submit(ask, images[0])]
        assert started.wait(60)
        said += [pool.submit(ask, content) for content in [*images[1:], b"no image"]]
        replies = [future.result() for future in said]
        assert client.post("/answer", files={"image": b""}, data={"question": " "}).is_error
    assert batches[:2] == [1, requests - 1]
    assert [reply.json()["answer"] for reply in replies[:-1]] == expected
    assert replies[-1].status_code == 422
