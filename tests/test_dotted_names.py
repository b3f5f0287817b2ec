"""Objects by dotted names: what is imported, what is refused without being run."""

from __future__ import annotations

from pathlib import Path

import pytest

from qvft.dotted_names import import_dotted, is_dotted
from qvft.errors import RecipeError


def test_which_names_are_dotted() -> None:
    assert is_dotted("a.b") and is_dotted("a:b") and is_dotted("a.b:c")
    assert not any(map(is_dotted, ("a", ".", "a.", ":a")))


def test_both_spellings_mean_the_same() -> None:
    for name in ("qvft.errors.RecipeError", "qvft.errors:RecipeError"):
        assert import_dotted(name, type, where="x") is RecipeError


@pytest.mark.parametrize(
    ("text", "said"),
    [("1 / 0", "ZeroDivisionError"), ("import no_such_package", "no_such_package"), ("A = 1", "B")],
)
def test_a_module_that_fails_is_named_with_its_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, said: str
) -> None:
    name = f"own_{abs(hash(text))}"
    (tmp_path / f"{name}.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(RecipeError, match=said) as refusal:
        import_dotted(f"{name}.B", int, where="eval.metrics")
    assert refusal.value.where == "eval.metrics" and name in refusal.value.given


@pytest.mark.parametrize("place", ["brought.py", "brought/__init__.py", "inside/brought.py"])
def test_code_in_a_run_folder_is_not_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    (tmp_path / "recipe.lock.yaml").touch()
    module = tmp_path / place
    module.parent.mkdir(exist_ok=True)
    module.write_text(f"open({str(tmp_path / 'ran')!r}, 'w'); A = 1")
    monkeypatch.syspath_prepend(tmp_path / "inside" if place.startswith("inside") else tmp_path)
    with pytest.raises(RecipeError, match="run folder"):
        import_dotted("brought.A", int, where="eval.metrics")
    assert not (tmp_path / "ran").exists()
