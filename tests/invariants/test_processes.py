"""Two processes with half the batch each train, cache and answer what one process does."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tar_shards import write_shards
from two_processes import (
    ALIGNMENT,
    ALIGNMENT_PARTS,
    PHASES,
    PLAIN,
    PREFERENCE,
    REWARD,
    SMOOTH,
    UNEVEN,
    Program,
    launched,
)

from qvft.data.features.folders import shard_files, spaces
from qvft.data.features.shards import read_keys
from qvft.eval import main as evaluate
from qvft.recipe.load import load_recipe
from qvft.train import main as train
from tests.models.decoder_models import TEXT, write_model

SHARDING = {"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2"}
MIXED = (
    "data.train=[{path: SHAPES, name: few, limit: 4, weight: 0.5, answers: sampled}, "
    "{path: SHAPES, name: all, weight: 0.5}]"
)
NF4 = ["model.quantization.load_in_4bit=true", "train.gradient_checkpointing=true"]
# Each recipe: what is added to the text, what is changed, and what the launcher of two says.
RECIPES: dict[str, tuple[str, list[str], dict[str, str]]] = {
    "shared": ("", ["train.texts_per_image=3"], {}),
    # Epochs of 24 texts, the second half of them others in each.
    "mixed": ("", [MIXED, "train.epochs=3"], {}),
    "phases": (PHASES, ["data.features=off"], {}),
    "aligned": (ALIGNMENT, ["train.texts_per_image=3"], {}),
    "rewarded": (REWARD, [], {}),
    # 60 pairs: the last batch has four, all of the first process.
    "preferred": (PREFERENCE, ["data.train.path=PAIRS/train.jsonl"], {}),
    "encoder_decoder": (
        "",
        ["model.id=T5", "trainable.lora.target_modules=[q,v,wi_0]", "train.texts_per_image=3"],
        {},
    ),
    "sharded": ("", ["data.features=off", "train.save_steps=3", *SMOOTH], SHARDING),
    "sharded_nf4": (
        PHASES + ALIGNMENT_PARTS,
        [*NF4, "train.gradient_accumulation_steps=2", "train.save_steps=2"],
        SHARDING,
    ),
}
REWARDS = {
    "rewards/chosen", "rewards/rejected", "rewards/accuracies", "rewards/margins", "logps/chosen",
    "logps/rejected",
}  # fmt: skip
# One process divides a stream otherwise than two, so that two are compared with two.
STREAMED = {"stream": {}, "sharded_stream": SHARDING}


@dataclass(frozen=True)
class Pair:
    """What one process and two wrote of the same recipes, in folders of equal names."""

    one: Path
    two: Path


def streamed(recipe_file: Path, root: Path) -> list[Program]:
    """Trains on a stream of three shards, 15 texts, over more than a pass."""
    write_shards(root / "shards", [2, 1, 2])
    source = f"{{format: tar, path: '{root / 'shards'}', stream: true, shuffle_buffer: 9}}"
    changes = [f"data.train={source}", "train.max_steps=3", "train.save_steps=null", *PLAIN]
    given = [str(recipe_file), *changes, "train.per_device_train_batch_size=4"]
    return [
        ("train", [*given, f"run.dir={root / 'two' / name}"], variables)
        for name, variables in STREAMED.items()
    ]


@pytest.fixture(scope="module")
def pair(
    recipe_file: Path,
    pairs_recipe: Path,
    drawn_run: Path,
    tiny_folder: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Pair:
    root = tmp_path_factory.mktemp("processes")
    shapes = load_recipe(recipe_file).data.train.path
    write_model(root / "t5", tiny_folder, TEXT["t5"])

    def programs(side: Path, batch: int) -> list[Program]:
        asked = ["data.eval.path=seed=2,count=7", "--out", str(side / "report")]
        # Evaluation first: it joins the processes by itself.
        found: list[Program] = [("eval", [str(drawn_run), *asked], {})]
        for name, (text, changes, variables) in RECIPES.items():
            recipe = root / f"{name}.yaml"
            recipe.write_text(recipe_file.read_text() + text)
            places = {"=T5": f"={root / 't5'}", "SHAPES": str(shapes)}
            places["=PAIRS"] = f"={pairs_recipe.parent / 'shapes'}"
            for short, place in places.items():
                changes = [change.replace(short, place) for change in changes]
            given = [str(recipe), f"run.dir={side / name}", *PLAIN, *UNEVEN]
            found.append(
                (
                    "train",
                    [*given, f"train.per_device_train_batch_size={batch}", *changes],
                    variables,
                )
            )
        return found

    mains: dict[str, Callable] = {"train": train, "eval": evaluate}
    for program, arguments, _ in programs(root / "one", 14):
        assert mains[program](arguments) == 0
    streams = streamed(recipe_file, root)
    said = launched([*programs(root / "two", 7), *streams], root / "cache")
    (root / "two" / "said").write_text(said)
    return Pair(root / "one", root / "two")


def metrics(run: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def assert_same_weights(first: Path, second: Path) -> None:
    """Compares the weights of two runs."""
    files = sorted(path.name for path in (first / "adapter").glob("*.safetensors"))
    assert {"bridge.safetensors", "adapter_model.safetensors"} <= set(files)
    for file in files:
        expected, found = (load_file(run / "adapter" / file) for run in (first, second))
        assert expected.keys() == found.keys()
        for key in expected:
            # Float32 sums in another order differ by 1e-6 of a gradient's size, gradients are
            # clipped to a norm of 1, and six steps of 0.05 add up.
            assert (expected[key] - found[key]).abs().max() < 1e-6, key


@pytest.mark.parametrize("name", RECIPES)
def test_two_processes_end_with_the_weights_of_one(pair: Pair, name: str) -> None:
    assert_same_weights(pair.one / name, pair.two / name)


def test_a_sharded_stream_ends_with_the_weights_of_one_that_is_not(pair: Pair) -> None:
    assert_same_weights(pair.two / "stream", pair.two / "sharded_stream")


@pytest.mark.parametrize("name", RECIPES)
def test_two_processes_log_the_losses_of_one_once(pair: Pair, name: str) -> None:
    alone, both = metrics(pair.one / name), metrics(pair.two / name)
    assert [row["step"] for row in alone] == [row["step"] for row in both]
    named = {"loss", "grad_norm", "eval_token_loss", "loss_itc", "loss_itm", "loss_itg"}
    for first, second in zip(alone, both, strict=True):
        assert first.keys() == second.keys()
        for key in named & first.keys():
            # As above; a logged loss is a mean of float32 sums.
            assert second[key] == pytest.approx(first[key], rel=1e-5), key


def test_two_processes_have_the_reference_and_the_rewards_of_one(pair: Pair) -> None:
    file = Path("preferred", "checkpoints", "0", "reference.safetensors")
    one, two = (load_file(side / file)["logps"] for side in (pair.one, pair.two))
    assert len(one) == 60
    torch.testing.assert_close(one, two, rtol=0, atol=1e-5)  # batches of 14 and of 7, float32
    alone, both = (
        [row for row in metrics(side / "preferred") if "loss" in row]
        for side in (pair.one, pair.two)
    )
    for name in sorted(REWARDS):
        # From the second step on: before, rewards are 0 up to rounding, whose sign is anybody's.
        expected, found = ([row[name] for row in rows[1:]] for rows in (alone, both))
        assert found == pytest.approx(expected, abs=1e-4), name  # sums of about 40 nats


def test_processes_fill_the_cache_together_and_no_image_twice(pair: Pair) -> None:
    keys, shards = [], []
    for space in spaces(pair.two.parent / "cache"):
        found = shard_files(space.folder)
        shards.append(len(found))
        keys.extend(key for path in found for key in read_keys(path))
    assert len(keys) == len(set(keys))
    # Seven images are one chunk of 16, 24 are two, one for each process. The T5 model, another
    # checkpoint, has a folder of its own and is not evaluated on the seven.
    assert sorted(shards) == [2, 3]


def test_two_processes_write_the_predictions_of_one(pair: Pair) -> None:
    alone, both = pair.one / "report", pair.two / "report"
    written = (both / "predictions.jsonl").read_bytes()
    assert written == (alone / "predictions.jsonl").read_bytes()
    assert len({json.loads(line)["prediction"] for line in written.splitlines()}) > 1
    first, second = (json.loads((folder / "report.json").read_text()) for folder in (alone, both))
    assert first["metrics"] == second["metrics"]
    assert first["baselines"] == second["baselines"]


def test_one_process_speaks_and_leaves_files(pair: Pair) -> None:
    said = (pair.two / "said").read_text()
    assert said.splitlines().count("phase bridge") == 2, "a table for each of two recipes"
    assert said.count("report: ") == 1
    assert said.count("rows are shared by 2 processes") == 2, "as they are, and blind"
    for one in RECIPES:
        assert said.count(f"adapter written to {pair.two / one / 'adapter'}") == 1
    names = {path.name for path in pair.two.iterdir()}
    assert names == {path.name for path in pair.one.iterdir()} | {"said", *STREAMED}


HALVES = ["train.per_device_train_batch_size=7", "train.gradient_accumulation_steps=2"]


# Its last checkpoint goes. Negatives come from a batch, which may not be taken in halves.
@pytest.mark.parametrize(
    ("name", "last", "one"),
    [
        ("sharded", "0/checkpoint-6", HALVES),
        ("sharded_nf4", "1/checkpoint-3", ["train.per_device_train_batch_size=14"]),
    ],
)
def test_a_sharded_run_goes_on_under_one_process(
    pair: Pair,
    name: str,
    last: str,
    one: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run = Path(shutil.copytree(pair.two / name, tmp_path / name))
    shutil.rmtree(run / "adapter")
    shutil.rmtree(run / "checkpoints" / last)
    changes = [*PLAIN, *UNEVEN, *RECIPES[name][1], "train.resume=auto", f"run.dir={run}"]
    recipe = str(pair.one.parent / f"{name}.yaml")

    assert (
        train(
            [
                recipe,
                *changes,
                "train.per_device_train_batch_size=7",
                "train.gradient_accumulation_steps=1",
            ]
        )
        == 2
    )
    assert "7 texts per step" in capsys.readouterr().err

    assert train([recipe, *changes, *one]) == 0
    assert_same_weights(pair.one / name, run)


def test_a_sharded_checkpoint_has_the_files_and_moments_of_a_whole_one(pair: Pair) -> None:
    checkpoint = Path("sharded", "checkpoints", "0", "checkpoint-3")
    alone, both = pair.one / checkpoint, pair.two / checkpoint
    random_states = {"rng_state.pth", "rng_state_0.pth", "rng_state_1.pth"}
    found = [{path.name for path in one.iterdir()} - random_states for one in (alone, both)]
    assert found[0] == found[1]
    manifests = [json.loads((one / "manifest.json").read_text()) for one in (alone, both)]
    assert manifests[0]["bridge"] == manifests[1]["bridge"]
    whole, gathered = (torch.load(one / "optimizer.pt", weights_only=True) for one in (alone, both))
    assert whole["state"].keys() == gathered["state"].keys() != set()
    for number, moments in whole["state"].items():
        for moment, value in moments.items():
            # Moments of gradients no larger than 1, whose float32 sums were taken in another order.
            found = gathered["state"][number][moment]
            assert value.shape == found.shape
            assert (value - found).abs().max() < 1e-6, moment
