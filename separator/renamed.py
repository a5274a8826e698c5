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

# Old key: new key of the same group, both in full.
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


def rename_words(words: list[str]) -> tuple[list[str], set[str]]:
    """Give the options of a command line their new names.

    Args:
        words: `--key=value`, or `--key` and its value; others pass as they are.

    Returns:
        The words, and the old keys that were among them.

    Raises:
        SeparatorError: an option is given under both names.
    """
    keys = [re.match(r"--([^=+]*)|", word)[1] for word in words]
    renamed = {key for key in keys if key in KEYS}
    for old in renamed:
        _check_once(old, keys)
    pairs = zip(keys, words, strict=True)
    return [f"--{KEYS[k]}{w[2 + len(k) :]}" if k in renamed else w for k, w in pairs], renamed


def rename_keys(values: Mapping[str, Any]) -> tuple[dict[str, Any], set[str]]:
    """Give nested settings their new names.

    Args:
        values: nested mappings, such as a YAML file's.

    Returns:
        The settings with new names, and the old keys that were among them.

    Raises:
        SeparatorError: a setting is there under both names.
    """
    result, renamed = dict(values), set()
    for old in KEYS:
        group, _, name = old.partition(".")
        inner = result.get(group)
        if isinstance(inner, Mapping) and name in inner:
            _check_once(old, [f"{group}.{key}" for key in inner])
            new = KEYS[old].removeprefix(f"{group}.")
            result[group] = {new if key == name else key: inner[key] for key in inner}
            renamed.add(old)
    return result, renamed


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


def _check_once(old: str, keys: Collection[str]) -> None:
    """Refuse an old key beside its new name."""
    if KEYS[old] in keys:
        raise SeparatorError(f"{old}: is now {KEYS[old]}, which is given as well; remove {old}")
