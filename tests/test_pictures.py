"""Pictures of spectrograms: what stands where."""

import numpy as np
import pytest
import torch
from torch import Tensor

from separator.dsp.config import STFTConfig
from separator.engine.pictures import (
    BOTTOM,
    HEIGHT,
    LEFT,
    RIGHT,
    TOP,
    WIDTH,
    spectrogram_image,
    with_axes,
)


def inner(picture: Tensor) -> Tensor:
    return picture[:, TOP : TOP + HEIGHT, LEFT : LEFT + WIDTH]


def test_the_axes_leave_the_picture_as_it_is():
    picture = torch.rand(3, HEIGHT, WIDTH)
    framed = with_axes(picture, 6.0, 44100)
    assert framed.shape == (3, TOP + HEIGHT + BOTTOM, LEFT + WIDTH + RIGHT)
    assert torch.equal(inner(framed), picture)
    assert torch.equal(
        inner(with_axes(torch.zeros(3, 7, 9), 6.0, 44100)), torch.zeros_like(picture)
    )


@pytest.mark.parametrize("width", [1, 15, 480, 2000])
def test_pictures_of_any_width_fill_the_axes(width: int):
    ramp = torch.linspace(0, 1, width).expand(3, 256, width)
    found = inner(with_axes(ramp, 1.0, 8000))[0, 0]
    assert (found.diff() >= 0).all()
    assert found[0] == ramp[0, 0, 0]
    assert found[-1] == pytest.approx(ramp[0, 0, -1].item(), abs=1 / min(width, WIDTH) + 1e-6)


def test_the_axes_say_seconds_and_kilohertz():
    from matplotlib.figure import Figure

    from separator.engine.pictures import label_axes

    axes = Figure().add_subplot()
    label_axes(axes, 2.5, 8000)
    assert (axes.get_xlabel(), axes.get_ylabel(), axes.get_xlim()) == ("seconds", "kHz", (0, 2.5))
    assert [label.get_text() for label in axes.get_yticklabels()] == ["0.1", "1", "4"]
    np.testing.assert_allclose(axes.get_yticks(), [(khz / 4) ** 0.5 for khz in (0.1, 1, 4)])
    blank = with_axes(torch.ones(3, 4, 4), 2.5, 8000)
    for margin in (blank[:, TOP + HEIGHT + 4 :], blank[:, :, : LEFT - 4]):
        assert (margin < 0.5).any()  # something is written there


def test_a_tone_stands_at_its_frequency():
    """1 kHz of 0 to 4 kHz is half of the way up a scale of square roots."""
    wave = (6.283185 * 1000 * torch.arange(8000) / 8000).sin().expand(2, -1)
    rows = inner(with_axes(spectrogram_image(wave, STFTConfig(512, 256)), 1.0, 8000))
    brightest = rows.sum((0, 2)).argmax().item()
    assert brightest == pytest.approx(HEIGHT / 2, abs=3)
