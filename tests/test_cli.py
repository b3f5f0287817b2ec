"""The console script and what a broken recipe gets from any entry."""

import importlib
import inspect
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest
from PIL import Image

import qvft
from qvft import cli
from qvft.completion import OF_RECIPES, SCRIPTS, script
from qvft.data.formats import FORMATS

PROJECT = Path(__file__).resolve().parents[1]
BROKEN = "name: x\nmodel: {id: m}\ntrain: {epoch: 3}\n"


def run(*arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, cwd=PROJECT, check=False
    )


def imported(done: subprocess.CompletedProcess) -> set[str]:
    """The modules that `python -X importtime` lists."""
    names = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "qvft" in names
    return names


def imported_torch(done: subprocess.CompletedProcess) -> bool:
    return any(name == "torch" or name.startswith("torch.") for name in imported(done))


def test_help_lists_the_commands_without_importing_torch() -> None:
    done = run("-X", "importtime", "-m", "qvft.cli", "--help")
    assert done.returncode == 0
    assert [name for name in cli.COMMANDS if f"\n  {name} " in done.stdout] == list(cli.COMMANDS)
    assert not imported_torch(done)


HELP = """
import os, sys
from qvft.cli import COMMANDS, main
for command in COMMANDS:
    if not os.fork():
        os.dup2(os.open(os.path.join(sys.argv[1], command), os.O_WRONLY | os.O_CREAT), 1)
        try:
            main([command, "--help"])
        except SystemExit as end:
            print(end.code, "torch" in sys.modules)
        sys.exit()
    os.wait()
"""
"""Each command in a fork of one process, whose start takes more time than a command."""


@pytest.fixture(scope="module")
def explained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("help")
    assert run("-c", HELP, str(folder)).returncode == 0
    return folder


@pytest.mark.parametrize("command", cli.COMMANDS)
def test_every_command_explains_itself_without_importing_torch(
    command: str, explained: Path
) -> None:
    said = (explained / command).read_text()
    assert said.startswith(f"usage: qvft {command} ")
    assert said.endswith("\n0 False\n")


def test_predicting_imports_no_library_of_training(tmp_path: Path) -> None:
    Image.new("RGB", (48, 48)).save(tmp_path / "a.png")
    done = run("-X", "importtime", "-m", "qvft.predict", "qvft/tiny-blip2", str(tmp_path / "a.png"))
    assert done.returncode == 0, done.stderr[-500:]
    unused = {"peft", "bitsandbytes", "datasets", "trl", "transformers.trainer"}
    assert not unused & imported(done)


@pytest.mark.parametrize("command", OF_RECIPES)
def test_programs_of_recipes_explain_overrides(command: str, capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit):
        cli.main([command, "--help"])
    said = " ".join(capsys.readouterr().out.split())
    assert "key.path=value any recipe key" in said and "docs/recipe_reference.md" in said


def test_help_names_recipes_and_formats(capsys: pytest.CaptureFixture) -> None:
    for command, expected in (("train", ["recipes/"]), ("convert", list(FORMATS))):
        with pytest.raises(SystemExit):
            cli.main([command, "--help"])
        said = capsys.readouterr().out
        assert [word for word in expected if word in said] == expected


@pytest.mark.parametrize(
    "arguments",
    [["-m", "qvft", "--version"], ["-m", "qvft", "version"], ["-m", "qvft.cli", "version"]],
)
def test_the_version_is_that_of_the_package(arguments: list[str]) -> None:
    done = run("-X", "importtime", *arguments)
    assert (done.returncode, done.stdout) == (0, f"qvft {qvft.__version__}\n")
    assert not imported_torch(done)
    assert qvft.__version__ == metadata.version("qvft")


@pytest.mark.parametrize(
    ("words", "expected"),
    [(["tra"], {"train"}), (["train", "train.epo"], {"train.epochs="}), (["version", "tr"], set())],
)
def test_bash_completes_commands_and_recipe_keys(
    words: list[str], expected: set[str], tmp_path: Path
) -> None:
    if shutil.which("bash") is None:
        pytest.skip("bash is not installed")
    asked = f"COMP_WORDS=(qvft {' '.join(words)}); COMP_CWORD={len(words)}; _qvft; "
    done = subprocess.run(
        ["bash", "-c", script("bash") + asked + 'echo "${COMPREPLY[@]}"'],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=True,
    )
    assert set(done.stdout.split()) == expected


@pytest.mark.parametrize("shell", SCRIPTS)
def test_a_completion_script_knows_every_command(shell: str, capsys: pytest.CaptureFixture) -> None:
    assert cli.main(["completion", shell]) == 0
    said = capsys.readouterr().out
    assert all(command in said for command in cli.COMMANDS) and "data.train.path=" in said


def test_completion_offers_keys_to_the_programs_that_take_them() -> None:
    takes = [
        command
        for command in cli.COMMANDS
        if "add_overrides" in inspect.getsource(importlib.import_module(f"qvft.{command}"))
    ]
    assert sorted(takes) == sorted(OF_RECIPES)


def test_an_unknown_command_is_told_the_nearest_one(capsys: pytest.CaptureFixture) -> None:
    assert cli.main(["trian"]) == 2
    assert capsys.readouterr().err == 'qvft: there is no command "trian"; did you mean "train"?\n'


def test_a_command_like_no_other_is_told_all(capsys: pytest.CaptureFixture) -> None:
    assert cli.main(["zzz"]) == 2
    assert capsys.readouterr().err.endswith("one of " + ", ".join(cli.COMMANDS) + "\n")


def test_no_command_shows_the_usage_and_fails(capsys: pytest.CaptureFixture) -> None:
    assert cli.main([]) == 2
    assert capsys.readouterr().out.startswith("usage: qvft COMMAND")


@pytest.mark.parametrize("entry", ["train", "check"])
def test_a_broken_recipe_gets_one_line_and_status_2_without_torch(
    entry: str, tmp_path: Path
) -> None:
    recipe = tmp_path / "broken.yaml"
    recipe.write_text(BROKEN)
    done = run("-m", f"qvft.{entry}", str(recipe))
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr == (f'qvft: {recipe}: unknown key "train.epoch" (did you mean "epochs"?).\n')
    traced = run("-X", "importtime", "-m", f"qvft.{entry}", str(recipe))
    assert not imported_torch(traced)


def test_the_console_script_passes_arguments_and_status_on(tmp_path: Path) -> None:
    done = run("-m", "qvft.cli", "check", str(tmp_path / "absent.yaml"))
    assert done.returncode == 2
    assert "no such recipe file" in done.stderr
