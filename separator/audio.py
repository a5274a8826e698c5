"""Read, check, write, resample and fold audio files: the only module that knows a codec.

libsndfile (soundfile) decodes wav, aiff, flac, mp3, ogg and opus. FFmpeg's libraries (PyAV) decode
m4a, aac, mp4 and the MP3s whose header holds no frame count, for which libsndfile guesses a length.
A slice equals the same slice of the whole: bit for bit (MP3 and Opus to 2e-7, rounding), with one
exception: AAC with noise substitution, which FFmpeg's own encoder uses at moderate bit rates, draws
its noise from the decoder's history, so that there the substituted bands differ. In a 192 kb/s
file half of the slices did, the worst second by -29 dB of the song's power. MUSDB18 has none.
"""

import contextlib
import hashlib
import logging
import math
import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import BinaryIO, Self

import av
import numpy as np
import soundfile
import soxr
import torch
from av import AudioFrame, AudioStream, Packet
from av.container import InputContainer
from torch import Tensor

from separator.atomic import replacing
from separator.errors import SeparatorError

log = logging.getLogger(__name__)

_FORMATS = {
    **{".wav": "wav", ".flac": "flac", ".mp3": "mp3", ".ogg": "ogg", ".opus": "opus"},
    **{".m4a": "m4a", ".aac": "m4a", ".mp4": "m4a", ".aif": "aiff", ".aiff": "aiff"},
}
SUFFIXES = frozenset(_FORMATS)
_CONTAINERS = {"WAVEX": "wav", "RF64": "wav", "W64": "wav"}  # libsndfile's name -> ours
_PREROLL = 0.25  # seconds decoded before a slice: overlapping blocks, SBR, MP3's bit reservoir
_WARM_UP = {"MPEG_LAYER_III": 9216, "OPUS": 3840, "VORBIS": 4096}  # samples, where libsndfile seeks
_SLACK = 4096  # samples that an MP4's declared duration may exceed its decoded length by
_AAC_LAYOUTS = {1: "mono", 2: "stereo", 6: "5.1"}
_MOST_CHANNELS = {"mp3": 2, "flac": 8, "ogg": 8, "opus": 8, "m4a": 6}
_SUBTYPES = {  # the first is the default
    "wav": ("FLOAT", "PCM_16", "PCM_24"),
    "flac": ("PCM_24", "PCM_16"),
    "aiff": ("PCM_24", "PCM_16", "FLOAT"),
}
_RATES = {  # Hz, where the codec allows only some
    "mp3": (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000),
    "opus": (8000, 12000, 16000, 24000, 48000),
    "m4a": (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000, 64000, 88200, 96000),
}
# Vorbis and Opus store L C R Ls Rs LFE; every other format, and this module, L R C LFE Ls Rs
# (RFC 7845 section 5.1.1.2; the values are the stored channel of each of ours).
_XIPH_ORDER = {
    **{3: (0, 2, 1), 5: (0, 2, 1, 3, 4), 6: (0, 2, 1, 5, 3, 4)},
    **{7: (0, 2, 1, 6, 5, 3, 4), 8: (0, 2, 1, 7, 5, 6, 3, 4)},
}
_LAYOUTS = {3: "LRC", 4: "LRlr", 5: "LRClr", 6: "LRCElr", 7: "LRCESlr", 8: "LRCElrlr"}
_FOLD = {  # ITU-R BS.775-3, table 2: the share of a channel in left and right
    **{"L": (1.0, 0.0), "R": (0.0, 1.0), "C": (math.sqrt(0.5), math.sqrt(0.5)), "E": (0.0, 0.0)},
    **{"l": (math.sqrt(0.5), 0.0), "r": (0.0, math.sqrt(0.5)), "S": (0.5, 0.5)},
}


class AudioError(SeparatorError):
    """A file cannot be read or written: one line, "PATH: what is wrong; the fix"."""


@dataclass(frozen=True)
class AudioInfo:
    """What a file holds: samples per channel, rate in Hz, number of audio streams."""

    path: Path
    format: str
    codec: str
    samples: int
    rate: int
    channels: int
    streams: int = 1

    @property
    def seconds(self) -> float:
        """Duration in seconds."""
        return self.samples / self.rate


