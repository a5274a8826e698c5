"""Find the length that a file's bytes declare, without a decoder."""

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

_UNKNOWN = 0x7FFFF000  # a chunk's length from here on, or 0, is that of a writer into a pipe
_W64_DATA = b"data\xf3\xac\xd3\x11\x8c\xd1\x00\xc0\x4f\x8e\xdb\x8a"
_TAGS = (b"ID3", b"TAG", b"APETAGEX", b"LYRICSBEGIN")


@dataclass(frozen=True)
class Span:
    """Bytes of sound: as the header counts them, None where it does not, and as they are there.

    `end` is where the sound ends by the header, or the file's end.
    """

    declared: int | None
    there: int
    end: int


def iff_span(path: Path) -> Span | None:
    """Measure the sound chunk of a RIFF, RF64, W64 or AIFF file.

    Args:
        path: the file.

    Returns:
        Its bytes; None where there is no such chunk.
    """
    size = path.stat().st_size
    with open(path, "rb") as file:
        head = file.read(12)
        if head[:4] == b"riff":
            return _w64_span(file, size)
        order = {b"RIFF": "<", b"RF64": "<", b"BW64": "<", b"FORM": ">"}.get(head[:4])
        long = 0
        while order and len(head := file.read(8)) == 8:
            name, length = struct.unpack(f"{order}4sI", head)
            at = file.tell()
            if name == b"ds64":  # what RF64's own 32 bits cannot count: of the file, of the sound
                long = int.from_bytes(file.read(16)[8:], "little")
            if name in (b"data", b"SSND"):
                unknown = not long and (length == 0 or length >= _UNKNOWN)
                skip = 8 if name == b"SSND" else 0  # of an offset and a block size
                return _span(None if unknown else (long or length) - skip, at + skip, size)
            file.seek(at + length + length % 2)
    return None


def _w64_span(file: BinaryIO, size: int) -> Span | None:
    file.seek(40)
    while len(head := file.read(24)) == 24:
        length, at = int.from_bytes(head[16:], "little"), file.tell()
        if head[:16] == _W64_DATA:
            return _span(length - 24 if 24 < length < 1 << 62 else None, at, size)
        file.seek(at - 24 + max(length + -length % 8, 24))
    return None


def _span(declared: int | None, at: int, size: int) -> Span:
    end = size if declared is None else min(at + declared, size)
    return Span(declared, size - at if declared is None else min(declared, size - at), end)


def unexplained(path: Path, at: int) -> int:
    """Count the bytes from `at` to the end of a RIFF or AIFF file that are no chunk and no tag.

    Args:
        path: the file.
        at: a byte.
    """
    size = path.stat().st_size
    with open(path, "rb") as file:
        order = ">" if file.read(4) == b"FORM" else "<"
        file.seek(at)
        if not file.read(1) or at % 2 == 0:
            file.seek(at)
        while len(head := file.read(8)) == 8:
            name, length = struct.unpack(f"{order}4sI", head)
            rest = size - file.tell()
            chunk = all(32 <= byte < 127 for byte in name) and length <= rest
            if head.startswith(_TAGS) or not (chunk or any(head + file.read(4096))):
                return 0
            if not chunk:
                return rest + 8
            file.seek(size - rest + length + length % 2)
    return 0


@dataclass(frozen=True)
class OggPages:
    """Facts from the pages of an Ogg file (RFC 3533); positions are in samples.

    Attributes:
        links: (start, size) in bytes of the streams that follow each other; one unless chained.
        first: position that the first page with sound ends at; negative in some old files.
        last: position that the last complete page ends at.
        last_page: samples in it.
        declared: where the stream's marked end is, complete or not; None without such a mark.
        cut: the file ends inside a page.
        damaged: bytes between pages are no page, or a page's checksum is wrong.
    """

    links: tuple[tuple[int, int], ...]
    first: int
    last: int
    last_page: int
    declared: int | None
    cut: bool
    damaged: bool


def ogg_pages(path: Path, first: int = 0, length: int | None = None) -> OggPages:
    """Read all pages of an Ogg file, or those of one link.

    Args:
        path: the file.
        first: first byte.
        length: in bytes; to the end when not given.
    """
    size = path.stat().st_size if length is None else first + length
    starts: list[int] = []
    positions: list[int] = []
    end, previous, flags, position, damaged = first, 2, 0, -1, False
    for at, page_end, flags, position, sound in _pages(path, first, size):
        damaged = damaged or at > end or not sound
        if not starts or flags & 2 > previous & 2:  # a first page after others: the next link
            starts.append(at)
        if page_end <= size and position not in (0, -1):
            positions.append(position)
        end, previous = page_end, flags
    stops = [*starts[1:], size][: len(starts)]
    earliest, last = (positions[0], positions[-1]) if positions else (0, 0)
    return OggPages(
        links=tuple((at, stop - at) for at, stop in zip(starts, stops, strict=True)),
        first=earliest,
        last=last,
        last_page=last - positions[-2] if len(positions) > 1 else last,
        declared=position if flags & 4 else None,
        cut=end > size,
        damaged=damaged,
    )


