"""audio/ against ffmpeg's decoder, whole decodes, soxr in one go, and every bad file."""

import contextlib
import functools
import os
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import av
import mutagen
import numpy as np
import pytest
import torch
from mutagen.id3 import APIC, ID3, TIT2
from torch import Tensor

from separator import audio
from separator.audio import (
    AudioError,
    Resampler,
    Writer,
    blocks,
    probe,
    read,
    resample,
    verify,
    writer,
)

LOSSY = ("mp3", "ogg", "opus", "m4a")


@functools.lru_cache
def music(seconds: float, rate: int = 44100, channels: int = 2) -> Tensor:
    """Chords and some noise, different in each channel, peak about 0.5."""
    t = torch.arange(int(seconds * rate), dtype=torch.float64) / rate
    noise = torch.randn(channels, t.numel(), generator=torch.Generator().manual_seed(1))
    tones = [sum(torch.sin(6.283 * f * (c + 1) * t) for f in (110, 165, 275)) for c in
             range(channels)]  # fmt: skip
    return (0.12 * torch.stack(tones) + 0.02 * noise).float()


def save(path: Path, wave: Tensor, rate: int = 44100, **options: object) -> Path:
    with Writer(path, rate, wave.shape[0], **options) as writer:
        for part in wave.split(30011, dim=1):
            writer.write(part)
    return path