@dataclass(frozen=True)
class Checked:
    """A decoded file: peak and RMS over its finite samples, number of NaN or Inf samples."""

    info: AudioInfo
    samples: int
    peak: float
    rms: float
    non_finite: int


@contextlib.contextmanager
def _reporting(
    path: Path, fix: str = "the file is damaged: replace or remove it"
) -> Iterator[None]:
    """Turn what codecs and the system raise into an AudioError."""
    try:
        yield
    except (soundfile.LibsndfileError, av.FFmpegError, OSError, AssertionError) as error:
        # soundfile asserts that libsndfile took every sample, which a full disk makes false
        words = getattr(error, "error_string", None) or getattr(error, "strerror", None) or error
        raise AudioError(
            f"{path}: {' '.join(str(words).split()) or 'codec error'}; {fix}"
        ) from error


def probe(path: str | os.PathLike, *, stream: int = 0) -> AudioInfo:
    """Look at a file's header; `samples` is the exact decoded length of audio stream `stream`.

    AAC counts the padding that completes its last block, as FFmpeg's decoder does (at most 2047
    samples more than the container declares).

    Raises:
        AudioError: missing, empty, unsupported, not audio, or a truncated container.
    """
    path = Path(path)
    if _by_ffmpeg(path):
        return _probe_ffmpeg(path, stream)
    _first_stream_only(path, stream)
    with _reporting(path, "not an audio file, or damaged: replace or remove it"):
        header = soundfile.info(str(path))
        opus = header.subtype == "OPUS"
        name = "opus" if opus else _CONTAINERS.get(header.format, header.format.lower())
        if header.frames >= 1 << 48:
            raise AudioError(f"{path}: the header gives no length; fix: encode it again")
        whole = _ogg_is_whole(path) if header.format == "OGG" else _iff_is_whole(path)
    if not whole:
        raise AudioError(f"{path}: truncated, it ends before its header says; replace the file")
    if not header.frames:
        raise AudioError(f"{path}: holds no samples; remove it")
    codec = header.subtype.lower()
    return AudioInfo(path, name, codec, header.frames, header.samplerate, header.channels)


def read(
    path: str | os.PathLike, start: int = 0, samples: int | None = None, *, stream: int = 0
) -> Tensor:
    """Decode (c t) float32 from sample `start`, at the file's rate; shorter only at its end.

    `stream` picks one of several audio streams (.stem.mp4). Nothing is clipped or normalised.

    Raises:
        AudioError: as `probe`, and when decoding fails or ends before the header says.
        ValueError: `start` or `samples` is negative.
    """
    path = Path(path)
    if start < 0 or (samples is not None and samples < 0):
        raise ValueError(f"read: start and samples must not be negative ({start}, {samples})")
    stop = None if samples is None else start + samples
    parts = list(_decode(path, start, stop, 1 << 20, stream))
    if not parts:
        return torch.zeros(probe(path, stream=stream).channels, 0)
    return torch.from_numpy(np.concatenate(parts, axis=1))


def blocks(path: str | os.PathLike, size: int = 1 << 18, *, stream: int = 0) -> Iterator[Tensor]:
    """Decode a whole file in order as (c t) with t = size, the last one shorter.

    Raises:
        AudioError: as `read`; a truncated file raises at the latest where it breaks off.
    """
    path = Path(path)
    probe(path, stream=stream)  # sees a truncated container before anything is handed out
    held: list[np.ndarray] = []
    count = 0
    for part in _decode(path, 0, None, size, stream):
        held.append(part)
        count += part.shape[1]
        if count >= size:
            wave = np.concatenate(held, axis=1)
            cut = count - count % size
            for at in range(0, cut, size):
                yield torch.from_numpy(np.ascontiguousarray(wave[:, at : at + size]))
            held, count = [wave[:, cut:]], count - cut
    if count:
        yield torch.from_numpy(np.concatenate(held, axis=1))


