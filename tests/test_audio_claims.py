"""What is plausible but untrue: counts in headers, suffixes, names, layouts, rates."""

import os
import random
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from separator import audio
from separator.audio import AudioError, probe, read, resample, verify
from separator.audio.mpeg_frames import sizes_of
from tests.sounds import assert_slices_equal, encode, ffmpeg, music, save

LYRICS = b"LYRICSBEGININD0000200LYR00100" + b"la " * 33 + b"x000140LYRICS200"
ID3_BEHIND = b"ID3\3\0\0\0\0\7\x7e" + bytes(1022)


def bare(path: Path) -> bytes:
    """An MP3 of 2 s without any header."""
    options = {"write_xing": "0", "id3v2_version": "0"}
    return encode(path, music(2.0), "mp3", "stereo", **options)


def test_joined_mp3s_are_read_to_their_end(tmp_path: Path) -> None:
    first, second = music(1.5), music(1.5).flip(1)
    parts = [save(tmp_path / f"{i}.mp3", wave) for i, wave in enumerate((first, second))]
    joined = tmp_path / "joined.mp3"
    joined.write_bytes(b"".join(part.read_bytes() for part in parts))
    whole = read(joined)
    assert probe(joined).samples == verify(joined).samples == whole.shape[1] == 2 * 66150
    assert torch.equal(whole, torch.cat([read(part) for part in parts], dim=1))
    assert "2 files joined" in probe(joined).notices[0]
    assert_slices_equal(joined, whole, 0.0)


@pytest.mark.parametrize("suffix", ["ogg", "opus"])
def test_chained_streams_are_read_to_their_end(tmp_path: Path, suffix: str) -> None:
    parts = [save(tmp_path / f"{i}.{suffix}", music(1.5 + i, 48000), 48000) for i in range(2)]
    chained = tmp_path / f"chained.{suffix}"
    chained.write_bytes(b"".join(part.read_bytes() for part in parts))
    whole = read(chained)
    assert torch.equal(whole, torch.cat([read(part) for part in parts], dim=1))
    assert probe(chained).samples == verify(chained).samples == 4 * 48000
    assert_slices_equal(chained, whole, 2e-7 if suffix == "opus" else 0.0)
    other = save(tmp_path / f"mono.{suffix}", music(1.0, 48000, 1), 48000)
    chained.write_bytes(parts[0].read_bytes() + other.read_bytes())
    with pytest.raises(AudioError, match=r"its rate or channels change after 1\.5 s"):
        probe(chained)


@pytest.mark.parametrize("tail", [LYRICS + b"TAG" + b"x" * 125, b"some program" * 200, ID3_BEHIND])
def test_what_stands_behind_an_mp3_is_not_sound(tmp_path: Path, tail: bytes) -> None:
    data, path = bare(tmp_path / "a.mp3"), tmp_path / "tail.mp3"
    plain = read(tmp_path / "a.mp3")
    path.write_bytes(data + tail)
    assert torch.equal(read(path), plain) and verify(path).notices == ()
    path.write_bytes(data + tail + data + tail)
    dropped = 1152 if tail.startswith(b"some") else 0  # the frame before what may be damage
    assert probe(path).samples == 2 * plain.shape[1] - dropped


def test_counts_in_an_mp3_are_not_believed(tmp_path: Path) -> None:
    path = save(tmp_path / "a.mp3", music(2.0))
    whole, data = read(path), path.read_bytes()
    at = max(data.find(b"Info"), data.find(b"Xing")) + 8
    for count in (0, 10, 1 << 30):
        path.write_bytes(data[:at] + count.to_bytes(4, "big") + data[at + 4 :])
        there = read(path)
        assert there.shape[1] == probe(path).samples >= whole.shape[1]
        assert torch.equal(there[:, : whole.shape[1]], whole)
        assert bool(probe(path).notices) == (count > 0)
    words = bare(tmp_path / "b.mp3")
    path.write_bytes(b"ID3\3\0\0\0\0\0\x20" + b"Info about Xing, Info".ljust(32) + words)
    assert torch.equal(read(path), read(tmp_path / "b.mp3"))


def test_every_size_of_frame_is_known_as_ffmpeg_knows_it(tmp_path: Path) -> None:
    for rate in (44100, 48000, 32000, 22050, 16000, 11025, 8000):
        path = save(tmp_path / "a.mp3", music(0.5, rate), rate)
        assert probe(path).samples == rate // 2 and probe(path).rate == rate
    from separator.audio.mpeg_frames import Kind

    assert len(sizes_of(Kind(3, 3, 44100))) == 14 * 2 * 4
    assert sizes_of(Kind(3, 3, 44100))[b"\xff\xfb\x90"] == 417


