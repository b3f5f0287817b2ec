"""The private methods of `transformers.Trainer` that qvft relies on are those of this release."""

import ast
import inspect
from pathlib import Path

import pytest
from transformers import Trainer

from qvft.training import trainer_internals
from qvft.training.trainer import QFormerTrainer
from qvft.training.trainer_internals import PRIVATE, TrainerInternals
from qvft.training.trainer_loaders import TrainerLoaders

TRAINING = Path(trainer_internals.__file__).parent
OF_TRAINER = {name for name in vars(Trainer) if name.startswith("_") and name[1] != "_"}


@pytest.mark.parametrize("name", PRIVATE)
def test_the_installed_release_has_the_method_as_it_is_overridden(name: str) -> None:
    method = getattr(Trainer, name, None)
    assert method is not None, (
        f"this release of transformers has no Trainer.{name}: see what took its place and change "
        "qvft/training/trainer_internals.py"
    )
    found = tuple(inspect.signature(method).parameters)
    assert found == PRIVATE[name], (
        f"this release of transformers changed Trainer.{name} from {PRIVATE[name]} to {found}: "
        "change qvft/training/trainer_internals.py"
    )


def test_no_other_class_overrides_a_private_method_of_the_trainer() -> None:
    assert OF_TRAINER & vars(TrainerInternals).keys() <= PRIVATE.keys()
    for one in (TrainerLoaders, QFormerTrainer):
        assert not OF_TRAINER & vars(one).keys()


def test_no_other_file_calls_a_private_method_of_the_trainer() -> None:
    calls = [
        f"{path.name}:{node.lineno} {node.attr}"
        for path in TRAINING.rglob("*.py")
        if path.name != "trainer_internals.py"
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute) and node.attr in OF_TRAINER
    ]
    assert calls == []
