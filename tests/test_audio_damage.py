"""Every bad file: what is told of it, and what of it is read."""

from pathlib import Path

import numpy as np
import pytest
import torch

from separator import audio
from separator.audio import (
    AudioError,
    blocks,
    probe,
    read,
    verify,
)
from tests.sounds import LOSSY, assert_slices_equal, encode, ffmpeg, music, save

CLOSE = {"ogg": 1e-5, "opus": 1e-3}  # read by FFmpeg's decoder where they are damaged


def test_files_that_are_not_audio(tmp_path: Path) -> None:
    for suffix in sorted(audio.SUFFIXES):
        empty, text, missing = (tmp_path / f"{name}{suffix}" for name in ("e", "t", "missing"))
        empty.touch()
        text.write_text("This is a shopping list, not music.\n" * 200)
        for path in (empty, text, missing):
            for function in (probe, read, verify, audio.content_key):
                with pytest.raises(AudioError) as caught:
                    function(path)
                message = str(caught.value)
                assert message.startswith(f"{path}: ") and "; " in message and "\n" not in message
    (tmp_path / "folder.wav").mkdir()
    for path in (tmp_path / "folder.wav", tmp_path / "a.txt"):
        with pytest.raises(AudioError):
            probe(path)


@pytest.mark.parametrize("suffix", ["wav", "flac", "aiff", *LOSSY])
def test_truncated_files_raise_and_never_give_silence(tmp_path: Path, suffix: str) -> None:
    data = save(tmp_path / f"a.{suffix}", music(4.0, 48000), 48000).read_bytes()
    path = tmp_path / f"cut.{suffix}"
    for share in (0.02, 0.3, 0.6):
        path.write_bytes(data[: int(len(data) * share)])
        for function in (verify, lambda one: list(blocks(one))):
            with pytest.raises(AudioError, match=f"{path}: (truncated|is no aud|holds no samples)"):
                function(path)


