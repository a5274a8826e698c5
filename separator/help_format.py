"""The format of `--help`: types in plain words, examples as they are written."""

import copy
import dataclasses
import functools
import re
import textwrap
import types
from typing import Annotated, Any, Literal, Union, get_args, get_origin

SHORT = {"-o": "--output", "-m": "--model"}  # of the commands that have such an option
NUMBER_TYPES = "int", "float"
SWITCH = ""  # metavar of an option that is given without a value; `--option=false` is read too


@functools.cache
def formatter(has_keys: bool) -> type:
    """Return the formatter class of jsonargparse's help with what is ours in it.

    Args:
        has_keys: whether the help lists keys of a configuration, all with type and default, rather
            than options of a command.
    """
    from jsonargparse import DefaultHelpFormatter

    class PlainHelp(DefaultHelpFormatter):
        def add_usage(self, usage: Any, actions: Any, *args: Any, **options: Any) -> None:
            super().add_usage(usage, map(_without_value, actions), *args, **options)

        def add_argument(self, action: Any) -> None:
            if type(action).__name__ != "_ActionConfigLoad":  # a file for one group of keys
                super().add_argument(_without_value(action))

        def _format_args(self, action: Any, default_metavar: str) -> str:
            if " " in (action.metavar or ""):  # says itself how many words there are
                return action.metavar
            return super()._format_args(action, default_metavar)

        def _get_type_str(self, action: Any) -> str | None:
            hint = getattr(action, "_typehint", action.type)
            if hint is None or (not has_keys and get_origin(hint) is Literal):
                return None
            words = plain_type(hint)
            return None if words in ("str", "bool", *NUMBER_TYPES) and not has_keys else words

        def _get_help_string(self, action: Any) -> str:
            text = super()._get_help_string(action)
            if has_keys and action.default == "":
                return text.replace("%(default)s", '""')
            if action.default in (None, "", []) or action.metavar == SWITCH:
                return re.sub(r" \(default: %\(default\)s\)|, default: %\(default\)s", "", text)
            return text

        def _split_lines(self, text: str, width: int) -> list[str]:
            return textwrap.wrap(text, width, break_on_hyphens=False)

        def _fill_text(self, text: str, width: int, indent: str) -> str:
            if "\n" in text:  # examples, which must be copied in one piece
                return text
            return super()._fill_text(text, width, indent)

    return PlainHelp


def _without_value(action: Any) -> Any:
    """Return a switch as one that takes no value, and other actions as they are."""
    if action.metavar == SWITCH:
        action = copy.copy(action)
        action.nargs = 0
    return action


def plain_type(hint: Any) -> str:
    """Return a type hint in words for a reader who does not know Python's names."""
    origin, parts = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return plain_type(parts[0])
    if origin is Literal:
        return f"one of {', '.join(map(str, parts))}"
    if origin in (Union, types.UnionType):
        return " or ".join(plain_type(part) for part in parts if part is not type(None))
    if origin is dict:
        return f"mapping of names to {plain_type(parts[1])}"
    if origin is list or (origin is tuple and parts[-1] is Ellipsis):
        return f"list of {plain_type(parts[0])}"
    if origin is tuple:
        return f"[{', '.join(map(plain_type, parts))}]"
    return getattr(hint, "__name__", str(hint))


def add_list(parser: Any, cls: type, field: dataclasses.Field, bare: bool) -> None:
    """Add a list of names to a parser.

    Args:
        parser: of jsonargparse.
        cls: the dataclass that has the list.
        field: the list.
        bare: whether the command's bare words are the names; else each `--key` gives one.
    """
    optional = field.default_factory is not dataclasses.MISSING
    options = {"type": str, "help": sentence(cls, field.name)}
    if optional:
        options["default"] = []
    if bare:
        words = {"nargs": "*" if optional else "+", "metavar": field.name.upper()} | field.metadata
        parser.add_argument(field.name, **words, **options)
    else:
        metavar = field.metadata.get("metavar", "PATH")
        parser.add_argument(f"--{field.name}", action="append", metavar=metavar, **options)


def arrange(parser: Any, cls: type) -> None:
    """List a parser's options as a dataclass has its fields, in one group or several.

    Args:
        parser: of jsonargparse.
        cls: the dataclass; its GROUPS, if any, has the title of a group by its first field. The
            metadata of a field may have the word that stands for its value as "metavar".
    """
    fields, titles = dataclasses.fields(cls), getattr(cls, "GROUPS", {})
    place = {field.name: number for number, field in enumerate(fields)}
    metavars = {f.name: f.metadata["metavar"] for f in fields if "metavar" in f.metadata}
    flags = [field.name for field in fields if field.type in (bool, "bool")]
    metavars |= dict.fromkeys(flags, SWITCH)
    parser._actions.sort(key=lambda action: place.get(action.dest, -1))
    del parser._action_groups[2:]  # the class's own, which repeats the description
    group = parser._action_groups[1]
    group._group_actions = []
    for action in parser._actions:
        if action.dest in titles:
            group = parser.add_argument_group(titles[action.dest])
        if plain_type(getattr(action, "_typehint", None)) in NUMBER_TYPES:
            action.metavar = "N"
        action.metavar = metavars.get(action.dest, action.metavar)
        if action.option_strings:
            group._group_actions.append(action)


def name_options(parser: Any) -> None:
    """Show options as `--two-stems` rather than `--two_stems`, and add their short forms.

    Args:
        parser: of jsonargparse.
    """
    for action in parser._actions:
        action.option_strings = [option.replace("_", "-") for option in action.option_strings]
    actions = parser._option_string_actions
    for short, option in SHORT.items():
        if action := actions.get(option):
            action.option_strings.insert(0, short)
            actions[short] = action


def sentence(cls: type, name: str) -> str:
    """Return the description of a name in the "Attributes:" of a class's (cls) docstring."""
    import docstring_parser  # as jsonargparse does

    for described in docstring_parser.parse(cls.__doc__ or "").params:
        if described.arg_name == name:
            return " ".join((described.description or "").split())
    return ""
