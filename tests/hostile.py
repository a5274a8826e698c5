"""A folder of over a hundred odd files, each with what the commands are to make of it."""

import io
import os
import socket
import struct
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
import soundfile

RATE, SECONDS = 44100, 3.0


@dataclass(frozen=True)
class Expected:
    """What becomes of a file.

    Attributes:
        seconds: its length where it is sound, else None.
        kind: "sound", "silent" (sound that holds nothing to learn from) or "refused".
        slack: seconds by which its length may differ: codecs pad, damage costs.
    """

    seconds: float | None
    kind: str = "sound"
    slack: float = 0.1


REFUSED = Expected(None, "refused")


def music(
    seconds: float = SECONDS, channels: int = 2, rate: int = RATE, seed: int = 0
) -> np.ndarray:
    """Return tones and noise (t c), unlike for each seed."""
    noise = np.random.default_rng(seed).normal(0, 0.05, (round(seconds * rate), channels))
    times = np.arange(len(noise))[:, None] / rate
    tones = 0.2 * np.sin(2 * np.pi * (200 + 37 * seed + 110 * np.arange(channels)) * times)
    return (noise + tones).astype("f4")


def encoded(
    format: str, codec: str, wave: np.ndarray, rate: int = RATE, layout: str = "stereo", **options
) -> bytes:
    """Encode samples (t c) with FFmpeg's libraries."""
    target = io.BytesIO()
    with av.open(target, "w", format=format, options=options.pop("container", {})) as container:
        stream = container.add_stream(codec, rate=rate, layout=layout, options=options)
        stream.bit_rate = 192_000
        stream.codec_context.open()
        resampler = av.AudioResampler(
            stream.format, layout, rate, stream.codec_context.frame_size or 1024
        )
        frame = av.AudioFrame.from_ndarray(
            np.ascontiguousarray(wave.reshape(1, -1)), format="flt", layout=layout
        )
        frame.sample_rate, frame.pts = rate, 0
        for part in [*resampler.resample(frame), *resampler.resample(None)]:
            container.mux(stream.encode(part))
        container.mux(stream.encode(None))
    return target.getvalue()


def pcm(wave: np.ndarray, rate: int = RATE, format: str = "WAV", subtype: str = "PCM_16") -> bytes:
    """Encode samples (t c) with libsndfile."""
    target = io.BytesIO()
    soundfile.write(target, wave, rate, subtype, format=format)
    return target.getvalue()


def vorbis(wave: np.ndarray) -> bytes:
    """Encode samples (t c) as Ogg Vorbis, in blocks: libsndfile puts each on the stack."""
    target = io.BytesIO()
    with soundfile.SoundFile(
        target, "w", RATE, wave.shape[1], subtype="VORBIS", format="OGG"
    ) as file:
        for at in range(0, len(wave), 8192):
            file.write(wave[at : at + 8192])
    return target.getvalue()


def wav_with(**fields: int) -> bytes:
    """Make a 16-bit wav whose header says what it is told instead of the truth."""
    wave = (music() * 32767).astype("<i2").tobytes()
    told = {
        "riff": 36 + len(wave), "tag": 1, "channels": 2, "rate": RATE, "bits": 16,
        "data": len(wave),
    } | fields  # fmt: skip
    block = told["channels"] * told["bits"] // 8
    return (
        b"RIFF" + struct.pack("<I", told["riff"] & 0xFFFFFFFF) + b"WAVEfmt "
        + struct.pack(
            "<IHHIIHH", 16, told["tag"], told["channels"] & 0xFFFF, told["rate"] & 0xFFFFFFFF,
            told["rate"] * block & 0xFFFFFFFF, block & 0xFFFF, told["bits"],
        )
        + b"data" + struct.pack("<I", told["data"] & 0xFFFFFFFF) + wave
    )  # fmt: skip


def patched(data: bytes, at: int, new: bytes) -> bytes:
    """Overwrite bytes; a place below 0 counts from the end."""
    at %= len(data)
    return data[:at] + new + data[at + len(new) :]


def formats() -> dict[str, tuple[bytes, Expected]]:
    """Whole files of every kind that is taken."""
    wave = music()
    whole = Expected(SECONDS)
    files = {
        f"pcm {subtype}.{suffix}": (pcm(wave, format=format, subtype=subtype), whole)
        for suffix, format, subtypes in (
            ("wav", "WAV", "PCM_U8 PCM_16 PCM_24 PCM_32 FLOAT DOUBLE ULAW ALAW IMA_ADPCM"),
            ("wav", "WAVEX", "PCM_16 FLOAT"),
            ("flac", "FLAC", "PCM_S8 PCM_16 PCM_24"),
            ("aiff", "AIFF", "PCM_16 PCM_24 FLOAT"),
            ("w64", "W64", "PCM_16"),
            ("caf", "CAF", "PCM_16"),
        )
        for subtype in subtypes.split()
    }
    for name, format, codec in (
        ("a.mp3", "mp3", "libmp3lame"), ("a.m4a", "ipod", "aac"), ("a.m4b", "ipod", "aac"),
        ("a.aac", "adts", "aac"), ("alac.m4a", "ipod", "alac"), ("a.mp4", "mp4", "aac"),
        ("flac.ogg", "ogg", "flac"),
        ("a.wma", "asf", "wmav2"), ("a.wv", "wv", "wavpack"), ("a.mka", "matroska", "flac"),
        ("a.mkv", "matroska", "aac"), ("a.mov", "mov", "aac"), ("a.mp2", "mp2", "mp2"),
        ("a.aifc", "aiff", "pcm_s16be"),
    ):  # fmt: skip
        files[name] = encoded(format, codec, wave), whole
    at48 = music(rate=48000)
    files["a.ogg"] = files["a.oga"] = vorbis(wave), whole
    files["a.opus"] = encoded("ogg", "libopus", at48, 48000), whole
    files["a.webm"] = encoded("webm", "libopus", at48, 48000), whole
    return files


