"""FFmpeg's libraries: m4a, aac, mp4, and mp3 whose header counts no frames."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
from av import AudioFrame, AudioStream, Packet
from av.container import InputContainer

from separator.audio.formats import AudioError, AudioInfo, reporting

_PREROLL = 0.25  # seconds decoded before a slice: overlapping blocks, SBR, MP3's bit reservoir
_SLACK = 4096  # samples that an MP4's declared duration may exceed its decoded length by


def probe(path: Path, stream: int) -> AudioInfo:
    """Look at a header; the length is counted where an index does not give it exactly."""
    with reporting(path), _demuxer(path, stream) as (container, audio):
        context, count = audio.codec_context, len(container.streams.audio)
        rate, channels, codec = context.sample_rate, context.channels, context.codec.canonical_name
        name = "mp3" if codec == "mp3" else "m4a"
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
        scale = audio.time_base * audio.codec_context.sample_rate
        for packet in _packets(container, audio, start if seek else 0):
            for frame in packet.decode():
                at = round((frame.pts - (audio.start_time or 0)) * scale)
                if at > start and not end and seek:  # the index led past the place: count from 0
                    yield from decode(path, start, stop, stream, seek=False)
                    return
                end = at + frame.samples
                last = end if stop is None else min(end, stop)
                if max(at, start) < last:
                    yield _samples(frame)[:, max(start - at, 0) : last - at]
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


def _samples(frame: AudioFrame) -> np.ndarray:
    """One decoded frame as (c t) float32, integers scaled to ±1."""
    wave = frame.to_ndarray()
    if not frame.format.is_planar:
        wave = wave.reshape(-1, frame.layout.nb_channels).T
    if wave.dtype.kind == "u":
        return (wave.astype(np.float32) - 128.0) / 128.0
    scale = -float(np.iinfo(wave.dtype).min) if wave.dtype.kind == "i" else 1.0
    return (wave / scale).astype(np.float32, copy=False)