@pytest.mark.parametrize("suffix", ["wav", "flac", "aiff", "mp3", "ogg", "opus"])
def test_a_missing_tail_is_told_and_the_rest_is_read(tmp_path: Path, suffix: str) -> None:
    path = save(tmp_path / f"a.{suffix}", music(8.0, 48000), 48000)
    whole, data = read(path), path.read_bytes()
    path.write_bytes(data[: -200 if suffix in ("ogg", "opus") else -len(data) // 100])
    checked, there = verify(path), read(path)
    assert 0.8 < there.shape[1] / whole.shape[1] < 1
    assert checked.samples == checked.info.samples == probe(path).samples == there.shape[1]
    assert checked.notices
    settled = there.shape[1] - 2000  # the last block of a lossy codec overlaps with what is gone
    assert (there - whole[:, : there.shape[1]])[:, :settled].abs().max() <= CLOSE.get(suffix, 0)


def test_m4a_with_its_index_first_is_seen_truncated(tmp_path: Path) -> None:
    source, path = save(tmp_path / "a.m4a", music(4.0)), tmp_path / "fast.m4a"
    ffmpeg("-i", source, "-c", "copy", "-movflags", "faststart", path)
    verify(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    for function in (probe, verify, read):
        with pytest.raises(AudioError):
            function(path)


@pytest.mark.parametrize("suffix", ["flac", *LOSSY])
def test_damage_in_the_middle_costs_what_is_damaged(
    tmp_path: Path, suffix: str, caplog: pytest.LogCaptureFixture
) -> None:
    path = save(tmp_path / f"a.{suffix}", music(8.0, 48000), 48000)
    before, data = read(path), bytearray(path.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 3000] = np.random.default_rng(0).bytes(3000)
    path.write_bytes(data)
    (notice,) = [one for one in verify(path).notices if one.startswith("damaged at")]
    place = float(notice.split()[2])
    assert 3 < place < 5
    whole = torch.from_numpy(np.concatenate(list(blocks(path)), axis=1))
    assert f"{path}: {notice}" in caplog.text and torch.equal(read(path), whole)
    sound = int((place - 0.1) * 48000)
    assert (whole - before[:, : whole.shape[1]])[:, :sound].abs().max() <= CLOSE.get(suffix, 0)
    if suffix != "mp3":  # its frames are not numbered: what is missing is left out
        assert (whole - before)[:, -48000:].abs().max() <= CLOSE.get(suffix, 0)
    for start in (sound - 40000, sound - 9000, sound + 9000, sound + 90000):
        assert torch.equal(read(path, start, 20000), whole[:, start : start + 20000])
    with pytest.raises(AudioError, match=r"damaged at \d"):
        list(blocks(path, strict=True))


def test_what_is_mostly_damaged_is_refused(tmp_path: Path) -> None:
    path = save(tmp_path / "a.mp3", music(8.0, 48000), 48000)
    data = bytearray(path.read_bytes())
    start, stop = len(data) // 8, len(data) * 7 // 8
    data[start:stop] = np.random.default_rng(0).bytes(stop - start)
    path.write_bytes(data)
    for function in (verify, read, lambda one: list(blocks(one))):
        with pytest.raises(AudioError, match=r"damaged, .* do not decode, the first at"):
            function(path)


def test_files_whose_sound_is_not_what_their_header_says(tmp_path: Path) -> None:
    wave, bare = music(2.0), {"write_xing": "0", "id3v2_version": "0"}
    stereo = encode(tmp_path / "a.mp3", wave, "mp3", "stereo", **bare)
    mono = encode(tmp_path / "a.mp3", wave[:1], "mp3", "mono", **bare)
    slow = encode(tmp_path / "a.mp3", music(2.0, 22050), "mp3", "stereo", 22050, **bare)
    headed = save(tmp_path / "a.mp3", wave).read_bytes()
    sizes = bytearray(save(tmp_path / "a.m4a", wave).read_bytes())
    sizes[sizes.index(b"stsz") + 16 + 4 * 60] = 0x6A  # a packet far larger than the file
    bad = {
        "rate.mp3": (stereo + slow, "its rate changes from 44100 to 22050 Hz at 2"),
        "headed_rate.mp3": (headed[: len(headed) // 2] + slow, "its rate changes"),
        "ends_in_its_header.mp3": (b"\xff\xfb\x90" + bytes(33) + b"Xing\0\0", "is no audio"),
        "size.m4a": (bytes(sizes), "damaged|truncated"),
        "gap.m4a": (encode(tmp_path / "a.m4a", wave, "aac", "stereo", jump=44100), "damaged"),
    }
    for name, (data, reason) in bad.items():
        path = tmp_path / name
        path.write_bytes(data)
        for function in (verify, read):
            with pytest.raises(AudioError, match=f"{path}: ({reason})") as caught:
                function(path)
            assert "; " in str(caught.value) and "\n" not in str(caught.value)
    mixed = tmp_path / "channels.mp3"
    mixed.write_bytes(stereo + mono)
    assert probe(mixed).channels == 2 and "mono and stereo" in probe(mixed).notices[0]
    assert_slices_equal(mixed, read(mixed), 0.0)


def test_wav_from_a_pipe_has_no_length_and_is_read(tmp_path: Path) -> None:
    data = bytearray(save(tmp_path / "a.wav", music(1.0), subtype="PCM_16").read_bytes())
    at = data.index(b"data") + 4
    data[4:8] = data[at : at + 4] = b"\xff\xff\xff\xff"
    (tmp_path / "pipe.wav").write_bytes(data)
    assert verify(tmp_path / "pipe.wav").samples == 44100


@pytest.mark.parametrize("seconds", [3.0, 20.0])
def test_a_damaged_flac_frame_moves_nothing(tmp_path: Path, seconds: float) -> None:
    """Decoders leave the frame out; here what follows stays in its place, in short files too."""
    path = save(tmp_path / "a.flac", music(seconds, 44100), 44100)
    before, data = read(path), bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0x55
    path.write_bytes(data)
    damaged = read(path)
    assert damaged.shape == before.shape
    wrong = ((damaged - before).abs().amax(0) > 0).nonzero().flatten()
    assert 0 < wrong.max() - wrong.min() < 3 * 4096
    assert (damaged[:, wrong] == 0).all()
    (notice,) = verify(path).notices
    assert abs(float(notice.split()[2]) - wrong.min() / 44100) < 0.03


@pytest.mark.parametrize("suffix", ["flac", "wav", "mp3", "m4a", "ogg", "ape", "wma"])
def test_what_is_no_sound_is_said_to_be_none(suffix: str, tmp_path: Path):
    path = tmp_path / f"noise.{suffix}"
    path.write_bytes(np.random.default_rng(0).bytes(50_000))
    with pytest.raises(audio.AudioError, match="read; check that it plays"):
        audio.probe(path)
