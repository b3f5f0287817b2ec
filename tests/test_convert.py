"""`qvft.convert`: what is written reads back as the same samples, or nothing is written."""

from __future__ import annotations

import io
import json
import os
import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from qvft.convert import main
from qvft.data.formats import FORMATS, read_samples
from qvft.data.images.decoding import decode
from qvft.data.sample import ImageFile, Sample
from qvft.data.write_jsonl import write_jsonl
from qvft.errors import DataError

FOLDERS = Path(__file__).resolve().parents[1] / "data_formats"

pytestmark = pytest.mark.usefixtures("datasets_cache")


def texts(samples: list[Sample]) -> list[tuple]:
    return [(one.id, one.captions, one.questions, one.pairs, dict(one.meta)) for one in samples]


def written(out: Path, **options: Any) -> list[Sample]:
    """What a converted file holds; without copies its images lie where they were."""
    return read_samples("jsonl", str(out), **options)


def picture(path: Path, colour: str = "red") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (6, 4), colour).save(path, path.suffix[1:] if path.suffix else "PNG")
    return path


def rows(path: Path, *contents: dict) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in contents), encoding="utf-8")
    return str(path)


def shown(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()} - {"datasets_cache"}


@pytest.mark.parametrize("copy", [False, True], ids=["paths", "copies"])
@pytest.mark.parametrize("format", sorted(set(FORMATS) - {"drawn"}))
def test_every_format_comes_back_as_it_was(format: str, copy: bool, tmp_path: Path) -> None:
    folder = FOLDERS / format
    given = json.loads((folder / "read.json").read_text())["good"]
    files = ("path", "images")
    given = {key: str(folder / one) if key in files else one for key, one in given.items()}
    out = tmp_path / "deep" / "out.jsonl"
    class_texts = given.get("class_texts", {})
    options = [f"--{key}={given[key]}" for key in ("split", "images") if key in given]
    if class_texts:
        options += ["--class-texts", *(f"{key}={text}" for key, text in class_texts.items())]
    copying = ["--copy-images"] if copy else []
    assert main([format, given["path"], str(out), *options, *copying]) == 0
    before, after = read_samples(format, **given), written(out)
    assert texts(after) == texts(before)
    pixels = [[decode(one.image).tobytes() for one in samples] for samples in (before, after)]
    assert pixels[0] == pixels[1]
    assert (out.parent / "out_images").exists() == (copy or format == "tar")


def test_the_summary_counts_what_was_written(tmp_path: Path, capsys) -> None:
    out = tmp_path / "out.jsonl"
    assert main(["slake", str(FOLDERS / "slake"), str(out), "--split", "train"]) == 0
    said = capsys.readouterr().out
    assert said.splitlines()[0] == f"2 images, 0 captions, 3 questions written to {out}"


def test_paths_are_relative_to_the_file_and_absolute_ones_too(tmp_path: Path) -> None:
    picture(tmp_path / "data" / "img" / "a.png")
    source = rows(tmp_path / "data" / "in.jsonl", {"image": "img/a.png", "caption": "x"})
    assert main(["jsonl", source, str(tmp_path / "other" / "deep" / "out.jsonl")]) == 0
    (line,) = (tmp_path / "other" / "deep" / "out.jsonl").read_text().splitlines()
    assert json.loads(line)["image"] == "../../data/img/a.png"


def test_paths_lead_through_a_linked_folder(tmp_path: Path) -> None:
    """`link/../x` is beside what the link points to, for the system and so for the reader."""
    picture(tmp_path / "data" / "a.png")
    (tmp_path / "big" / "disk").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "big" / "disk")
    source = rows(tmp_path / "data" / "in.jsonl", {"image": "a.png", "caption": "x"})
    assert main(["jsonl", source, str(tmp_path / "link" / "out.jsonl")]) == 0
    for place in ("link", "big/disk"):
        decode(written(tmp_path / place / "out.jsonl")[0].image)


def test_images_inside_a_dataset_are_written_byte_by_byte(tmp_path: Path) -> None:
    import datasets

    contents = []
    for kind in ("PNG", "JPEG", "TIFF"):
        stream = io.BytesIO()
        Image.new("RGB", (5, 5), "blue").save(stream, kind)
        contents.append(stream.getvalue())
    contents.append(b"no image at all")
    table = {
        "image": [{"bytes": content, "path": None} for content in contents],
        "caption": ["p", "j", "t", "n"],
    }
    made = datasets.Dataset.from_dict(table).cast_column("image", datasets.Image())
    made.to_parquet(tmp_path / "rows.parquet")
    out = tmp_path / "out.jsonl"
    assert main(["hf", str(tmp_path / "rows.parquet"), str(out)]) == 0
    samples = written(out)
    assert [sample.image.path.name for sample in samples] == ["0.png", "1.jpg", "2.tif", "3.bin"]
    assert [sample.image.path.read_bytes() for sample in samples] == contents