def shapes() -> dict[str, tuple[bytes, Expected]]:
    """Odd rates, channels, levels and lengths."""
    files: dict[str, tuple[bytes, Expected]] = {}
    for rate in (1000, 8000, 11025, 96000, 192000, 768000):
        files[f"rate {rate}.wav"] = pcm(music(rate=rate), rate), Expected(SECONDS)
    for channels in (1, 3, 4, 5, 6, 7, 8):
        files[f"channels {channels}.flac"] = (
            pcm(music(channels=channels), format="FLAC"), Expected(SECONDS),
        )  # fmt: skip
    files["channels 9.wav"] = pcm(music(channels=9)), REFUSED
    files["over full scale.wav"] = pcm(music() * 20, subtype="FLOAT"), Expected(SECONDS)
    files["offset.wav"] = pcm(music() * 0.1 + 0.5), Expected(SECONDS)
    files["tiny numbers.wav"] = (
        pcm(music() * 1e-40, subtype="FLOAT"), Expected(SECONDS, "silent"),
    )  # fmt: skip
    files["silence.flac"] = pcm(music() * 0, format="FLAC"), Expected(SECONDS, "silent")
    files["one sample.wav"] = pcm(music()[:1]), Expected(1 / RATE, slack=0.0)
    files["ten milliseconds.wav"] = pcm(music(0.01)), Expected(0.01, slack=0.0)
    files["no samples.wav"] = pcm(music()[:0]), REFUSED
    for name, value in (("nan", np.nan), ("inf", np.inf)):
        wave = music()
        wave[1000:1010] = value
        files[f"{name}.wav"] = pcm(wave, subtype="FLOAT"), REFUSED
    return files


def lies() -> dict[str, tuple[bytes, Expected]]:
    """Headers, suffixes and counts that are not true; the sound is whole."""
    mp3, other = (encoded("mp3", "libmp3lame", music(seed=seed)) for seed in (0, 1))
    bare = encoded("mp3", "libmp3lame", music(), container={"write_xing": "0"})
    ogg, link = (vorbis(music(seed=seed)) for seed in (0, 1))
    m4a, flac = encoded("ipod", "aac", music()), pcm(music(), format="FLAC")
    xing = max(mp3.find(b"Xing"), mp3.find(b"Info"))
    total = struct.pack(">I", 0)  # the low 32 bits of STREAMINFO's count of samples
    lyrics = b"LYRICSBEGIN" + b"IND0000200" + b"LYR00100" + b"la " * 33 + b"x000140LYRICS200"
    whole, double = Expected(SECONDS), Expected(2 * SECONDS, slack=0.2)
    return {
        "length 0.wav": (wav_with(data=0), whole),
        "length 0, riff 0.wav": (wav_with(data=0, riff=0), whole),
        "length unknown.wav": (wav_with(data=0xFFFFFFFF), whole),
        "1 Hz.wav": (wav_with(rate=1), REFUSED),
        "0 Hz.wav": (wav_with(rate=0), REFUSED),
        "4 GHz.wav": (wav_with(rate=0xFFFFFFF0), REFUSED),
        "0 channels.wav": (wav_with(channels=0), REFUSED),
        "65535 channels.wav": (wav_with(channels=65535), REFUSED),
        "joined.mp3": (mp3 + other, double),
        "chained.ogg": (ogg + link, double),
        "count 0.mp3": (patched(mp3, xing + 8, bytes(4)), whole),
        "count huge.mp3": (patched(mp3, xing + 8, b"\x7f\xff\xff\xff"), whole),
        "Info in a tag.mp3": (
            b"ID3\3\0\0\0\0\0\x20TXXX\0\0\0\x16\0\0\0comment\0Info Xing LAME\0" + bare, whole,
        ),
        "lyrics.mp3": (bare + lyrics + b"TAG" + b"x" * 125, whole),
        "text behind.mp3": (bare + b"a comment of some program " * 100, whole),
        "tag behind.mp3": (bare + b"ID3\3\0\0\0\0\7\x76" + bytes(1014), whole),
        "garbage in front.mp3": (os.urandom(5000).replace(b"\xff", b"\0") + mp3, whole),
        "samples unknown.flac": (patched(flac, 22, total), whole),
        "mp3 inside.wav": (encoded("wav", "libmp3lame", music()), whole),
        "m4a named.wav": (m4a, whole),
        "m4a named.mp3": (m4a, whole),
        "wav named.flac": (pcm(music()), whole),
        "flac named.wav": (flac, whole),
        "mp3 named.ogg": (mp3, whole),
        "flac named.m4a": (flac, whole),
    }  # fmt: skip


