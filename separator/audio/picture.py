"""The picture of videos: copied, as it is coded, beside a new sound."""

import heapq
import logging
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
from av import Packet, VideoStream
from av.container import InputContainer, OutputContainer
from av.stream import Disposition, Stream

from separator.atomic import replacing
from separator.audio.demuxer import demuxer, opened
from separator.audio.info import AudioInfo, reporting
from separator.audio.tag_reader import is_of_the_sound
from separator.errors import printable

log = logging.getLogger(__name__)


def video_container(info: AudioInfo) -> str:
    """Return the suffix, without its dot, of a result that keeps a file's picture.

    Args:
        info: the file.

    Returns:
        "" for a file without a picture that moves.
    """
    kinds = {"m4a": ("mp4", "mov"), "matroska": ("mkv", "webm")}.get(info.format, ())
    if not kinds:
        return ""
    with reporting(info.path), opened(info.path) as container:
        moving = _moving(container)
    suffix = info.path.suffix[1:].lower()
    return (suffix if suffix in kinds else kinds[0]) if moving else ""


def add_picture(sound: Path, video: Path) -> None:
    """Replace a sound file by a video of a file's picture, as it is, and that sound.

    The times of both are kept: the sound begins where the file's own does. Subtitles, chapters and
    fonts are kept, too; other sounds are left out, since players choose one by its language.

    Args:
        sound: the file, of as many samples as the video's sound has; its suffix says which
            container it becomes.
        video: the file with the picture.

    Raises:
        AudioError: the picture cannot be read.
    """
    start, suffix = _start(video), sound.suffix[1:]
    form = "matroska" if suffix == "mkv" else suffix
    # mp4 counts the time before a stream in units of its own, by default in milliseconds
    options = {"movie_timescale": "48000"} if suffix in ("mp4", "mov") else {}
    with (
        replacing(sound) as target,
        reporting(video),
        opened(video) as pictured,
        opened(sound) as heard,
        av.open(f"file:{target}", "w", format=form, options=options) as made,
    ):
        texts = {key: text for key, text in pictured.metadata.items() if not is_of_the_sound(key)}
        made.metadata.update(texts)
        made.set_chapters(pictured.chapters())
        places: dict[Stream, Stream] = {s: _copied(s, made) for s in _moving(pictured)}
        for stream in pictured.streams.subtitles:
            try:
                places[stream] = _copied(stream, made)
            except ValueError as error:  # a kind that FFmpeg, or the container, does not know
                log.warning("%s: subtitles are left out: %s", printable(str(video)), error)
        kept = list(places)
        for font in pictured.streams.attachments:
            made.add_stream_from_template(font)
        track = heard.streams.audio[0]
        places[track] = made.add_stream_from_template(track)
        if language := pictured.streams.audio[0].language:
            places[track].metadata["language"] = language
        pictures, sounds = _packets(pictured, kept, Fraction(0)), _packets(heard, [track], start)
        for packet in heapq.merge(pictures, sounds, key=_time):
            packet.stream = places[packet.stream]
            made.mux(packet)


def _moving(container: InputContainer) -> list[VideoStream]:
    """Streams of a moving picture, not of a cover."""
    return [s for s in container.streams.video if not s.disposition & Disposition.attached_pic]


def _copied(stream: Stream, made: OutputContainer) -> Stream:
    """Add a stream like another one, with its language, its title and when it is shown."""
    copy = made.add_stream_from_template(stream, opaque=True)  # needs no encoder, as of AV1
    copy.disposition = stream.disposition.value
    for key in stream.metadata.keys() & {"language", "title"}:
        copy.metadata[key] = stream.metadata[key]
    if stream.codec_context.codec_tag == "hvc1":  # Apple's players know no other tag of HEVC
        copy.codec_context.codec_tag = "hvc1"
    return copy


def _start(path: Path) -> Fraction:
    """Time of the first sample, in seconds."""
    with reporting(path), demuxer(path, 0, {}) as (container, audio):
        frame = next(container.decode(audio))
        return Fraction(0) if frame.pts is None else frame.pts * frame.time_base


def _packets(container: InputContainer, streams: list[Stream], later: Fraction) -> Iterator[Packet]:
    """Yield the packets of streams, later by so many seconds.

    Packets that end before 0 are for the decoder to settle, and would be heard if they were later.
    """
    for packet in container.demux(streams):
        if packet.pts is None and packet.dts is None:  # the end
            continue
        if later > 0 and packet.pts is not None and packet.pts + (packet.duration or 0) <= 0:
            continue
        shift = round(later / packet.time_base)
        packet.pts = packet.pts if packet.pts is None else packet.pts + shift
        packet.dts = packet.dts if packet.dts is None else packet.dts + shift
        yield packet


def _time(packet: Packet) -> Fraction:
    return (packet.pts if packet.dts is None else packet.dts) * packet.time_base
