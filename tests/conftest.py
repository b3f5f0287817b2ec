"""Fixtures for all tests; nothing here or in the tests needs a network."""

from __future__ import annotations

import gc
import json
import logging
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import programs
import pytest

from qvft import cpu_threads
from qvft.garbage_collection import rare_collections, usual_collections
from tools.tiny_blip2 import scene_format

os.environ.setdefault("HF_HUB_OFFLINE", "1")

# Scenes drawn as they are read: data of any size without a file.
scene_format.register()

PROJECT = Path(__file__).resolve().parents[1]
PROGRAMS = [
    PROJECT / "tests" / line
    for line in (PROJECT / "tests" / "programs.txt").read_text().splitlines()
    if not line.startswith("#")
]
"""Test files that `make test-fast` leaves out."""


def pytest_configure(config: pytest.Config) -> None:
    """Starts the server of `programs.py`, once for all workers of pytest-xdist."""
    if programs.SERVER not in os.environ and hasattr(os, "pidfd_open"):
        config.add_cleanup(programs.ProgramServer().close)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks the tests of `PROGRAMS`."""
    assert all(path.is_file() for path in PROGRAMS), "tests/programs.txt names a file that is gone"
    files = set(PROGRAMS)
    for item in items:
        if item.path in files:
            item.add_marker("programs")


def pytest_collection_finish(session: pytest.Session) -> None:
    """Makes a program that a test calls one within a program, which does not unfreeze modules."""
    programs_within = rare_collections()
    programs_within.__enter__()
    usual_collections()
    session.config.add_cleanup(lambda: programs_within.__exit__(None, None, None))


_modules_frozen = 0


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup() -> None:
    """Keeps imported modules out of garbage collections, those too that a test has imported.

    They are a million objects, which a collection reads in 0.3 s; training and merging collect
    several times.
    """
    global _modules_frozen
    if len(sys.modules) > _modules_frozen + 100:
        _modules_frozen = len(sys.modules)
        gc.collect()
        gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def features_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A feature cache for these tests alone."""
    folder = tmp_path_factory.mktemp("features")
    os.environ["QVFT_CACHE"] = str(folder)
    return folder


@pytest.fixture(autouse=True)
def idle_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """No warning about the load of the machine that runs the tests."""
    monkeypatch.setattr(os, "getloadavg", lambda: (0.0, 0.0, 0.0), raising=False)
    cpu_threads.warn_if_busy.cache_clear()


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data, `$QVFT_TEST_DATA` or `../shared/data` from the project's root."""
    folder = Path(os.environ.get("QVFT_TEST_DATA") or PROJECT / ".." / "shared" / "data")
    if not folder.is_dir():
        pytest.skip(f"no test data: {folder} is absent (set QVFT_TEST_DATA)")
    return folder


@pytest.fixture(scope="session")
def published_qvision(shared_data: Path) -> Path:
    """A tiny QVision in its published layout, with numbers that the original computed."""
    folder = shared_data / "reference" / "qvision"
    if not folder.is_dir():
        pytest.skip(f"no reference numbers: {folder} is absent")
    return folder


