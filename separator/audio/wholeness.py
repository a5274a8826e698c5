"""What the bytes of a file say of its length, without a decoder: is it whole?"""

import struct
from pathlib import Path
from typing import BinaryIO


def counts_frames(file: BinaryIO) -> bool:
    """Whether an MP3's first frame says how many frames follow (Xing or Info header)."""
    file.seek(0)
    head = file.read(10)
    length = 0
    if head[:3] == b"ID3":  # a tag; its length in four bytes of seven bits
        length = 10 + sum(byte << 7 * (3 - i) for i, byte in enumerate(head[6:]))
    file.seek(length)
    first = file.read(4096)
    at = max(first.find(b"Xing"), first.find(b"Info"))
    flags = first[at + 4 : at + 8]  # shorter where the file ends here
    return at >= 0 and bool(int.from_bytes(flags) & 1)


def iff_is_whole(path: Path) -> bool:
    """Whether a RIFF, RF64 or AIFF file is as long as its sound chunk says; True for others."""
    with open(path, "rb") as file:
        order = {b"RIFF": "<", b"RF64": "<", b"FORM": ">"}.get(file.read(12)[:4])
        long = 0
        while order and len(head := file.read(8)) == 8:
            name, length = struct.unpack(f"{order}4sI", head)
            at = file.tell()
            if name == b"ds64":  # what RF64's own 32 bits cannot count: of the file, of the sound
                long = int.from_bytes(file.read(16)[8:], "little")
            if name in (b"data", b"SSND"):  # a writer into a pipe leaves 0 or about the maximum
                unknown = not long and (length == 0 or length >= 0x7FFFF000)
                return unknown or at + (long or length) <= path.stat().st_size
            file.seek(at + length + length % 2)
    return True


def ogg_pages(path: Path) -> list[bytes]:
    """Return the last few Ogg pages (RFC 3533), the last one to the end of the file."""
    with open(path, "rb") as file:
        file.seek(max(path.stat().st_size - 3 * 65536, 0))  # a page is at most 65307 bytes
        return [b"OggS" + page for page in file.read().split(b"OggS")[1:] if len(page) > 23]


def ogg_is_whole(path: Path) -> bool:
    """Whether the last Ogg page is complete and marked as the end of the stream."""
    page = (ogg_pages(path) or [b""])[-1]
    size = 27 + page[26] + sum(page[27 : 27 + page[26]]) if page else 1
    return len(page) >= size and bool(page[5] & 4)
