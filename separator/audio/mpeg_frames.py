"""The frames of MPEG audio (MP3, MP2, MP1): found one by one, since no header can be believed.

Joined files, tags between and behind, wrong or missing counts and damage are told apart here; a
frame counts when another one, a tag or the end of the file follows it.
"""

import functools
import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

from separator.audio.integrity import id3_size

_BITRATES = {  # (MPEG-1, layer) -> kb/s
    (True, 1): tuple(range(32, 449, 32)),
    (True, 2): (32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (True, 3): (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (False, 1): (32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    (False, 2): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    (False, 3): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
_RATES = {3: (44100, 48000, 32000), 2: (22050, 24000, 16000), 0: (11025, 12000, 8000)}
_DECODER_DELAY = 529  # samples that a decoder adds to the encoder's delay
_MAX_FRAME = 4096  # bytes; more than any has
_SEARCH = 1 << 18  # bytes in which the first frame is looked for
_WINDOW = 1 << 19


@dataclass(frozen=True)
class Kind:
    """Properties that all frames of a stream share; `version` is coded: 3, 2, 0 for 1, 2, 2.5."""

    version: int
    layer: int
    rate: int

    @property
    def samples(self) -> int:
        """Samples of a frame."""
        if self.layer == 1:
            return 384
        return 576 if self.layer == 3 and self.version != 3 else 1152


@functools.cache
def _kinds() -> dict[bytes, tuple[Kind, int]]:
    """Return kind and size in bytes for each frame's first three bytes."""
    table = {}
    for version, rates in _RATES.items():
        choices = itertools.product((1, 2, 3), enumerate(rates), (0, 1))
        for layer, (place, rate), protected in choices:
            kind = Kind(version, layer, rate)
            first = 0xE0 | version << 3 | (4 - layer) << 1 | protected
            for code, bitrate in enumerate(_BITRATES[version == 3, layer], start=1):
                slot = 4 if layer == 1 else 1
                size = kind.samples // 8 * bitrate * 1000 // slot // rate
                for low in range(4):  # padded or not, and a private bit
                    key = bytes((0xFF, first, code << 4 | place << 2 | low))
                    table[key] = kind, (size + (low >> 1)) * slot
    return table


@functools.cache
def sizes_of(kind: Kind) -> dict[bytes, int]:
    """Return a frame's size in bytes by its first three bytes.

    Args:
        kind: of the frames.
    """
    return {key: size for key, (one, size) in _kinds().items() if one == kind}


@dataclass(frozen=True)
class Gap:
    """Bytes between frames: a tag's, or what was damaged."""

    start: int
    end: int
    is_tag: bool


class Reader:
    """The bytes of a file from any place on, read in windows."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        self._file, self.size = file, size
        self._start, self._bytes = 0, b""

    def at(self, place: int, count: int) -> bytes:
        """Return bytes, fewer at the file's end.

        Args:
            place: the first byte.
            count: how many.
        """
        offset = place - self._start
        if offset < 0 or offset + count > len(self._bytes):
            self._file.seek(place)
            self._start, self._bytes = place, self._file.read(max(_WINDOW, count))
            offset = 0
        return self._bytes[offset : offset + count]

    def find(self, byte: bytes, place: int) -> int:
        """Return the next place of a byte, or the file's end.

        Args:
            byte: its value.
            place: where the search begins.
        """
        while place < self.size:
            piece = self.at(place, 1 << 16)
            offset = piece.find(byte)
            if offset >= 0:
                return place + offset
            place += len(piece) or 1
        return self.size


def first_frame(reader: Reader) -> tuple[int, Kind] | None:
    """Find the first of three frames of one kind in a row (fewer where the file ends).

    Args:
        reader: of the file.

    Returns:
        Its byte and kind; None where there is none.
    """
    place = _past_tags(reader, 0)
    if place >= reader.size:  # a tag longer than its file is none
        place = 0
    last = min(place + _SEARCH, reader.size)
    while place < last:
        kind, _ = _kinds().get(reader.at(place, 3), (None, 0))
        if kind and _follow(reader, place, sizes_of(kind), 3):
            return place, kind
        place = reader.find(b"\xff", place + 1)
    return None


def is_frame(head: bytes) -> bool:
    """Return whether bytes begin as a frame does.

    Args:
        head: at least three bytes.
    """
    return head[:3] in _kinds()


def _follow(reader: Reader, place: int, sizes: dict[bytes, int], count: int) -> bool:
    """Whether `count` frames stand there in a row, or two up to the end of the file or a tag."""
    for done in range(count):
        size = sizes.get(reader.at(place, 3))
        if size is None:
            return done > 0 and (place == reader.size or _past_tags(reader, place) > place)
        place += size
        if place > reader.size:
            return done > 1
    return True


def _past_tags(reader: Reader, place: int) -> int:
    """Return the byte behind the ID3, APE and Lyrics3 tags that begin at `place`."""
    while True:
        head = reader.at(place, 32)
        if head[:3] == b"ID3" and len(head) > 10:
            place += id3_size(head)
        elif head[:8] == b"APETAGEX" and len(head) == 32:
            begins = head[23] & 0x20  # else it is the end of one
            place += 32 + (int.from_bytes(head[12:16], "little") if begins else 0)
        elif head[:11] == b"LYRICSBEGIN":
            lyrics = reader.at(place, 1 << 16)
            place += 9 + max(lyrics.find(b"LYRICS200"), lyrics.find(b"LYRICSEND"), 2)
        elif head[:3] == b"TAG":
            place += 128
        else:
            return min(place, reader.size)


def walk(reader: Reader, place: int, kind: Kind) -> Iterator[tuple[int, bytes] | Gap]:
    """Yield (byte, frame) and gaps from a frame on; the same from any frame that it yields.

    Args:
        reader: of the file.
        place: byte of the first frame.
        kind: of the frames.
    """
    sizes = sizes_of(kind)
    get = sizes.get
    size = get(reader.at(place, 3))
    while size is not None:
        frame = reader.at(place, size)
        after = place + size
        following = get(reader.at(after, 3))
        if following is not None:
            yield place, frame
            place, size = after, following
            continue
        tags_end = _past_tags(reader, after)
        resumed = _resync(reader, tags_end, sizes)
        is_tag = resumed in (tags_end, reader.size)
        if len(frame) == size and is_tag:  # else the damage may have begun in this frame
            yield place, frame
            place = after
        if resumed > place:
            yield Gap(place, resumed, is_tag and place == after)
        place, size = resumed, get(reader.at(resumed, 3))


def _resync(reader: Reader, place: int, sizes: dict[bytes, int]) -> int:
    """Return where the next two frames in a row begin, or the file's end."""
    while place < reader.size and not _follow(reader, place, sizes, 2):
        place = reader.find(b"\xff", place + 1)
    return place


@dataclass(frozen=True)
class Header:
    """A frame that holds no sound but what an encoder says of the others."""

    frames: int | None = None
    delay: int = 0
    padding: int = 0


def header_of(frame: bytes, kind: Kind) -> Header | None:
    """Read a Xing, Info or VBRI header; return None where the frame holds sound.

    Args:
        frame: its bytes.
        kind: of the frame.
    """
    if kind.layer != 3:
        return None
    mono = frame[3] >> 6 == 3
    at = 4 + ((17 if mono else 32) if kind.version == 3 else (9 if mono else 17))
    if frame[36:40] == b"VBRI":
        return Header(int.from_bytes(frame[50:54], "big") or None)
    if frame[at : at + 4] not in (b"Xing", b"Info"):
        return None
    flags = int.from_bytes(frame[at + 4 : at + 8], "big")
    count = int.from_bytes(frame[at + 8 : at + 12], "big") if flags & 1 else 0
    fields = sum(size for bit, size in ((1, 4), (2, 4), (4, 100), (8, 4)) if flags & bit)
    encoder = at + 8 + fields
    if not frame[encoder : encoder + 1].strip(b"\0"):
        return Header(count or None)
    high, middle, low = frame[encoder + 21 : encoder + 24].ljust(3, b"\0")
    delay, padding = high << 4 | middle >> 4, (middle & 15) << 8 | low
    return Header(count or None, delay + _DECODER_DELAY, max(padding - _DECODER_DELAY, 0))


def other_kind(reader: Reader, gap: Gap, kind: Kind) -> Kind | None:
    """Return the kind of the frames at the beginning of a gap, where there are some in a row.

    Args:
        reader: of the file.
        gap: the bytes between frames of `kind`.
        kind: of the frames around it.
    """
    place = _past_tags(reader, gap.start)
    last = min(place + _MAX_FRAME, gap.end)
    while place < last:
        other, _ = _kinds().get(reader.at(place, 3), (kind, 0))
        if other != kind and _follow(reader, place, sizes_of(other), 4):
            return other
        place = reader.find(b"\xff", place + 1)
    return None
