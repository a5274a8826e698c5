"""audio/ writes what comes back, whole or not at all."""

import contextlib
import resource
import signal
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from separator import audio
from separator.audio import (
    ENCODINGS,
    AudioError,
    Writer,
    blocks,
    formats,
    probe,
    read,
    verify,
    writer,
)
from tests.sounds import LOSSY, assert_slices_equal, music, save


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
        assert all(part.flags.c_contiguous for part in (whole.numpy(), *parts))
        assert np.array_equal(np.concatenate(parts, axis=1), whole)
    assert_slices_equal(path, whole, 2e-7 if suffix in ("mp3", "opus") else 0.0)
    checked = verify(path)
    assert checked.samples == info.samples and checked.non_finite == 0
    assert checked.peak == pytest.approx(float(whole.abs().max()))


@pytest.mark.parametrize("suffix", ["wav", "ogg", "opus"])
def test_the_same_sound_gives_the_same_bytes(tmp_path: Path, suffix: str) -> None:
    paths = [tmp_path / f"{number}.{suffix}" for number in range(2)]
    for path in paths:
        with audio.Writer(path, 48000, 2) as writer:
            for seed in range(3):
                generator = torch.Generator().manual_seed(seed)
                writer.write(torch.randn(2, 40_000, generator=generator) * 0.1)
    assert paths[0].read_bytes() == paths[1].read_bytes()
    assert b"PEAK" not in paths[0].read_bytes()[:200]  # libsndfile's chunk with the time
    wave, _ = soundfile.read(paths[0])
    assert len(wave) == 120_000


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


@pytest.mark.parametrize("suffix", ENCODINGS)
@pytest.mark.parametrize("rate", [8000, 192000])
def test_odd_rates_and_mono(tmp_path: Path, rate: int, suffix: str) -> None:
    path = save(tmp_path / f"a.{suffix}", music(0.5, rate, 1), rate)
    info = probe(path)
    assert info.channels == 1
    assert info.seconds == pytest.approx(0.5, abs=0.13 if suffix == "m4a" else 1e-3)
    assert read(path).shape == (1, info.samples)
    with pytest.raises(AudioError, match="6 channels: fold them to one or two"):
        Writer(tmp_path / f"b.{suffix}", rate, 6)


def test_a_new_output_format_is_one_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    row = formats.Format(
        "au", (".au",), (), formats.Encoding("soundfile", "AU", subtypes=("PCM_24",))
    )
    monkeypatch.setitem(formats.FORMATS, "au", row)
    monkeypatch.setitem(ENCODINGS, "au", row.encoding)
    values = np.random.default_rng(0).integers(-(1 << 23), 1 << 23, (2, 500)) / (1 << 23)
    path = save(tmp_path / "a.au", torch.from_numpy(values).float())
    decoded, rate = soundfile.read(path)
    assert rate == 44100 and np.array_equal(decoded.T, values)
    assert audio.written_as("au") == "au"


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
    monkeypatch.setattr(writer, "_MAX_BYTES", size)
    assert save(short, wave, samples=wave.shape[1]).read_bytes()[:4] == b"RIFF"
    monkeypatch.setattr(writer, "_MAX_BYTES", size - 1)
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


def test_dither_is_noise_of_one_step_and_silence_stays(tmp_path: Path) -> None:
    t = torch.arange(88200) / 44100
    quiet = (0.6 / 32768 * torch.sin(6.2831853 * 1000 * t)).repeat(2, 1)  # under one step
    quiet = torch.cat([torch.zeros(2, 8192), quiet], dim=1)
    plain = read(save(tmp_path / "p.wav", quiet, subtype="PCM_16")) * 32768
    path = save(tmp_path / "d.wav", quiet, subtype="PCM_16", dither=True)
    dithered = read(path) * 32768
    assert not dithered[:, :8192].any() and dithered.abs().max() <= 2
    error = (dithered - quiet * 32768)[:, 8192:]
    assert error.square().mean() == pytest.approx(0.25, rel=0.05)  # triangular: 1/6 + 1/12
    third = [torch.fft.rfft(one[0, 8192:]).abs()[6000] / 44100 for one in (plain, dithered)]
    assert third[1] < 0.03 < 0.1 < third[0]  # the third harmonic is gone
    assert (error[0] * error[1]).mean().abs() < 0.01
    assert save(tmp_path / "e.wav", quiet, subtype="PCM_16", dither=True).read_bytes() == (
        path.read_bytes()
    )


@pytest.mark.parametrize("rate", [44100, 96000])
def test_an_m4a_begins_as_well_as_it_goes_on(tmp_path: Path, rate: int) -> None:
    t = torch.arange(2 * rate) / rate
    noise = torch.randn(2, 2 * rate, generator=torch.Generator().manual_seed(1))
    wave = 0.4 * torch.sin(6.2831853 * torch.tensor([[440.0], [660.0]]) * t) + 0.02 * noise
    path = save(tmp_path / "a.m4a", wave, rate)
    error = (read(path)[:, : wave.shape[1]] - wave).square()
    tenths = torch.stack([part.mean() for part in error.split(rate // 10, dim=1)]).log10() * 10
    assert tenths[:3].max() < tenths[5:].max() + 1
    assert 0 <= probe(path).samples - wave.shape[1] < 1024
    short = save(tmp_path / "short.m4a", wave[:, :3000], rate)
    assert 0 <= probe(short).samples - 3000 < 1024
