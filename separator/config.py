"""Frozen dataclasses from YAML files, `key=value` words and `--options`, checked before use.

jsonargparse parses; here are `key=value` and files by position.
"""

import dataclasses
import difflib
import math
import os
import re
from collections.abc import Callable, Iterator
from functools import partial
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import yaml

from separator.commands import epilog
from separator.config_errors import as_setting, check_names, nearest, shortened
from separator.errors import SeparatorError, UsageError, explain
from separator.ranges import SettingError, group_of

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Config = TypeVar("Config", bound="DataclassInstance")

PRESETS = Path(str(files("separator.configs")))  # the folder of the packaged files
MAX_PRESETS = 10  # of them in a message

PARSER_KEYS = ("config", "help", "print_config")  # jsonargparse's own


def parse(
    cls: type[Config], argv: list[str], command: str, positional: str | None = None
) -> Config:
    """Build a config from a command's words.

    Args:
        cls: a frozen dataclass; its docstring's "Attributes:" are the help.
        argv: YAML files, `key=value`, `--key value`; what comes later wins.
        command: the name to show in the help.
        positional: the field (of list type) that takes the bare words, at least one unless it has
            a default; each other list of names takes one name for each `--key`. "" takes no bare
            words. When None, bare words are YAML files and `key=value`.

    Raises:
        UsageError: an unknown key, a wrong type, or a value out of range; names the key.
    """
    try:
        return _parsed(cls, argv, command, positional, partial(_build, cls))
    except SeparatorError as error:
        options = {f.name for f in dataclasses.fields(cls) if positional not in (None, f.name)}
        key, colon, reason = str(error).partition(":")
        name = f"--{key.replace('_', '-')}" if key in options else key
        raise UsageError(f"{name}{colon}{reason}") from error.__cause__


def changed_settings(cls: type, argv: list[str], command: str) -> dict[str, Any]:
    """Return, as nested dicts, the settings that a command's `argv` changes in those of `cls`.

    Raises:
        SeparatorError: an unknown key, or a value of a wrong type; names the key.
    """

    def changed(parser: Any, namespace: Any) -> dict[str, Any]:
        return yaml.safe_load(parser.dump(namespace, skip_default=True))

    return _parsed(cls, argv, command, None, changed)


def _parsed(
    cls: type, argv: list[str], command: str, positional: str | None, make: Callable
) -> Any:
    parser = _parser(cls, command, positional)
    flags = {field.name for field in dataclasses.fields(cls) if field.type in (bool, "bool")}
    argv = [re.sub(r"^([\w.-]+=)?~(?=/|$)", _at_home, word) for word in argv]
    words = [re.sub("^--[^=]+", lambda key: f"--{key[0][2:].replace('-', '_')}", w) for w in argv]
    words = [f"{w}=true" if w.startswith("--") and w[2:] in flags else w for w in words]
    keys = [a.dest for a in parser._actions if a.option_strings]
    keys = [key for key in keys if key.split(".")[-1] not in PARSER_KEYS]
    if positional is not None:
        _check_empty(words, positional)
    else:
        _check_presets(words, command)
        words = _as_options(words, keys)
    hints = {a.dest: getattr(a, "_typehint", None) for a in parser._actions}
    lists = {key for key, hint in hints.items() if hint == list[str]}
    mappings = tuple(f"{key}." for key, hint in hints.items() if hint == dict[str, float])
    for word in words:
        key, _, value = word[2:].partition("=") if word.startswith("--") else ("", "", "")
        key = key.removesuffix("+")  # appends to a list
        if not (key in ("", *PARSER_KEYS) or key.startswith(mappings) or _known(key, keys)):
            raise SeparatorError(_unknown(key, keys, as_option=positional is not None))
        if key in lists:
            check_names(key, value)
    try:
        namespace = parser.parse_args(words)
        namespace.pop("config", None)
        return make(parser, namespace)
    except SeparatorError:
        raise
    except OSError as error:  # such as of a name that is too long
        raise SeparatorError(explain(error)) from error
    except Exception as error:  # jsonargparse raises several kinds, each with a long text
        raise SeparatorError(shortened(str(error), keys)) from error


