"""`qvft bench --whole` and `--serve`: the plain scripts do the same work, commands are measured."""

from __future__ import annotations

import importlib.util
import json
import runpy
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from transformers import AutoTokenizer

from qvft import cli
from qvft.bench import main
from qvft.benchmark import whole
from qvft.benchmark.commands import ROUND, CommandPace, measured
from qvft.benchmark.steps import WAYS, Steps
from qvft.benchmark.training import laid_out, prepared, rows_of_batches
from qvft.cpu_threads import cpu_cores
from qvft.errors import FailedError
from qvft.recipe.load import load_recipe
from qvft.setup.data import read_split
from qvft.training.prepare_training import prepare_training

SCRIPT = Path(__file__).resolve().parents[1] / "benchmarks" / "plain_peft.py"


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands run in this process, which has imported everything."""

    def run(commands: Mapping[str, Sequence[str]], **given: Any) -> dict[str, CommandPace]:
        for key, value in given["environment"].items():
            monkeypatch.setenv(key, value.replace(ROUND, "0"))
        for command in commands.values():
            script, *arguments = (one.replace(ROUND, "0") for one in command)
            if script == "-m":
                assert cli.main(arguments[1:]) == 0
            else:
                monkeypatch.setattr(sys, "argv", [script, *arguments])
                runpy.run_path(script, run_name="__main__")
        return dict.fromkeys(commands, CommandPace((2.0,), (1.0,), 2.0, 1.0, 1.0, 1.0, 1))

    monkeypatch.setattr(whole, "measured", run)


def plain_peft() -> ModuleType:
    spec = importlib.util.spec_from_file_location("plain_peft", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_plain_script_computes_the_loss_of_a_batch_that_qvft_does(
    recipe_file: Path, tmp_path: Path
) -> None:
    work = prepare_training(load_recipe(str(recipe_file)))
    batch = rows_of_batches(work, prepared(work), steps=1)[0]
    assert {row.kind for _, row in batch} == {"caption", "question"}
    ours = Steps(work.loaded.model, bf16=False)
    ours.objective.eval()
    expected = ours.loss(WAYS["plain"], laid_out(work, WAYS["plain"], [batch])[0])

    rows = tmp_path / "rows.jsonl"
    whole.write_rows(rows, [row for _, row in batch], work.loaded.template)
    script, base = plain_peft(), work.loaded.base
    given = [base.location, str(rows), "--out", "x"]
    given += whole.plain_arguments(work.recipe, base, threads=1)
    args = script.arguments().parse_args(given)
    processor = script.Blip2Processor.from_pretrained(args.model)
    collate = script.Collator(processor, args.stop, args.max_length)
    model = script.load_model(args).eval()
    loss = model(**collate([json.loads(line) for line in rows.read_text().splitlines()])).loss
    assert loss.item() == pytest.approx(expected.item(), rel=1e-6)  # the same float32 operations
    trained = {name for name, one in model.named_parameters() if one.requires_grad}
    of_qvft = {name for name, one in work.loaded.model.named_parameters() if one.requires_grad}
    assert {name.removeprefix("base_model.model.") for name in trained} == of_qvft


def test_all_three_commands_train(recipe_file: Path, tmp_path: Path, here: None, capsys) -> None:
    out = tmp_path / "whole.json"
    given = [str(recipe_file), "train.max_steps=2", "train.save_steps=null", "--whole"]
    assert main([*given, "--rounds", "1", "--json", str(out)]) == 0
    found = json.loads(out.read_text())["whole"]
    assert list(found["commands"]) == ["plain", "qvft, cold", "qvft, warm"]
    assert (found["texts"], found["threads"]) == (16, 1)
    assert "step 2 of 2: loss" in capsys.readouterr().out


def test_both_commands_predict_one_image_and_all_rows(
    recipe_file: Path, tmp_path: Path, here: None
) -> None:
    out = tmp_path / "serve.json"
    given = [str(recipe_file), "data.eval.limit=2", "--serve", "--rounds", "1", "--json", str(out)]
    cores = cpu_cores()
    assert main(given) == 0
    assert cpu_cores() == cores
    found = json.loads(out.read_text())
    assert (found["one_image"]["texts"], found["all_rows"]["texts"]) == (1, 6)
    assert (found["all_rows"]["equal_texts"], found["all_rows"]["images"]) == (6, 2)


def test_the_study_writes_photographs_captions_and_recipes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("sklearn", reason="its photographs")
    studies = SCRIPT.parents[1] / "docs" / "studies"
    monkeypatch.syspath_prepend(str(studies))
    given = [str(tmp_path / "data"), "--images", "2", "--texts", "3"]
    monkeypatch.setattr(sys, "argv", ["whole_data.py", *given])
    with pytest.raises(SystemExit, match="0"):
        runpy.run_path(str(studies / "whole_data.py"), run_name="__main__")
    recipe = load_recipe(str(tmp_path / "data" / "captions.yaml"))
    samples = read_split(recipe, "train").samples
    assert [len(sample.captions) for sample in samples] == [3, 3]
    assert {sample.image.open().size for sample in samples} == {(640, 480)}
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "data" / "model")
    for caption in samples[0].captions:
        assert 8 <= len(tokenizer.tokenize(f" {caption}")) == len(caption.split()) <= 24


def test_commands_take_turns_and_are_measured_apart(tmp_path: Path) -> None:
    said = tmp_path / "said"
    line = "import os; open(os.environ['SAID'], 'a').write('{} %s ')"
    busy = line + "; sum(range(3_000_000))"
    paces = measured(
        {"plain": ["-c", busy % f"plain{ROUND}"], "qvft": ["-c", line % f"qvft{ROUND}"]},
        rounds=2,
        log=tmp_path / "log",
        environment={"SAID": f"{said}"},
    )
    assert said.read_text().split()[1::2] == ["plain0", "qvft0", "plain1", "qvft1"]
    plain, ours = paces.values()
    assert plain.speedup == 1.0
    assert len(plain.seconds) == 2 and min(plain.cpu_seconds) > 0 < plain.peak_memory_bytes
    assert ours.speedup == plain.median_seconds / ours.median_seconds


def test_what_a_failing_command_said_is_shown(tmp_path: Path) -> None:
    with pytest.raises(FailedError, match=r"exit status 3: not today"):
        line = "print('not today'); raise SystemExit(3)"
        measured({"plain": ["-c", line]}, rounds=1, log=tmp_path / "log", environment={})


@pytest.mark.parametrize(
    ("given", "named"),
    [
        (["--whole", "--script", "absent.py"], "absent.py"),
        (["--script", "absent.py"], "--script"),
        (["--whole", "train.gradient_accumulation_steps=2"], "train.gradient_accumulation_steps"),
        (["--whole", "train.save_steps=5"], "train.save_steps"),
        (["--serve", "data.eval=null"], "data.eval"),
    ],
)
def test_what_the_plain_side_cannot_do_is_refused(
    recipe_file: Path, capsys, given: list[str], named: str
) -> None:
    assert main([str(recipe_file), *given]) == 2
    assert named in capsys.readouterr().err