def _pages(path: Path, first: int, size: int) -> Iterator[tuple[int, int, int, int, bool]]:
    """Yield (start, end, flags, position, whether the checksum fits) of pages of [first, size).

    Bytes that are no page are passed over. A page that the file cuts off has no checksum.
    """
    with open(path, "rb", buffering=1 << 18) as file:
        at = first
        while at + 27 <= size:
            file.seek(at)
            head = file.read(27)
            if head[:4] != b"OggS":
                at = _find(file, at + 1, b"OggS", size)
                continue
            lengths = file.read(head[26])
            end = at + 27 + len(lengths) + sum(lengths)
            page = head[:22] + bytes(4) + head[26:] + lengths + file.read(sum(lengths))
            sound = end > size or _ogg_checksum(page) == int.from_bytes(head[22:26], "little")
            yield at, end, head[5], int.from_bytes(head[6:14], "little", signed=True), sound
            at = end


_REVERSED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


def _ogg_checksum(page: bytes) -> int:
    """CRC-32 with the bits in the other order than zlib's, which is as fast as C."""
    value = zlib.crc32(page.translate(_REVERSED), 0xFFFFFFFF) ^ 0xFFFFFFFF
    return int(f"{value:032b}"[::-1], 2)


def _find(file: BinaryIO, at: int, word: bytes, size: int) -> int:
    """Return where `word` stands next from `at` on, or `size`."""
    while at < size:
        file.seek(at)
        piece = file.read(1 << 20)
        offset = piece.find(word)
        if offset >= 0:
            return at + offset
        at += max(len(piece) - len(word) + 1, len(word))
    return size


def mp4_is_cut(path: Path) -> bool:
    """Return whether an MP4 ends inside a box before its index.

    The index, "moov", often stands at the end.

    Args:
        path: the file.
    """
    size, at = path.stat().st_size, 0
    with open(path, "rb") as file:
        while at + 8 <= size:
            file.seek(at)
            head = file.read(16)
            length, name = int.from_bytes(head[:4], "big"), head[4:8]
            if length == 1:
                length = int.from_bytes(head[8:], "big")
            if name == b"moov" or (at == 0 and name != b"ftyp") or 0 < length < 8:
                return False
            at = at + length if length else size
    return at > size


def flac_is_whole(path: Path, samples: int) -> bool:
    """Return whether the last frame of a FLAC file ends where its header says.

    A frame's header (RFC 9639, section 9.1) holds its number and is checked by a CRC.

    Args:
        path: the file.
        samples: length by the file's header.
    """
    size = path.stat().st_size
    with open(path, "rb") as file:
        start = skip_id3(file)
        head = file.read(42)
        if head[:4] != b"fLaC":
            return False
        block = int.from_bytes(head[8:10], "big")
        file.seek(max(size - (1 << 18), start))
        tail = file.read()
    at = tail.rfind(b"\xff", 0, len(tail))
    while at >= 0:
        if _flac_frame_end(tail[at : at + 16], block) == samples:
            return True
        at = tail.rfind(b"\xff", 0, at)
    return False


def skip_id3(file: BinaryIO) -> int:
    """Go to the first byte behind the ID3v2 tags that a file begins with.

    Args:
        file: at its beginning.

    Returns:
        Its place.
    """
    at = 0
    while (head := file.read(10))[:3] == b"ID3" and len(head) == 10:
        at += id3_size(head)
        file.seek(at)
    return file.seek(at)


def id3_size(head: bytes) -> int:
    """Return the bytes of an ID3v2 tag.

    Args:
        head: its first ten bytes, of which four hold seven bits of the size each.
    """
    length = sum((byte & 127) << 7 * (3 - i) for i, byte in enumerate(head[6:10]))
    return 10 + length + (10 if head[5] & 16 else 0)


def _flac_frame_end(head: bytes, block: int) -> int | None:
    """Return the sample at which the frame ends whose header this is; None if it is none."""
    if len(head) < 6 or head[1] not in (0xF8, 0xF9) or not head[2] >> 4:
        return None
    more = next((i for i in range(8) if not head[4] >> (7 - i) & 1), 8)  # UTF-8, as it were
    more = max(more - 1, 0)
    number = head[4] & (0x7F >> (more + 1 if more else 0))
    for byte in head[5 : 5 + more]:
        number = number << 6 | byte & 63
    at, code = 5 + more, head[2] >> 4
    size = {6: 1, 7: 2}.get(code, 0)
    if size:
        samples = int.from_bytes(head[at : at + size], "big") + 1
    else:
        samples = 192 if code == 1 else 576 << code - 2 if code < 6 else 256 << max(code - 8, 0)
    at += size + {12: 1, 13: 2, 14: 2}.get(head[2] & 15, 0)
    if at >= len(head) or _crc8(head[:at]) != head[at]:
        return None
    return number + samples if head[1] & 1 else number * block + samples


def _crc8(data: bytes) -> int:
    value = 0
    for byte in data:
        value ^= byte
        for _ in range(8):
            value = (value << 1 ^ 0x07) & 0xFF if value & 0x80 else value << 1
    return value
