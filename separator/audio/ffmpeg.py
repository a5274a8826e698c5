"""FFmpeg's libraries: m4a, aac, mp4, and mp3 whose header counts no frames."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
from av import AudioFrame, AudioResampler, AudioStream, Packet
from av.container import InputContainer

from separator.audio.formats import AudioError, AudioInfo, reporting

_PREROLL = 0.25  # seconds decoded before a slice: overlapping blocks, SBR, MP3's bit reservoir
_SLACK = 4096  # samples that an MP4's times and declared duration may be off by
# What `to_channels`, which knows only the number of channels, takes 3 to 8 of them for.
_BY_COUNT = ("3.0", "quad", "quad(side)", "5.0", "5.0(side)", "5.1", "5.1(side)", "6.1", "7.1")


def probe(path: Path, stream: int) -> AudioInfo:
    """Look at a header; the length is counted where an index does not give it exactly."""
    with reporting(path), _demuxer(path, stream) as (container, audio):
        context, count = audio.codec_context, len(container.streams.audio)
        rate, channels, codec = context.sample_rate, context.channels, context.codec.canonical_name
        name = "mp3" if codec == "mp3" else "m4a"
        channels = 2 if _is_folded(audio) else channels
        declared = _declared(container, audio)
        if declared is None:
            ticks = sum(packet.duration or 0 for packet in container.demux(audio))
            samples = round(ticks * audio.time_base * rate)
    if declared is not None:  # only the last blocks tell how much padding comes after
        near = max(declared - rate // 2, 0)
        with reporting(path):
            samples = near + sum(x.shape[1] for x in decode(path, near, None, stream))
    if not samples:
        raise AudioError(f"{path}: holds no samples; remove it")
    return AudioInfo(path, name, codec, samples, rate, channels, count)


def decode(
    path: Path, start: int, stop: int | None, stream: int, seek: bool = True
) -> Iterator[np.ndarray]:
    """Samples [start, stop) in parts (c t); sample 0 is the first after the encoder's delay."""
    end = 0
    with _demuxer(path, stream) as (container, audio):
        # interleaved, since PyAV looks for a ninth plane in frames of eight and crashes
        convert = AudioResampler("flt", "stereo" if _is_folded(audio) else None)
        for at, frame in _placed(path, container, audio, start if seek else 0):
            if at > start and not end and seek:  # the index led past the place: count from 0
                yield from decode(path, start, stop, stream, seek=False)
                return
            end = at + frame.samples
            last = end if stop is None else min(end, stop)
            if max(at, start) < last:
                wave = convert.resample(frame)[0].to_ndarray().reshape(frame.samples, -1)
                yield np.ascontiguousarray(wave[max(start - at, 0) : last - at].T)
            if stop is not None and end >= stop:
                return
        declared = _declared(container, audio) or 0
    if end + _SLACK < min(declared, declared if stop is None else stop):
        raise AudioError(
            f"{path}: truncated or damaged, sound ends after {end} of {declared} samples; "
            "replace the file"
        )


def coded(path: Path) -> Iterator[bytes]:
    """Codec, rate and channels of every audio stream, then the packets, undecoded.

    Raises:
        AudioError: nothing can be demuxed from it, or there are no audio packets in it.
    """
    found = False
    with reporting(path), av.open(str(path), metadata_errors="ignore") as container:
        for audio in container.streams.audio:
            context = audio.codec_context
            if context is not None:
                name = context.codec.canonical_name
                yield f"{name} {context.sample_rate} {context.channels};".encode()
        for packet in container.demux(container.streams.audio) if container.streams.audio else ():
            found = found or packet.size > 0
            yield bytes(packet)
    if not found:
        raise AudioError(f"{path}: holds no audio; remove it")


@contextlib.contextmanager
def _demuxer(path: Path, stream: int) -> Iterator[tuple[InputContainer, AudioStream]]:
    """Open a file with FFmpeg and pick one of its audio streams."""
    with av.open(str(path), metadata_errors="ignore") as container:
        streams = container.streams.audio
        if not 0 <= stream < len(streams):
            raise AudioError(
                f"{path}: has {len(streams)} audio streams, stream {stream} was asked for; "
                "give an audio file, or another stream"
            )
        context = streams[stream].codec_context
        if context is None or not context.sample_rate or not context.channels:
            raise AudioError(f"{path}: no sound can be decoded from it; replace or remove the file")
        yield container, streams[stream]


def _declared(container: InputContainer, audio: AudioStream) -> int | None:
    """Samples that an MP4's index promises; None for streams whose length is an estimate."""
    if not container.format.name.startswith("mov") or not audio.duration:
        return None
    return round(audio.duration * audio.time_base * audio.codec_context.sample_rate)


def _placed(
    path: Path, container: InputContainer, audio: AudioStream, start: int
) -> Iterator[tuple[int, AudioFrame]]:
    """Frames from a little before sample `start`, each with the sample that it begins at."""
    rate, channels = audio.codec_context.sample_rate, audio.codec_context.channels
    scale, end = audio.time_base * rate, None
    for packet in _packets(container, audio, start):
        for frame in packet.decode():
            if (frame.sample_rate, frame.layout.nb_channels) != (rate, channels):
                raise AudioError(
                    f"{path}: damaged, or its rate or channels change on the way; encode it again"
                )
            if frame.pts is None:
                raise AudioError(f"{path}: damaged, some sound has no timestamp; replace the file")
            at = round((frame.pts - (audio.start_time or 0)) * scale)
            end = at if end is None else end
            if abs(at - end) > _SLACK:
                raise AudioError(
                    f"{path}: damaged, sound jumps from sample {end} to {at}; replace the file"
                )
            yield end, frame
            end += frame.samples


def _is_folded(audio: AudioStream) -> bool:
    """Whether FFmpeg folds it to stereo, since `to_channels` takes its layout for another."""
    layout = audio.codec_context.layout
    told = not layout.name.endswith("channels")  # else only their number is known
    return told and layout.nb_channels > 2 and layout.name not in _BY_COUNT


def _packets(container: InputContainer, audio: AudioStream, start: int) -> Iterator[Packet]:
    """Packets from a little before sample `start`; without an index, earlier ones are read over."""
    first = round((start / audio.codec_context.sample_rate - _PREROLL) / audio.time_base)
    if first <= 0:
        yield from container.demux(audio)
        return
    first += audio.start_time or 0
    if container.format.name.startswith("mov"):
        container.seek(first, stream=audio)
    for packet in container.demux(audio):
        if packet.pts is None or packet.pts >= first:
            yield packet
