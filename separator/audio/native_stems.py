"""The description of stems that Native Instruments' players look for in an MP4 file."""

import json
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

_COLOURS = ("#009E73", "#D55E00", "#CC79A7", "#56B4E9")
_DYNAMICS: dict[str, Any] = {  # of the stems' sum: neither compressor nor limiter
    "compressor": {
        **{"enabled": False, "ratio": 3, "input_gain": 0.5, "output_gain": 0.5, "attack": 0.003},
        **{"release": 0.3, "threshold": 0, "hp_cutoff": 300, "dry_wet": 50},
    },
    "limiter": {"enabled": False, "release": 0.05, "threshold": 0, "ceiling": -0.35},
}


def add_stem_box(path: Path, titles: Sequence[str]) -> None:
    """Add the box moov/udta/stem to an MP4 file whose moov box comes last, as FFmpeg writes it.

    Args:
        path: the file, with the mixture as its first stream.
        titles: of the other streams.
    """
    stems = [
        {"name": title, "color": _COLOURS[number % len(_COLOURS)]}
        for number, title in enumerate(titles)
    ]
    text = json.dumps({"version": 1, "mastering_dsp": _DYNAMICS, "stems": stems})
    box = _box(b"stem", text.encode())
    with open(path, "r+b") as file:
        *_, (_, moov, size) = _boxes(file, 0, path.stat().st_size)
        *_, (kind, last, length) = _boxes(file, moov + 8, moov + size)
        sizes = {moov: size}
        if kind == b"udta":  # it comes last in moov, if there are any tags
            sizes[last] = length
        else:
            box = _box(b"udta", box)
        for place, before in sizes.items():
            file.seek(place)
            file.write(struct.pack(">I", before + len(box)))
        file.seek(0, 2)
        file.write(box)


def _boxes(file: BinaryIO, at: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """Yield kind, first byte and size of the boxes between two bytes."""
    while at < end:
        file.seek(at)
        size, kind = struct.unpack(">I4s", file.read(8))
        if size == 1:  # 64 bits follow
            (size,) = struct.unpack(">Q", file.read(8))
        yield kind, at, size
        at += size


def _box(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I4s", len(content) + 8, kind) + content
