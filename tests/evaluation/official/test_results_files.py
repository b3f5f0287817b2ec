"""What a results file may hold, and what each mistake gets."""

from __future__ import annotations

from pathlib import Path

import pytest

from qvft.errors import DataError
from qvft.evaluation.official.reading import named, read_results

GOOD = '{"image_id": 1, "caption": "a"}'


def results(folder: Path, text: str | bytes) -> dict[str, str]:
    path = folder / "results.json"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return dict(read_results(path, key="image_id", text_key="caption").texts)


def test_texts_are_kept_as_they_stand(tmp_path: Path) -> None:
    assert results(tmp_path, '[{"image_id": 1, "caption": " a\\n "}]') == {"1": " a\n "}


def test_other_keys_are_passed_over(tmp_path: Path) -> None:
    assert results(tmp_path, '[{"image_id": 1, "caption": "a", "score": NaN}]') == {"1": "a"}


@pytest.mark.parametrize(
    "text, says",
    [
        ("", "not valid JSON"),
        ("[" + GOOD, "not valid JSON"),
        (GOOD + "\n" + GOOD, "not valid JSON"),
        ("{}", "results.json: an object; expected a list of objects"),
        ('"x"', "a string; expected a list"),
        ("NaN", "NaN, which is not a JSON value; expected a list"),
        ("null", "null; expected a list"),
        ("[]", "no predictions; expected rows with `image_id` and `caption`"),
        (f"[{GOOD}, []]", "record 1: a list; expected an object"),
        (f'[{GOOD}, {{"caption": "a"}}]', "record 1: `image_id` is missing"),
        (f'[{GOOD}, {{"image_id": 2}}]', "record 1: `caption` is missing"),
        (f'[{GOOD}, {{"image_id": 2, "caption": 3}}]', "record 1: `caption` is a number"),
        (f'[{GOOD}, {{"image_id": 2, "caption": ["a"]}}]', "record 1: `caption` is a list"),
        (f'[{GOOD}, {{"image_id": 2, "caption": null}}]', "record 1: `caption` is null"),
        (
            f'[{GOOD}, {{"image_id": 2, "caption": NaN}}]',
            "`caption` is NaN, which is not a JSON value",
        ),
        (
            f'[{GOOD}, {{"image_id": NaN, "caption": "a"}}]',
            "`image_id` is NaN, which is not a JSON value",
        ),
        (
            f'[{GOOD}, {{"image_id": 1e999, "caption": "a"}}]',
            "`image_id` is Infinity, which is not",
        ),
        (f'[{GOOD}, {{"image_id": 1.5, "caption": "a"}}]', "record 1: `image_id` is a"),
        (f'[{GOOD}, {{"image_id": "", "caption": "a"}}]', "record 1: `image_id` is empty"),
        (f'[{GOOD}, {{"image_id": [1], "caption": "a"}}]', "record 1: `image_id` is a list"),
        (f'[{GOOD}, {{"image_id": 2, "caption": "\\ud800"}}]', "record 1: .* not valid Unicode"),
        (f'[{GOOD}, {{"image_id": "\\ud800", "caption": "a"}}]', "record 1: .* valid Unicode"),
        (f'[{GOOD}, {{"image_id": 2, "caption": "a", "caption": "b"}}]', "`caption` occurs twice"),
        ("[" + "9" * 5000 + "]", "a number of thousands of digits"),
        ("[" * 100_000, "nested too deeply|not valid JSON"),
        (b'[{"image_id": 1, "caption": "\xe9"}]', "UTF-8"),
        (GOOD.encode("utf-16"), "UTF-16|not UTF-8"),
    ],
)
def test_mistakes_are_named(tmp_path: Path, text: str | bytes, says: str) -> None:
    with pytest.raises(DataError, match=says):
        results(tmp_path, text)


@pytest.mark.parametrize(
    "text, do",
    [
        (f'[{GOOD}, {{"image_id": 2, "caption": 3}}]', "put it in quotes"),
        (f'[{GOOD}, {{"image_id": 2, "caption": null}}]', "fill it in or remove it"),
        (f'[{GOOD}, {{"image_id": 2, "caption": NaN}}]', "remove a key without a value"),
        (f'[{GOOD}, {{"image_id": NaN, "caption": "a"}}]', "remove a key without a value"),
        (f'[{GOOD}, {{"image_id": 2, "text": "a", "image": 2}}]', "add it"),
        ('[{"image_idx": 2, "caption": "a"}]', "rename `image_idx` to it"),
        ("[]", "check that the system wrote its outputs"),
        ("[" * 100_000 + "]" * 100_000, "look for brackets that are not closed"),
    ],
)
def test_messages_end_with_what_to_do(tmp_path: Path, text: str, do: str) -> None:
    with pytest.raises(DataError) as caught:
        results(tmp_path, text)
    assert str(caught.value).endswith(f"; {do}.")


def test_a_long_list_of_ids_is_cut() -> None:
    assert named(["a", "b"]) == "a, b"
    assert named([str(number) for number in range(1005)]) == "0, 1, 2, 3, 4 and 1,000 more"
