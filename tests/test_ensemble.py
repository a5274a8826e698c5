"""Averages of several models, chunks and overlaps of other lengths."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from separator import Ensemble, Separator, audio, cli
from separator.errors import UsageError
from separator.stems import FOUR_STEMS
from tests.songs import export_model, in_tmp, model, run, song  # noqa: F401
from tests.sounds import music
from tests.test_api import Constant
from tests.toys import STFT


def constant(value: float, **options: object) -> Separator:
    """Return a model whose stems are the mixture times `value`, and what that leaves."""
    return Separator(Constant(value), STFT, 44100, "cpu", **options)


@pytest.mark.parametrize(
    ("average", "weights", "expected"),
    [
        ("mean", (), lambda waves: waves.mean(dim=0)),
        ("mean", (2, 1, 1), lambda waves: (2 * waves[0] + waves[1] + waves[2]) / 4),
        ("median", (), lambda waves: waves.median(dim=0).values),
    ],
)
def test_averages_of_what_each_model_gives(
    average: str, weights: tuple, expected: Callable[[Tensor], Tensor]
) -> None:
    mixture = music(0.5)
    models = [constant(value) for value in (0.3, 0.1, 0.8)]
    alone = [each.separate_wave(mixture, 44100)["instrumental"] for each in models]
    assert (alone[0] - alone[1]).abs().max() > 0.01
    stems = Ensemble(models, average, weights).separate_wave(mixture, 44100)
    wanted = expected(torch.stack(alone))
    torch.testing.assert_close(stems["instrumental"], wanted, rtol=0, atol=1e-6)
    torch.testing.assert_close(sum(stems.values()), mixture, rtol=0, atol=1e-6)


def test_models_and_weights_that_do_not_go_together() -> None:
    one, two = constant(0.1), constant(0.3)
    four = Separator(Constant(0.5), STFT, 44100, "cpu", stems=FOUR_STEMS)
    other_rate = Separator(Constant(0.5), STFT, 22050, "cpu")
    for models, options, text in (
        ([one, four], {}, "number 2 has another stems than the first (drums, bass, other, vocals"),
        ([one, two, other_rate], {}, "number 3 has another rate than the first (22050 Hz"),
        ([one, two], {"weights": (1, 2, 3)}, "weights: 3 for 2 models"),
        ([one, two], {"weights": (1, 0)}, "weights: 0 is not in (0, 1e12]"),
        ([one, two], {"weights": (1, 1), "average": "median"}, "weights: are for the average mean"),
        ([one, two], {"weights": 2}, "weights: int is no list of numbers"),
        ([one, two], {"weights": ("1", 2)}, "weights: '1' is no number"),
        ([], {}, "models: give a list of loaded models"),
        (one, {}, "models: give a list of loaded models"),
        (["tiny-vocals"], {}, "models: give a list of loaded models"),
        ([one, two], {"average": "mode"}, "average: 'mode' is not one of mean, median"),
    ):
        with pytest.raises(UsageError) as error:
            Ensemble(models, **options)
        assert text in str(error.value)


@pytest.mark.usefixtures("in_tmp")
def test_the_command_takes_several_models() -> None:
    song("song.wav")
    alone = []
    for number, mask in enumerate((0.2, 0.5)):
        path = export_model(Path(f"{number}.safetensors"), mask)
        alone.append(Separator.load(path, "cpu").separate("song.wav")["instrumental"])
    models = [word for number in (0, 1) for word in ("-m", f"{number}.safetensors")]
    result = "stems/song (Instrumental).wav"
    assert run("song.wav", *models, "--weights", "2,1", "--chunk", "2.5", "--overlap", "0") == 0
    mean = (2 * alone[0] + alone[1]) / 3
    torch.testing.assert_close(audio.read(result), mean, rtol=0, atol=1e-6)
    assert run("song.wav", *models, "--average", "median") == 0  # other settings: done again
    torch.testing.assert_close(audio.read(result), (alone[0] + alone[1]) / 2, rtol=0, atol=1e-6)
    assert cli.main(["separate", "song.wav", *models, "--weights", "2;1"]) == 2


def test_chunks_of_other_lengths() -> None:
    mixture = music(5.0)
    expected = constant(0.25).separate_wave(mixture, 44100)
    for chunk, overlap in ((1.0, 0.5), (3.0, 0.0), (60.0, 10.0)):
        stems = constant(0.25, chunk=chunk, overlap=overlap).separate_wave(mixture, 44100)
        for name, wave in stems.items():
            torch.testing.assert_close(wave, expected[name], rtol=0, atol=1e-5)
    seen = []
    separator = constant(0.25, chunk=2.0, overlap=0.5)
    separator.model.register_forward_hook(lambda _, inputs, __: seen.append(inputs[0].shape[-1]))
    separator.separate_wave(mixture, 44100)
    assert max(seen) * STFT.hop / 44100 == pytest.approx(2.0, abs=0.2)
    with pytest.raises(UsageError, match=r"overlap: 1.1 is not in \[0, 1.0\]"):
        constant(0.25, chunk=2.0, overlap=1.1)
    with pytest.raises(UsageError, match="chunk: 500 is not in"):
        constant(0.25, chunk=500)
