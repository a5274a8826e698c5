"""Tags and covers survive from any format to any other."""

import base64
import struct
import zlib
from pathlib import Path

import mutagen
import pytest
import torch
from mutagen.flac import FLAC, Picture
from mutagen.id3 import APIC, COMM, ID3, RVA2, TXXX, USLT
from mutagen.mp4 import MP4, MP4Cover

from separator import audio
from separator.inference.tags import copy_tags

TAGGED = ("mp3", "flac", "ogg", "opus", "m4a")
TAGS = {
    "title": "Été",
    "artist": "Somebody",
    "album": "Songs",
    "date": "1999",
    "genre": "Chanson",
    "tracknumber": "3/12",
}


def png() -> bytes:
    """Return a picture of one pixel."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        check = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + check

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 1, 1, 8, 2, 0, 0, 0))
    body = chunk(b"IDAT", zlib.compress(b"\0\xff\0\0"))
    return b"\x89PNG\r\n\x1a\n" + header + body + chunk(b"IEND", b"")


def silent(path: Path) -> Path:
    with audio.Writer(path, 48000, 2) as writer:
        writer.write(torch.zeros(2, 24000))
    return path


def tagged(path: Path) -> Path:
    """Write a file with tags and a cover in the way its format has them, by mutagen alone."""
    silent(path)
    file = mutagen.File(path, easy=True)
    if file.tags is None:
        file.add_tags()
    for key, value in TAGS.items():
        file[key] = value
    file.save()
    picture = Picture()
    picture.type, picture.mime, picture.data = 3, "image/png", png()
    file = mutagen.File(path)
    if path.suffix == ".flac":
        file.add_picture(picture)
    elif path.suffix == ".mp3":
        file.tags.add(APIC(encoding=3, mime="image/png", type=3, desc="", data=png()))
    elif path.suffix == ".m4a":
        file["covr"] = [MP4Cover(png(), MP4Cover.FORMAT_PNG)]
    else:
        file["metadata_block_picture"] = [base64.b64encode(picture.write()).decode()]
    file.save()
    return path


def cover(path: Path) -> bytes:
    if path.suffix == ".flac":
        return FLAC(path).pictures[0].data
    if path.suffix == ".mp3":
        return ID3(path).getall("APIC")[0].data
    if path.suffix == ".m4a":
        return bytes(MP4(path)["covr"][0])
    return Picture(base64.b64decode(mutagen.File(path)["metadata_block_picture"][0])).data


@pytest.mark.parametrize("source", TAGGED)
@pytest.mark.parametrize("target", TAGGED)
def test_from_any_format_to_any(tmp_path: Path, source: str, target: str) -> None:
    song = tagged(tmp_path / f"song.{source}")
    stem = silent(tmp_path / f"stem.{target}")
    samples = audio.read(stem)
    copy_tags(song, stem, "Instrumental")
    found = mutagen.File(stem, easy=True)
    expected = {**TAGS, "title": "Été (Instrumental)"}
    assert {key: found[key][0] for key in TAGS} == expected
    assert cover(stem) == png()
    assert torch.equal(audio.read(stem), samples)


def test_without_a_title_the_file_name_is_one(tmp_path: Path) -> None:
    song = silent(tmp_path / "a song.flac")
    file = FLAC(song)
    file["artist"] = "Somebody"
    file.save()
    stem = silent(tmp_path / "stem.mp3")
    copy_tags(song, stem, "Vocals")
    assert mutagen.File(stem, easy=True)["title"] == ["a song (Vocals)"]


def test_no_tags_stay_no_tags(tmp_path: Path) -> None:
    song, stem = silent(tmp_path / "song.wav"), silent(tmp_path / "stem.flac")
    before = stem.read_bytes()
    copy_tags(song, stem, "Instrumental")
    assert stem.read_bytes() == before


@pytest.mark.parametrize("suffix", ["wav", "aiff"])
def test_formats_without_common_tags_are_left_alone(tmp_path: Path, suffix: str) -> None:
    song, stem = tagged(tmp_path / "song.mp3"), silent(tmp_path / f"stem.{suffix}")
    samples, before = audio.read(stem), stem.read_bytes()
    copy_tags(song, stem, "Instrumental")
    assert torch.equal(audio.read(stem), samples)
    assert stem.read_bytes() == before


def test_broken_tags_cost_the_tags_only(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    song, stem = tmp_path / "song.flac", silent(tmp_path / "stem.flac")
    song.write_bytes(b"fLaC" + bytes(100))
    before = stem.read_bytes()
    copy_tags(song, stem, "Instrumental")
    assert "tags are not copied" in caplog.text
    assert stem.read_bytes() == before


def test_values_that_a_format_has_no_place_for_are_left_out(tmp_path: Path) -> None:
    song, stem = silent(tmp_path / "song.flac"), silent(tmp_path / "stem.m4a")
    file = FLAC(song)
    file["title"], file["tracknumber"], file["bpm"] = "Side", "A1", "about 120"
    file.save()
    copy_tags(song, stem, "Instrumental")
    assert mutagen.File(stem, easy=True)["title"] == ["Side (Instrumental)"]


LEVELS = (
    *("REPLAYGAIN_TRACK_GAIN", "replaygain_album_peak", "R128_TRACK_GAIN", "iTunNORM"),
    *("MP3GAIN_MINMAX", "iTunSMPB"),
)


@pytest.mark.parametrize("source", TAGGED)
@pytest.mark.parametrize("target", TAGGED)
def test_only_tags_of_the_songs_own_sound_are_dropped(
    tmp_path: Path, source: str, target: str
) -> None:
    song, stem = tagged(tmp_path / f"song.{source}"), silent(tmp_path / f"stem.{target}")
    texts = {**dict.fromkeys(LEVELS, "-7.1"), "MOOD_OF_MINE": "calm"}
    file = mutagen.File(song)
    if source == "mp3":
        for key, value in texts.items():
            file.tags.add(TXXX(encoding=3, desc=key, text=[value]))
        file.tags.add(RVA2(desc="track", channel=1, gain=-7.1, peak=0.9))
        file.tags.add(COMM(encoding=3, lang="eng", desc="iTunNORM", text=["0001"]))
        file.tags.add(COMM(encoding=3, lang="eng", desc="", text=["good"]))
        file.tags.add(USLT(encoding=3, lang="eng", desc="", text="la la"))
    elif source == "m4a":
        for key, value in texts.items():
            file[f"----:com.apple.iTunes:{key}"] = [value.encode()]
        file["\xa9cmt"], file["\xa9lyr"], file["\xa9too"] = ["good"], ["la la"], ["a coder"]
    else:
        for key, value in {**texts, "comment": "good", "lyrics": "la la"}.items():
            file[key] = value
    file.save()
    copy_tags(song, stem, "Vocals")
    found = mutagen.File(stem).tags
    everything = "".join(f"{key}={value}\n" for key, value in found.items()).lower()
    for word in ("replaygain", "r128", "itunnorm", "rva2", "mp3gain", "itunsmpb", "a coder"):
        assert word not in everything
    for word in ("mood_of_mine", "calm", "good", "la la", "somebody"):
        assert word in everything
    if target == "mp3":
        assert len(found.getall("APIC")) == 1
        assert (found.getall("COMM")[0].text, found.getall("USLT")[0].text) == (["good"], "la la")
    if target == "m4a":
        assert (found["\xa9cmt"], found["\xa9lyr"]) == (["good"], ["la la"])


@pytest.mark.parametrize("kind", ["wav", "aiff"])
def test_id3_tags_of_wav_and_aiff_are_copied(tmp_path: Path, kind: str):
    source, target = tmp_path / f"song.{kind}", tmp_path / "stem.flac"
    for path in (source, target):
        with audio.Writer(path, 44100, 2) as writer:
            writer.write(torch.zeros(2, 4410))
    file = mutagen.File(source)
    file.add_tags()
    file.tags.add(mutagen.id3.TIT2(encoding=3, text="Song"))
    file.tags.add(mutagen.id3.TPE1(encoding=3, text="Somebody"))
    file.tags.add(mutagen.id3.UFID(owner="x", data=b"1"))
    file.tags.add(APIC(encoding=3, mime="image/png", type=3, desc="", data=png()))
    file.save()
    copy_tags(source, target, "Vocals")
    tags = mutagen.File(target)
    assert (tags["title"], tags["artist"]) == (["Song (Vocals)"], ["Somebody"])
    assert audio.read_tags(source)["artist"] == ["Somebody"]
