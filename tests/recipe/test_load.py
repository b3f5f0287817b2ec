"""Reading a recipe: YAML 1.2, overrides, and what a mistake is told."""

from pathlib import Path

import pytest

from qvft.errors import RecipeError
from qvft.recipe.load import load_recipe, merge, parse_recipe, resolve_phase

MINIMAL = "name: x\nmodel: {id: m}\n"


def write(folder: Path, text: str) -> Path:
    path = folder / "recipe.yaml"
    path.write_text(text)
    return path


def refusal(folder: Path, text: str, overrides: tuple[str, ...] = ()) -> str:
    with pytest.raises(RecipeError) as error:
        load_recipe(write(folder, text), overrides)
    return str(error.value)


@pytest.mark.parametrize(
    ("written", "read"), [("1e-4", 1e-4), ("1E-4", 1e-4), ("0.0001", 1e-4), ("1.0e-4", 1e-4)]
)
def test_learning_rates_are_numbers_however_written(
    tmp_path: Path, written: str, read: float
) -> None:
    """Trap 9: YAML 1.1 reads `1e-4` as a string."""
    recipe = load_recipe(
        write(tmp_path, f"{MINIMAL}train: {{learning_rate: {{qformer: {written}}}}}\n")
    )
    assert recipe.train.learning_rate.qformer == read
    assert (
        load_recipe(write(tmp_path, MINIMAL), [f"train.learning_rate.qformer={written}"]) == recipe
    )


def test_words_that_yaml_1_1_takes_for_booleans_stay_words(tmp_path: Path) -> None:
    """Trap 9: unquoted `no` is a string."""
    path = write(tmp_path, MINIMAL + "data: {train: {path: no, split: on}}\n")
    source = load_recipe(path).data.train
    assert source is not None
    assert (source.path, source.split) == ("no", "on")


def test_equal_keys_are_an_error_with_their_line(tmp_path: Path) -> None:
    """Trap 9: PyYAML keeps the last of two equal keys."""
    message = refusal(tmp_path, MINIMAL + "train: {epochs: 1}\ntrain: {epochs: 2}\n")
    assert "recipe.yaml:4" in message
    assert "duplicate key" in message


def test_an_unknown_key_is_named_with_its_path_and_the_nearest_one(tmp_path: Path) -> None:
    message = refusal(tmp_path, MINIMAL + "train: {learning_rate: {qfromer: 1.0e-4}}\n")
    assert 'unknown key "train.learning_rate.qfromer"' in message
    assert 'did you mean "qformer"?' in message


def test_an_unknown_key_like_no_other_lists_the_known_ones(tmp_path: Path) -> None:
    message = refusal(tmp_path, MINIMAL + "model: {id: m}\n".replace("model", "zzz"))
    assert 'unknown key "zzz"' in message
    assert "model" in message


@pytest.mark.parametrize(
    ("override", "named"),
    [
        ("train.epochs=many", "train.epochs='many'"),
        ("train.per_device_train_batch_size=0", "train.per_device_train_batch_size=0"),
        ("train.lr_scheduler_type=cosinus", "train.lr_scheduler_type='cosinus'"),
        ("trainable.lora.target_modules=[]", "trainable.lora.target_modules=[]"),
        ("model.quantization=nf4", "model.quantization='nf4'"),
        ("train.gradient_checkpointing='true'", "train.gradient_checkpointing='true'"),
        ("data.prompt.question=no place", "must contain {question}"),
        ("train.load_best_model_at_end=true", "load_best_model_at_end needs eval_steps"),
        ("train.early_stopping_patience=3", "early_stopping_patience needs load"),
    ],
)
def test_a_value_of_another_kind_is_named_with_its_path(
    tmp_path: Path, override: str, named: str
) -> None:
    assert named in refusal(tmp_path, MINIMAL, (override,))


def test_a_missing_key_is_named(tmp_path: Path) -> None:
    assert 'key "model.id" is missing' in refusal(tmp_path, "name: x\nmodel: {}\n")