def _at_home(word: re.Match) -> str:
    """Write `~` as the home folder; shells do not in quotes or after `--key=`."""
    return (word[1] or "") + os.path.expanduser("~")


def _unknown(key: str, keys: list[str], as_option: bool) -> str:
    """Say that there is no such key, and which one may be meant."""
    if not as_option:
        return f"unknown key {key!r}{nearest(key, keys)}"
    option, *options = (f"--{name.replace('_', '-')}" for name in (key, *keys))
    return f"unknown option {option!r}{nearest(option, options, 'options')}"


def to_dict(config: Any) -> dict:
    """Return a config as plain dicts, lists and scalars that YAML, JSON and torch.save take."""
    return _plain(dataclasses.asdict(config))


def from_dict(cls: type[Config], values: dict) -> Config:
    """Make a config of class `cls` from values, the output of `to_dict`.

    Raises:
        SeparatorError: a key that the dataclass does not have, or a value it refuses.
    """
    parser = _parser(cls, cls.__name__, None)
    try:
        return _build(cls, parser, parser.parse_object(values))
    except SeparatorError:
        raise
    except Exception as error:
        raise SeparatorError(shortened(str(error), [a.dest for a in parser._actions])) from error


def _parser(cls: type, command: str, positional: str | None) -> Any:
    from jsonargparse import ActionConfigFile, ArgumentParser

    from separator.help_format import add_list, arrange, formatter, name_options

    has_keys = positional is None
    parser = ArgumentParser(
        prog=f"separator {command}",
        usage=f"separator {command} [FILE.yaml ...] [key=value ...]" if has_keys else None,
        exit_on_error=False,
        description=(cls.__doc__ or "").split("\n")[0],
        epilog=epilog(command),
        formatter_class=formatter(has_keys),
    )
    if has_keys:
        parser.add_argument("--config", action=ActionConfigFile, help="a YAML file; repeatable")
        parser.add_class_arguments(cls, fail_untyped=True)
        title = "settings, each as key=value or --key=value; key+=value adds to a list"
        parser._action_groups[2].title = title  # not the description a second time
    else:
        fields = {field.name: field for field in dataclasses.fields(cls)}
        lists = {name for name, field in fields.items() if field.type in (list[str], "list[str]")}
        for name in sorted(lists):
            add_list(parser, cls, fields[name], bare=name == positional)
        parser.add_class_arguments(cls, skip=lists, fail_untyped=True)
        assert positional in {"", *lists}
        arrange(parser, cls)
        name_options(parser)
    return parser


def _build(cls: type[Config], parser: Any, namespace: Any) -> Config:
    """Make the dataclass, nested ones first."""
    for key, value in vars(namespace.as_flat()).items():
        if isinstance(value, float) and not math.isfinite(value):
            raise SeparatorError(f"{key}: {value} is not a finite number")
        lists = value.values() if isinstance(value, dict) else [value]
        if any(isinstance(entries, list) and "" in entries for entries in lists):
            raise SeparatorError(f"{key}: an entry is empty; leave it out")
    names = {field.name for field in dataclasses.fields(cls)}
    try:
        values = parser.instantiate(namespace)
        return cls(**{name: values[name] for name in names if name in values})
    except SettingError as error:
        raise error.within(group_of(error.config, cls) or "") from error


