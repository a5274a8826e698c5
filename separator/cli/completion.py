"""`separator completion SHELL`: a script that completes commands, options, values and files."""

import argparse
import importlib
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args, get_origin

import shtab

from separator import bundled
from separator.commands import COMMANDS, LOG_OPTIONS
from separator.config import parse, preset_names
from separator.errors import SeparatorError, UsageError
from separator.help_format import SWITCH
from separator.stems import NAMES, public_name

SHELLS = ("bash", "zsh", "fish")
STEM_WORDS = tuple(map(public_name, NAMES))
CHOICES = {  # of options whose type does not list them
    "two_stems": STEM_WORDS,
    "device": ("auto", "cpu", "cuda", "mps"),
}
FUNCTION = "_separator_files"
PREAMBLES = {  # functions that name words and files
    "bash": '%s() {\n  %scompgen -W "%s" -- "$1"\n  compgen -f -- "$1"\n}',
    "zsh": "%s() {\n  %scompadd -- %s\n  _files\n}",
    "fish": "function %s\n  %sstring split ' ' '%s'\n  __fish_complete_path (commandline -ct)\nend",
}
AFTER = {  # names the words only where they may be further values of an option
    "bash": 'local word last; for word in "${COMP_WORDS[@]}"; do [[ $word = -* ]] && last=$word; '
    'done\n  [ "$last" = %s ] && ',
    "zsh": "[[ ${${words[1,CURRENT]}[(R)-*]} = %s ]] && ",
    "fish": "contains -- %s (string match -- '-*' (commandline -opc))[-1]; and ",
}

BASH_FUNCTION = "_shtab_separator() {\n"
WITHOUT_EQUALS = """  # bash makes three words of --output=so, which are completed as --output so
  local word words=("${COMP_WORDS[@]:0:COMP_CWORD + 1}")
  [ "${COMP_WORDS[COMP_CWORD]}" = "=" ] && words+=("")
  COMP_WORDS=()
  for word in "${words[@]}"; do [ "$word" = "=" ] || COMP_WORDS+=("$word"); done
  COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
"""


@dataclass(frozen=True)
class CompletionConfig:
    """Print a script that completes commands, options, their values and files in a shell.

    The script holds all of the words, so completing runs no program. Write it anew after an update.
    Options of commands whose packages are not installed are left out.

    Attributes:
        shell: bash, zsh or fish.
    """

    shell: list[str] = field(metadata={"nargs": 1})

    def __post_init__(self) -> None:
        if self.shell[0] not in SHELLS:
            raise SeparatorError(f"shell: {self.shell[0]} is not one of {', '.join(SHELLS)}")


def main(argv: list[str]) -> int:
    """Print the script."""
    config = parse(CompletionConfig, argv, "completion", positional="shell")
    root = argparse.ArgumentParser("separator", add_help=False)
    commands = root.add_subparsers()
    for name, command in COMMANDS.items():
        _add_words(commands.add_parser(name, help=command.summary, add_help=False), name)
    about = commands.add_parser("help", help="explain a command", add_help=False)
    about.add_argument("command", choices=list(COMMANDS))
    script = shtab.complete(root, config.shell[0])
    if config.shell[0] == "bash":
        script = script.replace(BASH_FUNCTION, BASH_FUNCTION + WITHOUT_EQUALS)
    if config.shell[0] == "zsh":  # shtab 1.13 writes lists of words as one word
        script = re.sub(r'^  "\(\*\)::?', '  "*:', script, flags=re.MULTILINE)
    sys.stdout.write(script + "\n")
    return 0


def _add_words(parser: argparse.ArgumentParser, name: str) -> None:
    """Give a parser the options of a command, and what its bare words may be."""
    presets = _presets(name)
    for action in _options(name):
        hint, bare = getattr(action, "_typehint", None), not action.option_strings
        about = {"help": (action.help or "").replace("%", "%%").split(". ")[0]}
        choices = {"shell": SHELLS, "name": bundled.names()} if bare else CHOICES
        beside_files = {} if presets else {"model": bundled.names(), "stems": STEM_WORDS}
        if action.metavar == SWITCH or action.dest == "help":
            about["action"] = "store_true"
        elif hint is bool:
            about["choices"] = ("true", "false")
        elif get_origin(hint) is Literal:
            about["choices"] = get_args(hint)
        elif bare:
            about["nargs"] = "+"
        elif isinstance(action, argparse._AppendAction):
            about["action"] = "append"
        if action.dest in choices:
            about["choices"] = choices[action.dest]
        added = parser.add_argument(*action.option_strings or [action.dest], **about)
        if action.dest in beside_files:
            added.complete = _words_or_files(action.dest, beside_files[action.dest])
        elif action.dest == "inputs":
            added.complete = _words_or_files("inputs", STEM_WORDS, after="--stems")
        elif hint in (None, str) and "choices" not in about and action.dest != "help":
            added.complete = shtab.FILE
    if presets:
        added = parser.add_argument("preset", nargs="*", help="preset or YAML file")
        added.complete = _words_or_files(name, presets)
    for option, text in LOG_OPTIONS.items():
        parser.add_argument(option, action="store_true", help=text)


def _options(name: str) -> list[Any]:
    """Return the actions of a command's parser; none where the command lacks a package."""
    from jsonargparse import capture_parser

    try:
        command = importlib.import_module(COMMANDS[name].module)
    except ModuleNotFoundError:
        return []
    try:
        capture_parser(command.main, [])
    except UsageError as error:  # `parse` turns every exception into one; this one has the parser
        return error.__cause__.parser._actions
    raise AssertionError(f"{name} parsed nothing")


def _presets(name: str) -> list[str]:
    """Return the presets that a command takes: its own and, where it has a model, the sizes."""
    paths = preset_names()
    presets = [path for path in paths if path.startswith(f"{name}/")]
    sizes = [path for path in paths if "/" not in path] if name in ("pretrain", "train") else []
    return presets and [*presets, *sizes]


def _words_or_files(kind: str, words: Sequence[str], after: str = "") -> dict[str, Any]:
    """Return shtab's description of values that are files or, after an option, some words."""
    function = f"{FUNCTION}_{kind}"
    before = {shell: text % after if after else "" for shell, text in AFTER.items()}
    preamble = {
        shell: text % (function, before[shell], " ".join(words))
        for shell, text in PREAMBLES.items()
    }
    return {"bash": function, "zsh": function, "fish": f"({function})", "preamble": preamble}
