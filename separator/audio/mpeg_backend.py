"""MP3, MP2 and MP1: frames found by `mpeg_frames`, decoded by FFmpeg's codec.

A slice is decoded from some frames before it, so that it equals the same slice of the whole.
"""

from bisect import bisect_left, bisect_right
from collections import deque
from collections.abc import Iterator
from itertools import accumulate
from pathlib import Path

import av
import numpy as np
from av import CodecContext, Packet

from separator.audio.damage import refuse_truncated
from separator.audio.info import AudioInfo, Report
from separator.audio.mpeg_frames import Gap, Reader, header_of, walk
from separator.audio.mpeg_index import GROUP, Segment, index

_RESERVOIR = 1024  # bytes of sound decoded before a slice: MP3 reaches 511 back, of two frames
_SIDE = 36  # bytes of a frame that are not sound, at most
_PREROLL_FRAMES = 4  # frames that are decoded before a slice at least


class MpegSource:
    """A file of MPEG audio whose frames have all been found; all numbers of samples are exact."""

    exact = True
    declared = None
    names: tuple[str, ...] = ()

    def __init__(self, path: Path) -> None:
        self._path, self.index = path, index(path)
        kept = [segment.kept(self.index.kind) for segment in self.index.segments]
        self._kept = kept
        self._starts = list(accumulate((stop - start for start, stop in kept), initial=0))
        self.info = AudioInfo(
            path,
            "mp3",
            f"mp{self.index.kind.layer}",
            self._starts[-1],
            self.index.kind.rate,
            max(self.index.channels),
            notices=tuple(self._notices()),
        )
        if self.index.cut:  # inside a frame, perhaps long before its header says
            last = self.index.segments[-1]
            missing = ((last.header.frames or 0) - last.frames) * self.index.kind.samples
            refuse_truncated(self.info, self.info.samples, self.info.samples + missing)

    def _notices(self) -> Iterator[str]:
        index = self.index
        claims = [segment.header.frames for segment in index.segments]
        if len(index.segments) > 1 and sum(segment.frames > 0 for segment in index.segments) > 1:
            yield f"{len(index.segments)} files joined into one, all of them are read"
        declared = None if None in claims else sum(claims)
        if declared is not None and declared != index.frames:
            yield f"its header counts {declared} frames, {index.frames} are there"
        if index.cut:
            yield "it ends inside a frame"
        if len(index.channels) > 1:
            yield "mono and stereo frames follow each other, all are read as stereo"

    def coded(self) -> Iterator[bytes]:
        """Yield what the sound is coded in: kind, then the frames without headers and tags."""
        kind = self.index.kind
        yield f"{self.info.codec} {kind.rate} {self.info.channels};".encode()
        for _, frame in self._frames(0, self.index.frames):
            yield frame

    def decode(self, start: int, stop: int, size: int, report: Report) -> Iterator[np.ndarray]:
        """Yield samples [start, stop) in parts (c t); damaged frames are zero.

        Missing frames are reported and not replaced: their number is only estimated.

        Args:
            start: first sample.
            stop: sample after the last, at most the file's number.
            size: samples of a part, about.
            report: gets start and number of damaged samples.
        """
        starts = self._starts
        for at in range(bisect_right(starts, start) - 1, bisect_left(starts, stop)):
            place, (first, _), segment = starts[at], self._kept[at], self.index.segments[at]
            span = max(start, place) - place + first, min(stop, starts[at + 1]) - place + first
            if span[0] < span[1]:
                yield from self._decode_segment(segment, *span, place - first, size, report)

    def _decode_segment(
        self, segment: Segment, start: int, stop: int, offset: int, size: int, report: Report
    ) -> Iterator[np.ndarray]:
        """Yield samples [start, stop) of a segment, counted from its first frame's beginning."""
        length, channels = self.index.kind.samples, self.info.channels
        first, last = start // length, -(-stop // length)
        self._report_gaps(segment, first, last, offset, report)
        room = np.zeros((channels, size + length), np.float32)
        filled = 0
        codec = CodecContext.create(f"mp{self.index.kind.layer}float", "r")
        earlier = segment.first + max(first - GROUP, 0)
        frames = self._frames(earlier, segment.first + last)
        for number, frame in _with_reservoir(frames, segment.first + first):
            at = (number - segment.first) * length
            wave = _decoded(codec, frame)
            skip, end = max(start - at, 0), min(stop - at, length)
            if skip >= length:
                continue
            part = room[:, filled : filled + end - skip]
            if wave is None:
                report(at + skip + offset, end - skip)
                part[:] = 0
            else:
                part[:] = wave[:, skip:end]
            filled += end - skip
            if filled >= size:
                yield room[:, :filled].copy()
                filled = 0
        if filled:
            yield room[:, :filled].copy()

    def _report_gaps(
        self, segment: Segment, first: int, last: int, offset: int, report: Report
    ) -> None:
        """Report what is missing before the frames [first, last) of a segment."""
        index, length = self.index, self.index.kind.samples
        for frame, size in index.damage:
            if first <= frame - segment.first < last:
                missing = max(round(size * index.frames / index.bytes), 1)
                report((frame - segment.first) * length + offset, missing * length)

    def _frames(self, first: int, last: int) -> Iterator[tuple[int, bytes]]:
        """Yield the frames [first, last), each with its number."""
        with open(self._path, "rb") as file:
            reader = Reader(file, self._path.stat().st_size)
            number = first // GROUP * GROUP
            for item in walk(reader, self.index.anchors[number // GROUP], self.index.kind):
                if number >= last:
                    return
                if isinstance(item, Gap) or header_of(item[1], self.index.kind):
                    continue
                if number >= first:
                    yield number, item[1]
                number += 1


def _with_reservoir(frames: Iterator[tuple[int, bytes]], first: int) -> Iterator[tuple[int, bytes]]:
    """Yield frames from as far before number `first` as its sound may be stored."""
    before: deque[tuple[int, bytes]] = deque()
    stored = 0
    for number, frame in frames:
        if number >= first:
            yield from before
            before.clear()
            yield number, frame
            continue
        before.append((number, frame))
        stored += _stored(frame)
        while len(before) > _PREROLL_FRAMES and stored - _stored(before[0][1]) >= _RESERVOIR:
            stored -= _stored(before.popleft()[1])


def _stored(frame: bytes) -> int:
    """Bytes of a frame that hold sound, its own or that of the next ones."""
    return max(len(frame) - _SIDE, 0)


def _decoded(codec: CodecContext, frame: bytes) -> np.ndarray | None:
    """Decode a frame to (c t); None where it is damaged."""
    try:
        frames = codec.decode(Packet(frame))
    except av.FFmpegError:
        return None
    return frames[0].to_ndarray() if frames else None
