"""The first pass over a file of MPEG audio: where its frames are, and which are damaged."""

from dataclasses import dataclass, field
from pathlib import Path

from separator.audio import mpeg_frames
from separator.audio.info import AudioError, Refused

GROUP = 64  # frames from one remembered place to the next


@dataclass
class Segment:
    """One of the files that were joined: its header and its frames."""

    header: mpeg_frames.Header
    first: int
    frames: int = 0

    def kept(self, kind: mpeg_frames.Kind) -> tuple[int, int]:
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

    kind: mpeg_frames.Kind
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
        header = mpeg_frames.header_of(frame, self.kind)
        if header or joined or not self.segments:
            self.segments.append(Segment(header or mpeg_frames.Header(), self.frames))
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
        reader = mpeg_frames.Reader(file, path.stat().st_size)
        start = mpeg_frames.first_frame(reader)
        if start is None:
            raise AudioError(f"{path}: holds no MPEG audio; check what it is")
        table, joined = Index(start[1]), False
        for item in mpeg_frames.walk(reader, *start):
            if not isinstance(item, mpeg_frames.Gap):
                table.add(*item, joined)
                joined = False
                continue
            if item.is_tag:
                joined = True
            elif item.end == reader.size:
                table.cut = True
            else:
                table.damage.append((table.frames, item.end - item.start))
            if kind := mpeg_frames.other_kind(reader, item, table.kind):
                seconds = table.frames * table.kind.samples / table.kind.rate
                raise Refused(
                    f"{path}: its rate changes from {table.kind.rate} to {kind.rate} Hz at "
                    f"{seconds:.1f} s; encode both parts at one rate"
                )
    if not table.frames:
        raise AudioError(f"{path}: holds no samples")
    return table
