"""Walks data_formats/: every format's sample reads as written down, every bad file is named."""

from __future__ import annotations

import csv
import json
import re
import tarfile
from pathlib import Path
from typing import Any

import pytest

from qvft.data.formats import FORMATS, read_samples
from qvft.data.formats.columns import DEFAULTS
from qvft.data.formats.csv_table import DEFAULTS as CSV_DEFAULTS
from qvft.data.formats.jsonl import ROW_KEYS
from qvft.data.formats.jsonl_texts import PAIR_KEYS, QUESTION_KEYS
from qvft.data.images.decoding import check
from qvft.data.sample import Sample
from qvft.errors import DataError
from qvft.recipe.load import load_recipe

ROOT = Path(__file__).resolve().parents[2] / "data_formats"
FOLDERS = sorted(folder for folder in ROOT.iterdir() if folder.is_dir())
FILES = ("path", "images", "questions", "annotations")

pytestmark = pytest.mark.usefixtures("datasets_cache")
each_format = pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)


def load(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def arguments(folder: Path, kind: str, *, bad: str = "") -> dict[str, Any]:
    """What `read_samples` gets: files of the format's folder."""
    given = load(folder / "read.json")[kind]
    return {
        key: str(folder / value.replace("{bad}", f"bad/{bad}")) if key in FILES else value
        for key, value in given.items()
    }


def plain(sample: Sample, folder: Path) -> dict[str, Any]:
    pairs = [
        {
            "id": one.id,
            "question": one.question,
            "chosen": one.chosen,
            "rejected": one.rejected,
            "meta": one.meta,
        }
        for one in sample.pairs
    ]
    return {
        "id": sample.id,
        "image": sample.image.name.replace(f"{folder}/", ""),
        "captions": list(sample.captions),
        "questions": [
            {"id": one.id, "question": one.text, "answers": list(one.answers), "meta": one.meta}
            for one in sample.questions
        ],
        "meta": sample.meta,
        **({"pairs": pairs} if pairs else {}),
    }


def mistakes(folder: Path) -> str:
    """The table of a README: each bad file, of JSONL its lines, with the message it gets."""
    cells = [("given", "message")]
    for name, message in load(folder / "bad" / "expected.json").items():
        shown = f"`{name}`"
        if folder.name == "jsonl":
            shown = lines_of(folder / "bad" / name, message) + f"<br>({name})"
        cells.append((shown, f"`` {message} ``"))
    rows = ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in cells]
    return "\n".join([rows[0], "|---|---|", *rows[1:]])


def lines_of(file: Path, message: str) -> str:
    """The lines of a bad file up to the one that its message names."""
    try:
        content = file.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        return "a file that is not UTF-8"
    named = re.match(r"[^:]*:(\d+)", message)
    lines = content.splitlines()
    shown = lines[: int(named[1]) if named else None]
    spelt = [line.replace("\t", "<tab>").replace("\ufeff", "<BOM>") for line in shown]
    more = ["..."] if len(shown) < len(lines) else []
    return "<br>".join([f"`{line}`" for line in spelt if line] + more) or "an empty file"


def field_names(schema: dict[str, Any]) -> set[str]:
    """The names of all properties, those of nested objects too."""
    own = schema.get("properties", {})
    inner = [one for one in (schema.get("items"), *own.values()) if one]
    return set(own).union(*map(field_names, inner))


def test_every_format_has_its_folder() -> None:
    assert {folder.name for folder in FOLDERS} == set(FORMATS) - {"drawn"}


@each_format
def test_every_format_has_bad_files(folder: Path) -> None:
    assert load(folder / "bad" / "expected.json")


@each_format
def test_readme_shows_a_recipe_of_the_format(folder: Path) -> None:
    assert f"format: {folder.name}" in (folder / "README.md").read_text(encoding="utf-8")


@each_format
def test_sample_reads_as_expected(folder: Path) -> None:
    expected = load(folder / "expected.json")
    samples = [
        plain(sample, folder) for sample in read_samples(folder.name, **arguments(folder, "good"))
    ]
    assert samples == expected


@each_format
def test_sample_images_decode(folder: Path) -> None:
    for sample in read_samples(folder.name, **arguments(folder, "good")):
        check(sample.image)


@each_format
def test_every_bad_file_is_listed(folder: Path) -> None:
    listed = set(load(folder / "bad" / "expected.json"))
    present = {file.name for file in (folder / "bad").iterdir()} - {"expected.json"}
    assert listed == present