def verify(path: str | os.PathLike) -> Checked:
    """Decode a whole file once and measure it; what it holds is judged by the caller.

    Raises:
        AudioError: the file is broken or truncated (where its format lets that be seen).
    """
    info = probe(path)
    samples, peak, energy, non_finite = 0, 0.0, 0.0, 0
    for block in blocks(path):
        norm = float(torch.linalg.vector_norm(block, dtype=torch.float64))
        if not math.isfinite(norm):
            non_finite += int((~block.isfinite()).sum())
            block = block.nan_to_num(nan=0.0, posinf=0.0, neginf=0.0)
            norm = float(torch.linalg.vector_norm(block, dtype=torch.float64))
        samples += block.shape[1]
        peak = max(peak, float(block.abs().max()))
        energy += norm * norm
    rms = math.sqrt(energy / max(samples * info.channels, 1))
    return Checked(info, samples, peak, rms, non_finite)


def content_key(path: str | os.PathLike) -> str:
    """Return a hash (blake2b, hex) of the coded audio, the same after moving and re-tagging.

    It covers codec, rate, channels and the packets of every audio stream; nothing is decoded.

    Raises:
        AudioError: missing, empty, unsupported, or no audio packets in it.
    """
    path = Path(path)
    _by_ffmpeg(path)
    digest = hashlib.blake2b(digest_size=32)
    found = False
    with _reporting(path), av.open(str(path), metadata_errors="ignore") as container:
        for audio in container.streams.audio:
            context = audio.codec_context
            if context is not None:
                name = context.codec.canonical_name
                digest.update(f"{name} {context.sample_rate} {context.channels};".encode())
        for packet in container.demux(container.streams.audio) if container.streams.audio else ():
            found = found or packet.size > 0
            digest.update(bytes(packet))
    if not found:
        raise AudioError(f"{path}: holds no audio; remove it")
    return digest.hexdigest()


# Reading: which library, and what each does.


def _by_ffmpeg(path: Path) -> bool:
    """Whether FFmpeg rather than libsndfile decodes this file, having refused what neither can."""
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise AudioError(f"{path}: unsupported suffix; use one of {' '.join(sorted(SUFFIXES))}")
    with _reporting(path, "check the name and its permissions"):
        if path.is_dir():
            raise AudioError(f"{path}: is a folder; give an audio file")
        with open(path, "rb") as file:
            if not file.read(1):
                raise AudioError(f"{path}: empty, zero bytes long; remove it")
            return _FORMATS[suffix] == "m4a" or (suffix == ".mp3" and not _counts_frames(file))


def _counts_frames(file: BinaryIO) -> bool:
    """Whether an MP3's first frame says how many frames follow (Xing or Info header)."""
    file.seek(0)
    head = file.read(10)
    length = 0
    if head[:3] == b"ID3":  # a tag; its length in four bytes of seven bits
        length = 10 + sum(byte << 7 * (3 - i) for i, byte in enumerate(head[6:]))
    file.seek(length)
    first = file.read(4096)
    at = max(first.find(b"Xing"), first.find(b"Info"))
    return at >= 0 and bool(first[at + 7] & 1)


def _iff_is_whole(path: Path) -> bool:
    """Whether a RIFF or AIFF file is as long as its sound chunk says; True for other files."""
    with open(path, "rb") as file:
        order = {b"RIFF": "<", b"FORM": ">"}.get(file.read(12)[:4])
        while order and len(head := file.read(8)) == 8:
            name, length = struct.unpack(f"{order}4sI", head)
            if name in (b"data", b"SSND"):  # a writer into a pipe leaves 0 or about the maximum
                unknown = length == 0 or length >= 0x7FFFF000
                return unknown or file.tell() + length <= path.stat().st_size
            file.seek(length + length % 2, os.SEEK_CUR)
    return True


def _ogg_pages(path: Path) -> list[bytes]:
    """Return the last few Ogg pages (RFC 3533), the last one to the end of the file."""
    with open(path, "rb") as file:
        file.seek(max(path.stat().st_size - 3 * 65536, 0))  # a page is at most 65307 bytes
        return [b"OggS" + page for page in file.read().split(b"OggS")[1:] if len(page) > 23]


