"""Reading `.pt` files that may be damaged or foreign, without executing anything in them."""

import pickle
import warnings
import zipfile
from pathlib import Path
from typing import Any

import torch

from separator.errors import SeparatorError


def read_archive(path: Path) -> dict[str, Any]:
    """Read the file of plain tensors at a path into CPU memory, after its checksums agree.

    Raises:
        SeparatorError: not there, unreadable, damaged, or something else than a dict of plain
            values; of a damaged one it says which other file of the folder is whole.
    """
    payload = _unpickled(path)
    if not isinstance(payload, dict):
        raise SeparatorError(f"{path}: not a checkpoint of separator; choose a .pt of a run folder")
    return payload


def damaged(path: Path, reason: str) -> SeparatorError:
    """Make the error for the damaged checkpoint at a path: the reason, and what to use instead."""
    return SeparatorError(f"{path}: {reason}; {_replacement(path)}")


def _unpickled(path: Path) -> object:
    """Unpickle plain tensors only, and turn the many ways that can fail into one line."""
    if not path.is_file():
        raise SeparatorError(f"{path}: no such file; give the path of a .pt file")
    try:
        broken = _broken_member(path)
        if broken is None:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # about foreign pickles, an error anyway
                return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise SeparatorError(
            f"{path}: holds data other than plain tensors, so it was not opened (nothing in it "
            "was executed); choose a .pt file that separator wrote"
        ) from error
    except PermissionError as error:
        raise SeparatorError(f"{path}: may not be read; allow it") from error
    except MemoryError:
        raise
    except Exception as error:  # damaged bytes raise nearly anything
        raise damaged(path, "truncated or damaged") from error
    raise damaged(path, f"damaged (the checksum of {broken} is wrong)")


def _broken_member(path: Path) -> str | None:
    """Name the first part of the archive whose checksum is wrong: torch itself compares none."""
    if not zipfile.is_zipfile(path):
        return None  # torch says what it is
    with zipfile.ZipFile(path) as archive:
        return archive.testzip()


def _replacement(path: Path) -> str:
    """Say which other checkpoint of the folder is whole; the latest, where several are."""
    whole: list[tuple[int, str]] = []
    for other in path.parent.glob("*.pt"):
        try:
            if other.name != path.name and _broken_member(other) is None:
                payload = torch.load(other, map_location="cpu", weights_only=True)
                whole.append((int(payload["step"]), other.name))
        except Exception:  # damaged too, or foreign
            continue
    if not whole:
        return (
            "no other .pt file of its folder is whole; copy it from a backup, or use another run="
        )
    step, name = max(whole)
    fix = ": copy it to last.pt, and the same command resumes from there"
    return f"{name} beside it, of step {step}, is whole{fix if path.name == 'last.pt' else ''}"
