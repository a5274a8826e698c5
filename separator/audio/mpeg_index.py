"""The first pass over a file of MPEG audio: where its frames are, and which are damaged."""

from dataclasses import dataclass, field
from pathlib import Path

from separator.audio.info import AudioError, Refused
from separator.audio.mpeg_frames import (
    Gap,
    Header,
    Kind,
    Reader,
    first_frame,
    header_of,
    other_kind,
    walk,
)
from separator.errors import printable

GROUP = 64  # frames from one remembered place to the next


@dataclass
class Segment:
    """One of the files that were joined: its header and its frames."""

    header: Header
    first: int
    frames: int = 0

    def kept(self, kind: Kind) -> tuple[int, int]:
        """Return the samples between the encoder's delay and its padding, as start and stop.

        Args:
            kind: of the frames.
        """
        stop, claim = self.frames * kind.samples, self.header.frames
        if claim is not None and claim >= self.frames:  # frames are missing: with the padding
            stop = min(stop, claim * kind.samples - self.header.padding)
        return min(self.header.delay, stop), stop


@dataclass
class Index:
    """The result of the first pass over a file.

    Attributes:
        kind: of the frames.
        anchors: byte of every `GROUP`-th frame.
        segments: the joined files; one in most.
        damage: (frame before which it is, bytes).
        frames, bytes: of all of them.
        channels: the numbers of channels that occur.
        cut: the file ends inside a frame.
    """

    kind: Kind
    anchors: list[int] = field(default_factory=list)
    segments: list[Segment] = field(default_factory=list)
    damage: list[tuple[int, int]] = field(default_factory=list)
    frames: int = 0
    bytes: int = 0
    channels: set[int] = field(default_factory=set)
    cut: bool = False

    def add(self, place: int, frame: bytes, joined: bool) -> None:
        """Add a frame.

        Args:
            place: its byte.
            frame: its bytes.
            joined: whether a tag stands before it.
        """
        header = header_of(frame, self.kind)
        if header or joined or not self.segments:
            self.segments.append(Segment(header or Header(), self.frames))
        if header:
            return
        if self.frames % GROUP == 0:
            self.anchors.append(place)
        self.frames += 1
        self.bytes += len(frame)
        self.segments[-1].frames += 1
        self.channels.add(1 if frame[3] >> 6 == 3 else 2)


def index(path: Path) -> Index:
    """Find all frames of a file.

    Args:
        path: the file.

    Returns:
        Places, numbers and damage of the frames.

    Raises:
        AudioError: it holds no MPEG audio, or its sampling rate changes.
    """
    with open(path, "rb") as file:
        reader = Reader(file, path.stat().st_size)
        start = first_frame(reader)
        if start is None:
            raise AudioError(f"{printable(str(path))}: holds no MPEG audio; check what it is")
        table, joined = Index(start[1]), False
        for item in walk(reader, *start):
            if not isinstance(item, Gap):
                table.add(*item, joined)
                joined = False
            elif item.is_tag:
                joined = True
            elif item.end == reader.size:
                table.cut = True
            else:
                table.damage.append((table.frames, item.end - item.start))
            if isinstance(item, Gap) and (kind := other_kind(reader, item, table.kind)):
                seconds = table.frames * table.kind.samples / table.kind.rate
                raise Refused(
                    f"{printable(str(path))}: its rate changes from {table.kind.rate} to "
                    f"{kind.rate} Hz at {seconds:.1f} s; encode both parts at one rate"
                )
    if not table.frames:
        raise AudioError(f"{printable(str(path))}: holds no samples")
    return table
