"""A phase that learns from pairs: what it writes, its reference, resume, halving.

Two processes: tests/invariants/test_processes.py.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from qvft.check import main as check
from qvft.eval import main as evaluate
from qvft.json_files import complete_lines
from qvft.recipe.load import load_recipe
from qvft.train import main
from qvft.training.objectives import reference_logps
from qvft.training.objectives.preference import PreferenceObjective
from qvft.training.prepare_training import prepare_training
from qvft.training.training_run import TrainingRun
from tests.invariants.two_processes import PLAIN

FILES = ("adapter_model.safetensors", "bridge.safetensors")
REFERENCE = "reference.safetensors"
LANGUAGE_FIRST = (
    "phases=[{name: language, train: {max_steps: 2}}, {name: preference, objective: preference}]"
)
LOGGED = {
    "rewards/chosen", "rewards/rejected", "rewards/accuracies", "rewards/margins", "logps/chosen",
    "logps/rejected",
}  # fmt: skip


def train(recipe: Path, folder: Path, *overrides: str) -> int:
    return main([str(recipe), f"run.dir={folder}", "train.resume=auto", *overrides])


def contents(run: Path) -> list[bytes]:
    return [(run / "adapter" / file).read_bytes() for file in FILES]


def steps(run: Path, phase: str = "preference") -> list[dict[str, Any]]:
    rows = complete_lines(run / "metrics.jsonl")
    return [row for row in rows if row["phase"] == phase and "loss" in row]


def stored(run: Path, phase: int = 0) -> Tensor:
    return load_file(run / "checkpoints" / str(phase) / REFERENCE)["logps"]


def assert_close(first: Path, second: Path) -> None:
    """Weights of two runs of plain gradient descent, see `two_processes.PLAIN`."""
    for file in FILES:
        one, other = (load_file(run / "adapter" / file) for run in (first, second))
        for key, value in one.items():
            # Float32 sums in another order, as in tests/invariants/test_processes.py.
            assert (value - other[key]).abs().max() < 1e-6, key


@pytest.fixture(scope="module")
def run(pairs_recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of a language phase of 2 steps and a preference phase of 6, evaluated on the way."""
    folder = tmp_path_factory.mktemp("preference") / "run"
    assert train(pairs_recipe, folder, LANGUAGE_FIRST, "train.eval_steps=6") == 0
    return folder


@pytest.fixture
def work(pairs_recipe: Path) -> TrainingRun:
    return prepare_training(load_recipe(pairs_recipe))


def test_trls_metrics_are_logged_and_pairs_are_learnt(run: Path) -> None:
    logged = steps(run)
    assert [row["step"] for row in logged] == [1, 2, 3, 4, 5, 6]
    assert all(row.keys() >= LOGGED for row in logged)
    first, last = logged[0], logged[-1]
    # Model and reference are equal at first, up to the order of float32 sums of about 40 nats.
    assert first["loss"] == pytest.approx(0.6931472, abs=1e-5)
    assert abs(first["rewards/margins"]) < 1e-5
    assert (
        last["loss"] < 0.65 and last["rewards/accuracies"] > 0.5 and last["rewards/margins"] > 0.1
    )
    assert last["rewards/margins"] == pytest.approx(
        last["rewards/chosen"] - last["rewards/rejected"], abs=1e-6
    )
    (evaluated,) = [
        row
        for row in complete_lines(run / "metrics.jsonl")
        if row["phase"] == "preference" and "eval_loss" in row
    ]
    assert evaluated["eval_rewards/accuracies"] > 0.7
    assert evaluated["eval_rewards/margins"] > 0.1
    assert evaluated["eval_pair_loss"] == pytest.approx(evaluated["eval_loss"], rel=0.2)
    assert not LOGGED & steps(run, "language")[0].keys()


def test_the_reference_is_the_model_as_the_phase_began(
    run: Path, work: TrainingRun, pairs_recipe: Path
) -> None:
    """Queries, Q-Former and LoRA have moved since; the adapters alone would not give it back."""
    work.restore_weights(run / "checkpoints" / "0" / "weights")
    (plan,) = work.plans
    rows = work.rows(plan, work.train, training=True)
    module, collate = work.objective(plan, rows)
    assert isinstance(module, PreferenceObjective)

    def computed(rows: list) -> Tensor:
        return reference_logps.reference_logps(module, collate, rows, batch_size=8, bf16=False)

    before = computed(rows)
    known = stored(run, phase=1)[: len(rows)]  # the evaluation's pairs follow
    torch.testing.assert_close(before, known, rtol=0, atol=1e-5)  # float32 sums of about 40 nats
    work.restore_weights(run / "adapter")
    assert (computed(rows) - known).abs().max() > 1


