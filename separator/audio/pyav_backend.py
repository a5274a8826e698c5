"""FFmpeg's libraries (PyAV): mp4, aac, and every file that libsndfile does not read rightly."""

import functools
from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
from av import AudioFrame, AudioResampler, AudioStream, Packet
from av.container import InputContainer

from separator.audio.demuxer import demuxer, is_listed, layout_of
from separator.audio.info import AudioInfo, Refused, Report, reporting
from separator.audio.integrity import iff_span, unexplained

_PREROLL = 0.25  # seconds decoded before a slice: overlapping blocks, SBR, MP3's bit reservoir
_TIME_SLACK = 4096  # samples that an MP4's times and declared duration may be off by
_MAX_JUMP = 10  # seconds of timestamps that are filled with silence; more are damaged timestamps
EVER = 1 << 62  # samples; the end of any sound
_CONTAINERS = {  # FFmpeg's name of a container -> ours, where they differ
    **{"mov": "m4a", "aac": "m4a", "loas": "m4a", "w64": "wav", "asf": "wma", "wv": "wavpack"},
    **{"mpc": "musepack", "mpc8": "musepack", "dsf": "dsd", "eac3": "ac3", "dtshd": "dts"},
}
# FFmpeg's sample format -> bits, for lossless codecs
_SUBTYPES = {"u8": "PCM_U8", "s16": "PCM_16", "s32": "PCM_32", "flt": "FLOAT", "dbl": "DOUBLE"}
_LOSSLESS = ("pcm_", "flac", "alac", "wavpack", "ape", "tta", "tak", "wmalossless", "shorten")