def _ogg_is_whole(path: Path) -> bool:
    """Whether the last Ogg page is complete and marked as the end of the stream."""
    page = (_ogg_pages(path) or [b""])[-1]
    size = 27 + page[26] + sum(page[27 : 27 + page[26]]) if page else 1
    return len(page) >= size and bool(page[5] & 4)


def _seek_point(path: Path, file: soundfile.SoundFile, start: int) -> int:
    """Return the sample to decode from so that sample `start` comes out as in a whole decode."""
    if file.subtype == "VORBIS":  # seeks into the last page land up to a block off in libvorbis
        ends = [int.from_bytes(page[6:14], "little", signed=True) for page in _ogg_pages(path)]
        ends = [end for end in ends if end >= 0] or [0]
        last_page = ends[-1] - ends[-2] if len(ends) > 1 else file.frames
        start = min(start, file.frames - last_page)
    return max(start - _WARM_UP.get(file.subtype, 0), 0)


def _decode(
    path: Path, start: int, stop: int | None, size: int, stream: int
) -> Iterator[np.ndarray]:
    """Samples [start, stop) in order, in parts (c t) of at most about `size`."""
    if _by_ffmpeg(path):
        with _reporting(path):
            yield from _decode_ffmpeg(path, start, stop, stream)
        return
    _first_stream_only(path, stream)
    with _reporting(path), _Forward(str(path)) as file:
        stop = file.frames if stop is None else min(stop, file.frames)
        order = _xiph_order(file.format, file.channels)
        at = _seek_point(path, file, start) if start else 0
        if 0 < at < stop:
            file.seek(at)
        while at < stop and start < stop:
            wanted = min(max(size, start - at + 1), stop - at)
            part = file.read(wanted, dtype="float32", always_2d=True)
            if len(part) < wanted:
                raise AudioError(
                    f"{path}: truncated or damaged, sound ends after {at + len(part)} of "
                    f"{file.frames} samples; replace the file"
                )
            wave = part[max(start - at, 0) :].T
            at += len(part)
            yield np.ascontiguousarray(wave if order is None else wave[list(order)])


class _Forward(soundfile.SoundFile):
    """A file that is not sought after each read and write, which soundfile does by itself.

    In MP3 each of those seeks loses what the decoder knew: up to 0.2 wrong for 300 samples.
    """

    def seekable(self) -> bool:
        return False


def _first_stream_only(path: Path, stream: int) -> None:
    if stream:
        raise AudioError(f"{path}: has 1 audio stream, stream {stream} was asked for; use 0")


def _xiph_order(format: str, channels: int) -> tuple[int, ...] | None:
    """Return which stored channel each of ours is, or None where they are in order."""
    return _XIPH_ORDER.get(channels) if format == "OGG" else None


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


