"""`qvft completion bash|zsh|fish`: prints a shell completion script.

It completes commands, recipe keys (train.epochs=) and files.
  bash: source <(qvft completion bash)  # in ~/.bashrc
  zsh:  source <(qvft completion zsh)   # in ~/.zshrc, after compinit
  fish: qvft completion fish > ~/.config/fish/completions/qvft.fish
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from qvft.terminal import program

# They take key.path=value.
OF_RECIPES = ("train", "check", "eval", "merge", "export", "bench", "sweep")

BASH = """\
_qvft() {{
  local word="${{COMP_WORDS[COMP_CWORD]}}"
  if [ "$COMP_CWORD" -eq 1 ]; then
    COMPREPLY=($(compgen -W "{commands}" -- "$word"))
    return
  fi
  COMPREPLY=($(compgen -f -- "$word"))
  case " {of_recipes} " in
    *" ${{COMP_WORDS[1]}} "*) COMPREPLY+=($(compgen -W "{keys}" -- "$word"));;
  esac
  [[ "${{COMPREPLY[0]}}" == *= ]] && compopt -o nospace 2>/dev/null
  return 0
}}
complete -o filenames -F _qvft qvft
"""

ZSH = """\
#compdef qvft
_qvft() {{
  if (( CURRENT == 2 )); then
    compadd -- {commands}
    return
  fi
  case " {of_recipes} " in
    *" ${{words[2]}} "*) compadd -S '' -- {keys};;
  esac
  _files
}}
compdef _qvft qvft
"""

FISH = """\
complete -c qvft -n __fish_use_subcommand -f -a "{commands}"
complete -c qvft -n "__fish_seen_subcommand_from {of_recipes}" -a "{keys}"
"""

SCRIPTS = {"bash": BASH, "zsh": ZSH, "fish": FISH}


@program
def main(arguments: Sequence[str] | None = None) -> int:
    """Prints a script; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="qvft completion",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("shell", choices=SCRIPTS)
    print(script(parser.parse_args(arguments).shell), end="")
    return 0


def script(shell: str) -> str:
    """The completion script of a shell."""
    from qvft.cli import COMMANDS
    from qvft.recipe.command_line import recipe_keys

    return SCRIPTS[shell].format(
        commands=" ".join([*COMMANDS, "version"]),
        of_recipes=" ".join(OF_RECIPES),
        keys=" ".join(f"{key}=" for key in recipe_keys()),
    )


if __name__ == "__main__":
    sys.exit(main())
