"""Open local files with FFmpeg's demuxers, and nothing else than what they hold."""

import contextlib
import ctypes
from collections.abc import Iterator
from pathlib import Path

import av
from av import AudioCodecContext, AudioLayout, AudioStream
from av.container import InputContainer

from separator.audio.info import AudioError, Refused, reporting

# Demuxers of sound files alone. Others open what the file names: other files, or addresses.
_DEMUXERS = (
    "mov,mp3,aac,loas,flac,ogg,wav,w64,aiff,caf,asf,ape,wv,matroska,webm,tta,tak,mpc,mpc8,dsf,"
    "ac3,eac3,dts,dtshd,au"
)


def coded(path: Path) -> Iterator[bytes]:
    """Yield what identifies the coded audio of a file.

    Args:
        path: the file.

    Yields:
        Codec, rate and channels of every audio stream, then the packets, undecoded.

    Raises:
        AudioError: nothing can be demuxed from it, or there are no audio packets in it.
    """
    has_packets = False
    with reporting(path), opened(path) as container:
        for audio in container.streams.audio:
            context = audio.codec_context
            if context is not None:
                name = context.codec.canonical_name
                channels = layout_of(context).nb_channels
                yield f"{name} {context.sample_rate} {channels};".encode()
        for packet in container.demux(container.streams.audio) if container.streams.audio else ():
            has_packets = has_packets or packet.size > 0
            yield bytes(packet)
    if not has_packets:
        raise Refused(f"{path}: holds no sound; check what it is")


def channel_names(path: Path) -> tuple[str, ...]:
    """Return the channels' places in order, as FFmpeg names them; none where it cannot tell.

    Args:
        path: the file.
    """
    try:
        with demuxer(path, 0, {}) as (_, audio):
            return tuple(channel.name for channel in layout_of(audio.codec_context).channels)
    except (av.FFmpegError, AudioError):
        return ()


def layout_of(context: AudioCodecContext) -> AudioLayout:
    """Return the places of a stream's channels.

    PyAV frees a layout that is a list of places, as some mov, aiff and caf of 7.1 have it, twice,
    which ends the process; such a one is never freed here.

    Args:
        context: of the stream.
    """
    layout = context.layout
    if is_listed(layout):
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(layout))
    return layout


def is_listed(layout: AudioLayout) -> bool:
    """Return whether a layout is a list, neither a set of places nor a number of channels.

    Args:
        layout: of a stream.
    """
    return " channels (" in layout.name


@contextlib.contextmanager
def demuxer(
    path: Path, stream: int, options: dict[str, str]
) -> Iterator[tuple[InputContainer, AudioStream]]:
    """Open a file with FFmpeg and pick one of its audio streams.

    Args:
        path: the file.
        stream: number of the audio stream.
        options: of FFmpeg's demuxer.

    Yields:
        The container and the stream.

    Raises:
        AudioError: there is no such stream, or no decoder for it.
    """
    with opened(path, options) as container:
        streams = container.streams.audio
        if not streams:
            raise Refused(f"{path}: holds no sound; check what it is")
        if not 0 <= stream < len(streams):
            raise Refused(
                f"{path}: has {len(streams)} audio streams, stream {stream} was asked for; "
                "count from 0"
            )
        context = streams[stream].codec_context
        if context is None:
            raise Refused(f"{path}: its kind of sound cannot be read; convert it to flac or wav")
        if not context.sample_rate or not layout_of(context).nb_channels:
            # the container was guessed from the name, and nothing in the file bears it out
            raise AudioError(f"{path}: has no sound that can be read; check that it plays")
        if context.codec.canonical_name == "flac":  # else damaged frames are decoded to noise
            context.options = {"err_detect": "crccheck+explode"}
        yield container, streams[stream]


def opened(path: Path, options: dict[str, str] | None = None) -> InputContainer:
    """Open a local file, whatever its name: "a:b" would be an address without `file:`.

    Args:
        path: the file.
        options: of FFmpeg's demuxer.
    """
    limits = {"format_whitelist": _DEMUXERS, "protocol_whitelist": "file"}
    return av.open(f"file:{path}", options=limits | (options or {}), metadata_errors="ignore")
