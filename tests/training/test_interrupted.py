"""Runs that something comes between: signals, full disks, folders that vanish, a second run."""

from __future__ import annotations

import json
import multiprocessing
import os
import resource
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import qvft.files
import qvft.training.stopping as stopping
from qvft.files import sha256_file
from qvft.json_files import complete_lines
from qvft.locks import inside
from qvft.train import main
from qvft.training.checkpoints import STATE
from qvft.training.trainer import QFormerTrainer

FILES = ("bridge.safetensors", "adapter_model.safetensors", "adapter_config.json")

During = Callable[[int, Callable[[], None]], None]


@pytest.fixture(autouse=True)
def ctrl_c_ends_a_program() -> Iterator[None]:
    """As it does in a terminal; pytest-xdist has its workers ignore it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def during(monkeypatch: pytest.MonkeyPatch) -> During:
    """A function that has something happen in the middle of a step, once."""

    def set_up(step: int, happens: Callable[[], None]) -> None:
        compute, happened = QFormerTrainer.compute_loss, []

        def patched(self, *given, **options):
            if self.state.global_step == step - 1 and not happened:
                happened.append(step)
                happens()
            return compute(self, *given, **options)

        monkeypatch.setattr(QFormerTrainer, "compute_loss", patched)

    return set_up


def train(recipe: Path, folder: Path, *overrides: str) -> int:
    return main([str(recipe), f"run.dir={folder}", "train.resume=auto", *overrides])


def digests(run: Path) -> list[str]:
    return [sha256_file(run / "adapter" / name) for name in FILES]


def steps(run: Path) -> list[int]:
    return [row["step"] for row in complete_lines(run / "metrics.jsonl") if "loss" in row]


@pytest.fixture
def halfway(tiny_run: Path, tmp_path: Path) -> Path:
    """A copy of a run of 6 steps that was stopped after 4."""
    folder = Path(shutil.copytree(tiny_run, tmp_path / "halfway"))
    shutil.rmtree(folder / "adapter")
    shutil.rmtree(folder / "checkpoints" / "0" / "checkpoint-6")
    return folder


@pytest.mark.parametrize(
    ("number", "status"),
    [(signal.SIGTERM, 143), pytest.param(signal.SIGINT, 130, marks=pytest.mark.slow)],
)
def test_a_signal_ends_a_run_with_a_checkpoint_and_says_how_to_go_on(
    number: int, status: int, during: During, recipe_file: Path, tiny_run: Path, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    run = tmp_path / "run"
    during(3, lambda: os.kill(os.getpid(), number))
    assert train(recipe_file, run) == status
    said = capsys.readouterr().err.splitlines()[-1]
    assert f"stopped by {signal.Signals(number).name} at step 3; {run}" in said
    assert "train.resume=auto" in said
    assert (run / "checkpoints" / "0" / "checkpoint-3" / STATE).is_file()
    assert not (run / "adapter").exists()
    assert train(recipe_file, run) == 0
    assert digests(run) == digests(tiny_run)
    assert steps(run) == [1, 2, 3, 4, 5, 6]


@pytest.mark.slow
def test_a_signal_gets_its_checkpoint_where_the_recipe_wants_none(
    during: During, recipe_file: Path, tiny_run: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    during(2, lambda: os.kill(os.getpid(), signal.SIGTERM))
    assert train(recipe_file, run, "train.save_steps=null") == 143
    assert train(recipe_file, run, "train.save_steps=null") == 0
    assert digests(run) == digests(tiny_run)


def test_a_checkpoint_for_a_signal_is_no_candidate_for_the_best(
    during: During, recipe_file: Path, tmp_path: Path
) -> None:
    """Undisturbed, the run would know the checkpoints of steps 2, 4 and 6 alone."""
    run = tmp_path / "run"
    best = ["train.eval_steps=1", "train.load_best_model_at_end=true"]
    during(3, lambda: os.kill(os.getpid(), signal.SIGTERM))
    assert train(recipe_file, run, *best) == 143
    state = json.loads((run / "checkpoints" / "0" / "checkpoint-3" / STATE).read_text())
    assert (state["best_global_step"], Path(state["best_model_checkpoint"]).name) == (
        3,
        "checkpoint-2",
    )


def test_a_signal_to_all_of_a_runs_processes_ends_it_with_a_checkpoint(
    during: During, recipe_file: Path, tmp_path: Path
) -> None:
    others = set(multiprocessing.active_children())

    def to_all() -> None:
        workers = [one for one in multiprocessing.active_children() if one not in others]
        assert len(workers) == 2
        # From another process: a worker takes its main process's own for an orderly end.
        pids = [os.getpid(), *(worker.pid for worker in workers)]
        subprocess.run(["kill", "-TERM", *map(str, pids)], check=True)

    during(3, to_all)
    assert train(recipe_file, tmp_path / "run", "data.num_workers=2", "data.features=off") == 143
    assert (tmp_path / "run/checkpoints/0/checkpoint-3" / STATE).is_file()
    assert set(multiprocessing.active_children()) <= others


@pytest.mark.parametrize(
    ("apart", "status"),
    [(0.0, 130), pytest.param(60.0, 143, marks=pytest.mark.slow)],
    ids=["later", "at once"],
)
def test_a_second_signal_ends_a_run_at_once_unless_it_is_the_first_passed_on(
    apart: float, status: int, during: During, recipe_file: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    def twice() -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(stopping, "_SAME_REQUEST_S", apart)
    during(1, twice)
    assert train(recipe_file, tmp_path / "run") == status
    assert (tmp_path / "run/checkpoints/0/checkpoint-1").exists() == (status == 143)


@pytest.mark.slow
def test_handlers_are_as_before_afterwards(recipe_file: Path, tmp_path: Path) -> None:
    before = [signal.getsignal(one) for one in (signal.SIGTERM, signal.SIGINT)]
    assert train(recipe_file, tmp_path / "run", "train.max_steps=1") == 0
    assert [signal.getsignal(one) for one in (signal.SIGTERM, signal.SIGINT)] == before


@pytest.fixture
def file_limit() -> Iterator[Callable[[int | None], None]]:
    """A function that sets the largest file this process may write, in bytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)

    def limit(size: int | None) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft if size is None else size, hard))

    yield limit
    limit(None)