@pytest.mark.parametrize(
    ("folder", "name"),
    [
        pytest.param(folder, name, id=f"{folder.name}-{name}")
        for folder in FOLDERS
        for name in load(folder / "bad" / "expected.json")
    ],
)
def test_bad_file_gives_its_message(folder: Path, name: str) -> None:
    with pytest.raises(DataError) as caught:
        read_samples(folder.name, **arguments(folder, "bad", bad=name))
    message = str(caught.value).replace(f"{folder}/bad/", "").replace(f"{folder}/", "")
    assert message == load(folder / "bad" / "expected.json")[name]


@each_format
def test_readme_has_the_table_of_mistakes(folder: Path) -> None:
    """Where this fails, the table to put into the README is what the failure shows."""
    assert mistakes(folder) in (folder / "README.md").read_text(encoding="utf-8")


@each_format
def test_the_commands_of_the_readme_are_valid(folder: Path) -> None:
    text = (folder / "README.md").read_text(encoding="utf-8").replace("\\\n", "")
    (checking,) = re.findall(r"^qvft check (\S+) (.*)$", text, re.MULTILINE)
    overrides = [word for word in checking[1].split() if "=" in word]
    recipe = load_recipe(str(ROOT.parent / checking[0]), overrides)
    assert {recipe.data.train.format, recipe.data.eval.format} == {folder.name}
    assert f"qvft convert {folder.name} " in text


@each_format
def test_readme_names_every_field_of_the_schema(folder: Path) -> None:
    text = (folder / "README.md").read_text(encoding="utf-8")
    assert [
        name for name in field_names(load(folder / "schema.json")) if f"`{name}`" not in text
    ] == []


@each_format
def test_sample_fits_the_schema(folder: Path) -> None:
    schema = load(folder / "schema.json")
    if folder.name == "tar":
        for shard in (folder / "sample").iterdir():
            with tarfile.open(shard) as archive:
                for name in (one for one in archive.getnames() if one.endswith(".json")):
                    value = json.load(archive.extractfile(name))  # type: ignore[arg-type]
                    assert_fits(value, schema, place=name)
        return
    if folder.name == "class_folders":  # no file holds texts; the recipe's key is described
        (key,) = schema["properties"]
        assert_fits({key: load(folder / "read.json")["good"][key]}, schema, place="read.json")
        return
    for path in load(folder / "read.json")["described"]:
        if path.endswith(".jsonl"):
            lines = (folder / path).read_text(encoding="utf-8").splitlines()
            values = [json.loads(line) for line in lines]
        elif path.endswith(".csv"):
            values = list(csv.DictReader((folder / path).read_text("utf-8").splitlines()))
        else:
            values = [load(folder / path)]
        assert values
        for value in values:
            assert_fits(value, schema, place=path)


@pytest.mark.parametrize("name", ["jsonl", "tar"])
def test_jsonl_schema_has_the_keys_that_are_read(name: str) -> None:
    row = load(ROOT / name / "schema.json")["properties"]
    assert set(row) == set(ROW_KEYS)
    assert set(row["questions"]["items"]["properties"]) == set(QUESTION_KEYS)
    assert set(row["pairs"]["items"]["properties"]) == set(PAIR_KEYS)


@pytest.mark.parametrize(("name", "defaults"), [("hf", DEFAULTS), ("csv", CSV_DEFAULTS)])
def test_readme_names_every_key_of_columns(name: str, defaults: dict[str, tuple]) -> None:
    text = (ROOT / name / "README.md").read_text(encoding="utf-8")
    assert [key for key in defaults if f"`{key}`" not in text] == []
    assert [one for tried in defaults.values() for one in tried if f"`{one}`" not in text] == []


TYPES = {
    "object": dict,
    "array": list,
    "string": str,
    "integer": int,
    "number": (int, float),
    "boolean": bool,
    "null": type(None),
}


def assert_fits(value: Any, schema: dict[str, Any], *, place: str) -> None:
    """Asserts the part of JSON Schema that the schemas here use."""
    names = schema.get("type", [])
    types = [TYPES[name] for name in ([names] if isinstance(names, str) else names)]
    assert not types or any(isinstance(value, one) for one in types), place
    assert value in schema.get("enum", [value]), place
    if isinstance(value, str):
        assert len(value) >= schema.get("minLength", 0), place
    if isinstance(value, list):
        assert len(value) >= schema.get("minItems", 0), place
        for number, item in enumerate(value):
            assert_fits(item, schema.get("items", {}), place=f"{place}[{number}]")
    if isinstance(value, dict):
        properties = schema.get("properties", {})
        assert set(schema.get("required", [])) <= set(value), place
        assert schema.get("additionalProperties", True) or set(value) <= set(properties), place
        for key, item in value.items():
            assert_fits(item, properties.get(key, {}), place=f"{place}.{key}")
        for word, least, most in (("anyOf", 1, 99), ("oneOf", 1, 1)):
            fits = sum(set(one["required"]) <= set(value) for one in schema.get(word, []))
            assert word not in schema or least <= fits <= most, place
