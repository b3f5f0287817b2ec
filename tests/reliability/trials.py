"""What is tried on damaged input, a function for each kind: it counts ends, a defect fails."""

from __future__ import annotations

import contextlib
import io
import json
import random
import re
import shutil
import sys
import warnings
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from mutations import changed_value, damaged_bytes, flipped_bit
from ruamel.yaml import YAML

from qvft import check
from qvft.adapters.checkpoint import read_bridge
from qvft.adapters.lora_config import require_fitting_lora
from qvft.adapters.lora_weights import read_lora
from qvft.adapters.manifest import READ, read_manifest, require_untouched
from qvft.data.formats import read_samples
from qvft.errors import CheckpointError, DataError, RecipeError
from qvft.recipe.load import load_recipe, read_yaml
from qvft.recipe.recipe_lock import read_lock, recipe_hash, write_lock
from qvft.recipe.yaml_text import yaml_file_value

ROOT = Path(__file__).resolve().parents[2]
RECIPES = sorted((ROOT / "recipes").glob("*.yaml"))
FORMATS = ROOT / "data_formats"


def recipes(count: int, *, seed: int, work: Path) -> Counter[str]:
    """Recipes mutated as values, as text and by overrides: a recipe or one `RecipeError`, and no
    key of an accepted one without effect. Every fifth goes through `qvft.check` too, and its lock
    reads back as the same recipe."""
    ends: Counter[str] = Counter()
    sources = [(path.read_bytes(), read_yaml(path)) for path in RECIPES]
    for number in range(count):
        chance = random.Random(f"recipe {seed} {number}")
        text, content = chance.choice(sources)
        path, overrides = work / "recipe.yaml", []
        how = chance.random()
        if how < 0.45:
            path.write_bytes(as_yaml(changed_value(content, chance)))
        elif how < 0.8:
            path.write_bytes(damaged_bytes(text, chance))
        else:
            path.write_bytes(text)
            overrides = [override(content, chance) for _ in range(chance.choice((1, 1, 3)))]
        with failing(f"recipe {seed} {number}", path):
            ends[one_recipe(path, overrides, work, thoroughly=number % 5 == 0)] += 1
    return ends


def one_recipe(path: Path, overrides: list[str], work: Path, *, thoroughly: bool) -> str:
    if thoroughly:
        screen = io.StringIO()
        # SystemExit is argparse's, of an override that looks like an option.
        with contextlib.redirect_stderr(screen), contextlib.suppress(SystemExit):
            assert check.main([str(path), *overrides, "--only", "recipe"]) in (0, 2)
        assert "Traceback" not in screen.getvalue()
    try:
        recipe = load_recipe(path, overrides)
    except RecipeError as error:
        assert str(error).strip()
        return "refused"
    if not overrides:
        text = path.read_text(encoding="utf-8")
        ignored = list(unheard(yaml_file_value(text, where=""), recipe.model_dump()))
        assert not ignored, f"without effect: {ignored}"
    if not thoroughly:
        return "accepted"
    work.joinpath("run").mkdir(exist_ok=True)
    write_lock(recipe, work / "run")
    again = read_lock(work / "run")
    assert recipe_hash(again) == recipe_hash(recipe)
    assert again == recipe
    return "accepted"


def unheard(given: Any, taken: Any, path: str = "") -> Any:
    """Key paths of `given` that are not in `taken`, or whose value is another."""
    if isinstance(given, dict) and isinstance(taken, dict):
        for key, value in given.items():
            if key not in taken:
                yield f"{path}.{key}"
            else:
                yield from unheard(value, taken[key], f"{path}.{key}")
    elif isinstance(given, list) and isinstance(taken, list) and len(given) == len(taken):
        for place, (one, other) in enumerate(zip(given, taken, strict=True)):
            yield from unheard(one, other, f"{path}.{place}")
    elif isinstance(taken, dict) and all(one == given for one in taken.values()):
        return  # one value for every group: learning_rate
    elif given != taken and [given] != taken:  # one name for a list of one: loss_type
        yield path


def as_yaml(value: Any) -> bytes:
    """A value as YAML; JSON where ruamel.yaml will not write it."""
    stream = io.BytesIO()
    try:
        YAML(typ="safe", pure=True).dump(value, stream)
    except Exception:  # half pairs, numbers of thousands of digits
        return json.dumps(value).encode()
    return stream.getvalue()