def test_a_wav_whose_length_is_0_or_too_short_is_read(tmp_path: Path) -> None:
    path = save(tmp_path / "a.wav", music(2.0), subtype="PCM_16")
    whole, data = read(path), path.read_bytes()
    at = data.index(b"data") + 4
    for length, notice in ((0, "no length"), (44100 * 4, "counts 44100 samples, 88200 decode")):
        path.write_bytes(data[:at] + length.to_bytes(4, "little") + data[at + 4 :])
        assert torch.equal(read(path), whole)
        assert notice in probe(path).notices[0] and probe(path).subtype == "PCM_16"
        assert_slices_equal(path, whole, 0.0)
    for chunk in (b"LIST\4\0\0\0INFO", b"TAG" + b"x" * 125, bytes(1000)):
        path.write_bytes(data + chunk)
        assert torch.equal(read(path), whole) and probe(path).notices == ()


def test_a_flac_from_a_pipe_or_with_a_wrong_length_is_read(tmp_path: Path) -> None:
    path = save(tmp_path / "a.flac", music(2.0), subtype="PCM_16")
    whole, data = read(path), bytearray(path.read_bytes())
    for length in (0, 44100):  # 36 bits from the lower half of byte 21 on
        data[21] &= 0xF0
        data[22:26] = length.to_bytes(4, "big")
        path.write_bytes(data)
        assert probe(path).samples == 88200 and probe(path).subtype == "PCM_16"
        assert torch.equal(read(path), whole)
        assert_slices_equal(path, whole, 0.0)


def test_old_vorbis_with_a_negative_start_has_the_length_that_decodes(tmp_path: Path) -> None:
    from separator.audio.integrity import _ogg_checksum, _pages

    path = save(tmp_path / "a.ogg", music(3.0))
    data = bytearray(path.read_bytes())
    for at, end, _, position, _ in list(_pages(path, 0, len(data)))[2:]:
        data[at + 6 : at + 14] = (position - 50000).to_bytes(8, "little", signed=True)
        data[at + 22 : at + 26] = bytes(4)
        data[at + 22 : at + 26] = _ogg_checksum(bytes(data[at:end])).to_bytes(4, "little")
    path.write_bytes(data)
    samples = probe(path).samples
    assert samples == read(path).shape[1] == verify(path).samples
    assert audio.content_key(path) and verify(path).notices == probe(path).notices


@pytest.mark.parametrize("suffix", ["wav", "flac", "mp3", "ogg", "m4a", "aiff"])
def test_the_bytes_count_and_not_the_suffix(tmp_path: Path, suffix: str) -> None:
    path = save(tmp_path / f"a.{suffix}", music(1.0))
    whole = read(path)
    for name in ("wav", "mp3", "m4a", "ogg", "wma"):
        wrong = tmp_path / f"wrong.{name}"
        wrong.write_bytes(path.read_bytes())
        assert torch.equal(read(wrong), whole) and probe(wrong).format == suffix
        assert bool(probe(wrong).notices) == (
            name != suffix and not {name, suffix} <= {"ogg", "flac"}
        )
        assert torch.equal(read(wrong, 20000, 9999), whole[:, 20000:29999])


@pytest.mark.parametrize(
    ("suffix", "codec"),
    [
        *(("oga", "libvorbis"), ("m4b", "aac"), ("aifc", "pcm_s16be"), ("w64", "pcm_s16le")),
        *(("wma", "wmav2"), ("wv", "wavpack"), ("mka", "libvorbis"), ("webm", "libopus")),
        *(("mkv", "flac"), ("mov", "aac"), ("mp2", "mp2"), ("caf", "pcm_s16be"), ("tta", "tta")),
        *(("ac3", "ac3"), ("ogg", "flac"), ("wav", "libmp3lame")),
    ],
)
def test_other_formats(tmp_path: Path, suffix: str, codec: str) -> None:
    source, path = save(tmp_path / "s.wav", music(2.0, 48000), 48000), tmp_path / f"a.{suffix}"
    ffmpeg("-i", source, "-c:a", codec, *(["-aac_pns", "0"] if codec == "aac" else []), path)
    whole = read(path)
    assert whole.shape == (2, probe(path).samples) and abs(whole.shape[1] - 96000) < 3500
    assert verify(path).samples == whole.shape[1] and verify(path).notices == ()
    assert_slices_equal(path, whole, 0.0)
    assert bool(probe(path).subtype) == codec.startswith(("pcm", "flac", "wavpack", "tta"))
    assert audio.written_as(probe(path).format) in audio.ENCODINGS