def test_every_mistake_is_told_at_once(tmp_path: Path) -> None:
    message = refusal(tmp_path, MINIMAL, ("train.epochs=-1", "trainable.lora.rank=4"))
    assert "train.epochs" in message
    assert "trainable.lora.rank" in message


def test_a_missing_file_says_where_recipes_are(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="no such recipe file.*recipes/"):
        load_recipe(tmp_path / "absent.yaml")


@pytest.mark.parametrize(
    ("text", "problem"),
    [("a: [1", "not valid YAML"), ("- a\n", "holds a list"), ("", "is empty")],
)
def test_what_is_no_mapping_is_refused(tmp_path: Path, text: str, problem: str) -> None:
    assert problem in refusal(tmp_path, text)


def test_what_is_not_utf8_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_bytes(b"name: \xff\n")
    with pytest.raises(RecipeError, match="not UTF-8 at byte 6"):
        load_recipe(path)


@pytest.mark.parametrize("override", ["train.epochs", "=3", " =3"])
def test_an_override_without_key_or_value_sign_is_refused(tmp_path: Path, override: str) -> None:
    assert "key.path=value" in refusal(tmp_path, MINIMAL, (override,))


def test_overrides_lie_over_the_file_and_make_missing_sections(tmp_path: Path) -> None:
    path = write(tmp_path, MINIMAL + "run: {dir: old, seed: 3}\n")
    recipe = load_recipe(
        path,
        ["run.dir=null", "data.train.path=a b.jsonl", "trainable.lora.target_modules=[fc1, fc2]"],
    )
    assert (recipe.run.dir, recipe.run.seed, recipe.run_dir) == (None, 3, "runs/x")
    assert recipe.data.train is not None
    assert recipe.data.train.path == "a b.jsonl"
    assert recipe.trainable.lora.target_modules == ["fc1", "fc2"]


def test_a_value_with_an_equals_sign_stays_whole(tmp_path: Path) -> None:
    recipe = load_recipe(write(tmp_path, MINIMAL), ["data.train.path=seed=7,count=3"])
    assert recipe.data.train is not None
    assert recipe.data.train.path == "seed=7,count=3"


def test_a_phase_overrides_only_what_it_names() -> None:
    recipe = parse_recipe(
        {
            "name": "x",
            "model": {"id": "m"},
            "train": {"epochs": 3, "learning_rate": {"qformer": 1e-4, "adapters": 2e-4}},
            "phases": [
                {
                    "name": "a",
                    "trainable": {"vision": "full"},
                    "train": {"learning_rate": {"qformer": 0.1}},
                },
                {"name": "b"},
            ],
        }
    )
    trainable, train = resolve_phase(recipe, recipe.phases[0])
    assert (trainable.vision, trainable.qformer) == ("full", "full")
    assert (train.epochs, train.learning_rate.qformer, train.learning_rate.adapters) == (
        3,
        0.1,
        2e-4,
    )
    assert resolve_phase(recipe, recipe.phases[1]) == (recipe.trainable, recipe.train)


def test_a_mistake_inside_a_phase_is_found_when_the_recipe_is_read(tmp_path: Path) -> None:
    text = MINIMAL + "phases: [{name: a}, {name: b, train: {epoch: 3}}]\n"
    message = refusal(tmp_path, text)
    assert "phases.1.train" in message
    assert 'did you mean "epochs"?' in message


def test_two_phases_of_one_name_are_refused(tmp_path: Path) -> None:
    assert 'two phases are called "a"' in refusal(
        tmp_path, MINIMAL + "phases: [{name: a}, {name: a}]\n"
    )


def test_merging_alters_neither_side() -> None:
    base, changes = {"a": {"b": 1, "c": 2}}, {"a": {"b": 3}, "d": [4]}
    assert merge(base, changes) == {"a": {"b": 3, "c": 2}, "d": [4]}
    assert (base, changes) == ({"a": {"b": 1, "c": 2}}, {"a": {"b": 3}, "d": [4]})