def test_a_resumed_phase_ends_bit_equal_and_reads_its_reference(
    run: Path, pairs_recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    resumed = tmp_path / "resumed"
    shutil.copytree(run, resumed)
    shutil.rmtree(resumed / "adapter")
    for step in (4, 6):
        shutil.rmtree(resumed / "checkpoints" / "1" / f"checkpoint-{step}", ignore_errors=True)
    left = [path.name for path in (resumed / "checkpoints" / "1").glob("checkpoint-*")]
    if not left:  # save_total_limit 2 keeps 4 and 6
        shutil.copytree(
            run / "checkpoints" / "1" / "checkpoint-4",
            resumed / "checkpoints" / "1" / "checkpoint-4",
        )

    def no_pass(*_: Any, **__: Any) -> Tensor:
        raise AssertionError("the reference is stored")

    monkeypatch.setattr(reference_logps, "reference_logps", no_pass)
    assert train(pairs_recipe, resumed, LANGUAGE_FIRST, "train.eval_steps=6") == 0
    assert contents(resumed) == contents(run)
    assert [row["loss"] for row in steps(resumed)] == [row["loss"] for row in steps(run)]


def test_other_weights_have_another_reference(
    run: Path, pairs_recipe: Path, tmp_path: Path
) -> None:
    """The phase's folder is reused as it is, with the file of another run in it."""
    other = tmp_path / "other"
    (other / "checkpoints" / "0").mkdir(parents=True)
    shutil.copy(run / "checkpoints" / "1" / REFERENCE, other / "checkpoints" / "0" / REFERENCE)
    assert train(pairs_recipe, other, "train.max_steps=1", "train.save_steps=null") == 0
    assert abs(steps(other)[0]["rewards/margins"]) < 1e-5
    assert (stored(other) - stored(run, 1)[: len(stored(other))]).abs().max() > 0.1


@pytest.fixture
def narrow(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Lets memory run out above four pairs; the pairs of every pass that is begun."""
    forward, seen = PreferenceObjective.forward, list[int]()

    def limited(self: PreferenceObjective, **batch: Any) -> dict[str, Any]:
        if self.training:
            seen.append(len(batch["labels"]) // 2)
            if seen[-1] > 4:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return forward(self, **batch)

    monkeypatch.setattr(PreferenceObjective, "forward", limited)
    return seen


SETTINGS = [*PLAIN, "preference={loss_type: [sigmoid, sft], loss_weights: [1, 0.1]}"]


@pytest.fixture(scope="module")
def plain(pairs_recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of six steps of plain gradient descent."""
    folder = tmp_path_factory.mktemp("preference") / "plain"
    assert train(pairs_recipe, folder, *SETTINGS) == 0
    return folder


def test_halved_batches_end_with_the_weights_of_whole_ones(
    plain: Path,
    pairs_recipe: Path,
    tmp_path: Path,
    narrow: list[int],
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert train(pairs_recipe, tmp_path / "run", *SETTINGS) == 0
    assert "with a batch of 8 pairs" in " ".join(capsys.readouterr().err.split())
    assert max(narrow[1:]) <= 4 and sum(narrow[1:]) == 6 * 8
    assert_close(plain, tmp_path / "run")


@pytest.mark.parametrize(
    "changes",
    [
        ["train.batch_tokens=200", "train.texts_per_image=2"],
        ["model.quantization.load_in_4bit=true", "train.gradient_checkpointing=true"],
        ["data.features=off", "train.packing=false"],
        [
            "preference={loss_type: [apo_zero, sft], ld_alpha: 0.5}",
            LANGUAGE_FIRST,
            "objectives.itc=0.5",
        ],
    ],
    ids=["token budget", "nf4", "plain", "beside alignment"],
)
def test_what_a_language_phase_can_a_preference_phase_can(
    pairs_recipe: Path, tmp_path: Path, changes: list[str]
) -> None:
    given = ["train.max_steps=2", "train.save_steps=null", *changes]
    assert train(pairs_recipe, tmp_path / "run", *given) == 0
    assert abs(steps(tmp_path / "run")[0]["rewards/margins"]) < 1e-4


@pytest.mark.parametrize("precision", ["no", "bf16"])
def test_the_reference_is_the_models_own_in_every_view(
    pairs_recipe: Path, tmp_path: Path, precision: str
) -> None:
    """Two epochs that change no weight, over the image and an augmented view of it."""
    changes = ["data.augmentations_per_image=1", "train.epochs=2", "train.max_steps=-1"]
    changes += ["train.learning_rate=0", f"train.mixed_precision={precision}"]
    assert train(pairs_recipe, tmp_path / "run", *changes, "train.save_steps=null") == 0
    logged, known = steps(tmp_path / "run"), stored(tmp_path / "run")
    assert len(logged) == 16 and len(known) == 2 * 60
    # The views differ, and in bfloat16 rounding by 0.4 % of some ten terms stays.
    assert (known[0::2] - known[1::2]).abs().max() > 0.1
    allowed = 1e-5 if precision == "no" else 0.02
    assert max(abs(row["rewards/chosen"]) for row in logged) < allowed


def test_a_report_has_the_curve_and_the_run_it_started_from(
    pairs_recipe: Path, recipe_file: Path, tmp_path: Path
) -> None:
    start, tuned = tmp_path / "start", tmp_path / "tuned"
    language = f"data.train.path={pairs_recipe.parent / 'shapes' / 'train.jsonl'}"
    assert train(recipe_file, start, "train.max_steps=2", language) == 0
    assert train(pairs_recipe, tuned, f"train.from={start}", "train.max_steps=4") == 0
    data = f"data.eval.path={pairs_recipe.parent / 'shapes' / 'test.jsonl'}"
    for run in (start, tuned):
        assert evaluate([str(run), data, "eval.blind=false"]) == 0
    (file,) = tuned.glob("eval/*/report.json")
    report = json.loads(file.read_text())
    assert [point["step"] for point in report["preference_curve"]] == [1, 2, 3, 4]
    assert report["preference_curve"][-1]["margin"] > 0
    assert report["phases"][0]["objectives"] == {"sigmoid": 1.0}
    against = report["against"]
    assert against["metrics"]["exact_match"]["interval"] is not None
    predictions = [json.loads(line) for line in (file.parent / "predictions.jsonl").open()]
    words = [len(one["prediction"].split()) for one in predictions]
    assert against["words_a"] == pytest.approx(sum(words) / len(words))
    assert against["words_b"] > 0


def test_check_passes_and_counts_the_phase(
    pairs_recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert check([str(pairs_recipe), "--json", str(tmp_path / "found.json")]) == 0
    found = json.loads((tmp_path / "found.json").read_text())
    assert all(one["passed"] for one in found["checks"])
    assert any("preference: a gradient" in one["name"] for one in found["checks"])


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (["preference.loss_type=aot"], "loss_type.0='aot'"),
        (["preference.loss_type=[sigmoid, aot_unpaired]"], "loss_type.1='aot_unpaired'"),
        (["preference.loss_type=dpo"], "preference.loss_type"),
        (["preference.loss_type=exo_pair"], "label_smoothing is 0; exo_pair needs one above 0"),
        (
            ["preference={loss_type: robust, label_smoothing: 0.5}"],
            "label_smoothing is 0.5; robust needs one below 0.5",
        ),
        (["preference={loss_type: sft}"], "sft alone learns nothing from the rejected texts"),
        (["preference.loss_weights=[1, 2]"], "2 loss_weights for 1 of loss_type"),
        (["preference.loss_weights=[0]"], "must be above 0"),
        (
            ["preference={loss_type: bco_pair, f_divergence_type: forward_kl}"],
            "has no form of bco_pair",
        ),
        (["preference.label_smoothing=0.1"], "would have no effect: preference.loss_type is"),
        (["phases=[]", "preference.beta=0.2"], "no phase has objective: preference"),
        (["objectives.lm=0.5"], "no phase has objective: language"),
        (["trainable.decoder_dropout=0.1"], "trainable.decoder_dropout: 0.1"),
        (
            ["data.train.stream=true", "data.train.format=tar", "data.train.path=x.tar"],
            "data.train.stream: true",
        ),
        (["data.train.texts=questions", "phases.0.train.packing=null"], "packing"),
    ],
)
def test_what_a_preference_phase_cannot_is_refused(
    pairs_recipe: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    changes: list[str],
    said: str,
) -> None:
    assert train(pairs_recipe, tmp_path / "run", *changes) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_sharding_is_refused(
    pairs_recipe: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with mock.patch.dict(os.environ, {"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2"}):
        assert train(pairs_recipe, tmp_path / "run") == 2
    said = capsys.readouterr().err
    assert "phases.0.objective: preference under FSDP" in said


def test_data_without_pairs_is_refused(
    recipe_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    phases = "phases=[{name: preference, objective: preference}]"
    assert train(recipe_file, tmp_path / "run", phases) == 2
    assert "data.train: holds no pair of a chosen and a rejected text" in capsys.readouterr().err