def test_a_colon_is_no_protocol_and_no_file_names_others(tmp_path: Path) -> None:
    save(tmp_path / "a.m4a", music(2.0))
    short = save(tmp_path / "concat:a.m4a", music(0.5))
    assert probe(short).seconds < 0.6 and read(short).shape[1] == probe(short).samples
    for name in ("Re: Stacks.m4a", "http:x.m4a", "file:y.mp3", "%03d.m4a"):
        assert probe(save(tmp_path / name, music(0.5))).seconds < 0.6
    folder = os.getcwd()
    os.chdir(tmp_path)
    try:
        assert probe("concat:a.m4a").seconds < 0.6
    finally:
        os.chdir(folder)
    for text in ("ffconcat version 1.0\nfile a.m4a\n", f"#EXTM3U\n#EXTINF:9,\n{tmp_path}/a.m4a\n"):
        (tmp_path / "list.m4a").write_text(text)
        with pytest.raises(AudioError, match="is no audio file, or is too damaged"):
            probe(tmp_path / "list.m4a")


def test_a_frame_by_chance_is_no_song(tmp_path: Path) -> None:
    """Of 50 kB of these random bytes some look like one MPEG frame."""
    path = tmp_path / "a.wav"
    path.write_bytes(random.Random(9).randbytes(50000))
    with pytest.raises(AudioError, match="is no audio file, or is too damaged"):
        probe(path)
    song = save(tmp_path / "a.mp3", music(2.0))
    whole = song.rename(tmp_path / "song.wav")
    assert probe(whole).format == "mp3"
    hidden = tmp_path / "b.wav"
    hidden.write_bytes(random.Random(1).randbytes(5000) + whole.read_bytes())
    assert probe(hidden).format == "mp3"


@pytest.mark.parametrize("rate", [1, 999, 768001])
def test_absurd_rates_are_refused_at_once(tmp_path: Path, rate: int) -> None:
    path = tmp_path / "a.wav"
    soundfile.write(path, np.zeros((4000, 2)), rate, subtype="PCM_16")
    for function in (probe, read, verify):
        with pytest.raises(AudioError, match=f"a rate of {rate} Hz; 1 kHz to 768 kHz are taken"):
            function(path)


def test_a_fifo_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "x.wav")
    begun = time.monotonic()
    for path in (tmp_path / "x.wav", Path("/dev/zero.wav")):
        with pytest.raises(AudioError, match=r"not a regular file|No such file"):
            probe(path)
    assert time.monotonic() - begun < 1


def test_resampling_goes_in_bounded_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    from separator.audio import resampler

    wave = music(1.0)
    for to_rate in (48000, 768000, 1000):
        whole = resample(wave, 44100, to_rate)
        monkeypatch.setattr(resampler, "_PIECE", 4096)
        assert (resample(wave, 44100, to_rate) - whole).abs().max() < 1e-6
        monkeypatch.undo()


def test_a_changed_file_is_examined_again(tmp_path: Path) -> None:
    path = save(tmp_path / "a.wav", music(1.0))
    assert probe(path).samples == 44100
    save(path, music(0.5))
    assert probe(path).samples == read(path).shape[1] == 22050


def test_messages_give_no_advice_that_they_cannot_know(tmp_path: Path) -> None:
    data = save(tmp_path / "a.flac", music(4.0)).read_bytes()
    for name, content in {"e.wav": b"", "t.mp3": b"text\n" * 99, "c.flac": data[:9000]}.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(AudioError) as caught:
            probe(tmp_path / name)
        assert "remove" not in str(caught.value) and "disk space" not in str(caught.value)


def test_a_truncated_w64_is_told(tmp_path: Path) -> None:
    source, path = save(tmp_path / "s.wav", music(4.0)), tmp_path / "a.w64"
    ffmpeg("-i", source, path)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(AudioError, match=r"truncated, 2\.0 s of 4\.0 s are there"):
        probe(path)


def test_slices_at_the_ends_of_chained_streams(tmp_path: Path) -> None:
    """Each stream has a last page of its own."""
    first, second = (save(tmp_path / f"{seconds}.ogg", music(seconds)) for seconds in (3.0, 3.7))
    path = tmp_path / "chain.ogg"
    path.write_bytes(first.read_bytes() + second.read_bytes())
    whole = read(path)
    end = probe(first).samples
    for start in range(end - 9000, end, 450):
        assert torch.equal(read(path, start, 3000), whole[:, start : start + 3000])
