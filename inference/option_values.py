"""Options of `separator separate` that are more than one value: names, weights and levels."""

import math
import os

from separator.errors import SeparatorError, printable
from separator.stems import NAMES, VOCALS, public_name

MAX_LEVEL = 24  # dB
STEM_NAMES = {"all", *NAMES, *map(public_name, NAMES)}


def with_options(argv: list[str]) -> list[str]:
    """Rewrite `--stems A B` to one option for each stem.

    Args:
        argv: the command's arguments.

    Returns:
        Arguments that the parser of configurations reads.
    """
    named: list[str] = []
    given = naming = False
    rest = []
    for word in argv:
        if naming and _names_stems(word):
            named.append(word)
        elif word in ("--stems", "--stems=true"):  # the latter is its form as a switch
            given = naming = True
        elif word != "--stems=false":
            naming = False
            rest.append(word)
    return [*(f"--stems={name}" for name in named or ["all"] * given), *rest]


def _names_stems(word: str) -> bool:
    """Whether a word behind `--stems` is meant for it, though it may be misspelt: it is no path."""
    if word.lower() in STEM_NAMES:
        return True
    return not (word.startswith("-") or "." in word or "/" in word or os.path.exists(word))


def weights_of(text: str) -> list[float]:
    """Read weights such as "2,1".

    Args:
        text: numbers with commas between them, or nothing.

    Raises:
        SeparatorError: it is anything else.
    """
    try:
        return [float(word) for word in text.split(",")] if text else []
    except ValueError as error:
        raise SeparatorError(f"weights: {text!r} is no list of numbers such as 2,1") from error


def levels_of(text: str) -> dict[str, float]:
    """Read levels of stems in dB, such as "vocals=-12,drums=off".

    Args:
        text: names and levels, or nothing.

    Raises:
        SeparatorError: it is anything else, or a level is above 24 dB.
    """
    levels = {}
    for word in text.split(",") if text else ():
        name, _, level = word.partition("=")
        if name.strip() in levels:
            raise SeparatorError(f"mix: {printable(name.strip())} has two levels; give one")
        try:
            levels[name.strip()] = -math.inf if level == "off" else float(level)
        except ValueError:
            levels[name.strip()] = math.nan
        if not levels[name.strip()] <= MAX_LEVEL:
            raise SeparatorError(
                f"mix: {printable(word)!r} is no level of a stem in dB, at most {MAX_LEVEL}, such "
                f"as {VOCALS}=-12 or {VOCALS}=off"
            )
    return levels