def override(content: Mapping[str, Any], chance: random.Random) -> str:
    """`key.path=value` with a path that is there, nearly there or not, and any value."""
    from mutations import ODD_TEXTS, ODD_VALUES, misspelt, places

    found = [path for path in places(content) if all(isinstance(step, str) for step in path)]
    name = ".".join(map(str, chance.choice(found)))
    if chance.random() < 0.3:
        name = misspelt(name, chance)
    value = chance.choice(
        (str(chance.choice(ODD_VALUES)), chance.choice(ODD_TEXTS).decode(errors="replace"))
    )
    return f"{name}={value}".replace("\0", "")


JSONL_ROWS = tuple(
    {
        "id": f"s{number}",
        "image": f"img/{number}.png",
        "captions": [f"caption {number}", "another"],
        "questions": [{"id": f"q{number}", "question": "Which?", "answers": ["this", "that"]}],
        "meta": {"organ": "a", "number": number},
    }
    for number in range(12)
)


def jsonl(count: int, *, seed: int, work: Path) -> Counter[str]:
    """One line of twelve is mutated: samples or one `DataError`, which names that line."""
    ends: Counter[str] = Counter()
    path = work / "rows.jsonl"
    for number in range(count):
        chance = random.Random(f"jsonl {seed} {number}")
        lines = [json.dumps(row).encode() for row in JSONL_ROWS]
        place = chance.randrange(len(lines))
        if chance.random() < 0.5:
            lines[place] = json.dumps(changed_value(JSONL_ROWS[place], chance)).encode()
        else:
            lines[place] = damaged_bytes(lines[place], chance)
        # A line break inside would make two lines of it, and then other numbers are right.
        lines[place] = re.sub(rb"[\r\n]", b" ", lines[place])
        path.write_bytes(b"\n".join(lines) + b"\n")
        with failing(f"jsonl {seed} {number}", path):
            try:
                read_samples("jsonl", str(path))
                ends["accepted"] += 1
            except DataError as error:
                named = {int(one) for one in re.findall(r"rows\.jsonl:(\d+)", str(error))}
                assert place + 1 in named, f"line {place + 1} is broken, but: {error}"
                ends["refused"] += 1
    return ends


TABLES = {
    "coco_captions": ("captions.json", "annotations"),
    "karpathy": ("dataset_coco.json", "images"),
    "pathvqa": ("train.json", None),
    "slake": ("train.json", None),
    "vqa_rad": ("VQA_RAD Dataset Public.json", None),
    "vqa_v2": ("v2_OpenEnded_mscoco_train2014_questions.json", "questions"),
}
"""By format the file of its records, and the key of their list."""


def json_files(count: int, *, seed: int, work: Path) -> Counter[str]:
    """The record files of the official layouts mutated: samples or one `DataError`; where one
    record was changed, the message names it, by its number or an id of it."""
    ends: Counter[str] = Counter()
    for format in TABLES:
        shutil.copytree(FORMATS / format, work / format, dirs_exist_ok=True)
    for number in range(count):
        chance = random.Random(f"json {seed} {number}")
        format = chance.choice(sorted(TABLES))
        name, key = TABLES[format]
        original, path = FORMATS / format / name, work / format / name
        content, record = json.loads(original.read_text(encoding="utf-8")), None
        if chance.random() < 0.5:
            path.write_bytes(damaged_bytes(original.read_bytes(), chance))
        else:
            rows = content[key] if key else content
            record = chance.randrange(len(rows))
            before, rows[record] = rows[record], changed_value(rows[record], chance)
            path.write_text(json.dumps(content))
        given = json.loads((FORMATS / format / "read.json").read_text())["good"]
        given |= {k: str(work / format / v) for k, v in given.items() if k in ("path", "images")}
        with failing(f"json {seed} {number}", path):
            try:
                read_samples(format, **given)
                ends["accepted"] += 1
            except DataError as error:
                ends["refused"] += 1
                if record is not None and "no samples" not in str(error):
                    assert names_record(str(error), record, before, rows[record]), (
                        f"record {record} is broken, but: {error}"
                    )
        shutil.copy(original, path)
    return ends


