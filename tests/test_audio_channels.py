"""Rates and channels: resampling against soxr in one go, folding against ITU-R BS.775."""

from pathlib import Path

import av
import numpy as np
import pytest
import torch

from separator import audio
from separator.audio import (
    AudioError,
    Resampler,
    probe,
    read,
    resample,
)
from tests.sounds import encode, ffmpeg, ffmpeg_decode, music


@pytest.mark.parametrize(
    ("suffix", "codec"),
    [("ogg", "libvorbis"), ("opus", "libopus"), ("m4a", "aac"), ("flac", "flac")],
)
def test_channel_order_is_left_right_centre_lfe_surrounds(
    tmp_path: Path, suffix: str, codec: str
) -> None:
    t = torch.arange(48000) / 48000
    tones = (300, 500, 700, 60, 1100, 1300)
    wave = torch.stack([0.3 * torch.sin(6.2831853 * f * t) for f in tones])
    path = tmp_path / f"a.{suffix}"
    encode(tmp_path / "s.wav", wave, "pcm_f32le", "5.1", 48000)
    ffmpeg("-i", tmp_path / "s.wav", "-c:a", codec, path)
    for decoded in (read(path), ffmpeg_decode(path, 6)):
        loudest = torch.fft.rfft(decoded, 48000).abs().argmax(dim=1)
        assert loudest.tolist() == list(tones)


@pytest.mark.parametrize(
    "rates", [(44100, 48000), (48000, 44100), (8000, 44100), (192000, 44100), (44100, 16000)]
)
def test_streaming_resampler_equals_one_shot(rates: tuple[int, int]) -> None:
    import soxr

    wave = music(1.0, 50001)
    whole = resample(wave, *rates)
    assert whole.shape == (2, -(-50001 * rates[1] // rates[0])) and whole.dtype == torch.float32
    stream = Resampler(*rates, 2)
    parts = np.split(wave.numpy(), [1, 7, 20007, 20007], axis=1)
    pieces = [*map(stream.push, parts), stream.flush()]
    streamed = torch.from_numpy(np.concatenate(pieces, axis=1))
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
    array = wave.numpy()
    assert stream.push(array) is array and stream.flush().shape == (2, 0)
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
    for count in (1, 3, 4, 5, 7, 8):
        many = torch.randn(count, 9)
        assert audio.to_channels(many, 2).shape == (2, 9)
        assert np.array_equal(audio.to_channels(many.numpy(), 2), audio.to_channels(many, 2))
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


@pytest.mark.parametrize("layout", ["2.1", "3.1", "4.0", "4.1", "6.0", "5.1", "7.1"])
def test_every_container_is_folded_alike(tmp_path: Path, layout: str) -> None:
    places = av.AudioLayout(layout).nb_channels
    wave = music(0.5, 44100, places)
    folded = []
    for suffix in ("wav", "w64", "flac", "caf"):
        path = tmp_path / f"a.{suffix}"
        if suffix in ("flac", "caf"):
            ffmpeg("-i", tmp_path / "a.wav", path)
        else:
            encode(path, wave, "pcm_f32le", layout)
        whole = read(path)
        assert whole.shape == (probe(path).channels, 22050)
        folded.append(audio.to_channels(whole, 2))
        assert torch.equal(folded[-1][:, 5000:9000], audio.to_channels(read(path, 5000, 4000), 2))
    for other in folded[1:]:
        assert (other - folded[0]).abs().max() < 1e-4  # 16 bits


@pytest.mark.parametrize("suffix", ["caf", "aiff", "mov"])
def test_channels_in_apples_order_do_not_end_the_process(tmp_path: Path, suffix: str) -> None:
    source, path = tmp_path / "s.wav", tmp_path / f"a.{suffix}"
    encode(source, music(0.5, 44100, 8), "pcm_f32le", "7.1")
    ffmpeg("-i", source, "-af", "aformat=channel_layouts=7.1", "-c:a", "pcm_s16be", path)
    for _ in range(5):
        if suffix == "mov":
            with pytest.raises(AudioError, match="convert it to wav"):
                read(path)
        else:
            assert read(path).shape == (8, 22050) and audio.content_key(path)
