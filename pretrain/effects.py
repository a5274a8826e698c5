"""Random changes of isolated voices and accompaniments: room, position, colour, bandwidth.

All filters are applied at once to the Fourier transform of a crop.
"""

import math

import torch
from torch import Tensor

from separator.pretrain.objectives.primary.remix import RemixConfig

ROOM_SECONDS = 0.2, 1.2  # within which reverberation falls by 60 dB
ROOM_DB = -20.0, -6.0  # energy of the reverberation, relative to the direct sound
CUTOFF_HERTZ = 3000.0, 16000.0
LOWEST_HERTZ, HIGHEST_HERTZ = 60.0, 16000.0  # between which spectra are raised and lowered
KNOTS = 6  # of a curve in decibels, straight lines between them over the logarithm of frequency
MIN_RMS = 1e-3  # RMS, -60 dB of full scale


def varied(stems: Tensor, config: RemixConfig, rate: int, generator: torch.Generator) -> Tensor:
    """Return changed stems: (b 2 c t), accompaniment first, c = 2.

    Args:
        stems: (b 2 c t).
        config: how much is changed.
        rate: sample rate in hertz.
        generator: on the CPU; all randomness comes from it.
    """
    batch, _, _, samples = stems.shape
    room = round(ROOM_SECONDS[1] * rate)
    length = 2 ** math.ceil(math.log2(samples + room))
    hertz = torch.fft.rfftfreq(length, 1 / rate)
    response = equaliser(hertz, (batch, 2), config.equalise_db, generator)[:, :, None]
    response = response * lowpass(hertz, batch, config.lowpass, generator)[:, None, None]
    spectrum = torch.fft.rfft(stems, length) * response.to(stems.device)
    echo = torch.fft.rfft(impulses(batch, room, rate, config.reverb, generator), length)
    spectrum[:, 1] *= echo.to(stems.device)
    music, voice = torch.fft.irfft(spectrum, length)[..., :samples].unbind(1)
    music = narrowed(music, config.narrow, generator)
    voice = at_level(panned(voice, config.pan_db, generator), music, config, generator)
    return torch.stack([music, voice], dim=1)


def equaliser(
    hertz: Tensor, shape: tuple[int, ...], decibels: float, generator: torch.Generator
) -> Tensor:
    """Draw gains at frequencies (f), smooth over the logarithm of frequency: (*shape f)."""
    knots = uniform(-decibels, decibels, (*shape, KNOTS), generator)
    octave = (hertz.clamp(LOWEST_HERTZ, HIGHEST_HERTZ) / LOWEST_HERTZ).log()
    place = octave / math.log(HIGHEST_HERTZ / LOWEST_HERTZ) * (KNOTS - 1)
    below = place.long().clamp(max=KNOTS - 2)
    curve = torch.lerp(knots[..., below], knots[..., below + 1], place - below)
    return 10 ** (curve / 20)


def lowpass(hertz: Tensor, batch: int, share: float, generator: torch.Generator) -> Tensor:
    """Draw low-passes of 48 dB an octave, without a shift of phase: gains (b f); 1 for the rest."""
    low, high = map(math.log, CUTOFF_HERTZ)
    cutoff = uniform(low, high, (batch, 1), generator).exp()
    chosen = torch.rand(batch, 1, generator=generator) < share
    return torch.where(chosen, (1 + (hertz / cutoff) ** 16).rsqrt(), 1.0)


def impulses(
    batch: int, samples: int, rate: int, share: float, generator: torch.Generator
) -> Tensor:
    """Draw a room's responses (b 2 t): the direct sound and noise that dies away exponentially.

    Without the room, for all but a share of them, the direct sound alone. The model of
    reverberation is Polack's.
    """
    seconds = torch.arange(samples) / rate
    decay = uniform(*ROOM_SECONDS, (batch, 1, 1), generator)
    tail = torch.randn(batch, 2, samples, generator=generator) * 10 ** (-3 * seconds / decay)
    tail = tail / tail.square().sum(-1, keepdim=True).sqrt()
    chosen = torch.rand(batch, 1, 1, generator=generator) < share
    tail = tail * 10 ** (uniform(*ROOM_DB, (batch, 1, 1), generator) / 20) * chosen
    tail[..., 0] += 1
    return tail


def narrowed(waves: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """Scale what the channels of (b 2 t) differ by, in a share of them, by numbers in [0, 1)."""
    width = torch.rand(len(waves), 1, 1, generator=generator)
    chosen = torch.rand(len(waves), 1, 1, generator=generator) < share
    width = torch.where(chosen, width, 1.0).to(waves.device)
    middle = waves.mean(dim=1, keepdim=True)
    return middle + width * (waves - middle)


def panned(waves: Tensor, decibels: float, generator: torch.Generator) -> Tensor:
    """Raise one channel of (b 2 t) and lower the other by the same random number of decibels."""
    shift = uniform(-decibels, decibels, (len(waves), 1, 1), generator)
    gains = 10 ** (torch.cat([shift, -shift], dim=1) / 20)
    return waves * gains.to(waves.device)


def at_level(
    voice: Tensor, music: Tensor, config: RemixConfig, generator: torch.Generator
) -> Tensor:
    """Bring voices (b c t) to random levels relative to their music; silence stays."""
    wanted = 10 ** (uniform(*config.level_db, (len(voice), 1, 1), generator) / 20)
    rms = [wave.square().mean((1, 2), keepdim=True).sqrt() for wave in (voice, music)]
    gain = wanted.to(voice.device) * rms[1] / rms[0].clamp(min=1e-9)
    sounding = (rms[0] > MIN_RMS) & (rms[1] > MIN_RMS)
    return voice * torch.where(sounding, gain, 1.0)


def uniform(low: float, high: float, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Draw numbers between two bounds."""
    return low + (high - low) * torch.rand(shape, generator=generator)
