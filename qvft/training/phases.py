"""Trains a run's phases in order: a Trainer per phase, resume, the final adapter."""

from __future__ import annotations

from pathlib import Path
from typing import cast

from qvft.disk import replaced_folder, saving
from qvft.json_files import drop_torn_line, write_json
from qvft.log import is_main_process
from qvft.progress import say
from qvft.training.checkpoints import clear, final_checkpoint, follow_move, last_checkpoint
from qvft.training.completions import FILE as COMPLETIONS
from qvft.training.metrics_log import RESUMABLE, trackers_named
from qvft.training.phase_setup import phase_setup
from qvft.training.progress_line import WritePage
from qvft.training.reward_trainer import RewardTrainer
from qvft.training.stopping import StopOnSignal
from qvft.training.trainer import QFormerTrainer
from qvft.training.training_run import TrainingRun


def run_phases(folder: Path, work: TrainingRun, *, page: WritePage | None = None) -> None:
    """Trains phase by phase and writes `adapter/` at the end; called in all processes.

    A phase that finished in an earlier start is not repeated: its weights are loaded. An
    interrupted one resumes from its last checkpoint.

    Args:
        folder: the run folder.
    """
    metrics_file = folder / "metrics.jsonl"
    if is_main_process():
        for file in (metrics_file, folder / COMPLETIONS):
            drop_torn_line(file)
    stop = StopOnSignal()
    with stop.handling():
        for index, plan in enumerate(work.plans):
            checkpoints = folder / "checkpoints" / f"{index}"
            setup = phase_setup(work, plan, checkpoints)
            if (checkpoints / "done.json").is_file():
                work.restore_weights(checkpoints / "weights")
                continue
            trainer_class = RewardTrainer if setup.rollouts else QFormerTrainer
            trainer = trainer_class(
                setup,
                save_weights=work.save_weights,
                restore_weights=work.restore_weights,
                metrics_file=metrics_file,
                phase=f"phase {setup.name}, " if len(work.plans) > 1 else "",
                page=page,
            )
            stop.steps = setup.rollouts.reward.num_iterations if setup.rollouts else 1
            trainer.add_callback(stop)
            if trainer.is_world_process_zero():
                checkpoints.mkdir(parents=True, exist_ok=True)
                follow_move(checkpoints)
            trainer.accelerator.wait_for_everyone()
            final = final_checkpoint(checkpoints, best=setup.arguments.load_best_model_at_end)
            if final is not None:
                work.restore_weights(final)
            else:
                last = last_checkpoint(checkpoints)
                if last is not None:
                    step = Path(last).name.rpartition("-")[2]
                    say(f"phase {setup.name}: resumed from step {step} ({last})")
                with trackers_named(cast(list[str], setup.arguments.report_to)):
                    trainer.train(resume_from_checkpoint=last)
            if trainer.is_world_process_zero():
                clear(checkpoints)
            if index + 1 < len(work.plans):
                _write(checkpoints / "weights", work)
                if trainer.is_world_process_zero():
                    write_json(checkpoints / "done.json", {"done": True})
            trainer.accelerator.wait_for_everyone()
        _write(folder / "adapter", work)


def _write(folder: Path, work: TrainingRun) -> None:
    """Writes an adapter folder atomically; called in all processes. Raises FailedError."""
    if not is_main_process():
        work.save_weights(folder)  # contributes its shards of the weights and writes nothing
        return
    with saving(folder, kept=RESUMABLE), replaced_folder(folder) as partial:
        work.save_weights(partial)
