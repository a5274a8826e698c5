"""Both SDRs against independent answers: museval on real music, and sums written out."""

import math
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from separator import metrics
from separator.dsp.config import STFTConfig
from separator.dsp.stft import istft, stft
from separator.metrics import frame_sdr, global_sdr, ideal_mask, median_sdr

RATE = 44100


@pytest.fixture(autouse=True)
def same_numbers_every_time() -> None:
    torch.manual_seed(0)


def museval_frames(reference: Tensor, estimate: Tensor, rate: int) -> np.ndarray:
    """SDR (s n) as museval computes it."""
    try:
        museval = pytest.importorskip("museval", reason="museval is not installed")
    except RuntimeError as error:  # stempeg, below museval, wants ffmpeg when it is imported
        pytest.skip(f"museval does not import: {error}")
    waves = (wave.transpose(-1, -2).double().numpy() for wave in (reference, estimate))
    return museval.evaluate(*waves, win=rate, hop=rate)[0]


def assert_equal_to_museval(reference: Tensor, estimate: Tensor, rate: int) -> Tensor:
    expected = museval_frames(reference, estimate, rate)
    ours = frame_sdr(reference, estimate, rate)
    np.testing.assert_allclose(ours.numpy(), expected, rtol=0, atol=1e-9)
    np.testing.assert_allclose(
        median_sdr(ours).numpy(), np.nanmedian(expected, axis=-1), rtol=0, atol=1e-9
    )
    return ours


def estimates(stems: Tensor) -> Tensor:
    """A plausible separation (s c t): leaks of the other stem, filtering, and noise."""
    noise = torch.randn(stems.shape, generator=torch.Generator().manual_seed(3))
    delayed = torch.roll(stems, 7, dims=-1)
    return 0.8 * stems + 0.1 * delayed + 0.2 * stems.flip(0) + 0.003 * noise


def read(path: Path, stream: int, start: float, seconds: float, rate: int = RATE) -> Tensor:
    """Excerpt (c t) of one stream of a stem file, decoded without the library under test."""
    import av

    with av.open(str(path)) as container:
        audio = container.streams.audio[stream]
        resampler = av.AudioResampler("fltp", "stereo", rate)
        frames = [
            torch.from_numpy(part.to_ndarray())
            for frame in container.decode(audio)
            for part in resampler.resample(frame)
        ]
    wave = torch.cat(frames, dim=-1)
    return wave[:, int(start * rate) : int((start + seconds) * rate)]


def stem_pair(path: Path, start: float, seconds: float, rate: int = RATE) -> Tensor:
    """(s c t): accompaniment and vocals; the last four streams are drums bass other vocals."""
    drums, bass, other, vocals = (read(path, i, start, seconds, rate) for i in range(-4, 0))
    return torch.stack([drums + bass + other, vocals])


def test_equals_museval_on_the_stempeg_example_with_a_ragged_tail(example_stem: Path) -> None:
    stems = stem_pair(Path(example_stem), 0.5, 2.4)
    ours = assert_equal_to_museval(stems, estimates(stems), RATE)
    assert ours.shape == (2, 2) and ours.dtype == torch.float64
    assert ours.isfinite().all()


def test_equals_museval_with_a_silent_second_in_a_reference(example_stem: Path) -> None:
    stems = stem_pair(Path(example_stem), 0.5, 3.2, rate=16000)
    guess = estimates(stems)
    stems[1, :, 16000:32000] = 0
    ours = assert_equal_to_museval(stems, guess, 16000)
    assert ours.isnan().tolist() == [[False, True, False]] * 2


def test_equals_museval_where_estimates_are_silent_and_channels_cancel(
    example_stem: Path,
) -> None:
    stems = stem_pair(Path(example_stem), 0.5, 4.1, rate=16000)
    guess = estimates(stems)
    guess[0, :, :16000] = 0
    stems[0, 1, 32000:48000] = -stems[0, 0, 32000:48000]  # silent to museval: left + right = 0
    ours = assert_equal_to_museval(stems, guess, 16000)
    assert ours.isnan().tolist() == [[True, False, True, False]] * 2


def test_equals_museval_on_a_song_shorter_than_a_frame(example_stem: Path) -> None:
    stems = stem_pair(Path(example_stem), 1.0, 0.7, rate=16000)
    assert assert_equal_to_museval(stems, estimates(stems), 16000).shape == (2, 1)
    stems = stem_pair(Path(example_stem), 1.0, 1.0, rate=16000)
    assert assert_equal_to_museval(stems, estimates(stems), 16000).shape == (2, 1)