def test_a_copy_can_be_moved(tmp_path: Path) -> None:
    """SLAKE's images are all called source.jpg."""
    out = tmp_path / "made" / "out.jsonl"
    source = FOLDERS / "slake"
    assert main(["slake", str(source), str(out), "--split", "train", "--copy-images"]) == 0
    shutil.move(tmp_path / "made", tmp_path / "moved")
    first, second = written(tmp_path / "moved" / "out.jsonl")
    assert (first.image.path.name, second.image.path.name) == ("xmlab1.jpg", "xmlab2.jpg")
    assert second.image.path.read_bytes() == (source / "imgs/xmlab2/source.jpg").read_bytes()


def test_ids_become_names_that_any_system_takes(tmp_path: Path) -> None:
    ids = ["a/b", "a_b", "A_B", "../up", "été 1", "x" * 300, "::", "a.png", "日本" * 50]
    lines = []
    for number, name in enumerate(ids):
        picture(tmp_path / "img" / f"{number}.png")
        lines.append({"id": name, "image": f"img/{number}.png", "caption": "x"})
    source = rows(tmp_path / "in.jsonl", *lines)
    out = tmp_path / "out.jsonl"
    assert main(["jsonl", source, str(out), "--copy-images"]) == 0
    samples = written(out)
    assert [sample.id for sample in samples] == ids
    assert [sample.image.path.name for sample in samples] == [
        "a_b.png", "a_b-2.png", "A_B-3.png", "up.png", "été_1.png", "x" * 60 + ".png",
        "image.png", "a.png", "日本" * 30 + ".png",
    ]  # fmt: skip


def test_two_samples_of_one_image_stay_two(tmp_path: Path) -> None:
    picture(tmp_path / "a.png")
    content = {
        "images": [{"id": 1, "file_name": "a.png"}, {"id": 2, "file_name": "./a.png"}],
        "annotations": [{"image_id": 1, "caption": "x"}, {"image_id": 2, "caption": "y"}],
    }
    (tmp_path / "in.json").write_text(json.dumps(content))
    out = tmp_path / "out.jsonl"
    assert main(["coco_captions", str(tmp_path / "in.json"), str(out)]) == 0
    first, second = written(out)
    assert [(one.id, one.captions) for one in (first, second)] == [("1", ("x",)), ("2", ("y",))]
    assert first.image.path == tmp_path / "a.png"
    assert second.image.path.read_bytes() == first.image.path.read_bytes()


@pytest.mark.parametrize(
    "name",
    ["back\\slash.png", "line\nbreak.png", "C:/x.png", "end.png ", os.fsdecode(b"caf\xe9.png")],
    ids=["backslash", "line-break", "drive", "blank", "no-text"],
)
def test_an_image_whose_path_no_line_can_hold_is_copied(name: str, tmp_path: Path) -> None:
    """File names are bytes: any but a slash and a zero may be in them."""
    kept = picture(tmp_path / "kept.png", "green")
    (tmp_path / name).parent.mkdir(exist_ok=True)
    shutil.copy(kept, tmp_path / name)
    out = tmp_path / "out.jsonl"
    assert write_jsonl([Sample("a", ImageFile(tmp_path / name))], out) == 1
    assert written(out)[0].image.path.read_bytes() == kept.read_bytes()


def test_texts_ids_and_meta_are_kept_as_they_are(tmp_path: Path) -> None:
    row = {
        "id": "日本/é 1",
        "image": "a.png",
        "captions": ["zwei\nZeilen", 'quote " and \\ and \u2028'],
        "questions": [
            {"id": "q/1", "question": "¿Qué?", "answers": ["a", "a", "b"], "meta": {"level": 3}},
            {"question": "Why?", "answer": 2.5},
        ],
        "meta": {"n": 3, "f": 0.1, "none": None, "yes": True, "list": [1, {"a": []}], "ключ": "ж"},
    }
    picture(tmp_path / "a.png")
    source = rows(tmp_path / "in.jsonl", row)
    out = tmp_path / "out.jsonl"
    assert main(["jsonl", source, str(out)]) == 0
    assert texts(written(out)) == texts(written(Path(source)))
    assert written(out)[0].meta == row["meta"]
    assert "日本/é 1" in out.read_text(encoding="utf-8")


def test_what_was_written_is_written_again_the_same(tmp_path: Path) -> None:
    first, second = tmp_path / "1.jsonl", tmp_path / "2.jsonl"
    assert main(["slake", str(FOLDERS / "slake"), str(first), "--split", "train"]) == 0
    assert main(["jsonl", str(first), str(second)]) == 0
    assert first.read_bytes() == second.read_bytes()


