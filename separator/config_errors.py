"""What a wrong setting is refused with: the key, the reason, and how it is written rightly."""

import difflib
import json
import re
from collections.abc import Collection
from pathlib import Path

import yaml

from separator.errors import SeparatorError

PLAINER = (  # what jsonargparse says of a wrong type, and the same in fewer words
    (r"<class '(?:\w+\.)*(\w+)'>", r"\1"),
    (
        r"Does not validate .* Subtypes: \[(.*)\] Errors: .*Given value: ",
        r"Expected \1. Got value: ",
    ),
    (r", NoneType\. Got value", ". Got value"),
    (r"Expected an? typing\.Literal\[(.*)\]\. Got value: ", r"expected one of \1, got "),
    (
        r"Expected an? list\. Got value: (.*)",
        lambda match: f"expected a list, such as {_as_list(match[1])}",
    ),
    (r"Expected an? bool\. Got value: ", "expected true or false, got "),
    (r"Expected (?:an? )?(.*)\. Got value: ", r"expected \1, got "),
    (r"^unrecognized arguments: (.*)", r"\1: is not expected; --help lists what is"),
)

ROOTS_SETTING = "'data.roots=[FOLDER]', with your folder of songs"
MISSING = {"inputs": "songs or folders of songs are", "roots": "folders of music are"}
YAML_TYPES = {dict: "a mapping", int: "a number", float: "a number", bool: "yes or no"}


def nearest(key: str, keys: Collection[str], kind: str = "keys") -> str:
    """Return which of `keys` is most similar to a key, or where all of the `kind` are listed."""
    close = [k for k in keys if k.split(".")[-1] == key.split(".")[-1]]  # under a wrong parent
    close = close or difflib.get_close_matches(key, keys, n=1)
    if close:
        return f"; did you mean {close[0]!r}?"
    return f"; --help lists the {kind}" if len(keys) > 20 else f"; the {kind} are {', '.join(keys)}"


def check_names(key: str, value: str) -> None:
    """Refuse a list of names that YAML reads as something else: a comment, a mapping, a number.

    Args:
        key: takes the list.
        value: as it was given.

    Raises:
        SeparatorError: names the key, and the list in quotes.
    """
    if not value.startswith("["):
        return
    try:
        names = yaml.safe_load(value)
    except yaml.YAMLError:
        names = None
    if re.search(r"\s#", re.sub(r'"[^"]*"|\'[^\']*\'', "", value)):
        reason = "' #' begins a comment in YAML"
    elif not isinstance(names, list):
        reason = f"{value} is no list in YAML"
    elif not (others := [name for name in names if not isinstance(name, str)]):
        return
    else:
        text = yaml.safe_dump(others[0], default_flow_style=True).splitlines()[0].strip("{}")
        reason = f"YAML takes {text} for {YAML_TYPES.get(type(others[0]), 'no name')}"
    raise SeparatorError(f"{key}: {reason}; put the name in quotes: '{key}={_quoted(value)}'")


def _quoted(value: str) -> str:
    """Write a bracketed list of names as a JSON list, which YAML reads as it stands."""
    inner = value.strip().removeprefix("[").removesuffix("]")
    names = [name.strip().strip("\"'") for name in inner.split(",")]
    return json.dumps([name for name in names if name], ensure_ascii=False)


def _as_list(value: str) -> str:
    """Write a single value as a list."""
    plain = re.fullmatch(r"[\w~/.@%+=-]+( [\w~/.@%+=-]+)*", value)
    return f"[{value}]" if plain else _quoted(value)


def as_setting(word: str, keys: Collection[str]) -> str:
    """Say how a word that is one of `keys`, a group of them, or a folder of songs, is written.

    Returns:
        The end of a message; "" for other words.
    """
    is_group = any(key.startswith(f"{word}.") for key in keys)
    if word in keys and not is_group:
        return f"; write {ROOTS_SETTING if word == 'data.roots' else f'{word}=VALUE'}"
    if "data.roots" in keys and Path(word).expanduser().is_dir():
        return f"; write 'data.roots={_as_list(word)}'"
    return f"; write {word}.KEY=VALUE, --help lists the keys" if is_group else ""


def shortened(text: str, keys: list[str]) -> str:
    """Shorten a parser's message to the key and the reason.

    Args:
        text: the message.
        keys: all keys of the configuration.

    Returns:
        The line.
    """
    text = " ".join(text.split())
    unknown = re.search(r"(?:Group '([\w.]+)' does not accept o|O)ption '([\w.]+)'", text)
    if unknown:
        key = ".".join(part for part in unknown.groups() if part)
        return f"unknown key {key!r}{nearest(key, keys)}"
    if missing := re.match("the following arguments are required: (.*)", text):
        if missing[1] == "data.roots":
            return f"{missing[1]}: is not given; write {ROOTS_SETTING}"
        what = MISSING.get(missing[1], f"{missing[1]}: is")
        return f"{what} not given; --help has examples"
    text = re.sub(r"^Parser key \"?([\w.]+)\"?:", r"\1:", text)
    for pattern, plain in PLAINER:
        text = re.sub(pattern, plain, text)
    return text if len(text) < 400 else text[:400] + " …"