def test_equals_museval_on_musdb_excerpts(shared_data: Path) -> None:
    paths = sorted((shared_data / "musdb18_7s_train").glob("*.m4a"))
    if not paths:
        pytest.skip("the MUSDB18 excerpts are not there")
    for path in paths[:: max(1, len(paths) // 2)][:2]:
        stems = stem_pair(path, 0.0, 2.3)
        mixture = stems.sum(dim=0)
        config = STFTConfig()
        guess = torch.stack([ideal_mask(stem, mixture, config) for stem in stems])
        assert_equal_to_museval(stems, guess, RATE)


def test_frames_of_nothing_are_none() -> None:
    empty = torch.zeros(2, 2, 0)
    assert frame_sdr(empty, empty, RATE).shape == (2, 0)
    assert median_sdr(frame_sdr(empty, empty, RATE)).isnan().tolist() == [True, True]


@pytest.mark.parametrize("count", [0, 1, 2, 3, 4, 7])
def test_median_equals_numpy_over_valid_frames(count: int) -> None:
    values = torch.randn(3, 9, dtype=torch.float64)
    values[:, torch.randperm(9)[count:]] = torch.nan
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # numpy warns where nothing is left
        expected = np.nanmedian(values.numpy(), axis=-1)
    np.testing.assert_array_equal(median_sdr(values).numpy(), expected)


def test_median_with_exact_frames() -> None:
    infinite = torch.tensor([[math.inf, math.inf], [1.0, math.inf]])
    assert median_sdr(infinite).tolist() == [math.inf, math.inf]


def test_global_sdr_is_the_ratio_written_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "BLOCK", 100)
    reference, estimate = torch.randn(2, 3, 2, 1034).unbind(0)
    got = global_sdr(reference, estimate)
    assert got.shape == (3,) and got.dtype == torch.float64
    for s in range(3):
        signal = sum(float(x) ** 2 for x in reference[s].flatten())
        error = sum(
            (float(x) - float(y)) ** 2
            for x, y in zip(reference[s].flatten(), estimate[s].flatten(), strict=True)
        )
        assert float(got[s]) == pytest.approx(10 * math.log10(signal / error), abs=1e-10)


def test_global_sdr_keeps_precision_where_float32_loses_it() -> None:
    reference = torch.ones(1, 1, 3_000_000)
    error = 1e-3
    estimate = reference + error
    exact = float(estimate[0, 0, 0].double()) - 1.0
    assert float(global_sdr(reference, estimate)) == pytest.approx(
        -20 * math.log10(exact), abs=1e-9
    )


def test_global_sdr_of_silence_and_of_an_exact_estimate() -> None:
    wave = torch.randn(2, 500)
    silence = torch.zeros(2, 500)
    assert math.isnan(global_sdr(silence, wave))
    assert math.isnan(global_sdr(silence, silence))
    assert math.isnan(global_sdr(torch.zeros(2, 0), torch.zeros(2, 0)))
    assert float(global_sdr(wave, wave)) == math.inf
    assert float(global_sdr(wave, silence)) == 0


def test_shapes_that_would_broadcast_are_refused() -> None:
    with pytest.raises(ValueError, match="one shape"):
        global_sdr(torch.zeros(2, 10), torch.zeros(1, 10))
    with pytest.raises(ValueError, match="one shape"):
        frame_sdr(torch.zeros(2, 2, 10), torch.zeros(2, 2, 9), RATE)
    with pytest.raises(ValueError, match=r"\(s c t\)"):
        frame_sdr(torch.zeros(2, 10), torch.zeros(2, 10), RATE)


@pytest.mark.parametrize("config", [STFTConfig(256, 64), STFTConfig(512, 256), STFTConfig(64, 30)])
def test_ideal_mask_in_blocks_equals_the_whole(
    config: STFTConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    stem, other = torch.randn(2, 2, 5003).unbind(0)
    mixture = stem + other
    mask = (stft(stem, config).abs() / stft(mixture, config).abs()).clamp(max=1)
    expected = istft(stft(mixture, config) * mask, config, 5003)
    monkeypatch.setattr(metrics, "BLOCK", 1000)
    got = ideal_mask(stem, mixture, config)
    assert got.shape == stem.shape
    torch.testing.assert_close(got, expected, atol=1e-5, rtol=0)


def test_ideal_mask_of_disjoint_bands_is_nearly_exact() -> None:
    time = torch.arange(22050) / 22050
    low, high = (torch.sin(2 * math.pi * f * time).expand(2, -1) for f in (440, 5000))
    got = ideal_mask(low, low + high, STFTConfig(1024, 256))
    assert float(global_sdr(low, got)) > 35
    assert ideal_mask(low[:, :0], low[:, :0], STFTConfig()).shape == (2, 0)
    assert not ideal_mask(low * 0, low * 0, STFTConfig()).any()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
def test_a_device_gives_the_same_numbers() -> None:
    reference, estimate = torch.randn(2, 2, 2, 3000).unbind(0)
    on_device = reference.cuda(), estimate.cuda()
    torch.testing.assert_close(global_sdr(*on_device).cpu(), global_sdr(reference, estimate))
    torch.testing.assert_close(
        frame_sdr(*on_device, 1000).cpu(), frame_sdr(reference, estimate, 1000)
    )
