"""Videos: their sound is separated, and their picture kept as it is, in time with the sound."""

import subprocess
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from separator import audio
from tests.songs import in_tmp, model, run  # noqa: F401

RATE, FPS, FLASH = 48000, 25, 40
CODECS = {
    **{"mp4": ("libx264", "aac"), "mov": ("libx264", "aac")},
    **{"mkv": ("libx264", "flac"), "webm": ("libvpx", "libopus")},
}


def video(path: Path, late: float = 0.2, sound: bool = True) -> Path:
    """Write two seconds of a grey picture with a flash and, at the same time, a click.

    Args:
        path: the file.
        late: seconds that the sound begins after the picture, which begins at 0.04 s.
        sound: whether there is any.
    """
    codecs = CODECS.get(path.suffix[1:], CODECS["mp4"])
    with av.open(str(path), "w") as file:
        file.metadata["title"] = "A flash"
        picture = file.add_stream(codecs[0], rate=FPS)
        picture.width = picture.height = 64
        picture.pix_fmt = "yuv420p"
        heard = file.add_stream(codecs[1], rate=RATE, layout="stereo") if sound else None
        for number in range(2 * FPS):
            level = 235 if number == FLASH else 40 + number
            frame = av.VideoFrame.from_ndarray(np.full((96, 64), level, np.uint8), "yuv420p")
            frame.pts, frame.time_base = number + 1, Fraction(1, FPS)
            file.mux(picture.encode(frame))
        file.mux(picture.encode(None))
        if heard:
            wave = np.random.default_rng(0).normal(0, 0.001, (2, 2 * RATE)).astype(np.float32)
            wave[:, round((FLASH / FPS - late) * RATE)] = 0.9
            form = {"flac": "s16", "libopus": "flt"}.get(codecs[1], "fltp")
            for start in range(0, wave.shape[1], 960):
                block = av.AudioFrame.from_ndarray(
                    np.ascontiguousarray(wave[:, start : start + 960]), "fltp", "stereo"
                )
                block.sample_rate, block.time_base = RATE, Fraction(1, RATE)
                block.pts = round((1 / FPS + late) * RATE) + start
                for part in av.AudioResampler(form, "stereo", RATE).resample(block):
                    part.pts = block.pts
                    file.mux(heard.encode(part))
            file.mux(heard.encode(None))
    return path


def packets(path: Path) -> list[tuple[Fraction, bytes]]:
    """Times and bytes of the picture's packets."""
    with av.open(str(path)) as file:
        stream = file.streams.video[0]
        return [(p.pts * p.time_base, bytes(p)) for p in file.demux(stream) if p.pts is not None]


def moments(path: Path) -> tuple[float, float]:
    """Times of the flash and of the click."""
    with av.open(str(path)) as file:
        flash = max((frame.to_ndarray()[:64].mean(), frame.time) for frame in file.decode(video=0))
    with av.open(str(path)) as file:
        peaks = []
        for frame in file.decode(audio=0):
            wave = np.abs(frame.to_ndarray().astype(np.float64)).ravel()
            step = frame.layout.nb_channels if not frame.format.is_planar else 1
            place = int(wave.argmax()) // step % frame.samples
            peaks.append((wave.max(), frame.time + place / frame.sample_rate))
    return flash[1], max(peaks)[1]


@pytest.mark.parametrize(("suffix", "late"), [*((kind, 0.2) for kind in CODECS), ("mp4", -0.04)])
def test_the_click_stays_with_the_flash(tmp_path: Path, suffix: str, late: float) -> None:
    song = video(tmp_path / f"song.{suffix}", late)
    flash, click = moments(song)
    assert click == pytest.approx(flash, abs=0.0015)  # of the test's own video
    result = tmp_path / f"result.{suffix}"
    info = audio.probe(song)
    assert audio.video_container(info) == suffix
    with audio.Writer(result, info.rate, 2, format=audio.formats.sound_format(result)) as writer:
        writer.write(audio.read(song))
    audio.add_picture(result, song)
    assert packets(result) == packets(song)
    made = moments(result)
    assert made[0] == flash
    exact = suffix in ("mp4", "mov")  # the others count in milliseconds
    assert made[1] == pytest.approx(click, abs=0.5 / RATE if exact else 0.0015)
    with av.open(str(result)) as file:
        assert file.metadata["title"] == "A flash"


@pytest.mark.usefixtures("in_tmp")
def test_the_command_keeps_pictures(capsys: pytest.CaptureFixture) -> None:
    video(Path("song.mkv"))
    video(Path("mute.mp4"), sound=False)
    assert run("song.mkv", "--video") == 0
    result = Path("stems/song (Instrumental).mkv")
    assert packets(result) == packets(Path("song.mkv"))
    assert audio.probe(result).samples == audio.probe("song.mkv").samples
    stamp = result.stat().st_mtime_ns
    assert run("song.mkv", "--video") == 0
    assert result.stat().st_mtime_ns == stamp
    assert run("song.mkv", "--format", "flac") == 0
    sound = audio.read("stems/song (Instrumental).flac")
    assert np.allclose(audio.read(result), sound, atol=1e-4)
    assert run("mute.mp4") == 1
    lines = capsys.readouterr().err.splitlines()
    assert [line for line in lines if "mute" in line] == [
        "separator: mute.mp4: holds no sound; check what it is"
    ]