def test_nothing_is_overwritten(tmp_path: Path, capsys) -> None:
    out = tmp_path / "out.jsonl"
    out.write_text("mine")
    assert main(["drawn", "seed=1,count=1", str(out)]) == 2
    assert "out.jsonl: exists already" in capsys.readouterr().err
    assert (out.read_text(), shown(tmp_path)) == ("mine", {"out.jsonl"})


def test_a_folder_of_images_is_not_overwritten(tmp_path: Path, capsys) -> None:
    (tmp_path / "out_images").mkdir()
    (tmp_path / "out_images" / "mine.txt").write_text("mine")
    assert main(["drawn", "seed=1,count=1", str(tmp_path / "out.jsonl")]) == 2
    assert "out_images: exists already" in capsys.readouterr().err
    assert shown(tmp_path) == {"out_images"}
    assert shown(tmp_path / "out_images") == {"mine.txt"}


def test_an_image_that_cannot_be_copied_leaves_nothing(tmp_path: Path, capsys) -> None:
    picture(tmp_path / "a.png")
    lines = [{"image": name, "caption": "x"} for name in ("a.png", "absent.png")]
    source = rows(tmp_path / "in.jsonl", *lines)
    assert main(["jsonl", source, str(tmp_path / "out.jsonl"), "--copy-images"]) == 2
    message = capsys.readouterr().err
    assert "absent.png: cannot be read (No such file or directory)" in message
    assert shown(tmp_path) == {"a.png", "in.jsonl"}


def test_a_stopped_conversion_leaves_nothing(tmp_path: Path, monkeypatch) -> None:
    from tools.tiny_blip2.scene_format import DrawnImage

    opened = DrawnImage.open

    def stop_at_second(image: DrawnImage) -> Image.Image:
        if image.index == 1:
            raise KeyboardInterrupt
        return opened(image)

    monkeypatch.setattr(DrawnImage, "open", stop_at_second)
    assert main(["drawn", "seed=1,count=3", str(tmp_path / "out.jsonl")]) == 130
    assert shown(tmp_path) == set()


def test_absent_images_are_counted_and_named_and_the_texts_converted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    picture(tmp_path / "a.png")
    given = [{"image": f"{name}.png", "caption": "x"} for name in ("gone", "a", "lost")]
    source = rows(tmp_path / "in.jsonl", *given)
    out = tmp_path / "out.jsonl"
    assert main(["jsonl", source, str(out)]) == 0
    assert (
        f"images that are not where the data says: 2 of 3, first {tmp_path / 'gone.png'}"
        in capsys.readouterr().err
    )
    assert len(written(out)) == 3


def test_data_without_any_of_its_images_is_refused_and_the_first_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], datasets_cache: Path
) -> None:
    table = pa.table({"image": [f"img/{n}.png" for n in range(24)], "text": ["x"] * 24})
    pq.write_table(table, tmp_path / "rows.parquet")
    coco = {
        "images": [{"id": 1, "file_name": "img/0.png"}],
        "annotations": [{"id": 1, "image_id": 1, "caption": "x"}],
    }
    (tmp_path / "coco.json").write_text(json.dumps(coco))
    for format, name, count in (("hf", "rows.parquet", 24), ("coco_captions", "coco.json", 1)):
        assert main([format, str(tmp_path / name), str(tmp_path / "out.jsonl")]) == 2
        said = capsys.readouterr().err
        first = tmp_path / "img" / "0.png"
        assert f"{first}: no such file, nor any other of {count} images" in said
        assert not (tmp_path / "out.jsonl").exists()


