"""libsndfile: wav, aiff, caf, flac, ogg and opus, and chains of them (files joined into one)."""

import os
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import replace
from itertools import accumulate
from pathlib import Path

import numpy as np
import soundfile

from separator.audio.info import AudioInfo, Refused, Report, reporting
from separator.audio.integrity import Span, flac_is_whole, iff_span, ogg_pages, unexplained
from separator.audio.soundfile_file import XIPH_ORDER, Forward, Part

_FORMATS = {"WAVEX": "wav", "RF64": "wav", "W64": "wav"}  # libsndfile's name -> ours
_WARM_UP = {"OPUS": 3840, "VORBIS": 4096}  # samples, where libsndfile seeks
_COMPARED = 256  # samples
_LONG, _SHORT = 1 << 16, 1 << 10  # samples read at once from a damaged FLAC, and at its damage
_LOSSY = ("VORBIS", "OPUS", "MPEG_LAYER_I", "MPEG_LAYER_II", "MPEG_LAYER_III")


class Ended(Exception):
    """The sound ends, or is damaged, at `at` samples, earlier than the header says."""

    def __init__(self, at: int) -> None:
        super().__init__(at)
        self.at = at


class SoundfileSource:
    """A file, or the part of one, that libsndfile decodes.

    Attributes:
        info: what the header says.
        exact: whether that was checked; else the sound is to be measured.
        declared: samples that the header counts; None where it does not.
        names: the channels' places, where the backend knows them.
    """

    names: tuple[str, ...] = ()

    def __init__(self, path: Path, link: tuple[int, int] | None = None) -> None:
        """Look at the header; `link` is the place and size in bytes of one of several joined.

        Raises:
            AudioError: libsndfile does not read it.
        """
        self._path, self._link = path, link
        with reporting(path), self._open() as file:
            self._subtype, self._container, samples = file.subtype, file.format, file.frames
            rate, channels = file.samplerate, file.channels
        opus = self._subtype == "OPUS"
        name = "opus" if opus else _FORMATS.get(self._container, self._container.lower())
        subtype = "" if self._subtype in _LOSSY else self._subtype
        self._last_page = 0
        self.declared, self.exact, notices = self._checked(samples)
        self._end = max(min(samples, self.declared or samples), 0)
        sound = path, name, self._subtype.lower(), self._end, rate, channels
        self.info = AudioInfo(*sound, notices=notices, subtype=subtype)

    def _checked(self, samples: int) -> tuple[int | None, bool, tuple[str, ...]]:
        """Compare the header's length with the file's: what is declared, whether exact, notices."""
        if self._container == "OGG":
            return self._checked_ogg(samples)
        if self._container == "FLAC":
            counted = 0 < samples < 1 << 48
            exact = counted and flac_is_whole(self._path, samples)
            return (samples if counted else None), exact, ()
        if self._subtype.startswith("MPEG"):  # in a wav: the length is a guess
            return None, False, ()
        span = iff_span(self._path) if self._link is None else None
        if span is None:
            return samples, samples > 0, ()
        if span.declared is None:
            return None, samples > 0, ("its header gives no length",)
        if span.declared > span.there:
            return _as_samples(span, samples), False, ()
        return samples, samples > 0 and not unexplained(self._path, span.end), ()

    def _checked_ogg(self, samples: int) -> tuple[int | None, bool, tuple[str, ...]]:
        pages = ogg_pages(self._path, *(self._link or ()))
        self._last_page = pages.last_page
        if self._link is not None:
            return samples, samples < 1 << 48, ()
        exact = len(pages.links) == 1 and not pages.damaged and not pages.cut
        declared = samples if samples < 1 << 48 else None
        if self._subtype == "VORBIS" and exact:
            exact, declared = samples == pages.last and pages.first > 0, pages.last
        if pages.cut and pages.declared is None:
            raise Refused(
                f"{self._path}: truncated, it ends inside a page and before its end mark; copy it "
                "again"
            )
        if pages.cut:
            return samples + max(pages.declared - pages.last, 0), False, ()
        ended = pages.declared is not None
        return declared, exact, () if ended else ("its end is not marked: it may be cut off",)

    def _open(self) -> "Forward":
        return Forward(Part(self._path, *self._link) if self._link else os.fsencode(self._path))

    def decode(self, start: int, stop: int, size: int, report: Report) -> Iterator[np.ndarray]:
        """Yield samples [start, stop) in parts (c t) float32.

        Args:
            start: first sample.
            stop: sample after the last.
            size: samples of a part, at most about.
            report: gets start and number of samples that do not decode.

        Raises:
            Ended: there are fewer.
        """
        with reporting(self._path), self._open() as file:
            order = XIPH_ORDER.get(file.channels) if file.format == "OGG" else None
            at = self._seek_point(start) if start else 0
            if 0 < at < stop:
                self._seek(file, at, start)
            while at < stop and start < stop:
                wanted = min(max(size, start - at + 1), stop - at)
                part = self._read(file, wanted, at)
                if file.format == "FLAC" and not self._in_step(file, at, part, wanted):
                    raise Ended(max(at, start))
                wave = part[max(start - at, 0) :].T
                at += len(part)
                if wave.shape[1]:
                    yield np.ascontiguousarray(wave if order is None else wave[list(order)])
                if len(part) < wanted:
                    raise Ended(max(at, start))

    def _in_step(self, file: "Forward", at: int, part: np.ndarray, wanted: int) -> bool:
        """Whether no frame was left out of a part: libFLAC does so without a word.

        What follows is read again from its own place; this costs 5 % of a slice of 6 s.
        """
        end = at + wanted
        if len(part) < wanted or end >= self._end:
            return len(part) == wanted
        following = self._read(file, _COMPARED, at)
        self._seek(file, end, at)
        same = np.array_equal(following, self._read(file, _COMPARED, at))
        self._seek(file, end, at)
        return same

    def mended(self, start: int, stop: int, report: Report) -> Iterator[np.ndarray]:
        """Yield samples [start, stop) of a damaged FLAC in parts (c t).

        Damage is silence, so that the rest keeps its place. Parts begin at multiples of their
        length, wherever `start` is, so that slices equal those of the whole.

        Args:
            start: first sample.
            stop: sample after the last.
            report: gets start and number of samples that do not decode.
        """
        for first in range(start - start % _LONG, stop, _LONG):
            for at, part, whole in self._halved(first, min(_LONG, self._end - first)):
                skip, end = max(start - at, 0), min(at + len(part), stop)
                if at + skip >= end:
                    continue
                if not whole:
                    report(at + skip, end - at - skip)
                yield np.ascontiguousarray(part[skip : end - at].T)

    def _halved(self, at: int, wanted: int) -> Iterator[tuple[int, np.ndarray, bool]]:
        """Yield the place, the samples (t c) and the wholeness of parts, short where damaged."""
        part = self._whole_part(at, wanted)
        if part is not None:
            yield at, part, True
        elif wanted <= _SHORT:
            yield at, np.zeros((wanted, self.info.channels), np.float32), False
        else:
            half = _LONG
            while half >= wanted:
                half //= 2
            yield from self._halved(at, half)
            yield from self._halved(at + half, wanted - half)

    def _whole_part(self, at: int, wanted: int) -> np.ndarray | None:
        """Read a part (t c) of which nothing is missing; None where something is."""
        try:
            with self._open() as file:  # anew: an error leaves libFLAC's decoder unusable
                self._seek(file, at, at)
                part = self._read(file, wanted, at)
                return part if self._in_step(file, at, part, wanted) else None
        except (Ended, soundfile.LibsndfileError):
            return None

    @staticmethod
    def _seek(file: soundfile.SoundFile, place: int, at: int) -> None:
        try:
            file.seek(place)
        except soundfile.LibsndfileError as error:
            raise Ended(at) from error

    @staticmethod
    def _read(file: soundfile.SoundFile, wanted: int, at: int) -> np.ndarray:
        try:
            return file.read(wanted, dtype="float32", always_2d=True)
        except soundfile.LibsndfileError as error:
            raise Ended(at) from error

    def _seek_point(self, start: int) -> int:
        """Return the sample to decode from so that sample `start` is as in a whole decode."""
        if self._subtype == "VORBIS":  # seeks into the last page land up to a block off
            start = min(start, self._end - self._last_page)
        return max(start - _WARM_UP.get(self._subtype, 0), 0)