@pytest.fixture
def said(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    """What qvft logs, also after an entry has sent its log to stderr alone."""
    logger = logging.getLogger("qvft")
    before, logger.propagate = logger.propagate, False
    logger.addHandler(caplog.handler)
    yield caplog
    logger.removeHandler(caplog.handler)
    logger.propagate = before


@pytest.fixture
def datasets_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A fresh cache for `datasets`, so that no test sees what another has read."""
    import datasets

    folder = tmp_path / "datasets_cache"
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", folder)
    datasets.disable_progress_bars()
    return folder


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder of the embedded geometry with fresh weights, the same in every session."""
    import tiny_models

    from tools.tiny_blip2.geometry import init_tiny

    folder = tmp_path_factory.mktemp("tiny_model")
    init_tiny(0).save_pretrained(folder)
    tiny_models.processor().save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def language_folder(tmp_path_factory: pytest.TempPathFactory, tiny_folder: Path) -> Path:
    """A causal language model (Llama) of another width, with its tokenizer and a chat template, and
    without an embedding row to spare."""
    import torch
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("language_model")
    known = AutoTokenizer.from_pretrained(tiny_folder)
    state = json.loads(known.backend_tokenizer.to_str())
    state["added_tokens"] = [
        token for token in state["added_tokens"] if token["content"] != "<image>"
    ]
    state["post_processor"] = None
    (folder / "plain.json").write_text(json.dumps(state))
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_file=str(folder / "plain.json"), eos_token="</s>", pad_token="<pad>"
    )
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|turn|>"]})
    tokenizer.chat_template = (
        "{% for message in messages %}<|turn|>{{ message.role }}\n{{ message.content }}</s>\n"
        "{% endfor %}{% if add_generation_prompt %}<|turn|>assistant\n{% endif %}"
    )
    (folder / "plain.json").unlink()
    tokenizer.save_pretrained(folder)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=160,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=256,
        initializer_range=0.1,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        tie_word_embeddings=True,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        LlamaForCausalLM(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A custom JSONL dataset: `train.jsonl` of 24 and `test.jsonl` of 8 plain coloured images."""
    from PIL import Image

    folder = tmp_path_factory.mktemp("shapes")
    colours = {"red": (220, 30, 30), "green": (30, 200, 60), "blue": (40, 60, 220)}
    for split, count in (("train", 24), ("test", 8)):
        lines = []
        for index in range(count):
            name = list(colours)[index % 3]
            file = f"{split}{index}.png"
            shade = tuple(max(0, value - 3 * index) for value in colours[name])
            Image.new("RGB", (40, 32), shade).save(folder / file)
            row = {
                "id": f"{split}{index}",
                "image": file,
                "captions": [f"a {name} picture"],
                "questions": [
                    {"question": "Which colour is it?", "answers": [name]},
                    {"question": "Is it red?", "answers": ["yes" if name == "red" else "no"]},
                ],
            }
            lines.append(json.dumps(row))
        (folder / f"{split}.jsonl").write_text("\n".join(lines) + "\n")
    return folder


@pytest.fixture(scope="session")
def recipe_file(tmp_path_factory: pytest.TempPathFactory, tiny_folder: Path, shapes: Path) -> Path:
    """A recipe that trains the tiny folder on the shapes for a few steps."""
    path = tmp_path_factory.mktemp("recipe") / "shapes.yaml"
    path.write_text(
        f"""
name: shapes
model: {{id: "{tiny_folder}"}}
data:
  train: {{path: "{shapes / "train.jsonl"}"}}
  eval: {{path: "{shapes / "test.jsonl"}", name: shapes-test}}
  num_workers: 0
trainable: {{lora: {{r: 4, lora_alpha: 8}}}}
train:
  max_steps: 6
  per_device_train_batch_size: 8
  save_steps: 2
  learning_rate:
    {{qformer: 1.0e-3, query_tokens: 1.0e-3, language_projection: 1.0e-3, adapters: 1.0e-3}}
  logging_steps: 1
eval: {{batch_size: 8, answer: {{max_new_tokens: 4}}, caption: {{max_new_tokens: 4}}}}
run: {{threads: 1}}
"""
    )
    return path


@pytest.fixture(scope="session")
def pairs_recipe(tmp_path_factory: pytest.TempPathFactory, recipe_file: Path, shapes: Path) -> Path:
    """`recipe_file` on shapes with two or three pairs each, in a phase that learns from them."""
    folder = tmp_path_factory.mktemp("pairs") / "shapes"
    shutil.copytree(shapes, folder)
    for file in folder.glob("*.jsonl"):
        lines = [json.loads(line) for line in file.read_text().splitlines()]
        for index, line in enumerate(lines):
            name = line["questions"][0]["answers"][0]
            asked = "Which colour is it?"
            line["pairs"] = [
                {"question": asked, "chosen": name, "rejected": f"{name} and nothing else"},
                {"question": None, "chosen": f"a {name} picture", "rejected": "a dog"},
                {"question": "Is it red?", "chosen": "no idea", "rejected": "perhaps"},
            ][: 2 + index % 2]
        file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    path = folder.parent / "pairs.yaml"
    text = recipe_file.read_text().replace(str(shapes), str(folder))
    path.write_text(text + "phases: [{name: preference, objective: preference}]\n")
    return path


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory: pytest.TempPathFactory, recipe_file: Path) -> Path:
    """A run folder that `qvft.train` wrote from `recipe_file`."""
    from qvft.train import main

    folder = tmp_path_factory.mktemp("runs") / "shapes"
    assert main([str(recipe_file), f"run.dir={folder}"]) == 0
    return folder


@pytest.fixture(scope="session")
def make_run(tiny_folder: Path) -> Callable[..., Path]:
    """A function that writes the run folder of a finished run without training one.

    Every trained weight is the base's (or PEFT's start) plus noise as large as the weights, so that
    leaving any of them out changes what the model says. Keywords are laid over the recipe.
    """
    import torch

    from qvft.adapters.checkpoint import bridge_names, save_checkpoint
    from qvft.recipe.load import merge, parse_recipe
    from qvft.recipe.recipe_lock import write_lock
    from qvft.setup.model import base_model, base_of, set_trainable
    from qvft.setup.model import with_fresh_adapters as adapted
    from qvft.setup.provenance import provenance_of

    plain: dict[str, Any] = {
        "name": "drawn",
        "model": {"id": str(tiny_folder)},
        "data": {
            "train": {"format": "drawn", "path": "seed=1,count=2"},
            "eval": {"format": "drawn", "path": "seed=2,count=2"},
            "num_workers": 0,
        },
        "trainable": {
            "lora": {"target_modules": ["q_proj", "v_proj", "fc1"], "r": 4, "lora_alpha": 8}
        },
        "run": {"threads": 1},
    }

    def make(folder: Path, **changes: Any) -> Path:
        recipe = parse_recipe(merge(plain, changes))
        base = base_of(recipe)
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            torch.manual_seed(3)
            loaded = adapted(base_model(recipe, base), recipe.trainable)
            set_trainable(loaded, recipe.trainable)
            for parameter in loaded.model.parameters():
                if parameter.requires_grad:
                    parameter += 0.02 * torch.randn(parameter.shape)
        save_checkpoint(
            folder / "adapter",
            loaded.model,
            loaded.handle,
            base.family,
            provenance_of(recipe, base, {"drawn": "0"}),
            bridge=bridge_names(loaded.model),
        )
        write_lock(recipe, folder)
        return folder

    return make


@pytest.fixture(scope="session")
def drawn_run(tmp_path_factory: pytest.TempPathFactory, make_run: Callable[..., Path]) -> Path:
    """The run folder of `make_run` with LoRA and a trained bridge."""
    return make_run(tmp_path_factory.mktemp("runs") / "drawn")


@pytest.fixture(scope="session")
def merged(tmp_path_factory: pytest.TempPathFactory, drawn_run: Path) -> Path:
    """The folder that merging `drawn_run` in float32 wrote."""
    from qvft.weights.merge import merge_run

    out = tmp_path_factory.mktemp("merged") / "model"
    merge_run(drawn_run, out)
    return out