@pytest.mark.parametrize("writer", [pytest.param("safetensors", marks=pytest.mark.slow), "torch"])
def test_a_save_that_fails_leaves_the_checkpoint_before_and_the_run_goes_on(
    writer: str, halfway: Path, tiny_run: Path, recipe_file: Path, capsys,
    file_limit: Callable[[int | None], None],
) -> None:  # fmt: skip
    """The limit stands for a full disk: safetensors writes the weights, torch AdamW's moments."""
    weights = (halfway / "checkpoints/0/checkpoint-4/bridge.safetensors").stat().st_size
    file_limit(weights // 2 if writer == "safetensors" else weights + weights // 2)
    status = train(recipe_file, halfway)
    file_limit(None)
    said = capsys.readouterr().err
    assert (status, said.count("qvft: "), "Traceback" in said) == (1, 1, False)
    assert "checkpoint-6: cannot be written" in said
    assert "train.resume=auto" in said
    assert [path.name for path in (halfway / "checkpoints/0").glob("checkpoint-*")]
    assert not (halfway / "adapter").exists()
    assert train(recipe_file, halfway) == 0
    assert digests(halfway) == digests(tiny_run)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 64 MB of its own."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(place)]
    if not shutil.which("mount") or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("a disk of its own needs the right to mount")
    yield place
    subprocess.run(["umount", "--lazy", str(place)], check=True)


@pytest.mark.slow
def test_a_disk_that_fills_up_while_training_is_said_and_costs_nothing(
    small_disk: Path, halfway: Path, tiny_run: Path, recipe_file: Path, capsys,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    run = Path(shutil.copytree(halfway, small_disk / "run"))
    free = shutil.disk_usage(small_disk).free
    (small_disk / "filler").write_bytes(bytes(free - 200_000))
    assert train(recipe_file, run) == 2  # before anything long begins
    assert "GB free" in capsys.readouterr().err
    monkeypatch.setattr(qvft.files, "require_space", lambda folder, needed: None)
    assert train(recipe_file, run) == 1
    assert "No space left on device" in capsys.readouterr().err
    (small_disk / "filler").unlink()
    assert train(recipe_file, run) == 0
    assert digests(run) == digests(tiny_run)


def test_a_run_folder_that_vanishes_is_said_and_not_made_anew(
    during: During, recipe_file: Path, tmp_path: Path, capsys
) -> None:
    run = tmp_path / "run"
    during(3, lambda: shutil.rmtree(run))
    assert train(recipe_file, run, "train.logging_steps=100") == 1
    said = capsys.readouterr().err
    assert "checkpoint-4: cannot be written (No such file or directory)" in said
    assert "Traceback" not in said
    assert not run.exists()


def test_a_folder_that_cannot_be_written_is_refused(recipe_file: Path, capsys) -> None:
    assert train(recipe_file, Path("/proc/nope")) == 2
    assert "/proc/nope: cannot be written" in capsys.readouterr().err


def test_a_second_run_in_a_folder_is_refused_and_the_first_left_alone(
    halfway: Path, recipe_file: Path, capsys
) -> None:
    before = sorted(halfway.rglob("*"))
    with inside(halfway):
        assert train(recipe_file, halfway) == 2
    said = capsys.readouterr().err
    assert f"{halfway}: another process is writing here (process {os.getpid()} on " in said
    assert sorted(halfway.rglob("*")) == before


def test_an_adapter_is_whole_or_absent(
    halfway: Path, recipe_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A kill while it is saved must not leave what plain PEFT would load."""
    import qvft.adapters.checkpoint as checkpoint

    write, seen = checkpoint.write_json, []

    def look(path: Path, content: object) -> None:
        seen.append((halfway / "adapter").exists())
        write(path, content)

    monkeypatch.setattr(checkpoint, "write_json", look)
    assert train(recipe_file, halfway) == 0
    assert seen == [False, False]  # of checkpoint-6 and of the adapter