def test_limit_and_columns_are_passed_on(tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    source = str(FOLDERS / "hf" / "sample")
    given = ["--split", "train", "--limit", "1", "--columns", "id=", "caption=text"]
    assert main(["hf", source, str(out), *given]) == 0
    assert [(one.id, one.captions) for one in written(out)] == [("0", ("a red square",))]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["jsnl", "x"], "unknown format `jsnl`; expected one of jsonl,"),
        (["jsonl", "nowhere.jsonl"], "nowhere.jsonl: no such file"),
        (["drawn", "seed=1,count=1", "--images", "x"], "`images` is set for format drawn"),
        (["drawn", "seed=1,count=1", "--limit", "0"], "`limit` is 0; expected at least 1"),
        (["hf", str(FOLDERS / "hf/sample"), "--columns", "captoin=text"], "did you mean `caption`"),
    ],
)
def test_mistakes_are_one_message(given: list[str], message: str, tmp_path: Path, capsys) -> None:
    format, path, *options = given
    assert main([format, path, str(tmp_path / "new" / "out.jsonl"), *options]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert (error.count("\n"), "Traceback" in error) == (1, False)
    assert shown(tmp_path) == set()


@pytest.mark.parametrize("place", ["/proc/nope/x.jsonl", "file/x.jsonl", "x" * 300])
@pytest.mark.parametrize("copied", [False, True])
def test_a_place_that_cannot_be_made_is_one_message(
    place: str, copied: bool, tmp_path: Path, capsys
) -> None:
    (tmp_path / "file").write_text("")
    picture(tmp_path / "a.png")
    source = rows(tmp_path / "in.jsonl", {"image": "a.png", "caption": "x"})
    options = ["--copy-images"] if copied else []
    assert main(["jsonl", source, str(tmp_path / place), *options]) == 2
    error = capsys.readouterr().err
    assert f"qvft: {tmp_path / place}: cannot be written" in error
    assert error.count("\n") == 1
    assert shown(tmp_path) == {"a.png", "file", "in.jsonl"}


@pytest.mark.parametrize("copied", [False, True])
@pytest.mark.parametrize("format", ["jsonl", "coco_captions"])
def test_an_image_name_that_no_system_takes_is_one_message(
    format: str, copied: bool, tmp_path: Path, capsys
) -> None:
    name = "x" * 300 + ".png"
    content: dict[str, Any] = {"image": name, "caption": "x"}
    if format == "coco_captions":
        content = {
            "images": [{"id": 1, "file_name": name}],
            "annotations": [{"image_id": 1, "caption": "x"}],
        }
    source = rows(tmp_path / "in.json", content)
    options = ["--copy-images"] if copied else []
    assert main([format, source, str(tmp_path / "out.jsonl"), *options]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert shown(tmp_path) == {"in.json"}


@pytest.mark.parametrize("format", sorted(set(FORMATS) - {"drawn", "hf"}))
def test_a_source_whose_name_no_system_takes_is_one_message(
    format: str, tmp_path: Path, capsys
) -> None:
    source = str(tmp_path / ("x" * 300))
    assert main([format, source, str(tmp_path / "out.jsonl"), "--split", "train"]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert shown(tmp_path) == set()


@pytest.mark.parametrize(
    ("row", "says"),
    [
        (
            '{"image": "a.png", "question": "?", "answer": ' + "9" * 5000 + "}",
            "thousands of digits",
        ),
        ('{"image": "a.png", "caption": "x", "meta": {"v": 1e999}}', "`1e999` is not a JSON value"),
        (
            '{"image": "a.png", "caption": "x", "meta": {"v": ' + "[" * 10**5 + "]" * 10**5 + "}}",
            "nested too deeply",
        ),
    ],
    ids=["digits", "float", "nested"],
)
def test_a_row_that_could_not_be_read_back_is_one_message(
    row: str, says: str, tmp_path: Path, capsys
) -> None:
    picture(tmp_path / "a.png")
    (tmp_path / "in.jsonl").write_text(row)
    assert main(["jsonl", str(tmp_path / "in.jsonl"), str(tmp_path / "out.jsonl")]) == 2
    error = capsys.readouterr().err
    assert "in.jsonl:1: " in error
    assert says in error
    assert error.count("\n") == 1
    assert shown(tmp_path) == {"a.png", "in.jsonl"}


def test_a_sample_that_json_cannot_hold_is_refused(tmp_path: Path) -> None:
    picture(tmp_path / "a.png")
    nested: list = []
    for _ in range(100_000):
        nested = [nested]
    for meta in ({"v": float("nan")}, {"v": float("inf")}, {"v": nested}):
        with pytest.raises(DataError, match="sample s: cannot be written as JSON"):
            write_jsonl([Sample("s", ImageFile(tmp_path / "a.png"), meta=meta)], tmp_path / "o")
        assert shown(tmp_path) == {"a.png"}


def test_the_split_is_named_for_a_recipe_and_for_the_command_line(tmp_path: Path, capsys) -> None:
    assert main(["slake", str(FOLDERS / "slake"), str(tmp_path / "out.jsonl")]) == 2
    assert "name one with `split` (of qvft.convert: `--split`)." in capsys.readouterr().err


@pytest.mark.parametrize(
    ("out", "message"),
    [("", "an empty path"), *((out, "a folder; expected a file to write") for out in "/.")],
)
def test_a_folder_is_no_file_to_write(out: str, message: str, tmp_path: Path, capsys) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"image": "a.png", "caption": "x"}\n')
    assert main(["jsonl", str(rows), out]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("option", ["--columns", "--class-texts"])
def test_an_option_of_keys_and_values_needs_both(tmp_path: Path, capsys, option: str) -> None:
    given = ["csv", str(FOLDERS / "csv/sample.csv"), str(tmp_path / "out.jsonl"), option, "image"]
    assert main(given) == 2
    assert f"command line: {option}: image; expected KEY=VALUE" in capsys.readouterr().err