def _as_options(argv: list[str], keys: list[str]) -> list[str]:
    """Turn `a.yaml b.c=1` into `--config=a.yaml --b.c=1`."""
    words: list[str] = []
    for word in argv:
        is_value = bool(words) and re.match(r"-\w$|--(?!.*help|print_config$)[^=]+$", words[-1])
        if word.startswith("-"):
            words.append(word)
        elif not (word or is_value):
            raise SeparatorError("a word is empty; leave it out")
        elif "=" in word:
            words.append(f"--{word}")
        elif is_value:
            words.append(word)  # the value of `--key value`
        elif Path(word).suffix in (".yaml", ".yml"):
            words.append(f"--config={_checked_yaml(word, keys)}")
        else:
            raise SeparatorError(
                f"{word!r} is neither a YAML file nor key=value{as_setting(word, keys)}"
            )
    return words


def _check_empty(words: list[str], positional: str) -> None:
    """Refuse words without a character, as of a shell's variable that is not set.

    As a path, such a word would be the current folder.
    """
    for before, word in zip(["", *words], words, strict=False):
        place, form = (word, "(--[^=]+)=") if word else (before, r"(--?\w[^=]*)")
        option = re.fullmatch(form, place)
        if option or not word:
            name = f"{option[1].replace('_', '-')}: is" if option else f"{positional}: a word is"
            raise SeparatorError(f"{name} empty; give a value, or leave it out")


def _check_presets(words: list[str], command: str) -> None:
    """Refuse packaged files of another command."""
    packaged = preset_names()
    ours = [name for name in packaged if name.startswith(f"{command}/")]
    fix = f"give `separator {command}` one of {', '.join(ours)}"
    fix = f"give `separator {command}` a file of {command}/" if len(ours) > MAX_PRESETS else fix
    for word in words if ours else ():
        name = word.removeprefix("configs/")
        owner = name.rpartition("/")[0]
        if name not in packaged or owner == command:
            continue
        if owner:
            raise SeparatorError(f"{word}: is for `separator {owner}`; {fix}")
        if command == "compare" and not Path(name).exists():  # else a file of the user's
            reason = "is a model's size, for `separator train` and `separator pretrain`"
            raise SeparatorError(f"{word}: {reason}; {fix}")


def preset_names() -> list[str]:
    """Return the paths of the packaged files below their folder."""
    return sorted(path.relative_to(PRESETS).as_posix() for path in PRESETS.rglob("*.yaml"))


def _checked_yaml(name: str, keys: list[str]) -> Path:
    """Return the path of a file of keys and values; one that comes with the package needs no path.

    `configs/tiny.yaml` and `tiny.yaml` name the packaged file where there is no such file here.
    """
    path = Path(name)
    if not path.exists():
        path = PRESETS / name.removeprefix("configs/")
        if not path.exists():
            packaged = preset_names()
            alike = [preset for preset in packaged if Path(preset).name == path.name]
            alike += difflib.get_close_matches(name, packaged, n=1, cutoff=0.85)
            fix = f"did you mean {alike[0]}?" if alike else "give a YAML file that exists"
            raise SeparatorError(f"{name}: no such file; {fix}")
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SeparatorError(f"{name}: {error.strerror}; give a YAML file that exists") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise SeparatorError(f"{name}: not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(values, dict):
        raise SeparatorError(f"{name}: holds no keys; a configuration is `key: value` lines")
    for key in _flat(values, keys):
        if not _known(key, keys):
            raise SeparatorError(f"{name}: unknown key {key!r}{nearest(key, keys)}")
    return path


def _flat(values: dict, keys: list[str], prefix: str = "") -> Iterator[str]:
    """Yield the full names of a file's keys; what stands below a key that is a whole is its own."""
    for name, value in values.items():
        key = f"{prefix}{name}"
        group = any(other.startswith(f"{key}.") for other in keys)
        if group and isinstance(value, dict):
            yield from _flat(value, keys, f"{key}.")
        else:
            yield key


def _known(key: str, keys: list[str]) -> bool:
    return key in keys or any(other.startswith(f"{key}.") for other in keys)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(entry) for entry in value]
    return str(value) if isinstance(value, Path) else value
