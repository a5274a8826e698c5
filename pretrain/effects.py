"""Random changes of isolated voices and accompaniments: room, position, colour, bandwidth.

All filters are applied at once to the Fourier transform of a crop.
"""

import math

import torch
from torch import Generator, Tensor

from separator.pretrain.objectives.primary.remix import RemixConfig

ROOM_SECONDS = 0.2, 1.2  # within which reverberation falls by 60 dB
ROOM_DB = -20.0, -6.0  # energy of the reverberation, relative to the direct sound
CUTOFF_HERTZ = 3000.0, 16000.0
LOWEST_HERTZ, HIGHEST_HERTZ = 60.0, 16000.0  # between which spectra are raised and lowered
KNOTS = 6  # of a curve in decibels, straight lines between them over the logarithm of frequency
MIN_RMS = 1e-3  # RMS, -60 dB of full scale


def varied(stems: Tensor, config: RemixConfig, rate: int, generator: Generator) -> Tensor:
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
    hertz: Tensor, shape: tuple[int, ...], decibels: float, generator: Generator
) -> Tensor:
    """Draw random gains that are smooth over the logarithm of frequency.

    Args:
        hertz: (f) frequencies.
        shape: of the batch of gains, any number of dimensions.
        decibels: largest gain, up or down.
        generator: on the CPU.

    Returns:
        Amplitude factors (*shape f).
    """
    knots = uniform(-decibels, decibels, (*shape, KNOTS), generator)
    octave = (hertz.clamp(LOWEST_HERTZ, HIGHEST_HERTZ) / LOWEST_HERTZ).log()
    place = octave / math.log(HIGHEST_HERTZ / LOWEST_HERTZ) * (KNOTS - 1)
    below = place.long().clamp(max=KNOTS - 2)
    curve = torch.lerp(knots[..., below], knots[..., below + 1], place - below)
    return 10 ** (curve / 20)


def lowpass(hertz: Tensor, batch: int, share: float, generator: Generator) -> Tensor:
    """Draw low-pass filters of 48 dB an octave, without a shift of phase.

    Args:
        hertz: (f) frequencies.
        batch: b, number of filters.
        share: probability that a filter does anything.
        generator: on the CPU.

    Returns:
        Amplitude factors (b f); 1 in the filters that do nothing.
    """
    low, high = map(math.log, CUTOFF_HERTZ)
    cutoff = uniform(low, high, (batch, 1), generator).exp()
    chosen = torch.rand(batch, 1, generator=generator) < share
    return torch.where(chosen, (1 + (hertz / cutoff) ** 16).rsqrt(), 1.0)


def impulses(batch: int, samples: int, rate: int, share: float, generator: Generator) -> Tensor:
    """Draw impulse responses of rooms: the direct sound, then noise that decays exponentially.

    This is Polack's model of reverberation.

    Args:
        batch: b, number of rooms.
        samples: length t of a response.
        rate: sample rate in hertz.
        share: probability of a room; otherwise the response is the direct sound alone.
        generator: on the CPU.

    Returns:
        Responses (b 2 t) for two channels.
    """
    seconds = torch.arange(samples) / rate
    decay = uniform(*ROOM_SECONDS, (batch, 1, 1), generator)
    tail = torch.randn(batch, 2, samples, generator=generator) * 10 ** (-3 * seconds / decay)
    tail = tail / tail.square().sum(-1, keepdim=True).sqrt()
    chosen = torch.rand(batch, 1, 1, generator=generator) < share
    tail = tail * 10 ** (uniform(*ROOM_DB, (batch, 1, 1), generator) / 20) * chosen
    tail[..., 0] += 1
    return tail


def narrowed(waves: Tensor, share: float, generator: Generator) -> Tensor:
    """Make stereo waves narrower: scale the difference between their channels.

    Args:
        waves: (b 2 t).
        share: probability that a wave is changed.
        generator: on the CPU.

    Returns:
        Waves (b 2 t), the difference multiplied by a random factor in [0, 1).
    """
    width = torch.rand(len(waves), 1, 1, generator=generator)
    chosen = torch.rand(len(waves), 1, 1, generator=generator) < share
    width = torch.where(chosen, width, 1.0).to(waves.device)
    middle = waves.mean(dim=1, keepdim=True)
    return middle + width * (waves - middle)


def panned(waves: Tensor, decibels: float, generator: Generator) -> Tensor:
    """Raise one channel and lower the other by the same random number of decibels.

    Args:
        waves: (b 2 t).
        decibels: largest change of a channel.
        generator: on the CPU.

    Returns:
        Waves (b 2 t).
    """
    shift = uniform(-decibels, decibels, (len(waves), 1, 1), generator)
    gains = 10 ** (torch.cat([shift, -shift], dim=1) / 20)
    return waves * gains.to(waves.device)


def at_level(voice: Tensor, music: Tensor, config: RemixConfig, generator: Generator) -> Tensor:
    """Bring voices to random levels relative to their accompaniment.

    Args:
        voice: (b c t).
        music: (b c t) the accompaniment of each voice.
        config: `level_db`, the range of the levels.
        generator: on the CPU.

    Returns:
        Voices (b c t); those that are silent, or whose accompaniment is, do not change.
    """
    wanted = 10 ** (uniform(*config.level_db, (len(voice), 1, 1), generator) / 20)
    rms = [wave.square().mean((1, 2), keepdim=True).sqrt() for wave in (voice, music)]
    gain = wanted.to(voice.device) * rms[1] / rms[0].clamp(min=1e-9)
    sounding = (rms[0] > MIN_RMS) & (rms[1] > MIN_RMS)
    return voice * torch.where(sounding, gain, 1.0)


def uniform(low: float, high: float, shape: tuple[int, ...], generator: Generator) -> Tensor:
    """Draw numbers uniformly between two bounds.

    Args:
        low: lower bound.
        high: upper bound.
        shape: of the result.
        generator: on the CPU.

    Returns:
        Numbers in [low, high).
    """
    return low + (high - low) * torch.rand(shape, generator=generator)