class PyAVSource:
    """One audio stream of a file that FFmpeg decodes; the number of samples is exact.

    Where the container's times resolve samples, a slice is decoded from a little before it, else
    from the beginning.
    """

    exact = True

    def __init__(self, path: Path, stream: int = 0) -> None:
        """Look at the header and count the samples.

        Raises:
            AudioError: FFmpeg does not read it, or it holds no sound.
        """
        self._path = path
        self._demuxer = functools.partial(demuxer, path, stream, _wav_options(path))
        with reporting(path), self._demuxer() as (container, audio):
            context, streams = audio.codec_context, len(container.streams.audio)
            layout = layout_of(context)
            if is_listed(layout):
                raise Refused(
                    f"{path}: FFmpeg's Python library cannot decode channels in this order: "
                    f"{layout.name}; convert it to wav or flac"
                )
            self._rate, self._channels = context.sample_rate, layout.nb_channels
            self.names = tuple(channel.name for channel in layout.channels)
            codec = context.codec.canonical_name
            lossless = codec.startswith(_LOSSLESS)
            container_name = container.format.name.partition(",")[0]
            self._indexed = container_name == "mov"
            self.declared = None
            if self._indexed and audio.duration:  # what an MP4's index promises
                self.declared = round(audio.duration * audio.time_base * self._rate)
            self._codec = codec
            self._timed, packed = self.declared is not None, self.declared
            if not self._timed:
                self._timed, packed = self._scanned(container, audio)
            self.subtype = _subtype(codec, context.format.name) if lossless else ""
        trusted = lossless or codec == "aac" or self.declared is not None
        samples = self._counted(packed if trusted else 0)
        if container_name == "w64" and lossless and samples and (span := iff_span(path)):
            frame = max(round(span.there / samples), 1)
            self.declared = span.declared and span.declared // frame
        name = _CONTAINERS.get(container_name, container_name)
        if name == "ogg" and codec in ("flac", "opus"):
            name = codec
        sound = path, name, codec, samples, self._rate, self._channels, streams
        self.info = AudioInfo(*sound, subtype=self.subtype)

    def _scanned(self, container: InputContainer, audio: AudioStream) -> tuple[bool, int]:
        """Whether all times resolve samples and never go back, and the samples of all packets."""
        exact = (1 / (audio.time_base * self._rate)).denominator == 1
        ticks, last = 0, None
        for packet in container.demux(audio):
            ticks += packet.duration or 0
            if packet.pts is not None:
                exact = exact and (last is None or packet.pts >= last)
                last = packet.pts
            elif packet.size:  # damaged, or a container without times
                exact = exact and last is not None
        return exact, round(ticks * audio.time_base * self._rate)

    def _counted(self, promised: int) -> int:
        """Decode to the end; only the last blocks, if all that is promised is there."""
        near = max(promised - self._rate // 2, 0) if self._timed else 0
        for start in (near, 0) if near else (0,):
            parts = self.decode(start, EVER, 1 << 18, lambda *_: None)
            samples = start + sum(part.shape[1] for part in parts)
            if samples > start and samples + _TIME_SLACK >= promised:
                break
        return samples

    def decode(
        self, start: int, stop: int, size: int, report: Report, seeks: bool = True
    ) -> Iterator[np.ndarray]:
        """Yield samples [start, stop) in parts (c t); 0 is the first after the encoder's delay.

        Damage is silence where the container's times tell its length, and left out elsewhere.

        Args:
            start: first sample.
            stop: sample after the last.
            size: samples of a part, at most about.
            report: gets start and number of samples that do not decode.
            seeks: whether the container's index may be used.
        """
        # Opus predicts from all that was before, so that no place near a slice will do
        seeks = seeks and self._timed and self._codec != "opus"
        with reporting(self._path), self._demuxer() as (container, audio):
            # interleaved, since PyAV looks for a ninth plane in frames of eight and crashes
            convert, end = AudioResampler("flt"), None
            for at, frame in self._placed(container, audio, start if seeks else 0, report):
                if end is None and at > start and seeks:  # the index led past the place
                    yield from self.decode(start, stop, size, report, seeks=False)
                    return
                while end is not None and end < min(at, stop):  # times that jump
                    silent = min(at, stop, end + size) - end
                    if end + silent > start:
                        skip = max(start - end, 0)
                        report(end + skip, silent - skip)
                        yield np.zeros((self._channels, silent - skip), np.float32)
                    end += silent
                end = at + frame.samples
                last = min(end, stop)
                if max(at, start) < last:
                    wave = convert.resample(frame)[0].to_ndarray().reshape(frame.samples, -1)
                    yield np.ascontiguousarray(wave[max(start - at, 0) : last - at].T)
                if end >= stop:
                    return
            if end is None and seeks:
                yield from self.decode(start, stop, size, report, seeks=False)

    def _placed(
        self, container: InputContainer, audio: AudioStream, start: int, report: Report
    ) -> Iterator[tuple[int, AudioFrame]]:
        """Yield frames from a little before `start`, each with the sample that it begins at."""
        scale, end, failed = audio.time_base * self._rate, None, 0
        for packet in self._packets(container, audio, start):
            try:
                frames = packet.decode()
            except av.FFmpegError:
                failed += round((packet.duration or 0) * scale)
                continue
            for frame in frames:
                self._check(frame, end or 0)
                at = end
                if frame.pts is not None and self._timed:
                    at = round((frame.pts - (audio.start_time or 0)) * scale)
                end = self._joined(end, at or 0, failed, report)
                failed = 0
                yield end, frame
                end += frame.samples

    def _joined(self, end: int | None, at: int, failed: int, report: Report) -> int:
        """Return where a frame belongs whose time says `at` while `end` samples are there."""
        if end is None:
            return at
        if failed and at <= end:
            report(end, failed)
        if at > end + (0 if failed else _TIME_SLACK):
            if at - end > _MAX_JUMP * self._rate:
                raise Refused(
                    f"{self._path}: damaged, its times jump from {end / self._rate:.1f} to "
                    f"{at / self._rate:.1f} s; encode it again"
                )
            return at
        return end

    def _check(self, frame: AudioFrame, end: int) -> None:
        if (frame.sample_rate, frame.layout.nb_channels) != (self._rate, self._channels):
            raise Refused(
                f"{self._path}: its rate or channels change at {end / self._rate:.1f} s; encode "
                "both parts alike"
            )

    def _packets(
        self, container: InputContainer, audio: AudioStream, start: int
    ) -> Iterator[Packet]:
        """Packets from a little before sample `start`; without an index, others are read over."""
        first = round((start / self._rate - _PREROLL) / audio.time_base)
        if first <= 0:
            yield from container.demux(audio)
            return
        first += audio.start_time or 0
        if self._indexed:
            container.seek(first, stream=audio)
        begun = False
        for packet in container.demux(audio):
            if not begun and packet.pts is not None:
                begun = packet.pts + (packet.duration or 0) >= first
            if begun:
                yield packet


def _wav_options(path: Path) -> dict[str, str]:
    """Return what makes FFmpeg read a wav whose header is wrong of its length to the end."""
    span = iff_span(path)
    if span and (span.declared is None or unexplained(path, span.end)):
        return {"ignore_length": "1"}
    return {}


def _subtype(codec: str, sample_format: str) -> str:
    """Return the sample format of a lossless codec."""
    if codec.startswith(("pcm_s24", "pcm_s20")) or (
        sample_format in ("s32", "s32p") and not codec.startswith("pcm_")
    ):  # flac, alac and the like hold 24 bits in 32
        return "PCM_24"
    return _SUBTYPES.get(sample_format.removesuffix("p"), "")