def _as_samples(span: Span, samples: int) -> int:
    """Return what is declared in samples, of which `samples` are there."""
    frame = max(round(span.there / max(samples, 1)), 1)
    return span.declared // frame if samples else 0


class ChainedSource:
    """Several Ogg streams of one rate, one behind the other."""

    exact = True
    names: tuple[str, ...] = ()

    def __init__(self, path: Path, links: tuple[tuple[int, int], ...]) -> None:
        self._parts = [SoundfileSource(path, link) for link in links]
        infos = [part.info for part in self._parts]
        shapes = {(info.rate, info.channels) for info in infos}
        if len(shapes) > 1:
            raise Refused(
                f"{path}: its rate or channels change after {infos[0].seconds:.1f} s; encode the "
                "parts alike"
            )
        self._starts = list(accumulate((info.samples for info in infos), initial=0))
        self.declared = self._starts[-1]
        first = infos[0]
        notices = (f"{len(links)} files joined into one, all of them are read",)
        self.info = replace(first, samples=self.declared, notices=notices)

    def decode(self, start: int, stop: int, size: int, report: Report) -> Iterator[np.ndarray]:
        """Yield samples [start, stop) as `SoundfileSource.decode` does.

        Args:
            start: first sample.
            stop: sample after the last.
            size: samples of a part, at most about.
            report: gets start and number of samples that do not decode.

        Raises:
            Ended: there are fewer.
        """
        at = bisect_right(self._starts, start) - 1
        for part, place in zip(self._parts[at:], self._starts[at:], strict=False):
            if place >= stop:
                return
            first, last = max(start - place, 0), min(stop - place, part.info.samples)
            try:
                yield from part.decode(first, last, size, report)
            except Ended as end:
                raise Ended(place + end.at) from end


def open_soundfile(path: Path) -> SoundfileSource | ChainedSource:
    """Open a file with libsndfile, one that was joined from several as a whole.

    Args:
        path: the file.
    """
    with open(path, "rb") as file:
        ogg = file.read(4) == b"OggS"
    if ogg and len(links := ogg_pages(path).links) > 1:
        return ChainedSource(path, links)
    return SoundfileSource(path)
