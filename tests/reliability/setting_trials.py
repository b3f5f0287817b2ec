"""What is tried on settings of the libraries and on command lines, a function for each kind."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import os
import random
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

from mutations import ODD_TEXTS, ODD_VALUES, misspelt
from PIL import Image

from qvft import check, convert, features, pairs, predict, score, train
from qvft.errors import RecipeError, UserError

FIELD_VALUES = (*ODD_VALUES, 3, [1, 2], ["x"], {"x": 1}, 0.5, "static", "steps", "adamw_torch")
STREAMS = ("utf-8", "ascii", "latin-1", "utf-16", "cp1252")


def arguments(count: int, *, seed: int, work: Path) -> Counter[str]:
    """Fields of TrainingArguments with odd values: training can be built and takes steps with them,
    or one `RecipeError` names one that was set."""
    from transformers import TrainingArguments

    from qvft.recipe.train import Train
    from qvft.training.rehearsal import require_trainable

    names = [field.name for field in dataclasses.fields(TrainingArguments)]
    ends: Counter[str] = Counter()
    for number in range(count):
        chance = random.Random(f"arguments {seed} {number}")
        given = odd_fields(names, chance)
        with named(f"arguments {seed} {number}: {given!r}"):
            try:
                require_trainable(Train(arguments=given).model_dump())
                ends["accepted"] += 1
            except RecipeError as error:
                assert any(f"train.arguments.{name}" in str(error) for name in given)
                ends["refused"] += 1
    return ends


def decoding(count: int, *, seed: int, work: Path) -> Counter[str]:
    """Fields of GenerationConfig with odd values: two texts, or one `UserError` names a field."""
    from transformers import GenerationConfig

    from qvft.inference.vision_language_model import load_model

    names = [*GenerationConfig().to_dict(), "max_new_tokens", "no_such_field"]
    model, image = load_model("qvft/tiny-blip2"), Image.new("RGB", (16, 16))
    ends: Counter[str] = Counter()
    for number in range(count):
        chance = random.Random(f"decoding {seed} {number}")
        given = odd_fields(names, chance)
        with named(f"decoding {seed} {number}: {given!r}"):
            try:
                said = model.answer(
                    image, ["Which colour?", "What?"], **{"max_new_tokens": 3} | given
                )
                assert len(said) == 2
                ends["accepted"] += 1
            except UserError as error:
                assert any(name in str(error) for name in given), error
                ends["refused"] += 1
    return ends


def odd_fields(names: list[str], chance: random.Random) -> dict[str, Any]:
    """One to three fields with any values."""
    chosen = chance.sample(names, chance.choice((1, 1, 2, 3)))
    return {name: chance.choice(FIELD_VALUES) for name in chosen}


COMMANDS = (
    (check, ["r.yaml", "--only", "recipe", "train.epochs=2", "data.train.limit=1"]),
    (check, ["none.yaml", "--json", "x.json"]),
    (train, ["r.yaml", "data.train.path=no.jsonl", "run.dir=runs/x"]),
    (train, ["r.yaml", "data.train.format=jsnl", "--epochs", "3"]),
    (convert, ["jsonl", "rows.jsonl", "out.jsonl", "--limit", "1", "--images", "."]),
    (convert, ["jsonl", "pairs.jsonl", "out.parquet", "--to", "trl", "--conversational"]),
    (
        pairs,
        ["--predictions", "texts.jsonl", "--data", "rows.jsonl"]
        + ["--metric", "exact_match", "--out", "made.jsonl", "--allow-outside"],
    ),
    (predict, ["qvft/tiny-blip2", "no.png", "--question", "Which?", "--num_beams", "2"]),
    (score, ["caption", "--references", "rows.jsonl", "--predictions", "rows.jsonl"]),
    (score, ["vqa", "--questions", "r.yaml", "--annotations", "x", "--predictions", "x"]),
    (features, ["list", "--cache", "cache"]),
    (features, ["prune", "--cache", "cache", "--unused-days", "3", "--dry-run"]),
)
"""Programs and words that need no model; what is misspelt seldom makes one needed."""


def command_lines(count: int, *, seed: int, work: Path) -> Counter[str]:
    """Command lines with words changed, lost, added or doubled, on terminals of any encoding: a
    status of 0, 1 or 2, and no traceback."""
    Image.new("RGB", (8, 8)).save(work / "é.png")
    work.joinpath("rows.jsonl").write_text('{"image": "é.png", "caption": "犬"}\n', "utf-8")
    work.joinpath("pairs.jsonl").write_text(
        '{"image": "é.png", "chosen": "犬", "rejected": "猫"}\n', "utf-8"
    )
    work.joinpath("texts.jsonl").write_text('{"image": "é.png", "texts": ["犬", "猫"]}\n', "utf-8")
    work.joinpath("r.yaml").write_text(
        "name: r\nmodel: {id: ./modèle}\ndata: {train: {path: rows.jsonl}}\n", "utf-8"
    )
    ends: Counter[str] = Counter()
    for number in range(count):
        chance = random.Random(f"command {seed} {number}")
        program, words = chance.choice(COMMANDS)
        line = changed_words(words, chance)
        with named(f"command {seed} {number}: {program.__name__} {line!r}"):
            status, told = ended(program, line, work, chance.choice(STREAMS))
            assert status in (0, 1, 2), told
            assert "Traceback" not in told, told
            ends[f"status {status}"] += 1
    return ends


def changed_words(words: list[str], chance: random.Random) -> list[str]:
    """Half pairs are no bytes, which a command line is made of, and so are left out."""
    changed = list(words)
    for _ in range(chance.choice((0, 1, 1, 2))):
        place = chance.randrange(len(changed) + 1)
        how = chance.random()
        odd = (
            chance.choice(
                (str(chance.choice(ODD_VALUES)), chance.choice(ODD_TEXTS).decode(errors="replace"))
            )
            .replace("\0", "")
            .replace("\ud800", "\udcff")
        )
        if place == len(changed) or how < 0.2:
            changed.insert(place, chance.choice((odd, f"--{odd}", f"x.y={odd}")))
        elif how < 0.5:
            changed[place] = odd
        elif how < 0.7:
            del changed[place]
        else:
            changed[place] = misspelt(changed[place], chance)
    return changed


def ended(program: Any, line: list[str], work: Path, encoding: str) -> tuple[int, str]:
    """Status of a program in a folder, and what it said on a stderr of an encoding."""
    outputs = [io.TextIOWrapper(io.BytesIO(), encoding=encoding) for _ in range(2)]
    before = Path.cwd()
    os.chdir(work)
    try:
        with contextlib.redirect_stdout(outputs[0]), contextlib.redirect_stderr(outputs[1]):
            try:
                status = program.main(line)
            except SystemExit as error:  # argparse's
                status = int(error.code or 0)
    finally:
        os.chdir(before)
    outputs[1].flush()
    return status, outputs[1].buffer.getvalue().decode(encoding)


@contextlib.contextmanager
def named(trial: str) -> Any:
    """Names the trial where anything but the expected error is raised."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except Exception as error:
        raise AssertionError(f"{trial}: {type(error).__name__}: {error}") from error
