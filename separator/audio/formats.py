"""The table of audio formats.

An output format is a row of `FORMATS` with an `Encoding`: no other code depends on which there
are. Commands list the formats in their help, so this module imports no codec.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from separator.ranges import MAX_RATE


def mp3_options(rate: int, channels: int, bitrate: int | None) -> dict[str, Any]:
    """Return options of libsndfile for MP3: VBR of the best quality where no bit rate is given.

    Args:
        rate: in Hz.
        channels: 1 or 2.
        bitrate: in kb/s.
    """
    if bitrate is None:
        return {"bitrate_mode": "VARIABLE", "compression_level": 0.0}
    # linear between the lowest and highest bit rate of the MPEG version
    low, high = (32, 320) if rate >= 32000 else (8, 160) if rate >= 16000 else (8, 64)
    # frames of a low constant rate are too small for the header that records the delay
    mode = "CONSTANT" if bitrate >= 64 else "AVERAGE"
    level = min(max((high - bitrate) / (high - low), 0.0), 0.9999)  # libsndfile refuses 1
    return {"bitrate_mode": mode, "compression_level": level}


def opus_options(rate: int, channels: int, bitrate: int | None) -> dict[str, Any]:
    """Return options of libsndfile for Opus, 192 kb/s by default.

    Args:
        rate: in Hz.
        channels: 1 or 2.
        bitrate: in kb/s.
    """
    per_channel = (bitrate or 192) / channels  # libsndfile: 6 to 256 kb/s
    return {"compression_level": min(max(1 - (per_channel - 6) / 250, 0), 1)}


def vorbis_options(rate: int, channels: int, bitrate: int | None) -> dict[str, Any]:
    """Return options of libsndfile for Vorbis, 256 kb/s by default.

    Args:
        rate: in Hz.
        channels: 1 or 2.
        bitrate: in kb/s.
    """
    import numpy as np

    nominal = (64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 500)  # of quality 0 to 10, stereo
    return {"compression_level": 1 - float(np.interp(bitrate or 256, nominal, range(11))) / 10}


def aac_options(rate: int, channels: int, bitrate: int | None) -> dict[str, Any]:
    """Return options of `encoders.AacEncoder`, 256 kb/s by default.

    Args:
        rate: in Hz.
        channels: 1 or 2.
        bitrate: in kb/s.
    """
    return {"bit_rate": (bitrate or 256) * 1000}


@dataclass(frozen=True)
class Encoding:
    """The way in which a format is written.

    Attributes:
        encoder: a key of `encoders.ENCODERS`.
        container: as the encoder calls it.
        codec: as the encoder calls it; "" where the sample format is the codec.
        options: returns the encoder's options for a rate (Hz), channels and bit rate (kb/s or
            None); only lossy formats have a bit rate.
        subtypes: sample formats of a lossless format, the default first.
        requested_subtypes: sample formats that are written only where the user asks for them.
        rates: sampling rates in Hz, where the codec has only some.
        max_rate: highest sampling rate in Hz.
        long_container: container of more sound than 32 bits count, in bytes; "" where there is
            none, None where the format has no such limit.
        tagged: whether results get tags; many players do not read those of wav and aiff.
        streams: whether a file holds several sounds: the mixture and the stems of a song.
    """

    encoder: str
    container: str
    codec: str = ""
    options: Callable[[int, int, int | None], dict[str, Any]] | None = None
    subtypes: tuple[str, ...] = ()
    requested_subtypes: tuple[str, ...] = ()
    rates: tuple[int, ...] = ()
    max_rate: int = MAX_RATE
    long_container: str | None = None
    tagged: bool = True
    streams: bool = False


@dataclass(frozen=True)
class Format:
    """A format that can be read.

    Attributes:
        name: as in `AudioInfo.format`, and the suffix of results without its dot.
        suffixes: file name endings.
        also: endings that are read but not written.
        encoding: how it is written; None where it is read only.
    """

    name: str
    suffixes: tuple[str, ...]
    also: tuple[str, ...] = ()
    encoding: Encoding | None = None


STEMS = "stem.mp4"
_MP3_RATES = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000)
_OPUS_RATES = (8000, 12000, 16000, 24000, 48000)
_AAC_RATES = (*_MP3_RATES, 64000, 88200, 96000)
_WAV = Encoding(
    encoder="soundfile",
    container="WAV",
    subtypes=("FLOAT", "PCM_16", "PCM_24"),
    long_container="RF64",
    tagged=False,
)
_FLAC = Encoding("soundfile", "FLAC", subtypes=("PCM_24", "PCM_16"), max_rate=655_350)
_MP3 = Encoding("soundfile", "MP3", "MPEG_LAYER_III", mp3_options, rates=_MP3_RATES)
# above this rate libsndfile's Vorbis encoder ends the process
_VORBIS = Encoding("soundfile", "OGG", "VORBIS", vorbis_options, max_rate=200_000)
_OPUS = Encoding("soundfile", "OGG", "OPUS", opus_options, rates=_OPUS_RATES)
_AAC = Encoding("aac", "mp4", "aac", aac_options, rates=_AAC_RATES)
# of the brand "M4A ", as the files of Native Instruments are
_STEMS = Encoding("aac", "ipod", "aac", aac_options, rates=_AAC_RATES, streams=True)
_AIFF = Encoding(
    encoder="soundfile",
    container="AIFF",
    subtypes=("PCM_24", "PCM_16"),
    requested_subtypes=("FLOAT",),
    long_container="",
    tagged=False,
)
FORMATS = {
    row.name: row
    for row in (
        Format("wav", (".wav", ".wave"), (".w64", ".rf64"), _WAV),
        Format("flac", (".flac",), (), _FLAC),
        Format("mp3", (".mp3",), (".mp2", ".mpga"), _MP3),
        Format("ogg", (".ogg", ".oga"), (), _VORBIS),
        Format("opus", (".opus",), (), _OPUS),
        Format("m4a", (".m4a", ".mp4", ".m4b"), (".aac", ".mov", ".m4v", ".alac", ".3gp"), _AAC),
        Format("aiff", (".aiff", ".aif"), (".aifc",), _AIFF),
        Format(STEMS, (), (), _STEMS),
        Format("caf", (".caf",)),
        Format("wma", (".wma", ".asf")),
        Format("ape", (".ape",)),
        Format("wavpack", (".wv",)),
        Format("matroska", (".mka", ".mkv", ".webm")),
        Format("tta", (".tta",)),
        Format("tak", (".tak",)),
        Format("musepack", (".mpc",)),
        Format("dsd", (".dsf",)),
        Format("ac3", (".ac3", ".eac3")),
        Format("dts", (".dts",)),
        Format("au", (".au", ".snd")),
    )
}
_BY_SUFFIX = {suffix: row.name for row in FORMATS.values() for suffix in row.suffixes + row.also}
SUFFIXES = frozenset(_BY_SUFFIX)
_WRITTEN = {row.name: row.encoding for row in FORMATS.values() if row.encoding}
ENCODINGS = {name: encoding for name, encoding in _WRITTEN.items() if not encoding.streams}
RESULT_FORMATS = tuple(_WRITTEN)  # those of one sound, and of several
# What keeps its picture is written into a container of the song's kind, with the sound in a format
# that has no delay there, or one that the container removes.
VIDEO_SOUND = {"mp4": "m4a", "mov": "m4a", "mkv": "flac", "webm": "opus"}


def format_of(path: Path) -> str:
    """Return the format that a file's suffix stands for, or "".

    Args:
        path: the file.
    """
    return _BY_SUFFIX.get(path.suffix.lower(), "")


def has_picture(result: Path) -> bool:
    """Return whether a result is a video.

    Args:
        result: its path; sound alone never has these suffixes.
    """
    return result.suffix[1:] in VIDEO_SOUND and not result.name.endswith(f".{STEMS}")


def sound_format(result: Path) -> str:
    """Return the format of a result's sound, whatever is in the file beside it.

    Args:
        result: its path.
    """
    if result.name.endswith(f".{STEMS}"):
        return STEMS
    return VIDEO_SOUND.get(result.suffix[1:]) or format_of(result)


def encoding_of(suffix: str) -> Encoding:
    """Return how the sound of a result is written.

    Args:
        suffix: of the result, without its dot: a format of `RESULT_FORMATS` or a video's.
    """
    encoding = FORMATS[sound_format(Path(f"result.{suffix}"))].encoding
    assert encoding
    return encoding


def written_as(format: str) -> str:
    """Return the format in which results of a file of `format` can be written."""
    return format if format in ENCODINGS else "flac"