def damage() -> dict[str, tuple[bytes, Expected]]:
    """Files that are cut or broken, and such as never were sound."""
    flac, mp3 = pcm(music(), format="FLAC"), encoded("mp3", "libmp3lame", music())
    ogg, m4a = vorbis(music()), encoded("ipod", "aac", music())
    wav = pcm(music())
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("a.txt", "text" * 1000)
    random = np.random.default_rng(0).bytes(50_000)
    part = Expected(SECONDS, slack=0.6)
    return {
        "one bad frame.mp3": (patched(mp3, len(mp3) // 2, bytes(600)), part),
        "flipped.flac": (patched(flac, len(flac) // 2, b"\x55\xaa\x55"), part),
        "tail gone.wav": (wav[:-400], Expected(SECONDS)),
        "tail gone.mp3": (mp3[:-300], Expected(SECONDS, slack=0.2)),
        "tail gone.ogg": (ogg[:-300], Expected(SECONDS, slack=0.5)),
        "half.m4a": (m4a[: len(m4a) // 2], REFUSED),
        "empty.wav": (b"", REFUSED),
        "text.mp3": (b"this is no music\n" * 500, REFUSED),
        "random.flac": (random, REFUSED),
        "random.m4a": (random, REFUSED),
        "zip.mp3": (archive.getvalue(), REFUSED),
        "picture.ogg": (b"\x89PNG\r\n\x1a\n" + random[:2000], REFUSED),
        "page.m4a": (b"<!doctype html><title>404</title>" * 50, REFUSED),
        "zeros.wav": (bytes(100_000), REFUSED),
        "only a tag.mp3": (b"ID3\3\0\0\0\0\7\x76" + bytes(1014), REFUSED),
        "header alone.wav": (wav[:44], REFUSED),
        "two bytes.flac": (b"fL", REFUSED),
    }


def names() -> dict[str | bytes, tuple[bytes, Expected]]:
    """Good sound under names that shells, terminals, codecs and file systems trip over."""
    m4a = encoded("ipod", "aac", music(1.0))
    odd: list[str | bytes] = [
        "Re: colon.wav", "two\nlines.wav", "red \x1b[31m.wav", "bell\x07.wav",
        b"no text \xff\xfe.wav",
        "-rf.wav", "quote ' and \".wav", "percent %s %d.wav", "hash #1.wav",
        "right\u202eto left.wav",
        "e\u0301.wav", " space .wav", "dot..wav", "ümläut 音楽.wav", "long " + "x" * 240 + ".wav",
        "UPPER.WAV", "brackets [1] {2}.wav", "dollar $HOME `x`.wav",
    ]  # fmt: skip
    files: dict[str | bytes, tuple[bytes, Expected]] = {
        name: (pcm(music(1.0, seed=number)), Expected(1.0)) for number, name in enumerate(odd)
    }
    files["concat:a.m4a"] = m4a, Expected(1.0)
    files["http:x.m4a"] = encoded("ipod", "aac", music(1.0, seed=50)), Expected(1.0)
    return files


def special(folder: Path) -> dict[str, Expected]:
    """Make what has a song's name and is no file: each would make a reader wait or loop."""
    made: dict[str, Callable[[Path], object]] = {
        "pipe.wav": os.mkfifo,
        "nowhere.wav": lambda path: path.symlink_to("not there.wav"),
        "itself.wav": lambda path: path.symlink_to("itself.wav"),
        "endless.wav": lambda path: path.symlink_to("/dev/zero"),
        "folder.wav": lambda path: path.mkdir(),
        "loop": lambda path: path.symlink_to("."),
    }
    for name, make in made.items():
        make(folder / name)
    listener = socket.socket(socket.AF_UNIX)
    try:
        listener.bind(str(folder / "socket.wav"))
    except OSError:  # the path is too long for a socket
        pass
    finally:
        listener.close()
    return {name: REFUSED for name in made if name not in ("folder.wav", "loop")}


def write(folder: Path) -> dict[bytes, Expected]:
    """Write all of them into a folder.

    Returns:
        What is expected of each, by the bytes of its name.
    """
    folder.mkdir(parents=True, exist_ok=True)
    expected: dict[bytes, Expected] = {}
    for files in (formats(), shapes(), lies(), damage(), names()):
        for name, (data, about) in files.items():
            raw = os.fsencode(name)
            assert raw not in expected, raw
            with open(os.path.join(os.fsencode(folder), raw), "wb") as file:
                file.write(data)
            expected[raw] = about
    return expected | {os.fsencode(name): about for name, about in special(folder).items()}
