"""audio/ reads what ffmpeg reads, and slices as in the whole."""

import os
import subprocess
import sys
from pathlib import Path

import mutagen
import numpy as np
import pytest
import torch
from mutagen.id3 import APIC, ID3, TIT2

from separator import audio
from separator.audio import (
    AudioError,
    blocks,
    probe,
    read,
    verify,
)
from separator.errors import printable
from tests.sounds import LOSSY, assert_slices_equal, encode, ffmpeg, ffmpeg_decode, music, save


@pytest.mark.parametrize("suffix", ["wav", "flac", *LOSSY])
def test_decodes_what_ffmpeg_decodes(tmp_path: Path, suffix: str) -> None:
    path = save(tmp_path / f"a.{suffix}", music(2.0, 48000), 48000)
    reference = ffmpeg_decode(path, 2)
    whole = read(path)
    shared = min(reference.shape[1], whole.shape[1])
    assert abs(reference.shape[1] - whole.shape[1]) <= 128  # its Vorbis ends on a block
    assert (reference[:, :shared] - whole[:, :shared]).abs().max() < 1e-5


def test_real_songs(shared_data: Path) -> None:
    song = sorted((shared_data / "songs").glob("*.mp3"))[0]
    checked = verify(song)
    assert checked.samples == checked.info.samples == 7321199
    whole = read(song)
    assert_slices_equal(song, whole, 2e-7)
    assert (ffmpeg_decode(song, 2) - whole).abs().max() < 1e-5
    voice = sorted((shared_data / "mir1k").glob("*.ogg"))[0]
    assert_slices_equal(voice, read(voice), 0.0)


def test_aac_of_musdb_is_exact(shared_data: Path, example_stem: Path) -> None:
    excerpt = sorted((shared_data / "musdb18_7s_train").glob("*.m4a"))[1]
    for path, streams in ((excerpt, 4), (example_stem, 5)):
        assert probe(path).streams == streams
        for stream in (0, streams - 1):
            whole = read(path, stream=stream)
            assert probe(path, stream=stream).samples == whole.shape[1]
            reference = ffmpeg_decode(path, 2, stream)
            assert reference.shape == whole.shape
            assert (reference - whole).abs().max() < 1e-5
            assert_slices_equal(path, whole, 0.0, stream)
        with pytest.raises(AudioError, match="stream 9"):
            read(path, stream=9)


def test_other_peoples_aac(tmp_path: Path) -> None:
    source = save(tmp_path / "a.wav", music(4.0))
    plain, raw = tmp_path / "plain.m4a", tmp_path / "raw.aac"
    ffmpeg("-i", source, "-b:a", "192k", "-aac_pns", "0", plain)
    ffmpeg("-i", source, "-b:a", "192k", "-aac_pns", "0", raw)
    late = tmp_path / "late.m4a"  # another encoder's delay: 2112 samples, not whole blocks
    data = plain.read_bytes()
    at = data.index(b"elst") + 16
    assert int.from_bytes(data[at : at + 4], "big") == 1024
    late.write_bytes(data[:at] + (2112).to_bytes(4, "big") + data[at + 4 :])
    for path in (plain, late, raw):
        whole = read(path)
        reference = ffmpeg_decode(path, 2)
        assert probe(path).samples == whole.shape[1] == reference.shape[1]
        assert (reference - whole).abs().max() < 1e-5
        assert_slices_equal(path, whole, 0.0)


def test_noise_substitution_is_the_only_inexact_slice(tmp_path: Path) -> None:
    source = save(tmp_path / "a.wav", 0.3 * torch.randn(2, 200000).clamp(-3, 3))
    path = tmp_path / "a.m4a"
    ffmpeg("-i", source, "-b:a", "96k", path)
    whole = read(path)
    part, expected = read(path, 100000, 44100), whole[:, 100000:144100]
    assert (part.std() / expected.std()).sub(1).abs() < 0.05  # other noise, the same level
    assert torch.equal(read(path, 0, 44100), whole[:, :44100])


def test_mp3_without_a_frame_count(tmp_path: Path) -> None:
    source = save(tmp_path / "a.wav", music(4.0))
    path = tmp_path / "old.mp3"
    ffmpeg("-i", source, "-b:a", "128k", "-write_xing", "0", path)
    tags = ID3()
    tags.add(APIC(mime="image/png", type=3, data=os.urandom(200000)))  # libsndfile counts it in
    tags.save(path)
    reference = ffmpeg_decode(path, 2)
    whole = read(path)
    assert probe(path).samples == whole.shape[1] == reference.shape[1] == verify(path).samples
    assert (reference - whole).abs().max() < 1e-5
    assert_slices_equal(path, whole, 2e-7)


