"""Layouts of collections of songs on the disk, one class for each.

Each module of this package lists its layouts in `LAYOUTS`; they are found here by themselves, so
that a new layout is one new module.
"""

import importlib
import itertools
import pkgutil
from pathlib import Path

from separator.data.layouts.layout import Layout, audio_files
from separator.data.stem_files import table
from separator.errors import SeparatorError, counted, printable


def _registered() -> dict[str, Layout]:
    """Import the modules of this package; return their layouts by name, in order of detection."""
    names = (f"{__name__}.{module.name}" for module in pkgutil.iter_modules(__path__))
    listed = [getattr(importlib.import_module(name), "LAYOUTS", ()) for name in names]
    layouts = sorted(itertools.chain(*listed), key=lambda layout: layout.order)
    return {layout.name: layout for layout in layouts}


LAYOUTS = _registered()


def detect_layout(root: Path) -> Layout:
    """Return the layout of a folder: the first in `LAYOUTS` that recognises it.

    Args:
        root: the folder.
    """
    files = audio_files(root, [])
    return next(layout for layout in LAYOUTS.values() if layout.detect(root, files))


def layout_of(root: Path, kind: str) -> Layout:
    """Return a layout by its name.

    Args:
        root: the folder; for detection and messages.
        kind: a key of `LAYOUTS`, or "auto" to detect the layout.

    Raises:
        SeparatorError: there is no such layout.
    """
    if kind == "auto":
        return detect_layout(root)
    if kind not in LAYOUTS:
        names = ", ".join(("auto", *LAYOUTS))
        raise SeparatorError(f"{root}: kind {kind!r} is not known; use one of {names}")
    return LAYOUTS[kind]


def describe_layout(root: Path) -> str:
    """Describe the layout of a folder with stems in one line.

    Args:
        root: the folder.

    Returns:
        Folder, layout, songs of each split and files of each stem; "" for a library.
    """
    layout = detect_layout(root)
    if layout.name == "library":
        return ""
    songs = layout.find(root, [])
    splits = [song.split or "not split" for song in songs]
    counts = ", ".join(f"{split} {splits.count(split)}" for split in sorted(set(splits)))
    counts = "not split" if set(splits) <= {"not split"} else counts
    stems = f"; {table(song.stems for song in songs)}" if layout.stems_by_name else ""
    number = counted(len(songs), "song")
    return f"{printable(str(root))}: {layout.name}, {number} ({counts}){stems}"
