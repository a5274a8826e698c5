"""Separator: rates, layouts, lengths, exact sums, streaming, and a GPU that is too small."""

import io
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import separator
from separator import Ensemble, audio, devices, streaming
from separator.dsp.config import STFTConfig
from separator.engine.model_file import export
from separator.errors import SeparatorError
from separator.models.build import describe
from separator.models.frame_transformer import FrameTransformer
from separator.separation import Separator
from tests.toys import STFT, TINY


class Constant(nn.Module):
    """A mask of one value, so that the answer is known."""

    def __init__(self, value: float) -> None:
        super().__init__()
        self.value = value

    def forward(self, x: Tensor) -> Tensor:
        return torch.full_like(x, self.value)


class Recorder(nn.Module):
    """Keeps what it is given."""

    def forward(self, x: Tensor) -> Tensor:
        self.given = x
        return torch.ones_like(x)


@pytest.fixture
def short_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streaming, "CHUNK_SECONDS", 1.0)
    monkeypatch.setattr(streaming, "OVERLAP_SECONDS", 0.2)


@pytest.fixture
def random_model() -> Separator:
    torch.manual_seed(0)
    return Separator(FrameTransformer(TINY, STFT.bins), STFT, 44100, "cpu")


def music(channels: int, seconds: float, rate: int) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    time = torch.arange(round(seconds * rate)) / rate
    tones = [torch.sin(6.2832 * f * time) * 0.2 for f in (220.0, 331.0, 1100.0)]
    noise = torch.randn(channels, len(time), generator=generator) * 0.05
    return noise + sum(tones)


