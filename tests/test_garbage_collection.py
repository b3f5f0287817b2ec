"""The garbage collector: rare while a program imports, as usual after a model is loaded."""

import gc

import pytest

from qvft import garbage_collection
from qvft.garbage_collection import rare_collections, usual_collections
from qvft.terminal import program

USUAL = gc.get_threshold()


@pytest.fixture(autouse=True)
def no_program(monkeypatch):
    """As in a process that runs no program yet, nor tests."""
    monkeypatch.setattr(garbage_collection, "_usual", None)
    monkeypatch.setattr(garbage_collection, "_loaded", False)
    gc.unfreeze()
    yield
    gc.freeze()


def test_a_program_collects_rarely_and_leaves_the_threshold_as_it_was():
    @program
    def main(arguments):
        assert gc.isenabled()
        assert gc.get_threshold()[0] > 100 * USUAL[0]
        raise OSError("no path")

    with pytest.raises(OSError, match="no path"):
        main([])
    assert gc.get_threshold() == USUAL


def test_a_loaded_model_ends_it_and_what_was_imported_is_not_searched_again(recipe_file):
    from qvft.recipe.load import load_recipe
    from qvft.setup.model import base_model, base_of

    recipe = load_recipe(recipe_file)
    with rare_collections(), rare_collections():
        base_model(recipe, base_of(recipe))
        assert gc.get_threshold() == USUAL
        assert gc.get_freeze_count() > 10_000
        gc.unfreeze()
        base_model(recipe, base_of(recipe))
        assert gc.get_freeze_count() == 0  # the first model may be gone by now
    assert gc.get_freeze_count() == 0


def test_outside_of_a_program_nothing_changes():
    usual_collections()
    assert gc.get_freeze_count() == 0
    assert gc.get_threshold() == USUAL
