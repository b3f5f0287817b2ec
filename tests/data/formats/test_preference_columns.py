"""trl's preference columns through `format: hf`; trl's own functions are the oracle."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import datasets
import pytest
from PIL import Image

from qvft.convert import main
from qvft.data.formats import columns, open_stream, read_samples
from qvft.data.formats.memory import samples_in_memory
from qvft.data.sample import ImageInMemory, Pair, Sample
from qvft.data.stream import Part
from qvft.data.write_trl import write_trl
from qvft.errors import DataError, ImageError

pytestmark = pytest.mark.usefixtures("datasets_cache")

RED, BLUE = (Image.new("RGB", (4, 4), colour) for colour in ("red", "blue"))
PLAIN = [
    {"images": [RED], "prompt": "What is it?", "chosen": "a square", "rejected": "a circle"},
    {"images": [BLUE], "prompt": "What is it?", "chosen": "a ball", "rejected": "no idea"},
    {"images": [RED], "prompt": "Which colour?", "chosen": "red", "rejected": "blue"},
    {"images": [RED], "prompt": "What is it?", "chosen": "one square", "rejected": "two"},
]
PAIRS = [
    [
        ("What is it?", "a square", "a circle"),
        ("Which colour?", "red", "blue"),
        ("What is it?", "one square", "two"),
    ],
    [("What is it?", "a ball", "no idea")],
]


def trl_function(name: str) -> Any:
    """A function of trl, which needs Python 3.11."""
    return getattr(pytest.importorskip("trl.data_utils"), name)


def said(role: str, content: Any) -> list[dict]:
    return [{"role": role, "content": content}]


def conversational(row: dict, *, explicit: bool) -> dict:
    prompt = said("user", row["prompt"])
    texts = {key: said("assistant", row[key]) for key in ("chosen", "rejected")}
    if explicit:
        return {"images": row["images"], "prompt": prompt, **texts}
    return {"images": row["images"], **{key: prompt + text for key, text in texts.items()}}


def dataset(rows: list[dict]) -> datasets.Dataset:
    made = datasets.Dataset.from_list([{k: v for k, v in r.items() if k != "images"} for r in rows])
    images = [{"images": row["images"]} for row in rows]
    feature = datasets.Features({"images": datasets.List(datasets.Image())})
    return datasets.concatenate_datasets(
        [made, datasets.Dataset.from_list(images, features=feature)], axis=1
    )


def pairs(samples: list[Sample]) -> list[list[tuple]]:
    return [[(p.question, p.chosen, p.rejected) for p in one.pairs] for one in samples]


@pytest.mark.parametrize(
    "rows",
    [
        pytest.param(PLAIN, id="plain"),
        pytest.param([conversational(row, explicit=True) for row in PLAIN], id="conversational"),
        pytest.param([conversational(row, explicit=False) for row in PLAIN], id="implicit"),
        pytest.param(
            [{**conversational(row, explicit=False), "prompt": row["prompt"]} for row in PLAIN],
            id="implicit-with-prompt-column",
        ),
        pytest.param([{**row, "images": row["images"][0]} for row in PLAIN], id="image"),
    ],
)
def test_paired_columns_become_pairs(rows: list[dict], tmp_path: Path) -> None:
    if isinstance(rows[0]["images"], list):
        given = dataset(rows)
    else:
        given = datasets.Dataset.from_list(rows).rename_column("images", "image")
    given.to_parquet(tmp_path / "pairs.parquet")
    assert pairs(read_samples("hf", str(tmp_path / "pairs.parquet"))) == PAIRS
    assert pairs(samples_in_memory(given)) == PAIRS


def test_parts_of_a_message_with_images_among_them() -> None:
    rows = [
        {
            "images": [RED],
            "prompt": said(
                "user",
                [{"type": "image", "text": None}, {"type": "text", "text": "What is it?"}],
            ),
            "chosen": said("assistant", [{"type": "text", "text": "a square"}]),
            "rejected": said("assistant", [{"type": "text", "text": "a circle"}]),
        }
    ]
    assert pairs(samples_in_memory(dataset(rows))) == [PAIRS[0][:1]]


@pytest.mark.parametrize("form", ["plain", "conversational"])
def test_unpaired_columns_are_paired_up_as_trl_unpairs_them(form: str) -> None:
    unpair_preference_dataset = trl_function("unpair_preference_dataset")
    rows = PLAIN if form == "plain" else [conversational(row, explicit=True) for row in PLAIN]
    unpaired = unpair_preference_dataset(dataset(rows))
    found = [sorted(one, key=str) for one in pairs(samples_in_memory(unpaired))]
    assert found == [sorted(one, key=str) for one in PAIRS]


def test_implicit_prompts_are_those_of_trl() -> None:
    extract_prompt, is_conversational = map(trl_function, ("extract_prompt", "is_conversational"))
    for row in PLAIN:
        example = {k: v for k, v in conversational(row, explicit=False).items() if k != "images"}
        extracted = extract_prompt(example)
        assert is_conversational(example)
        (sample,) = samples_in_memory(dataset([{"images": [RED], **example}]))
        assert sample.pairs[0].question == extracted["prompt"][0]["content"]
        assert sample.pairs[0].chosen == extracted["chosen"][0]["content"]
        assert sample.pairs[0].rejected == extracted["rejected"][0]["content"]


@pytest.mark.parametrize("prompt", [{}, {"prompt": ""}, {"prompt": None}])
def test_without_a_prompt_plain_texts_are_captions(prompt: dict) -> None:
    row = {"images": [RED], "chosen": "a red square", "rejected": "a red circle", **prompt}
    assert pairs(samples_in_memory(dataset([row]))) == [[(None, "a red square", "a red circle")]]


def test_a_question_at_the_beginning_of_both_texts_is_said(caplog) -> None:
    row = {"images": [RED], "chosen": "What is it? a square", "rejected": "What is it? a circle"}
    captions = {"images": [BLUE], "chosen": "a ball", "rejected": "a cube?"}
    samples_in_memory(dataset([captions]))
    assert "begin with the same question" not in caplog.text
    samples_in_memory(dataset([row, captions]))
    assert "in 1 of 2 pairs both texts begin with the same question" in caplog.text


def test_texts_without_partner_are_counted(caplog: pytest.LogCaptureFixture) -> None:
    rows = [
        {"images": [RED], "prompt": "q", "completion": text, "label": label}
        for text, label in [("a", True), ("b", True), ("c", False), ("d", True)]
    ]
    assert pairs(samples_in_memory(dataset(rows))) == [[("q", "a", "c")]]
    assert "2 of 4 completions have no partner" in caplog.text


def test_the_id_of_a_row_is_the_pairs() -> None:
    rows = [{**row, "id": f"p{number}"} for number, row in enumerate(PLAIN)]
    red, blue = samples_in_memory(dataset(rows))
    assert [one.id for one in (*red.pairs, *blue.pairs)] == ["p0", "p2", "p3", "p1"]
    assert (red.id, blue.id) == ("0", "1")


def test_a_question_with_answers_is_also_the_pairs() -> None:
    row = {"images": [RED], "question": "q", "answer": "a", "chosen": "b", "rejected": "c"}
    (sample,) = samples_in_memory(dataset([row]))
    assert (sample.questions[0].answers, pairs([sample])) == (("a",), [[("q", "b", "c")]])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rejected": "a square "}, "row 0: `chosen` and `rejected` are equal"),
        ({"rejected": None}, "row 0: `rejected` is null"),
        ({"rejected": ""}, "row 0: `rejected` is empty"),
        ({"images": [RED, BLUE]}, "row 0: `images` has 2 images; expected one image per row"),
        ({"images": []}, "row 0: `images` is empty"),
        (
            {"prompt": said("system", "Be brief.") + said("user", "What is it?")},
            "row 0: `prompt` has 2 messages, of system, user; expected one message of the user",
        ),
        ({"chosen": said("assistant", "a") + said("user", "b")}, "`chosen` has 2 messages"),
    ],
)
def test_broken_rows_are_refused(change: dict, message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        samples_in_memory(dataset([{**PLAIN[0], **change}]))
    assert "square" not in str(caught.value)  # texts may be about patients


@pytest.mark.parametrize(
    ("given", "named", "message"),
    [
        (("image", "chosen"), {}, "a column `chosen` but none for `rejected`"),
        (("image", "text", "a"), {"chosen": "a"}, "a column `a` but none for `rejected`"),
        (("image", "prompt", "completion"), {}, "a column `completion` but none for `label`"),
        (("image", "text", "prompt"), {"prompt": "prompt"}, "beside columns that make no pair"),
    ],
)
def test_half_of_the_columns_is_refused(given: tuple, named: dict, message: str) -> None:
    with pytest.raises(DataError, match=message):
        columns.resolve(named, given, where="data")


def test_columns_of_other_data_keep_their_meaning() -> None:
    given = ("image", "text", "label", "prompt", "chosen")
    assert columns.resolve({}, given, where="data") == {"image": "image", "caption": "text"}


def test_pairs_are_streamed_and_unpaired_rows_are_not(tmp_path: Path) -> None:
    dataset(PLAIN).to_parquet(tmp_path / "pairs.parquet")
    stream = open_stream("hf", str(tmp_path / "pairs.parquet"))
    found = list(stream.samples(Part(0, 0, 0, 1, shuffled=False)))
    assert sorted(str(one) for one in pairs(found)) == sorted(  # type: ignore[arg-type]
        str([pair]) for sample in PAIRS for pair in sample
    )
    rows = [{"images": [RED], "prompt": "q", "completion": "a", "label": True}]
    dataset(rows).to_parquet(tmp_path / "unpaired.parquet")
    with pytest.raises(DataError, match="remove `stream`"):
        open_stream("hf", str(tmp_path / "unpaired.parquet"))


@pytest.mark.parametrize("options", [[], ["--conversational"]], ids=["plain", "conversational"])
@pytest.mark.parametrize("unpaired", [[], ["--unpaired"]], ids=["paired", "unpaired"])
def test_convert_writes_trls_columns_and_reads_them_back(
    options: list[str], unpaired: list[str], tmp_path: Path, capsys
) -> None:
    is_conversational = trl_function("is_conversational")
    (tmp_path / "img").mkdir()
    RED.save(tmp_path / "img" / "r.png")
    BLUE.save(tmp_path / "img" / "b.png")
    lines = [
        {"image": "img/r.png", "captions": ["x"], "pairs": [
            {"question": "What is it?", "chosen": "a square", "rejected": "a circle"},
            {"id": "p", "chosen": "a red square", "rejected": "red"},
        ]},
        {"image": "img/b.png", "chosen": "blue", "rejected": "red", "question": "Which colour?"},
    ]  # fmt: skip
    source = tmp_path / "in.jsonl"
    source.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    written, back = tmp_path / "trl.parquet", tmp_path / "back.jsonl"
    to_trl = ["--to", "trl", *options, *unpaired]
    assert main(["jsonl", str(source), str(written), *to_trl]) == 0
    rows = 6 if unpaired else 3
    assert f"3 pairs in {rows} rows written" in capsys.readouterr().out

    table = datasets.Dataset.from_parquet(str(written))
    assert len(table) == rows
    assert is_conversational(dict(table[0], id="")) == bool(options)
    texts = {"completion", "label"} if unpaired else {"chosen", "rejected"}
    assert set(table.column_names) == {"id", "images", "prompt"} | texts
    assert table[0]["images"][0].size == RED.size

    assert main(["hf", str(written), str(back)]) == 0
    before, after = read_samples("jsonl", str(source)), read_samples("jsonl", str(back))
    assert [one.pairs for one in after] == [one.pairs for one in before]


def test_a_generated_image_is_written_as_png(tmp_path: Path) -> None:
    sample = Sample("s", ImageInMemory(RED), pairs=(Pair("p", None, "a", "b"),))
    write_trl([sample], tmp_path / "a.parquet")
    (back,) = read_samples("hf", str(tmp_path / "a.parquet"))
    assert back.pairs == sample.pairs
    assert back.image.open().tobytes() == RED.tobytes()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["out.jsonl", "--to", "trl"], "ends in .parquet"),
        (["out.jsonl", "--unpaired"], "does not go with --to jsonl"),
        (["out.parquet", "--to", "trl", "--copy-images"], "does not go with --to trl"),
        (["out.parquet", "--to", "trl"], "no pairs"),
    ],
)
def test_what_cannot_be_written_is_refused(
    arguments: list[str], message: str, tmp_path: Path, capsys
) -> None:
    (tmp_path / "in.jsonl").write_text('{"image": "a.png", "caption": "x"}\n')
    out, *options = arguments
    status = main(["jsonl", str(tmp_path / "in.jsonl"), str(tmp_path / out), *options])
    assert status == 2
    assert message in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / out).exists()


def test_a_missing_image_leaves_no_file(tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_text('{"image": "a.png", "chosen": "x", "rejected": "y"}\n')
    samples = read_samples("jsonl", str(tmp_path / "in.jsonl"))
    with pytest.raises(ImageError, match="cannot be read"):
        write_trl(samples, tmp_path / "out.parquet")
    assert [path.name for path in tmp_path.iterdir() if path.name != "datasets_cache"] == [
        "in.jsonl"
    ]