def encode(
    path: Path,
    wave: Tensor,
    codec: str,
    layout: str,
    rate: int = 44100,
    jump: int = 0,
    **options: str,
) -> bytes:
    """What the Writer does not write: any layout, MP3 without a header, a `jump` in the times."""
    with av.open(str(path), "w", options=options) as container:
        stream = container.add_stream(codec, rate=rate, layout=layout)
        stream.bit_rate = 32000 if rate < 32000 else 256000
        at = 0
        for part in wave.split(4608, dim=1):
            packed = np.ascontiguousarray(part.T.numpy()).reshape(1, -1)
            frame = av.AudioFrame.from_ndarray(packed, format="flt", layout=layout)
            frame.sample_rate, frame.pts = rate, at + (jump if at > wave.shape[1] // 2 else 0)
            at += part.shape[1]
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path.read_bytes()


def ffmpeg(*arguments: object) -> bytes:
    if shutil.which("ffmpeg") is None:
        pytest.skip("the ffmpeg program is not installed")
    command = ["ffmpeg", "-v", "error", "-y", *map(str, arguments)]
    return subprocess.run(command, check=True, capture_output=True).stdout


def ffmpeg_decode(path: Path, channels: int, stream: int = 0) -> Tensor:
    raw = ffmpeg("-i", path, "-map", f"0:a:{stream}", "-f", "f32le", "-")
    return torch.from_numpy(np.frombuffer(raw, "<f4").reshape(-1, channels).T.copy())


def assert_slices_equal(path: Path, whole: Tensor, tolerance: float, stream: int = 0) -> None:
    generator = np.random.default_rng(0)
    total = whole.shape[1]
    for start in (0, 1, 1023, 1024, *generator.integers(0, total, 5), total - 5, total, total + 9):
        part = read(path, int(start), 20011, stream=stream)
        expected = whole[:, start : start + 20011]
        assert part.shape == expected.shape
        assert part.numel() == 0 or (part - expected).abs().max() <= tolerance


@pytest.mark.parametrize("suffix", ["wav", "flac", "aiff", *LOSSY])
def test_round_trip_is_aligned_and_every_reader_agrees(tmp_path: Path, suffix: str) -> None:
    wave = music(1.5, 48000)
    path = save(tmp_path / f"a.{suffix}", wave, 48000)
    info = probe(path)
    whole = read(path)
    assert (info.format, info.rate, info.channels) == (suffix, 48000, 2)
    assert whole.shape == (2, info.samples)
    assert 0 <= info.samples - wave.shape[1] < (1024 if suffix == "m4a" else 1)
    error = (whole[:, : wave.shape[1]] - wave).square().mean() / wave.square().mean()
    assert error < (0.01 if suffix in LOSSY else 1e-9)
    for size in (10007, 1 << 18):
        parts = list(blocks(path, size))
        assert all(part.shape[1] == size for part in parts[:-1])
        assert all(part.is_contiguous() for part in (whole, *parts))
        assert torch.equal(torch.cat(parts, dim=1), whole)
    assert_slices_equal(path, whole, 2e-7 if suffix in ("mp3", "opus") else 0.0)
    checked = verify(path)
    assert checked.samples == info.samples and checked.non_finite == 0
    assert checked.peak == pytest.approx(float(whole.abs().max()))


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


@pytest.mark.parametrize("bitrate", [32, 40, 48, 56, 64, 128])
def test_mp3_of_a_low_bit_rate_has_it_and_is_aligned(tmp_path: Path, bitrate: int) -> None:
    for rate in (22050, 44100):
        wave = music(4.0, rate)
        path = save(tmp_path / "a.mp3", wave, rate, bitrate=bitrate)
        assert path.stat().st_size * 8 / 4000 == pytest.approx(bitrate, rel=0.1)
        whole = read(path)
        assert whole.shape == wave.shape
        low = [audio.resample(one, rate, 4000) for one in (whole, wave)]
        assert (low[0] - low[1]).square().mean() < 0.1 * low[1].square().mean()


@pytest.mark.parametrize("suffix", ["wav", "flac", "aiff"])
def test_a_bit_rate_for_a_lossless_format_is_told_to_be_unused(
    tmp_path: Path, suffix: str, caplog: pytest.LogCaptureFixture
) -> None:
    save(tmp_path / f"a.{suffix}", music(0.1), bitrate=128)
    assert f"{suffix} is lossless: a bit rate of 128 is not used" in caplog.text


@pytest.mark.parametrize("rate", [8000, 192000])
@pytest.mark.parametrize("channels", [1, 6])
def test_odd_rates_and_channels(tmp_path: Path, rate: int, channels: int) -> None:
    wave = music(0.5, rate, channels)
    for suffix in ("wav", "flac", "ogg", "opus", "m4a", "mp3"):
        if suffix == "mp3" and channels > 2:
            with pytest.raises(AudioError, match="cannot hold 6 channels"):
                Writer(tmp_path / "a.mp3", rate, channels)
            continue
        path = save(tmp_path / f"a{channels}.{suffix}", wave, rate)
        info = probe(path)
        assert info.channels == channels
        assert info.seconds == pytest.approx(0.5, abs=0.13 if suffix == "m4a" else 1e-3)
        assert read(path).shape == (channels, info.samples)


@pytest.mark.parametrize("suffix", ["ogg", "opus", "m4a", "flac"])
def test_channel_order_is_left_right_centre_lfe_surrounds(tmp_path: Path, suffix: str) -> None:
    t = torch.arange(48000) / 48000
    tones = (300, 500, 700, 60, 1100, 1300)
    wave = torch.stack([0.3 * torch.sin(6.2831853 * f * t) for f in tones])
    path = save(tmp_path / f"a.{suffix}", wave, 48000)
    for decoded in (read(path), ffmpeg_decode(path, 6)):
        loudest = torch.fft.rfft(decoded[:, :48000]).abs().argmax(dim=1)
        assert loudest.tolist() == list(tones)


def test_rates_a_codec_cannot_hold_are_resampled_with_a_notice(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for suffix, expected in (("mp3", 48000), ("opus", 48000), ("m4a", 96000)):
        assert probe(save(tmp_path / f"a.{suffix}", music(0.3, 192000), 192000)).rate == expected
        assert f"cannot hold 192000 Hz, resampled to {expected} Hz" in caplog.text
    assert probe(save(tmp_path / "b.opus", music(0.3, 44100))).samples == 14400


@pytest.mark.parametrize(
    ("suffix", "rate", "highest"), [("ogg", 352800, 200000), ("flac", 768000, 655350)]
)
def test_rates_above_the_highest_are_resampled_with_a_notice(
    tmp_path: Path, suffix: str, rate: int, highest: int, caplog: pytest.LogCaptureFixture
) -> None:
    info = probe(save(tmp_path / f"a.{suffix}", music(0.1, rate), rate))
    assert info.rate == highest and info.seconds == pytest.approx(0.1, abs=1e-4)
    assert f"cannot hold {rate} Hz, resampled to {highest} Hz" in caplog.text
    assert probe(save(tmp_path / f"b.{suffix}", music(0.1, highest), highest)).rate == highest


def test_a_long_wav_is_rf64_and_a_long_aiff_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wave = music(0.5)
    size = wave.numel() * 4
    long, short = tmp_path / "long.wav", tmp_path / "short.wav"
    monkeypatch.setattr(writer, "_MOST_BYTES", size)
    assert save(short, wave, samples=wave.shape[1]).read_bytes()[:4] == b"RIFF"
    monkeypatch.setattr(writer, "_MOST_BYTES", size - 1)
    assert save(long, wave, samples=wave.shape[1]).read_bytes()[:4] == b"RF64"
    assert torch.equal(read(long), wave) and torch.equal(read(short), wave)
    assert verify(long).samples == probe(long).samples == wave.shape[1]
    assert probe(long).format == "wav" and audio.content_key(long) == audio.content_key(short)
    cut = tmp_path / "cut.wav"
    cut.write_bytes(long.read_bytes()[: size // 2])
    for function in (probe, verify, lambda one: list(blocks(one))):
        with pytest.raises(AudioError, match="truncated"):
            function(cut)
    with pytest.raises(AudioError, match="4 GiB; write flac or wav"):
        Writer(tmp_path / "a.aiff", 44100, 2, subtype="FLOAT", samples=wave.shape[1])
    for suffix in ("wav", "aiff"):  # the length was not told
        with pytest.raises(AudioError, match="4 GiB"):
            save(tmp_path / f"b.{suffix}", wave, subtype="FLOAT")
    assert {*tmp_path.iterdir()} == {long, short, cut}


def test_integers_survive_and_peaks_clip_without_wrapping(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    for subtype, bits in (("PCM_16", 16), ("PCM_24", 24)):
        full = 1 << (bits - 1)
        values = generator.integers(-full, full, (2, 5000))
        values[:, :2] = [[-full, full - 1]] * 2
        wave = torch.from_numpy(values / full).float()
        for suffix in ("wav", "flac", "aiff"):
            path = save(tmp_path / f"a.{suffix}", wave, subtype=subtype)
            assert torch.equal(read(path), wave)
    loud = torch.tensor([[0.5, 1.0, 1.5, -1.5, -1.0, 3.0]])
    with Writer(tmp_path / "loud.flac", 44100, 1) as writer:
        writer.write(loud)
    assert writer.clipped == 3
    assert (read(tmp_path / "loud.flac") - loud.clamp(-1, 1)).abs().max() < 1e-6
    assert torch.equal(read(save(tmp_path / "loud.wav", loud)), loud)
    for suffix in LOSSY:
        hot = read(save(tmp_path / f"hot.{suffix}", 5 * music(1.0, 48000), 48000))
        assert hot.abs().max() > 1.5


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
    data = save(tmp_path / f"a.{suffix}", music(1.5, 48000), 48000).read_bytes()
    path = tmp_path / f"cut.{suffix}"
    for share in (0.02, 0.5, 0.95):
        path.write_bytes(data[: int(len(data) * share)])
        for function in (verify, lambda one: list(blocks(one))):
            with pytest.raises(AudioError, match=str(path)):
                function(path)


def test_m4a_with_its_index_first_is_seen_truncated(tmp_path: Path) -> None:
    source, path = save(tmp_path / "a.m4a", music(4.0)), tmp_path / "fast.m4a"
    ffmpeg("-i", source, "-c", "copy", "-movflags", "faststart", path)
    verify(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    for function in (probe, verify, read):
        with pytest.raises(AudioError):
            function(path)


@pytest.mark.parametrize("suffix", ["flac", "mp3", "m4a"])
def test_damage_in_the_middle_raises(tmp_path: Path, suffix: str) -> None:
    path = save(tmp_path / f"a.{suffix}", music(4.0, 48000), 48000)
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 20000] = np.random.default_rng(0).bytes(20000)
    path.write_bytes(data)
    with pytest.raises(AudioError):
        verify(path)


def test_files_whose_sound_is_not_what_their_header_says(tmp_path: Path) -> None:
    wave, bare = music(2.0), {"write_xing": "0", "id3v2_version": "0"}
    stereo = encode(tmp_path / "a.mp3", wave, "mp3", "stereo", **bare)
    mono = encode(tmp_path / "a.mp3", wave[:1], "mp3", "mono", **bare)
    slow = encode(tmp_path / "a.mp3", music(2.0, 22050), "mp3", "stereo", 22050, **bare)
    headed = save(tmp_path / "a.mp3", wave).read_bytes()
    sizes = bytearray(save(tmp_path / "a.m4a", wave).read_bytes())
    sizes[sizes.index(b"stsz") + 16 + 4 * 60] = 0x6A  # a packet far larger than the file
    bad = {
        "channels.mp3": stereo + mono,
        "rate.mp3": stereo + slow,
        "headed_channels.mp3": headed[: len(headed) // 2] + mono,
        "headed_rate.mp3": headed[: len(headed) // 2] + slow,
        "ends_in_its_header.mp3": b"\xff\xfb\x90" + bytes(33) + b"Xing\0\0",
        "size.m4a": bytes(sizes),
        "gap.m4a": encode(tmp_path / "a.m4a", wave, "aac", "stereo", jump=44100),
    }
    for name, data in bad.items():
        path = tmp_path / name
        path.write_bytes(data)
        for function in (verify, read, lambda one: list(blocks(one))):
            with pytest.raises(AudioError) as caught:
                function(path)
            message = str(caught.value)
            assert message.startswith(f"{path}: ") and "; " in message and "\n" not in message
    for name in ("channels.mp3", "rate.mp3"):  # a slice of what is not as the header says
        with pytest.raises(AudioError, match="change on the way"):
            read(tmp_path / name, 120000, 5000)


def test_wav_from_a_pipe_has_no_length_and_is_read(tmp_path: Path) -> None:
    data = bytearray(save(tmp_path / "a.wav", music(1.0), subtype="PCM_16").read_bytes())
    at = data.index(b"data") + 4
    data[4:8] = data[at : at + 4] = b"\xff\xff\xff\xff"
    (tmp_path / "pipe.wav").write_bytes(data)
    assert verify(tmp_path / "pipe.wav").samples == 44100


def test_nothing_is_left_on_error(tmp_path: Path) -> None:
    path = save(tmp_path / "a.flac", music(0.2))
    before = path.read_bytes()
    for suffix in ("wav", "flac", "mp3", "ogg", "opus", "m4a", "aiff"):
        with (
            pytest.raises(OSError, match="from the caller"),
            Writer(tmp_path / f"a.{suffix}", 44100, 2) as writer,
        ):
            writer.write(music(0.2))
            raise OSError("from the caller")
        with (
            pytest.raises(AudioError, match="0 samples"),
            Writer(tmp_path / f"b.{suffix}", 8000, 1),
        ):
            pass
    assert list(tmp_path.iterdir()) == [path] and path.read_bytes() == before
    for wrong in ({"format": "wma"}, {"subtype": "PCM_8"}, {"bitrate": 9000}):
        with pytest.raises(AudioError):
            Writer(path, 44100, 2, **wrong)


@contextlib.contextmanager
def full_disk(size: int) -> Iterator[None]:
    """Make every write past `size` bytes of a file fail, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, handler)


def test_a_full_disk_is_one_line_and_leaves_nothing(tmp_path: Path) -> None:
    wave = torch.randn(2, 220500) / 9
    for suffix in ("wav", "flac", "mp3", "ogg", "m4a"):
        path = tmp_path / f"a.{suffix}"
        with full_disk(20000), pytest.raises(AudioError) as caught, Writer(path, 44100, 2) as out:
            out.write(wave)
        assert str(caught.value).startswith(f"{path}: ") and "\n" not in str(caught.value)
        assert not list(tmp_path.iterdir())


@pytest.mark.skipif(sys.platform != "linux", reason="other systems refuse such names")
@pytest.mark.parametrize("suffix", ["wav", "flac", "aiff", *LOSSY])
def test_names_that_are_not_utf_8(tmp_path: Path, suffix: str) -> None:
    name = b"caf\xe9." + suffix.encode()
    path = save(tmp_path / os.fsdecode(name), music(0.5, 48000), 48000)
    assert os.listdir(os.fsencode(tmp_path)) == [name]
    plain = tmp_path / f"plain.{suffix}"
    plain.write_bytes(path.read_bytes())
    whole = read(plain)
    assert torch.equal(read(path), whole) and torch.equal(torch.cat([*blocks(path)], 1), whole)
    assert probe(path).samples == verify(path).samples == whole.shape[1]
    assert audio.content_key(path) == audio.content_key(plain)
    path.write_bytes(plain.read_bytes()[:2000])
    with pytest.raises(AudioError) as caught:
        verify(path)
    assert str(caught.value).startswith(f"{path}: ")


def test_finding_and_checking_files_needs_no_torch() -> None:
    program = "import sys, separator.data.library; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", program], check=True)


@pytest.mark.parametrize(
    "rates", [(44100, 48000), (48000, 44100), (8000, 44100), (192000, 44100), (44100, 16000)]
)
def test_streaming_resampler_equals_one_shot(rates: tuple[int, int]) -> None:
    import soxr

    wave = music(1.0, 50001)
    whole = resample(wave, *rates)
    assert whole.shape == (2, -(-50001 * rates[1] // rates[0])) and whole.dtype == torch.float32
    stream = Resampler(*rates, 2)
    parts = [stream.push(part) for part in wave.split([1, 6, 20000, 0, 29994], dim=1)]
    streamed = torch.cat([*parts, stream.flush()], dim=1)
    assert streamed.shape == whole.shape and (streamed - whole).abs().max() < 1e-6
    reference = torch.from_numpy(soxr.resample(wave.T.numpy(), *rates, quality="HQ").T.copy())
    shared = reference.shape[1]
    assert whole.shape[1] - shared in (0, 1)
    assert (whole[:, :shared] - reference).abs().max() < 1e-6
    stems = resample(wave.expand(3, 2, -1), *rates)
    assert stems.shape == (3, *whole.shape) and torch.equal(stems[2], whole)


def test_resampling_keeps_place_and_equal_rates_are_the_identity() -> None:
    wave = music(0.3)
    assert resample(wave, 44100, 44100) is wave
    stream = Resampler(44100, 44100, 2)
    assert stream.push(wave) is wave and stream.flush().shape == (2, 0)
    t = torch.arange(48000, dtype=torch.float64) / 48000
    high = torch.sin(6.283185307 * 1000 * t).float()
    low = resample(high, 48000, 16000)
    assert (low - high[::3])[500:-500].abs().max() < 1e-4
    for rates in ((192000, 8000), (8000, 192000), (44100, 48000), (48000, 11025)):
        for length in (0, 1, 2, 5, 100, 441, 4097):
            expected = -(-length * rates[1] // rates[0])
            assert resample(torch.ones(1, length), *rates).shape == (1, expected)


def test_to_channels() -> None:
    wave = torch.arange(12.0).reshape(6, 2)
    left, right, centre, _, left_surround, right_surround = wave
    expected = torch.stack(
        [left + 0.5**0.5 * (centre + left_surround), right + 0.5**0.5 * (centre + right_surround)]
    )
    assert torch.allclose(audio.to_channels(wave, 2), expected)
    assert torch.allclose(audio.to_channels(wave, 1), expected.mean(0, keepdim=True))
    assert torch.equal(audio.to_channels(wave[:1], 2), wave[[0, 0]])
    assert torch.equal(audio.to_channels(wave[:2], 1), wave[:2].mean(0, keepdim=True))
    assert torch.equal(audio.to_channels(wave[:2], 2), wave[:2])
    for count in (3, 4, 5, 7, 8):
        assert audio.to_channels(torch.randn(count, 9), 2).shape == (2, 9)
    with pytest.raises(AudioError, match="16 channels"):
        audio.to_channels(torch.zeros(16, 4), 2)


@pytest.mark.parametrize(
    ("codec", "layout"), [("aac", "4.0"), ("aac", "quad"), ("aac", "7.1"), ("alac", "6.1(back)")]
)
def test_an_m4a_is_folded_by_its_layout(tmp_path: Path, codec: str, layout: str) -> None:
    half = 0.5**0.5
    shares = {  # ITU-R BS.775-3
        **{"FL": (1, 0), "FR": (0, 1), "FC": (half, half), "LFE": (0, 0), "BC": (0.5, 0.5)},
        **{"BL": (half, 0), "BR": (0, half), "SL": (half, 0), "SR": (0, half)},
    }
    names = [channel.name for channel in av.AudioLayout(layout).channels]
    t = torch.arange(44100) / 44100
    tones = [200 + 130 * i for i in range(len(names))]
    wave = torch.stack([0.1 * torch.sin(6.2831853 * f * t) for f in tones])
    encode(tmp_path / "a.m4a", wave, codec, layout)
    info, whole = probe(tmp_path / "a.m4a"), read(tmp_path / "a.m4a")
    assert whole.shape == (info.channels, info.samples)
    folded = audio.to_channels(whole, 2)[:, :44100]
    found = torch.fft.rfft(folded).abs()[:, tones] / 2205
    expected = torch.tensor([shares[name] for name in names]).T
    assert (found - expected).abs().max() < 0.05


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
