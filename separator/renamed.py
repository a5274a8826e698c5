"""Configuration keys and tensors of the previous version, and their names in this one.

A row is kept for one version. It holds for command lines, YAML files, the configurations that runs
save, and the descriptions and tensors in model files and checkpoints.
"""

import logging
import re
from collections.abc import Collection, Mapping
from typing import Any, TypeVar

from separator.errors import SeparatorError

log = logging.getLogger(__name__)

Value = TypeVar("Value")

# Old key: new key, both in full. A key of a group renames the group with all that is in it.
KEYS = {
    "model.hidden": "model.ffn_dim",
    "model.cell": "model.block",
    "model.recall": "model.cross_frame_bands",
    "model.told": "model.mask_known",
    "mask.fill": "mask.mask",
    "mask.other": "mask.mix",
    "loss.magnitude": "loss.magnitude_l1",
    "loss.wave": "loss.wave_l1",
    "loss.multi_stft": "loss.MultiResolutionSTFTLoss",
    "patch.hidden": "patch.ffn_dim",
    "patch.decoder_hidden": "patch.decoder_ffn_dim",
}
# Patterns of tensors' names, in any part of a model, and their replacements; applied in order.
TENSORS = (
    (r"^labeller\.", "heads.labels.labeller."),
    (r"(^|\.)cells\.", r"\1blocks."),
    (r"(^|\.)recall\.", r"\1cross_frame."),
    (r"(^|\.)white\.", r"\1mask_detector."),
    (r"(^|\.)profile$", r"\1mask_bias"),
    (r"^trunk\.", "backbone."),
)

PRESETS = {"seed.yaml": "large.yaml"}  # packaged files
MODEL_PARTS = {"trunk": "backbone"}  # "part" in descriptions
ENTRIES = {"companion": "discriminator"}  # of checkpoints


def rename_preset(name: str) -> str:
    """Return the present name of a packaged file, with a notice where it has changed.

    Args:
        name: path below the packaged configurations.
    """
    new = PRESETS.get(name, name)
    if new != name:
        log.warning("%s is now %s; the next version does not read the old name", name, new)
    return new


def rename_words(words: list[str], known: Collection[str]) -> tuple[list[str], set[str]]:
    """Give the options of a command line their new names.

    Args:
        words: `--key=value`, or `--key` and its value; others pass as they are.
        known: full keys of the command.

    Returns:
        The words, and the old keys that were among them.

    Raises:
        SeparatorError: an option is given under both names.
    """
    rows, renamed, result = _rows(known), set(), []
    keys = [re.split(r"\+?=", word[2:])[0] if word.startswith("--") else "" for word in words]
    for word, key in zip(words, keys, strict=True):
        old = next((old for old in rows if _is_in(key, old)), None)
        if old is None:
            result.append(word)
            continue
        if any(_is_in(other, rows[old]) for other in keys):
            raise _given_twice(old)
        renamed.add(old)
        result.append(f"--{rows[old]}{word[2 + len(old) :]}")
    return result, renamed


def rename_keys(
    values: Mapping[str, Any], known: Collection[str] | None = None
) -> tuple[Mapping[str, Any], set[str]]:
    """Give nested settings their new names.

    Args:
        values: nested mappings, such as a YAML file's.
        known: full keys of the command that reads them; without, every row of the table applies.

    Returns:
        The settings with new names, and the old keys that were among them.

    Raises:
        SeparatorError: a setting is there under both names.
    """
    renamed = set()
    for old, new in _rows(known).items():
        values, found = _without(values, old.split("."))
        for value in found:
            values = _with(values, new.split("."), value, old)
            renamed.add(old)
    return values, renamed


def rename_tensors(tensors: Mapping[str, Value]) -> dict[str, Value]:
    """Return the tensors of a state dict, or their shapes, under their new names."""
    result = {}
    for name, value in tensors.items():
        for pattern, replacement in TENSORS if isinstance(name, str) else ():
            name = re.sub(pattern, replacement, name)
        result[name] = value
    return result


def notify(renamed: Collection[str], where: str = "", fix: str = "use it") -> None:
    """Log one line that names the new keys of renamed ones, if there are any.

    Args:
        renamed: old keys that were used.
        where: beginning of the line.
        fix: the remedy, in a few words.
    """
    if renamed:
        pairs = ", ".join(f"{old} is now {KEYS[old]}" for old in sorted(renamed))
        log.warning("%s%s; %s: the next version does not read the old name", where, pairs, fix)


def _rows(known: Collection[str] | None) -> dict[str, str]:
    """Return the rows for a command with these keys: those whose new key it has, but not the old.

    Another command's key may have the name that one of these had.
    """
    if known is None:
        return KEYS
    return {
        old: new
        for old, new in KEYS.items()
        if any(_is_in(key, new) or _is_in(new, key) for key in known)
        and not any(_is_in(key, old) for key in known)
    }


def _is_in(key: str, group: str) -> bool:
    return key == group or key.startswith(f"{group}.")


def _without(values: Mapping[str, Any], path: list[str]) -> tuple[Mapping[str, Any], list[Any]]:
    """Take the entry at a path out of nested mappings; return the rest and the entry, if any."""
    name, *rest = path
    inner = values.get(name)
    if name not in values or (rest and not isinstance(inner, Mapping)):
        return values, []
    others = {key: value for key, value in values.items() if key != name}
    if not rest:
        return others, [inner]
    inner, found = _without(inner, rest)
    if not found:
        return values, []
    return (others | {name: inner} if inner else others), found


def _with(values: Mapping[str, Any], path: list[str], value: Any, old: str) -> dict[str, Any]:
    """Put an entry, which was called `old`, at a path in nested mappings."""
    name, *rest = path
    inner = values.get(name, {}) if rest else {}
    if (not rest and name in values) or not isinstance(inner, Mapping):
        raise _given_twice(old)
    return {**values, name: _with(inner, rest, value, old) if rest else value}


def _given_twice(old: str) -> SeparatorError:
    return SeparatorError(f"{old}: is now {KEYS[old]}, which is given as well; remove {old}")