def test_vorbis_slices_of_the_last_page(tmp_path: Path) -> None:
    path = save(tmp_path / "a.ogg", music(6.0))
    whole = read(path)
    for start in range(whole.shape[1] - 40000, whole.shape[1], 1999):
        assert torch.equal(read(path, start, 3000), whole[:, start : start + 3000])


def test_low_rate_mp3_slices_need_the_bit_reservoir(tmp_path: Path) -> None:
    path, bare, wave = tmp_path / "low.mp3", tmp_path / "bare.mp3", music(6.0, 22050)
    save(path, wave, 22050, bitrate=32)
    encode(bare, wave, "mp3", "stereo", 22050, write_xing="0")
    for one in (path, bare):
        assert_slices_equal(one, read(one), 5e-7)


def test_short_silent_offset_and_non_finite(tmp_path: Path) -> None:
    for suffix in ("wav", "flac", "mp3", "ogg", "opus", "m4a", "aiff"):
        short = save(tmp_path / f"short.{suffix}", music(0.01, 48000), 48000)
        assert 0 <= probe(short).samples - 480 < 1024
        silent = save(tmp_path / f"silent.{suffix}", torch.zeros(2, 48000), 48000)
        assert verify(silent).peak < 1e-4
    offset = verify(save(tmp_path / "dc.wav", torch.full((1, 1000), 0.25)))
    assert offset.peak == 0.25
    wave = music(0.5).clone()
    wave[0, 100], wave[1, 7] = torch.nan, torch.inf
    checked = verify(save(tmp_path / "nan.wav", wave))
    assert checked.non_finite == 2 and 0 < checked.peak < 1
    with pytest.raises(AudioError, match="NaN or Inf"):
        save(tmp_path / "nan.flac", wave)
    assert not list(tmp_path.glob("*nan.flac*"))


@pytest.mark.skipif(sys.platform != "linux", reason="other systems refuse such names")
@pytest.mark.parametrize("suffix", ["wav", "flac", "aiff", *LOSSY])
def test_names_that_are_not_utf_8(tmp_path: Path, suffix: str) -> None:
    name = b"caf\xe9." + suffix.encode()
    path = save(tmp_path / os.fsdecode(name), music(0.5, 48000), 48000)
    assert os.listdir(os.fsencode(tmp_path)) == [name]
    plain = tmp_path / f"plain.{suffix}"
    plain.write_bytes(path.read_bytes())
    whole = read(plain)
    assert torch.equal(read(path), whole) and np.array_equal(
        np.concatenate([*blocks(path)], 1), whole
    )
    assert probe(path).samples == verify(path).samples == whole.shape[1]
    assert audio.content_key(path) == audio.content_key(plain)
    path.write_bytes(plain.read_bytes()[:2000])
    with pytest.raises(AudioError) as caught:
        verify(path)
    assert str(caught.value).startswith(f"{printable(str(path))}: ")


def test_finding_and_checking_files_needs_no_torch() -> None:
    program = "import sys, separator.data.library.scan; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", program], check=True)


@pytest.mark.parametrize("suffix", ["mp3", "flac", "m4a", "ogg", "opus", "wav", "aiff"])
def test_content_key_ignores_tags_and_names(tmp_path: Path, suffix: str) -> None:
    path = save(tmp_path / f"a.{suffix}", music(1.0, 48000), 48000)
    key = audio.content_key(path)
    moved = path.rename(tmp_path / f"moved.{suffix}")
    for title in ("short", "a much longer title " * 300):
        if suffix in ("mp3", "wav", "aiff"):
            tagged = mutagen.File(moved)
            if tagged.tags is None:
                tagged.add_tags()
            tagged.tags.add(TIT2(text=title))
            tagged.tags.add(APIC(mime="image/png", type=3, data=bytes(range(256)) * len(title)))
            tagged.save(**({"v1": 2} if suffix == "mp3" else {}))
        else:
            tagged = mutagen.File(moved)
            tagged["\xa9nam" if suffix == "m4a" else "title"] = title
            tagged.save()
        assert audio.content_key(moved) == key
    other = save(tmp_path / f"b.{suffix}", -music(1.0, 48000), 48000)
    assert audio.content_key(other) != key


def test_slices_of_an_mp3_whose_frames_shrink(tmp_path: Path) -> None:
    """Small frames of a quiet end are stored far before their own place."""
    wave = music(4.0)
    wave[:, 44100:] *= 3e-5
    path = save(tmp_path / "a.mp3", wave)
    whole = read(path)
    for start in range(40000, whole.shape[1], 1999):
        assert torch.equal(read(path, start, 3000), whole[:, start : start + 3000])
