"""What the studies of reward and preference tuning share: data, a supervised run, arms from it.

Captions of drawn scenes, of two to four things by default. Such a scene has two references, one
with the place of every thing and one without. Everything goes through `qvft.train` and `qvft.eval`.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from qvft.eval import main as evaluate
from qvft.evaluation.stats import paired_difference
from qvft.train import main as train

sys.path.append(str(Path(__file__).resolve().parents[2]))  # where tools/ is

from tools.tiny_blip2.drawn import captions, draw, sample_scene
from tools.tiny_blip2.drawn.glyphs import LETTERS, SHAPES
from tools.tiny_blip2.drawn.scenes import BACKGROUNDS
from tools.tiny_blip2.drawn.texts import NUMBER_WORDS

SIZE_PX = 48
TRAIN, TEST = (21, 2000), (22, 400)
"""Seed of the drawing and scenes of each split."""
PARTS = ("qformer", "query_tokens", "language_projection", "adapters")
RATE = 1.0e-3
START, CONTROL = "supervised", "supervised_more"
CONTROL_CHANGES = ["train.per_device_train_batch_size=32"]
"""Both captions of 16 images per step."""
Arm = Callable[[Path, int], list[str]]
LAST_WORDS = {*SHAPES, *LETTERS, *NUMBER_WORDS, "left", "right", "background"}
"""Words that a finished caption ends in; another end is "on black"."""
MEANS = ("CIDEr", "exact_match", "things_f1", "words", "places", "unfinished")
LOGGED = (
    *("step", "loss", "eval_loss", "reward", "frac_reward_zero_std", "completions/bad_endings"),
    *("completions/distinct_2", "rewards/accuracies", "rewards/margins", "logps/chosen"),
    "logps/rejected",
)
SHOWN = 5
"""Test images whose texts are in the table."""


def write_split(folder: Path, name: str, seed: int, count: int, *, things: int = 2) -> Path:
    """A split as custom JSONL with PNG images, two captions per scene of `things` at least."""
    path = folder / f"{name}.jsonl"
    if path.is_file():
        return path
    (folder / name).mkdir(parents=True, exist_ok=True)
    scenes = (sample_scene(seed, index) for index in itertools.count())
    crowded = filter(lambda scene: len(scene.things) >= things, scenes)
    lines = []
    for index, scene in enumerate(itertools.islice(crowded, count)):
        image = f"{name}/{index}.png"
        draw(scene, SIZE_PX).save(folder / image)
        lines.append(json.dumps({"image": image, "captions": captions(scene)}))
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def write_recipe(folder: Path, *, steps: int, things: int = 2) -> Path:
    """The recipe that all arms have in common, as JSON, which is YAML too."""
    splits = {"train": write_split(folder, "train", *TRAIN, things=things)}
    splits["eval"] = write_split(folder, "test", *TEST, things=things)
    recipe = {
        "name": "tuned_captions",
        "model": {"id": "qvft/tiny-blip2"},
        "data": {
            **{split: {"format": "jsonl", "path": str(path)} for split, path in splits.items()},
            "num_workers": 0,
            "cache_images": True,
        },
        "trainable": {
            "decoder": "lora",
            "lora": {"r": 16, "lora_alpha": 32, "target_modules": "all-linear"},
        },
        "train": {
            "max_steps": steps,
            "per_device_train_batch_size": 48,
            "texts_per_image": 2,
            "learning_rate": dict.fromkeys(PARTS, RATE),
            "warmup_steps": 0.1,
            "logging_steps": 20,
        },
        "eval": {
            "batch_size": 200,
            "blind": False,
            "report_images": 0,
            "caption": {"max_new_tokens": 48},
        },
        "run": {"threads": 1},
    }
    path = folder / "recipe.yaml"
    path.write_text(json.dumps(recipe, indent=1) + "\n", encoding="utf-8")
    return path


def run_study(description: str, arms: dict[str, Arm], name: str) -> int:
    """Runs the supervised run, the control and every arm for every seed; a table after each.

    Args:
        arms: the overrides of each, given the supervised run and the seed.
        name: of the table.
    """
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--arms", nargs="+", choices=arms, default=list(arms))
    parser.add_argument("--start-steps", type=int, default=400, help="of the supervised run")
    parser.add_argument("--steps", type=int, default=100, help="of every arm from it")
    parser.add_argument("--rate", type=float, default=1.0e-4, help="learning rate of the arms")
    parser.add_argument("--things", type=int, default=2, help="a scene has at least; default: 2")
    work = "folder of runs; another one for other --things or --start-steps"
    parser.add_argument("--work", type=Path, default=Path("runs/tuned_captions"), help=work)
    parser.add_argument("--out", type=Path, default=Path(f"{name}.json"))
    given = parser.parse_args()
    given.work.mkdir(parents=True, exist_ok=True)
    recipe = write_recipe(given.work, steps=given.start_steps, things=given.things)
    settings = {key: getattr(given, key) for key in ("start_steps", "steps", "rate", "things")}
    runs: dict[int, dict[str, Path]] = {}
    for seed in given.seeds:
        start = given.work / f"{START}-{seed}"
        runs[seed] = {START: run_arm(recipe, start, seed, ["train.eval_steps=100"])}
        for arm in (CONTROL, *given.arms):
            run = given.work / f"{arm}-{given.rate:g}-{given.steps}-{seed}"
            rates = json.dumps(dict.fromkeys(PARTS, given.rate))
            further = [f"train.from={start}", f"train.max_steps={given.steps}"]
            further += [f"train.learning_rate={rates}"]
            further += CONTROL_CHANGES if arm == CONTROL else arms[arm](start, seed)
            control = runs[seed].get(CONTROL, start)
            runs[seed][arm] = run_arm(recipe, run, seed, further, against=control)
            table = {"settings": settings, **table_of(runs)}
            given.out.write_text(json.dumps(table, indent=1) + "\n", encoding="utf-8")
    return 0


def run_arm(
    recipe: Path, run: Path, seed: int, changes: Sequence[str], *, against: Path | None = None
) -> Path:
    """Trains and evaluates an arm, unless its report stands, so that a study can go on.

    Args:
        against: the run whose texts are compared with the arm's; None: none.
    """
    evaluation = run / "eval" / "test"
    if not (evaluation / "report.json").is_file():
        given = [str(recipe), f"run.dir={run}", f"run.seed={seed}", *changes]
        asked_for = [str(run), "--out", str(evaluation)]
        if against is not None:
            asked_for += ["--against", str(against / "eval" / "test")]
        if train(given) or evaluate(asked_for):
            raise SystemExit(f"{run} failed")
    return run


def things_f1(text: str, reference: str) -> float:
    """F1 of the things that a caption names, "a red star", in any order and wherever they are."""
    given, wanted = (
        Counter(part.split(" at the ")[0] for part in one.split(" and "))
        for one in (text, reference)
    )
    return 2 * (given & wanted).total() / (given.total() + wanted.total())


def without_places(completions: Sequence[str], **columns: Any) -> list[float]:
    """Preference for captions without "at the": 1 or 0."""
    return [float(" at the " not in text) for text in completions]


def table_of(runs: dict[int, dict[str, Path]]) -> dict[str, Any]:
    """Rows by arm and seed, their means over seeds, and a few texts of the first seed.

    Differences are those to `CONTROL`, or of that to `START`.
    """
    rows = {
        seed: {
            arm: arm_row(run, None if arm == START else arms[START if arm == CONTROL else CONTROL])
            for arm, run in arms.items()
        }
        for seed, arms in runs.items()
    }
    first = next(iter(runs.values()))
    lines = {arm: predictions(run)[:SHOWN] for arm, run in first.items()}
    return {
        "mean": {
            arm: {
                key: statistics.mean(found[arm][key] for found in rows.values() if arm in found)
                for key in MEANS
            }
            for arm in first
        },
        "seeds": rows,
        "texts": [
            {
                "references": found[0]["references"],
                **{arm: one["prediction"] for arm, one in zip(lines, found, strict=True)},
            }
            for found in zip(*lines.values(), strict=True)
        ],
    }


def arm_row(run: Path, control: Path | None) -> dict[str, Any]:
    """Scores of a run with 95 % intervals, paired differences, and what its texts look like."""
    report = json.loads((run / "eval/test/report.json").read_text(encoding="utf-8"))
    lines = predictions(run)
    texts = [line["prediction"].split() for line in lines]
    row: dict[str, Any] = {"n": report["n"], "things_f1": statistics.mean(f1_of(lines))}
    for name, key in (("CIDEr", "CIDEr"), ("exact_match", "caption_exact_match")):
        row[name] = report["metrics"][key]
        row[f"{name}_interval"] = report["intervals"][key]
        if report["against"]:
            found = report["against"]["metrics"][key]
            row[f"{name}_difference"] = [found["difference"], found["interval"]]
    if control is not None:
        others = predictions(control)
        row["things_f1_difference"] = paired(f1_of(lines), f1_of(others))
        both = [pair for pair in zip(lines, others, strict=True) if has_places(*pair) in (0, 2)]
        for name, key in (("CIDEr", "CIDEr"), ("exact_match", "caption_exact_match")):
            own, other = ([pair[n]["scores"][key] for pair in both] for n in (0, 1))
            row[f"{name}_difference_same_form"] = [*paired(own, other), len(both)]
    row["words"] = statistics.mean(map(len, texts))
    row["places"] = statistics.mean(map(has_places, lines))
    row["unfinished"] = statistics.mean(not is_finished(text) for text in texts)
    row["different"] = len({" ".join(text) for text in texts})
    logged = (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    curve = [{k: v for k, v in json.loads(one).items() if k in LOGGED} for one in logged]
    row["curve"] = [one for one in curve if len(one) > 1]
    return row


def is_finished(words: list[str]) -> bool:
    """Whether a caption ends where one of the data could."""
    last = words[-1] if words else ""
    return last in LAST_WORDS or (words[-2:-1] == ["on"] and last in BACKGROUNDS)


def has_places(*lines: dict[str, Any]) -> int:
    """How many predictions say places."""
    return sum(" at the " in line["prediction"] for line in lines)


def paired(own: Sequence[float], other: Sequence[float]) -> list[Any]:
    """Difference of two means over the same images, with its 95 % interval."""
    found = paired_difference(own, other, clusters=range(len(own)))
    return [found.difference, found.interval]


def f1_of(lines: list[dict[str, Any]]) -> list[float]:
    """`things_f1` of each prediction; the shorter reference names the things alone."""
    return [things_f1(line["prediction"], min(line["references"], key=len)) for line in lines]


def predictions(run: Path) -> list[dict[str, Any]]:
    """The lines of a run's evaluation."""
    lines = (run / "eval/test/predictions.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]