FILM = """;FFMETADATA1
[CHAPTER]
TIMEBASE=1/1000
START=0
END=1500
title=One
[CHAPTER]
TIMEBASE=1/1000
START=1500
END=2000
title=Two
"""


def film(path: Path, subtitles: str) -> Path:
    """Add chapters, two lines of German subtitles and a French sound to a video."""
    plain = video(path.with_name(f"plain{path.suffix}"))
    Path("film.txt").write_text(FILM)
    lines = (("00:00:00,200 --> 00:00:00,900", "Hallo"), ("00:00:01,200 --> 00:00:01,900", "Welt"))
    text = "".join(f"{n}\n{time}\n{words}\n\n" for n, (time, words) in enumerate(lines, 1))
    Path("film.srt").write_text(text)
    inputs = [word for name in (plain, plain, "film.srt", "film.txt") for word in ("-i", str(name))]
    maps = [word for name in ("0:v", "0:a", "1:a", "2:s") for word in ("-map", name)]
    languages = (("a:0", "eng"), ("a:1", "fra"), ("s:0", "deu"))
    tags = [w for s, name in languages for w in (f"-metadata:s:{s}", f"language={name}")]
    words = [*inputs, *maps, "-map_chapters", "3", "-c", "copy", "-c:s", subtitles, *tags]
    words += ["-disposition:s:0", "forced", "-f", "matroska" if path.suffix != ".m4v" else "mp4"]
    subprocess.run(["ffmpeg", "-v", "error", "-y", *words, str(path)], check=True)
    return path


def contents(path: Path) -> tuple[list, list, list]:
    """Chapters, streams and the bytes of the subtitles of a file."""
    with av.open(str(path)) as file:
        chapters = [
            (c["start"] * c["time_base"], c["end"] * c["time_base"], c["metadata"]["title"])
            for c in file.chapters()
        ]
        streams = [(s.type, s.language, s.disposition.value & 64) for s in file.streams]
        texts = [bytes(p) for p in file.demux() if p.stream.type == "subtitle" and p.size]
    return chapters, [stream for stream in streams if stream[0] != "data"], texts


@pytest.mark.usefixtures("in_tmp")
@pytest.mark.parametrize(
    ("suffix", "subtitles", "becomes"),
    [("mkv", "srt", "mkv"), ("m4v", "mov_text", "mp4"), ("webm", "srt", "webm")],
)
def test_chapters_and_subtitles_stay(suffix: str, subtitles: str, becomes: str) -> None:
    """webm has no such subtitles: they are left out, as the other languages' sounds are."""
    source = film(Path(f"film.{suffix}"), subtitles)
    assert run(str(source), "--video") == 0
    result = Path(f"stems/film (Instrumental).{becomes}")
    assert packets(result) == packets(source)
    (chapters, _, texts), made = contents(source), contents(result)
    assert made[0] == chapters == [(0, 1.5, "One"), (1.5, 2, "Two")]
    kept = suffix != "webm"
    shown = [("subtitle", "deu", 64)] if kept else []
    assert made[1][1:] == [*shown, ("audio", "eng", 0)]
    assert made[2] == (texts if kept else []) and texts


@pytest.mark.usefixtures("in_tmp")
@pytest.mark.parametrize(("codec", "tag"), [("libaom-av1", "av01"), ("libx265", "hvc1")])
def test_pictures_that_need_no_encoder_here(codec: str, tag: str) -> None:
    """Of AV1 the decoder has a name of its own; Apple's players want the tag of HEVC."""
    encoders = subprocess.run(
        ["ffmpeg", "-v", "error", "-encoders"], capture_output=True, text=True
    )
    if codec not in encoders.stdout:
        pytest.skip(f"this ffmpeg has no {codec}")
    source = ["-f", "lavfi", "-i", "testsrc=s=64x64:d=0.2", "-f", "lavfi", "-i", "sine=d=0.2"]
    words = ["-c:v", codec, "-tag:v", tag, "-c:a", "aac", "film.mp4"]
    subprocess.run(["ffmpeg", "-v", "error", *source, *words], check=True)
    assert run("film.mp4", "--video") == 0
    result = Path("stems/film (Instrumental).mp4")
    assert packets(result) == packets(Path("film.mp4"))
    with av.open(str(result)) as file:
        assert file.streams.video[0].codec_context.codec_tag == tag


@pytest.mark.parametrize("kind", ["mp4", "mkv"])
def test_a_late_sound_begins_as_late_and_not_before(tmp_path: Path, kind: str) -> None:
    source = video(tmp_path / f"late.{kind}", late=1.0)
    result = tmp_path / f"result.{kind}"
    with audio.Writer(result, RATE, 2, format=audio.formats.sound_format(result)) as writer:
        writer.write(audio.read(source))
    audio.add_picture(result, source)
    begins = []
    for path in (source, result):
        with av.open(str(path)) as file:
            begins.append(next(file.decode(audio=0)).time)
    assert begins[1] == pytest.approx(begins[0], abs=0.025)  # a frame of AAC
    assert audio.read(result).shape[-1] == pytest.approx(audio.read(source).shape[-1], abs=1024)