def _probe_ffmpeg(path: Path, stream: int) -> AudioInfo:
    with _reporting(path), _demuxer(path, stream) as (container, audio):
        context, count = audio.codec_context, len(container.streams.audio)
        rate, channels, codec = context.sample_rate, context.channels, context.codec.canonical_name
        name = "mp3" if codec == "mp3" else "m4a"
        declared = _declared(container, audio)
        if declared is None:
            ticks = sum(packet.duration or 0 for packet in container.demux(audio))
            samples = round(ticks * audio.time_base * rate)
    if declared is not None:  # only the last blocks tell how much padding comes after
        near = max(declared - rate // 2, 0)
        with _reporting(path):
            samples = near + sum(x.shape[1] for x in _decode_ffmpeg(path, near, None, stream))
    if not samples:
        raise AudioError(f"{path}: holds no samples; remove it")
    return AudioInfo(path, name, codec, samples, rate, channels, count)


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


def _decode_ffmpeg(
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
                    yield from _decode_ffmpeg(path, start, stop, stream, seek=False)
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


def _samples(frame: AudioFrame) -> np.ndarray:
    """One decoded frame as (c t) float32, integers scaled to ±1."""
    wave = frame.to_ndarray()
    if not frame.format.is_planar:
        wave = wave.reshape(-1, frame.layout.nb_channels).T
    if wave.dtype.kind == "u":
        return (wave.astype(np.float32) - 128.0) / 128.0
    scale = -float(np.iinfo(wave.dtype).min) if wave.dtype.kind == "i" else 1.0
    return (wave / scale).astype(np.float32, copy=False)


# Rates and channels.


def resample(wave: Tensor, from_rate: int, to_rate: int) -> Tensor:
    """Change the rate of (… t) float32 to (… ceil(t * to_rate / from_rate)); soxr, quality HQ.

    The same samples as a `Resampler` gives; equal rates return `wave` itself.
    """
    if from_rate == to_rate:
        return wave
    flat = wave.detach().reshape(math.prod(wave.shape[:-1]), wave.shape[-1]).cpu()
    stream = Resampler(from_rate, to_rate, flat.shape[0])
    out = torch.cat([stream.push(flat), stream.flush()], dim=1)
    return out.reshape(*wave.shape[:-1], out.shape[1]).to(wave.device)


class Resampler:
    """Change the rate of a stream; the outputs together equal `resample` of the whole."""

    def __init__(self, from_rate: int, to_rate: int, channels: int) -> None:
        self.from_rate, self.to_rate, self.channels = from_rate, to_rate, channels
        self._taken = self._given = 0
        self._soxr = None
        if from_rate != to_rate:
            self._soxr = soxr.ResampleStream(
                from_rate, to_rate, channels, dtype="float32", quality="HQ"
            )

    def push(self, wave: Tensor) -> Tensor:
        """Take (c t) float32 and return what is ready of the output (c t'), perhaps nothing."""
        if self._soxr is None:
            return wave
        self._taken += wave.shape[-1]
        return self._run(wave, last=False)

    def flush(self) -> Tensor:
        """Return the rest of the output (c t'); the stream is over."""
        if self._soxr is None:
            return torch.zeros(self.channels, 0)
        # soxr rounds the length down; a little silence after the end makes it a sample longer
        silence = torch.zeros(self.channels, 4 * (self.from_rate // self.to_rate + 1))
        total = -(-self._taken * self.to_rate // self.from_rate)
        return self._run(silence, last=True)[:, : total - self._given]

    def _run(self, wave: Tensor, last: bool) -> Tensor:
        out = self._soxr.resample_chunk(np.ascontiguousarray(wave.numpy().T), last=last)
        self._given += len(out)
        return torch.from_numpy(np.ascontiguousarray(out.T))


def to_channels(wave: Tensor, channels: int) -> Tensor:
    """Turn (c t) into one or two channels: (channels t).

    Mono is doubled; stereo becomes mono as the mean of the two; 3 to 8 channels (L R C LFE Ls Rs
    and its subsets, 6.1 with the centre surround before the sides, 7.1) are folded to stereo with
    the weights of ITU-R BS.775-3, not normalised, the LFE left out.

    Raises:
        AudioError: more than 8 channels, whose layout is not known.
    """
    if channels not in (1, 2):
        raise ValueError(f"to_channels: channels is 1 or 2, not {channels}")
    have = wave.shape[0]
    if have == channels:
        return wave
    if have == 1:
        return wave.repeat(2, 1)
    if have > 2:
        if have not in _LAYOUTS:
            raise AudioError(f"{have} channels: only 1 to 8 are known; mix down to stereo first")
        weights = torch.tensor([_FOLD[name] for name in _LAYOUTS[have]], dtype=wave.dtype)
        wave = weights.T.to(wave.device) @ wave
    return wave if channels == 2 else wave.mean(dim=0, keepdim=True)


# Writing.


class Writer:
    """Write a stream of (c t) float32 to a file that appears, whole, when the block ends well.

    `format` is one of wav, flac, mp3, ogg, opus, m4a, aiff (default: by the suffix). `subtype`:
    FLOAT (wav's default), PCM_24 (flac's and aiff's), PCM_16. `bitrate` in kb/s: mp3 is VBR V0
    unless given, ogg about 256, opus 192, m4a 256. Rates that the codec cannot hold are resampled
    to the next one that it can, with a logged notice; `rate` stays what `write` takes.

    PCM is rounded without dither (a read and a write give the same integers); samples beyond ±1
    are set to ±1 there and counted in `clipped`. FLOAT and the lossy formats keep them.

    Raises:
        AudioError: an unknown format, channels or bit rate that it cannot hold, NaN or Inf in
            `write` (FLOAT keeps them), nothing written, or the disk is full.
    """

    def __init__(
        self,
        path: str | os.PathLike,
        rate: int,
        channels: int,
        *,
        format: str | None = None,
        subtype: str | None = None,
        bitrate: int | None = None,
    ) -> None:
        self.path, self.rate, self.channels, self.bitrate = Path(path), rate, channels, bitrate
        self.format = format or _FORMATS.get(self.path.suffix.lower(), "")
        self.subtype = subtype or _SUBTYPES.get(self.format, ("",))[0]
        self.clipped = self.samples = 0
        self._check()
        self.file_rate = _legal_rate(self.format, rate)
        if self.file_rate != rate:
            log.warning(
                "%s: %s cannot hold %d Hz, resampled to %d Hz",
                path,
                self.format,
                rate,
                self.file_rate,
            )

    def _check(self) -> None:
        known = {*_FORMATS.values()}
        if self.format not in known:
            raise AudioError(f"{self.path}: unknown format; use one of {' '.join(sorted(known))}")
        if self.format == "m4a" and self.path.suffix.lower() == ".aac":
            raise AudioError(f"{self.path}: raw AAC cannot record its delay; use .m4a")
        if self.subtype not in _SUBTYPES.get(self.format, (self.subtype,)):
            allowed = " ".join(_SUBTYPES[self.format])
            raise AudioError(f"{self.path}: {self.format} has no {self.subtype}; use {allowed}")
        most = _MOST_CHANNELS.get(self.format, 1 << 10)
        if self.channels > most or (self.format == "m4a" and self.channels not in _AAC_LAYOUTS):
            raise AudioError(
                f"{self.path}: {self.format} cannot hold {self.channels} channels; "
                "fold to stereo or write wav"
            )
        if self.bitrate is not None and not 32 <= self.bitrate <= 512:
            raise AudioError(f"{self.path}: bitrate {self.bitrate}: give 32 to 512 (kb/s)")

    def __enter__(self) -> Self:
        """Open a temporary file beside the final one."""
        self._resampler = Resampler(self.rate, self.file_rate, self.channels)
        with contextlib.ExitStack() as stack, _reporting(self.path, "check the folder"):
            self._temporary = stack.enter_context(replacing(self.path))
            sink = _AacSink if self.format == "m4a" else _SoundfileSink
            self._sink = sink(
                self._temporary,
                self.file_rate,
                self.channels,
                self.format,
                self.subtype,
                self.bitrate,
            )
            stack.push(self._finish)
            self._stack = stack.pop_all()
        return self

    def write(self, wave: Tensor) -> None:
        """Append (c t) float32 at `rate`."""
        if wave.ndim != 2 or wave.shape[0] != self.channels:
            raise ValueError(f"{self.path}: expected ({self.channels}, t), got {tuple(wave.shape)}")
        with _reporting(self.path, "free some disk space"):
            self._put(self._resampler.push(wave.detach().float().cpu()))

    def _put(self, wave: Tensor) -> None:
        if self.subtype != "FLOAT" and not bool(wave.isfinite().all()):
            raise AudioError(f"{self.path}: the sound to write has NaN or Inf; nothing is written")
        if self.subtype.startswith("PCM"):
            self.clipped += int((wave.abs() > 1).sum())
        self.samples += wave.shape[1]
        if wave.shape[1]:
            self._sink.write(wave.numpy())

    def _finish(self, kind: type[BaseException] | None, *_: object) -> None:
        """Write what is pending, close, and make sure that all of it is there."""
        try:
            if kind is None:
                self._put(self._resampler.flush())
        finally:
            self._sink.close()
        if kind is not None:
            return
        if not self.samples:
            raise AudioError(f"{self.path}: nothing to write, 0 samples; nothing is written")
        if self.subtype and soundfile.info(str(self._temporary)).frames != self.samples:
            raise AudioError(f"{self.path}: could not be written whole; free some disk space")

    def __exit__(self, *exception: object) -> bool | None:
        """Complete the file and give it its name; on an exception leave nothing."""
        with _reporting(self.path, "free some disk space"):
            return self._stack.__exit__(*exception)


def _legal_rate(format: str, rate: int) -> int:
    """Return the lowest rate of the format that loses no band, or its highest."""
    legal = _RATES.get(format, (rate,))
    return min((one for one in legal if one >= rate), default=legal[-1])


def _quality(format: str, rate: int, channels: int, bitrate: int | None) -> dict[str, object]:
    """Express a bit rate as libsndfile's compression level, 0 (best) to 1."""
    if format == "mp3" and bitrate is None:
        return {"bitrate_mode": "VARIABLE", "compression_level": 0.0}
    if format == "mp3":  # linear between the least and most that the MPEG version allows
        low, high = (32, 320) if rate >= 32000 else (8, 160) if rate >= 16000 else (8, 64)
        level, mode = (high - bitrate) / (high - low), "CONSTANT"
        return {"bitrate_mode": mode, "compression_level": min(max(level, 0.0), 0.9)}
    if format == "opus":  # libsndfile: 6 to 256 kb/s a channel
        return {"compression_level": min(max(1 - ((bitrate or 192) / channels - 6) / 250, 0), 1)}
    if format == "ogg":  # Vorbis I: nominal rates of quality 0 to 10, stereo
        nominal = (64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 500)
        return {"compression_level": 1 - float(np.interp(bitrate or 256, nominal, range(11))) / 10}
    return {}


class _SoundfileSink:
    """Everything but AAC."""

    def __init__(
        self, path: Path, rate: int, channels: int, format: str, subtype: str, bitrate: int | None
    ) -> None:
        container = "OGG" if format in ("ogg", "opus") else format.upper()
        coding = {"ogg": "VORBIS", "opus": "OPUS", "mp3": "MPEG_LAYER_III"}.get(format, subtype)
        quality = _quality(format, rate, channels, bitrate)
        self._bits = int(coding[4:]) if coding.startswith("PCM_") else 0
        order = _xiph_order(container, channels)
        self._order = None if order is None else np.argsort(order)
        self._file = _Forward(
            str(path), "w", rate, channels, subtype=coding, format=container, **quality
        )

    def write(self, wave: np.ndarray) -> None:
        if self._order is not None:
            wave = wave[self._order]
        for at in range(0, wave.shape[1], 8192):  # libsndfile's Vorbis puts a block on the stack
            part = wave[:, at : at + 8192].T
            if (
                self._bits
            ):  # libsndfile scales by 2^n - 1, which would change integers that were read
                full = 1 << (self._bits - 1)
                part = np.clip(np.rint(part * full), -full, full - 1).astype(np.int32)
                part <<= 32 - self._bits
            self._file.write(np.ascontiguousarray(part))

    def close(self) -> None:
        self._file.close()


class _AacSink:
    """AAC in an MP4 whose edit list removes the encoder's delay.

    Without noise substitution, so that slices of the file can be read back exactly.
    """

    def __init__(
        self, path: Path, rate: int, channels: int, format: str, subtype: str, bitrate: int | None
    ) -> None:
        self._rate, self._layout, self._at = rate, _AAC_LAYOUTS[channels], 0
        self._container = av.open(str(path), "w", format="mp4")
        self._stream = self._container.add_stream(
            "aac", rate=rate, layout=self._layout, options={"aac_pns": "0"}
        )
        self._stream.bit_rate = (bitrate or 256) * 1000

    def write(self, wave: np.ndarray) -> None:
        wave = np.ascontiguousarray(wave)
        frame = AudioFrame.from_ndarray(wave, format="fltp", layout=self._layout)
        frame.sample_rate, frame.time_base, frame.pts = (
            self._rate,
            Fraction(1, self._rate),
            self._at,
        )
        self._at += wave.shape[1]
        self._container.mux(self._stream.encode(frame))

    def close(self) -> None:
        try:
            if self._at:
                self._container.mux(self._stream.encode(None))
        finally:
            self._container.close()