@pytest.mark.parametrize("hop", [STFT.n_fft // 2, STFT.n_fft // 4])
def test_the_model_is_given_compressed_magnitudes(hop: int) -> None:
    config, mixture, model = STFTConfig(STFT.n_fft, hop), music(2, 0.5, 44100), Recorder()
    Separator(model, config, 44100, "cpu")(mixture[None])
    padded = np.pad(mixture.numpy(), ((0, 0), (config.n_fft // 2, config.n_fft)))
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(config.n_fft) / config.n_fft)
    frames = -(-mixture.shape[1] // hop) + 1
    cuts = [padded[:, hop * n : hop * n + config.n_fft] * window for n in range(frames)]
    magnitude = np.abs(np.fft.rfft(cuts)).transpose(1, 2, 0)  # (c f n)
    expected = np.sqrt(magnitude / magnitude.max())
    np.testing.assert_allclose(model.given[0].numpy(), expected, atol=1e-4)


def test_masks_of_half_precision_are_finite() -> None:
    class Half(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.full_like(x, 0.9).half()

    mixture = music(2, 2.0, 44100)
    stems = Separator(Half(), STFT, 44100, "cpu").separate_wave(mixture, 44100)
    torch.testing.assert_close(stems["instrumental"], mixture * 0.81, atol=1e-3, rtol=0)


@pytest.mark.parametrize("rate", [8000, 22050, 44100, 48000, 96000, 192000])
def test_any_rate(short_chunks: None, rate: int) -> None:
    """A mask of 1/4 (1/16 on linear magnitudes) gives 15/16 of the band that the model hears."""
    mixture = music(2, 2.5, rate)
    stems = Separator(Constant(0.25), STFT, 44100, "cpu").separate_wave(mixture, rate)
    assert stems["vocals"].shape == stems["instrumental"].shape == mixture.shape
    band = audio.resample(audio.resample(mixture, rate, 44100), 44100, rate)[:, : mixture.shape[1]]
    torch.testing.assert_close(stems["vocals"], band * 15 / 16, atol=1e-4, rtol=0)


@pytest.mark.parametrize("channels", [1, 2, 6])
@pytest.mark.parametrize("samples", [1, 80, 441, 44100, 100_003])
def test_layouts_and_lengths(
    short_chunks: None, random_model: Separator, channels: int, samples: int
) -> None:
    mixture = music(channels, samples / 44100, 44100)
    stems = random_model.separate_wave(mixture, 44100)
    folded = audio.to_channels(mixture, min(channels, 2))
    assert stems["instrumental"].shape == stems["vocals"].shape == folded.shape
    assert torch.equal(stems["instrumental"], folded - stems["vocals"])
    error = (stems["instrumental"] + stems["vocals"] - folded).abs()
    largest = torch.maximum(stems["instrumental"].abs(), stems["vocals"].abs())
    assert (error <= largest * 2**-23).all()
    assert stems["vocals"].abs().max() <= 2 * folded.abs().max()  # no blow-up at the ends


def test_silence_stays_silent_and_nothing_stays_nothing(random_model: Separator) -> None:
    stems = random_model.separate_wave(torch.zeros(2, 30000), 44100)
    assert not stems["instrumental"].any()
    assert not stems["vocals"].any()
    assert random_model.separate_wave(torch.zeros(2, 0), 48000)["vocals"].shape == (2, 0)


@pytest.mark.parametrize("rate", [44100, 32000])
def test_streaming_equals_memory(short_chunks: None, random_model: Separator, rate: int) -> None:
    mixture = music(2, 4.3, rate)
    whole = random_model.separate_wave(mixture, rate)
    for size, batch in ((999, 1), (rate, 2)):
        pieces = list(random_model.stream(mixture.split(size, dim=-1), rate, batch))
        assert torch.equal(torch.cat([m for m, _ in pieces], dim=-1), mixture)
        vocals = torch.cat([stems[1] for _, stems in pieces], dim=-1)
        torch.testing.assert_close(vocals, whole["vocals"], atol=1e-5, rtol=0)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_non_finite_samples_are_refused(random_model: Separator, bad: float) -> None:
    mixture = torch.zeros(2, 1000)
    mixture[1, 500] = bad
    with pytest.raises(SeparatorError, match="NaN or infinite"):
        random_model.separate_wave(mixture, 44100)


def test_non_finite_estimates_are_refused() -> None:
    with pytest.raises(SeparatorError, match="estimate holds NaN"):
        Separator(Constant(float("nan")), STFT, 44100, "cpu").separate_wave(
            music(2, 0.1, 44100), 44100
        )


class SmallGPU(Constant):
    """Refuses more frames at once than fit."""

    def __init__(self, frames: int) -> None:
        super().__init__(0.5)
        self.frames = frames
        self.refused = 0

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[0] * x.shape[-1] > self.frames:
            self.refused += 1
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
        return super().forward(x)


@pytest.mark.parametrize("frames", [400, 180, 60])
def test_out_of_memory_goes_on_with_less(
    short_chunks: None, frames: int, caplog: pytest.LogCaptureFixture
) -> None:
    mixture = music(2, 8.0, 44100)
    small = SmallGPU(frames)
    stems = Separator(small, STFT, 44100, "cpu")
    vocals = torch.cat([found[1] for _, found in stems.stream([mixture], 44100, batch=4)], dim=-1)
    expected = Separator(Constant(0.5), STFT, 44100, "cpu").separate_wave(mixture, 44100)
    torch.testing.assert_close(vocals, expected["vocals"], atol=1e-4, rtol=0)
    assert 0 < small.refused <= 5  # what does not fit is not tried again and again
    assert len([r for r in caplog.records if "out of GPU memory" in r.message]) == small.refused


def test_no_memory_at_all_is_one_line(short_chunks: None) -> None:
    with pytest.raises(SeparatorError, match="--device cpu"):
        Separator(SmallGPU(0), STFT, 44100, "cpu").separate_wave(music(2, 1.0, 44100), 44100)


def test_other_errors_are_not_hidden() -> None:
    class Broken(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            raise RuntimeError("shapes differ")

    with pytest.raises(RuntimeError, match="shapes differ"):
        Separator(Broken(), STFT, 44100, "cpu").separate_wave(music(2, 0.1, 44100), 44100)


def test_from_python(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`separator.separate` of a file and of samples, with the model found or given."""
    model = FrameTransformer(TINY, STFT.bins)
    description = {"stage": "train", **describe(TINY, STFT, 44100)}
    path = tmp_path / "runs" / "one" / "model.safetensors"
    export(path, model.state_dict(), description)
    mixture = music(2, 0.5, 48000)
    song = tmp_path / "song.wav"
    with audio.Writer(song, 48000, 2) as writer:
        writer.write(mixture)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SEPARATOR_MODEL", str(path))
    found = separator.separate(song)
    given = separator.separate(mixture, rate=48000, model=path, device="cpu")
    array = separator.separate(mixture.numpy(), rate=48000, model=path, device="cpu")
    assert all(torch.equal(array[stem], given[stem]) for stem in given)
    backwards = separator.separate(mixture.flip(1).numpy()[:, ::-1], rate=48000, model=path)
    assert all(torch.equal(backwards[stem], given[stem]) for stem in given)
    for wrong in (mixture[0], mixture.T):
        with pytest.raises(SeparatorError, match=r"give \(channels, samples\)|transpose them"):
            separator.separate(wrong, rate=48000, model=path)
    listed = separator.separate([song, str(song), mixture], rate=48000, model=path)
    assert all(torch.equal(one[stem], given[stem]) for one in listed for stem in given)
    assert separator.separate([], model=path) == []
    assert torch.equal(found["vocals"], given["vocals"])
    assert torch.equal(found["instrumental"], mixture - found["vocals"])
    with pytest.raises(SeparatorError, match="rate="):
        separator.separate(mixture, model=path)


def test_models_that_cannot_separate(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    model = FrameTransformer(TINY, STFT.bins)
    path = tmp_path / "runs" / "one" / "model.safetensors"
    export(path, model.state_dict(), {"stage": "pretrain", **describe(TINY, STFT, 44100)})
    with pytest.raises(SeparatorError, match="fine-tune it"):
        Separator.load(path)
    with pytest.raises(SeparatorError, match="no such file"):
        Separator.load(tmp_path / "absent.safetensors")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"source": None}, "source: NoneType is no path; give a path or samples"),
        ({"source": 3}, "source: int is no path"),
        ({"source": {"a": 1}}, "source: dict is no path"),
        ({"source": ""}, "source: '' is no name of a file"),
        ({"source": "a\0b"}, "is no name of a file"),
        ({"source": "absent.wav"}, "absent.wav"),
        ({"source": "https://host/a.mp3"}, "source: https://host/a.mp3: give a file on this mach"),
        ({"source": "S3://host/a.mp3"}, "download it first"),
        ({"source": "c:/a.mp3"}, "^c:/a.mp3: No such file"),
        ({"source": "."}, "^.: "),
        ({"source": [torch.zeros(2, 9), 3]}, r"source\[1\]: int is no path"),
        ({"source": ["absent.wav"]}, r"source\[0\]: absent.wav"),
        ({"source": "absent.wav", "rate": 44100}, "rate= is for samples"),
        ({"source": torch.zeros(2, 100)}, "give rate= "),
        *[
            ({"source": torch.zeros(2, 100), "rate": rate}, "rate: .* whole number in 1000..768000")
            for rate in (0, -1, 1, 44100.5, float("nan"), float("inf"), "44100", True, 10**9)
        ],
        ({"source": torch.zeros(100), "rate": 8000}, r"shape \(100,\); give \(channels, samples\)"),
        ({"source": torch.zeros(0, 9), "rate": 8000}, r"shape \(0, 9\); give"),
        ({"source": torch.zeros(100, 2), "rate": 8000}, r"\(100, 2\) are \(t, c\); .*transpose"),
        ({"source": torch.zeros(9, 99), "rate": 8000}, "9 channels"),
        (
            {"source": np.zeros((2, 9), np.int16), "rate": 8000},
            "samples of int16; .* largest int16",
        ),
        ({"source": np.zeros((2, 9), complex), "rate": 8000}, "samples of complex128; give floats"),
        ({"source": np.array([["a"]]), "rate": 8000}, "samples of <U1; give floats"),
        ({"source": torch.zeros(2, 9).bool(), "rate": 8000}, "samples of bool; give floats"),
        ({"source": np.full((2, 9), 1e300), "rate": 8000}, "NaN or infinite"),
        ({"source": torch.zeros(2, 9), "rate": 8000, "model": 3}, "model: int is no path"),
        ({"source": torch.zeros(2, 9), "rate": 8000, "model": "absent.pt"}, "absent.pt"),
        ({"source": torch.zeros(2, 9), "rate": 8000, "device": None}, "device: 'None'"),
        ({"source": torch.zeros(2, 9), "rate": 8000, "device": "tpu"}, "device: 'tpu'"),
        ({"source": torch.zeros(2, 9), "rate": 8000, "results": "tpu"}, "results: 'tpu' is not on"),
    ],
)
def test_any_wrong_argument_is_one_error(tmp_path: Path, monkeypatch, arguments, message) -> None:
    monkeypatch.chdir(tmp_path)
    model = FrameTransformer(TINY, STFT.bins)
    export(
        Path("m.safetensors"), model.state_dict(), {"stage": "train", **describe(TINY, STFT, 44100)}
    )
    with pytest.raises(SeparatorError, match=message) as told:
        separator.separate(**{"model": "m.safetensors", **arguments})
    assert "\n" not in str(told.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"shifts": "2"}, "shifts: '2' is no whole number"),
        ({"shifts": 1.5}, "shifts: 1.5 is no whole number"),
        ({"shifts": True}, "shifts: True is no whole number"),
        ({"chunk": "12"}, "chunk: '12' is no number; give one in [1, 120]"),
        ({"chunk": [12]}, "chunk: [12] is no number"),
        ({"chunk": float("nan")}, "chunk: nan is not in [1, 120]"),
        ({"overlap": "1"}, "overlap: '1' is no number; give one in [0, 6.0]"),
        ({"overlap": 7}, "overlap: 7 is not in [0, 6.0]"),
        ({"model": 3}, "model: int is no torch.nn.Module"),
        ({"stft": (512, 256)}, "stft: tuple is no STFTConfig"),
        ({"stems": ["vocals"]}, "stems: list is no StemSet"),
        ({"rate": "44100"}, "rate: '44100' is no whole number in 1000..768000"),
        ({"device": "gpu"}, "device: 'gpu' is not on this machine"),
    ],
)
def test_wrong_settings_of_a_separator_are_one_error(options: dict, message: str) -> None:
    with pytest.raises(SeparatorError) as told:
        Separator(**{"model": Constant(0.5), "stft": STFT, "device": "cpu", **options})
    assert message in str(told.value) and "\n" not in str(told.value)


@pytest.mark.parametrize(
    ("use", "message"),
    [
        (lambda m: m.separate_wave(torch.zeros(2, 9), 8000, 3), "progress: int is no function"),
        (lambda m: [*m.stream(None, 8000)], "blocks: NoneType is no series of blocks (c t)"),
        (lambda m: [*m.stream(torch.zeros(2, 9), 8000)], "samples of shape (9,); give (channels"),
        (lambda m: [*m.stream([torch.zeros(2, 9).int()], 8000)], "samples of int32; give floats"),
        (lambda m: [*m.stream([[0.0]], 8000)], "samples: list is no tensor and no array"),
        (
            lambda m: [*m.stream([torch.zeros(2, 9), torch.zeros(1, 9)], 8000)],
            "blocks: 1 channels after 2",
        ),
        (lambda m: [*m.stream([torch.zeros(2, 9)], 8000, 0)], "batch: 0 is not in [1, 4096]"),
        (lambda m: [*m.stream([torch.zeros(2, 9)], 8000, "1")], "batch: '1' is no whole number"),
        (lambda m: m.with_results("np"), "results: 'np' is not on this machine; it has cpu"),
        (lambda m: m(torch.zeros(2, 9)), "mixtures: give a tensor (b, 2, t)"),
        (lambda m: m(torch.zeros(1, 2, 0)), "mixtures of shape (1, 2, 0): hold nothing"),
        (lambda m: m(torch.zeros(1, 2, 9).int()), "samples of int32; give floats"),
        (lambda m: m("song.wav"), "mixtures: give a tensor (b, 2, t)"),
    ],
)
def test_wrong_arguments_of_methods_are_one_error(
    random_model: Separator, use: Callable[[Separator], object], message: str
) -> None:
    with pytest.raises(SeparatorError) as told:
        use(random_model)
    assert message in str(told.value) and "\n" not in str(told.value)


def test_arrays_of_any_precision_order_and_rights(random_model: Separator) -> None:
    mixture = music(2, 0.1, 44100).double().numpy()
    expected = random_model.separate_wave(mixture, 44100)
    for kind in ("<f8", ">f8", np.longdouble):
        array = mixture.astype(kind)
        array.flags.writeable = False
        stems = random_model.separate_wave(array, np.int64(44100))
        assert all(torch.equal(stems[name], expected[name]) for name in expected)
    assert random_model.separate_wave(torch.from_numpy(mixture), 44100.0).keys() == expected.keys()


def test_shifts_average_estimates_of_the_delayed_song(random_model: Separator) -> None:
    mixture = music(2, 1.0, 44100)[None]
    one = random_model._once(mixture)
    delays = [0, STFT.hop // 2]
    late = random_model._once(torch.nn.functional.pad(mixture, (delays[1], 0)))[..., delays[1] :]
    assert (late - one).abs().max() > 1e-4  # frames lie elsewhere
    random_model.shifts = 2
    both = torch.from_numpy(random_model._shifted(mixture.numpy()))
    torch.testing.assert_close(both, (one + late) / 2)
    stems = random_model.separate_wave(mixture[0], 44100)
    torch.testing.assert_close(sum(stems.values()), mixture[0], rtol=0, atol=1e-6)
    with pytest.raises(SeparatorError, match="shifts: 0 is not in"):
        Separator(random_model.model, STFT, 44100, "cpu", shifts=0)


def test_sources_of_every_kind(random_model: Separator, tmp_path: Path) -> None:
    path = tmp_path / "song.flac"
    with audio.Writer(path, 48000, 2) as writer:
        writer.write(music(2, 0.5, 48000))
    expected = separator.separate(path, model=random_model)["vocals"]
    data = path.read_bytes()
    assert torch.equal(separator.separate(bytearray(data), model=random_model)["vocals"], expected)
    sources = [data, memoryview(data), io.BytesIO(data), os.fspath(path)]
    results = separator.separate(iter(sources), model=random_model)
    assert iter(results) is results  # nothing is done before it is asked for
    assert all(torch.equal(stems["vocals"], expected) for stems in results)
    with pytest.raises(SeparatorError, match=r"source\[1\]: is no audio file"):
        list(separator.separate(iter([path, b"no sound at all"]), model=random_model))
    closed = path.open("rb")
    closed.close()
    with pytest.raises(SeparatorError, match="source: the file is closed; open it"):
        separator.separate(closed, model=random_model)
    with path.open(encoding="latin-1") as text, pytest.raises(SeparatorError, match="rb"):
        separator.separate(text, model=random_model)


def test_results_are_where_they_are_wanted(
    short_chunks: None, random_model: Separator, monkeypatch: pytest.MonkeyPatch
) -> None:
    mixture = music(2, 2.5, 48000)
    expected = separator.separate(mixture, 48000, random_model)
    arrays = separator.separate(mixture, 48000, random_model, results="numpy")
    listed = separator.separate([mixture], 48000, random_model, results="numpy")
    (iterated,) = separator.separate(iter([mixture]), 48000, random_model, results="numpy")
    for found in (arrays, *listed, iterated):
        assert all(isinstance(stem, np.ndarray) for stem in found.values())
        assert all(np.array_equal(found[name], expected[name]) for name in expected)
    for found in random_model.with_results("numpy").stream([mixture], 48000):
        assert all(isinstance(wave, np.ndarray) for wave in found)
    both = Ensemble([random_model.with_results("numpy"), random_model])
    assert isinstance(both.separate(mixture, 48000)["vocals"], np.ndarray)
    assert isinstance(both.with_results("cpu").separate(mixture, 48000)["vocals"], Tensor)
    assert isinstance(random_model.separate(mixture, 48000)["vocals"], Tensor)  # as before
    # another device, which holds no numbers here
    monkeypatch.setattr(devices, "find_device", lambda name, argument: torch.device(name))
    there = separator.separate(mixture, 48000, random_model, results="meta")
    assert {stem.device.type for stem in there.values()} == {"meta"}
    assert {name: stem.shape for name, stem in there.items()} == {
        name: stem.shape for name, stem in expected.items()
    }


def test_progress_is_told_and_may_stop(short_chunks: None, random_model: Separator) -> None:
    told: list[tuple[float, float]] = []
    random_model.separate_wave(music(2, 3.0, 44100), 44100, lambda *one: told.append(one))
    assert told == sorted(told) and len(told) > 1 and told[-1] == (3.0, 3.0)

    def stop(done: float, total: float) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        separator.separate(music(2, 3.0, 44100), 44100, random_model, progress=stop)


@pytest.mark.parametrize(
    ("first", "policy"), [("", "passive"), ("import torch", "None"), ("own", "active")]
)
def test_threads_wait_passively_unless_told_otherwise(first: str, policy: str):
    """Where torch is not imported yet: waiting threads would take cores from other programs."""
    environment = {k: v for k, v in os.environ.items() if k != "OMP_WAIT_POLICY"}
    if first == "own":
        first, environment["OMP_WAIT_POLICY"] = "", "active"
    code = f"{first}\nimport os, separator\nseparator.Separator\n"
    code += "print(os.environ.get('OMP_WAIT_POLICY'))"
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout == f"{policy}\n"