def names_record(message: str, record: int, *versions: Any) -> bool:
    """Whether a message names a record by number, or by an id that it has or had."""
    ids = {
        str(value)
        for row in versions
        if isinstance(row, dict)
        for key, value in row.items()
        if "id" in key.lower()
    }
    return (
        f"record {record}" in message
        or f"images, record {record}" in message
        or any(one and one in message for one in ids)
    )


def images(count: int, *, seed: int, work: Path) -> Counter[str]:
    """Image files damaged: an RGB image or one `ImageError`, of `check` and `decode` the same."""
    sys.path.insert(0, str(ROOT / "tests" / "data" / "images"))
    from test_damaged_images import CASES, damaged, encoded, outcome

    from qvft.data.sample import ImageFile

    wholes = [encoded(*case) for case in CASES]
    ends: Counter[str] = Counter()
    path = work / "image"
    for number in range(count):
        chance = random.Random(f"image {seed} {number}")
        path.write_bytes(damaged(chance.choice(wholes), chance))
        with failing(f"image {seed} {number}", path), warnings.catch_warnings():
            warnings.simplefilter("error")
            found = [outcome(read, ImageFile(path)) for read in image_readers()]
            assert found[0] == found[1]
            ends["accepted" if found[0] == "image" else "refused"] += 1
    return ends


def image_readers() -> tuple[Callable[..., Any], ...]:
    from qvft.data.images.decoding import check as check_image
    from qvft.data.images.decoding import decode

    return check_image, decode


def adapters(count: int, *, seed: int, work: Path, adapter: Path) -> Counter[str]:
    """A file of an adapter folder with a bit flipped or otherwise damaged is refused; where the
    damage is in the manifest, refused or without effect on any weight.

    Without hashes, as an earlier manifest was, damage ends in one message or in other numbers.
    """
    ends: Counter[str] = Counter()
    folder = Path(shutil.copytree(adapter, work / "adapter", dirs_exist_ok=True))
    whole = {path.name: path.read_bytes() for path in folder.iterdir()}
    expected = weights(folder)
    bare = {k: v for k, v in json.loads(whole["manifest.json"]).items() if k != "files"}
    names = sorted({*READ, "manifest.json"} & set(whole))
    for number in range(count):
        chance = random.Random(f"adapter {seed} {number}")
        name = chance.choice(names)
        damage = flipped_bit if chance.random() < 0.7 else damaged_bytes
        has_hashes = name == "manifest.json" or chance.random() < 0.7
        if not has_hashes:
            (folder / "manifest.json").write_text(json.dumps(bare))
        (folder / name).write_bytes(damage(whole[name], chance))
        with failing(f"adapter {seed} {number}", folder / name):
            try:
                found = weights(folder)
                if (folder / name).read_bytes() != whole[name] and has_hashes:
                    assert name == "manifest.json", f"{name} was damaged and nobody noticed"
                    assert equal(found, expected)
                ends["accepted" if has_hashes else "accepted, without hashes"] += 1
            except CheckpointError:
                ends["refused" if has_hashes else "refused, without hashes"] += 1
        for changed in (name, "manifest.json"):
            (folder / changed).write_bytes(whole[changed])
    return ends


def weights(folder: Path) -> dict[str, Any]:
    """All weights of an adapter folder, read and checked as merging reads them, and as PEFT's
    part is checked before PEFT sees it."""
    manifest = read_manifest(folder)
    require_untouched(folder, manifest)
    require_fitting_lora(folder)
    layers = read_lora(folder)
    bridge = read_bridge(folder, manifest)
    return {**bridge, **{name: layer.b @ layer.a for name, layer in layers.items()}}


def equal(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    same = one.keys() == other.keys()
    return same and all(bool((one[key] == other[key]).all()) for key in one)


@contextlib.contextmanager
def failing(trial: str, path: Path) -> Any:
    """Names the trial and keeps its input where anything but the expected error is raised."""
    try:
        yield
    except Exception as error:
        kept = path.with_name(path.name + ".kept")
        shutil.copyfile(path, kept)
        raise AssertionError(f"{trial}: {type(error).__name__}: {error} (input: {kept})") from error
