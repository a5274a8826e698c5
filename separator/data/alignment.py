"""Align two recordings in time and level, and judge whether they are one but for the vocals."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from separator import audio
from separator.errors import SeparatorError

Voice = Callable[[Tensor, int], Tensor]  # a wave (c t) and its rate -> the voice in it (c t)

MAX_SHIFT_SECONDS = 20.0
COARSE_RATE = 4000
POSITIONS = (0.2, 0.5, 0.8)  # of the song, at which the alignment is refined; they must agree
POSITION_SECONDS = 10.0
MAX_DRIFT_SECONDS = 4.5e-5  # between the positions; two samples at 44.1 kHz
FIT_FRAME_SECONDS = 0.5
MIN_FRAMES = 4
MAX_RESIDUAL_DB = -15.0  # relative to the original, in the frames that fit best
FIT_SHARE = 0.05  # of the frames, which must fit so well
IDENTICAL_DB = -35.0  # residual of the whole song below which there are no vocals
COMPARED_SECONDS = 20.0  # of the loudest difference, in which voices are compared with it
MIN_VOICE = 0.5  # correlation of a voice with the difference
MAX_OTHER_VOICE = 0.25  # the same of the instrumental
MIN_POWER = 1e-4  # mean square of a frame, -40 dB of full scale


@dataclass(frozen=True)
class Alignment:
    """The fit between an instrumental and its original.

    Attributes:
        shift: samples by which the original is late.
        gain: factor on the instrumental.
        best_db: residual relative to the original, in the frames that fit best.
    """

    shift: int
    gain: float
    best_db: float


def align(original: Tensor, instrumental: Tensor, rate: int) -> Alignment:
    """Find shift and gain that align an instrumental with its original.

    Args:
        original: (c t) wave.
        instrumental: (c t) wave.
        rate: of both, in Hz.

    Returns:
        Shift and gain, and how well the instrumental fits.

    Raises:
        SeparatorError: they are not the same recording, or the original has no vocals either.
    """
    first, second = original.mean(dim=0), instrumental.mean(dim=0)
    low, other = (audio.resample(wave[None], rate, COARSE_RATE)[0] for wave in (first, second))
    limit = round(MAX_SHIFT_SECONDS * COARSE_RATE)
    coarse = round(_lag(low, other, limit, whiten=True) * rate / COARSE_RATE)
    overlap = overlapping(first[None], second[None], coarse)
    if overlap[0].shape[-1] < MIN_FRAMES * FIT_FRAME_SECONDS * rate:
        raise SeparatorError("too short, or hardly any of it is in both files")
    shift = _refined(*overlap, rate) + coarse
    return _fit(*overlapping(original, instrumental, shift), rate, shift)


def _lag(first: Tensor, second: Tensor, limit: int, whiten: bool) -> int:
    """Return by how many samples, at most `limit`, the first wave (t) is late.

    With `whiten` (GCC-PHAT) the result is not wrong by a bar where a song repeats itself; without,
    it is where the difference of the two waves is smallest.
    """
    size = 1 << (first.shape[-1] + second.shape[-1]).bit_length()
    cross = torch.fft.rfft(first, size) * torch.fft.rfft(second, size).conj()
    if whiten:
        cross = cross / cross.abs().clamp(min=1e-12)
    correlation = torch.fft.irfft(cross, size)
    limit = min(limit, size // 2 - 1)
    window = torch.cat([correlation[-limit:], correlation[: limit + 1]])
    return int(window.argmax()) - limit


def _refined(first: Tensor, second: Tensor, rate: int) -> int:
    """Samples by which the first wave (1 t) is late, less than two coarse ones.

    Raises:
        SeparatorError: at other places of the song it is another number.
    """
    limit = 2 * rate // COARSE_RATE
    span = min(round(POSITION_SECONDS * rate), first.shape[-1])
    starts = [round(position * (first.shape[-1] - span)) for position in POSITIONS]
    parts = [(first[0, s : s + span], second[0, s : s + span]) for s in starts]
    lags = [_lag(*part, limit, whiten=False) for part in parts]
    if max(lags) - min(lags) > max(2, MAX_DRIFT_SECONDS * rate):
        raise SeparatorError("another recording, or another speed: positions of it do not align")
    return sorted(lags)[1]


def _fit(first: Tensor, second: Tensor, rate: int, shift: int) -> Alignment:
    """Find the gain, and judge how well aligned waves (c t) fit, half a second at a time."""
    power, other_power, products = _frame_sums(first, second, round(FIT_FRAME_SECONDS * rate))
    frames = (power > MIN_POWER) & (other_power > MIN_POWER)
    power, other_power, products = power[frames], other_power[frames], products[frames]
    if len(power) < MIN_FRAMES:
        raise SeparatorError("nearly silent")
    likeness = products / (power * other_power).sqrt()
    best = likeness.argsort(descending=True)[: max(1, math.ceil(FIT_SHARE * len(power)))]
    gain = (products[best] / other_power[best]).median().item()
    residual = (power - 2 * gain * products + gain**2 * other_power).clamp(min=0)
    best_db = _decibels((residual / power).quantile(FIT_SHARE).item())
    residual_db = _decibels((residual.sum() / power.sum()).item())
    if gain <= 0 or best_db > MAX_RESIDUAL_DB:
        raise SeparatorError(
            f"another recording: where they fit best, their difference is {-best_db:.1f} dB below "
            f"the original; {-MAX_RESIDUAL_DB:.0f} are needed"
        )
    if residual_db < IDENTICAL_DB:
        raise SeparatorError("the original has no vocals either: both are the same")
    return Alignment(shift, gain, best_db)


def _frame_sums(first: Tensor, second: Tensor, frame: int) -> tuple[Tensor, ...]:
    """Mean squares and mean product of two waves (c t) in each frame: three of (n), float64."""
    rows = []
    for start in range(0, first.shape[-1] - frame + 1, frame):
        one, other = (wave[:, start : start + frame].double() for wave in (first, second))
        rows.append([one.square().mean(), other.square().mean(), (one * other).mean()])
    return torch.tensor(rows, dtype=torch.float64).unbind(1)


def _decibels(ratio: float) -> float:
    return 10 * math.log10(max(ratio, 1e-12))


def overlapping(first: Tensor, second: Tensor, shift: int) -> tuple[Tensor, Tensor]:
    """Cut two waves to what both hold.

    Args:
        first: (c t) wave.
        second: (c t) wave.
        shift: samples by which the first is late.

    Returns:
        Two waves (c t) of one length.
    """
    first, second = first[:, max(0, shift) :], second[:, max(0, -shift) :]
    length = min(first.shape[-1], second.shape[-1])
    return first[:, :length], second[:, :length]


def first_sings(first: Tensor, second: Tensor, rate: int, voice: Voice) -> bool:
    """Tell which of two aligned recordings has the voice that the other lacks.

    Args:
        first: (c t) wave.
        second: (c t) wave, at the same level.
        rate: of both, in Hz.
        voice: separates the voice from a wave.

    Returns:
        Whether it is the first.

    Raises:
        SeparatorError: they do not differ by a voice, or it is not clear by whose.
    """
    difference = first - second
    span = min(round(COMPARED_SECONDS * rate), difference.shape[-1])
    energy = difference.double().square().sum(dim=0).cumsum(dim=0)
    start = int((energy[span - 1 :] - torch.nn.functional.pad(energy, (1, 0))[:-span]).argmax())
    part = slice(start, start + span)
    first, second, difference = first[:, part], second[:, part], difference[:, part]
    signed = (first, difference), (second, -difference)
    likeness = [_correlation(voice(wave, rate), change) for wave, change in signed]
    if max(likeness) < MAX_OTHER_VOICE:
        raise SeparatorError("the same recording: they do not differ by a voice")
    if max(likeness) < MIN_VOICE or min(likeness) > MAX_OTHER_VOICE:
        raise SeparatorError(
            "which of the two is the instrumental is not clear: write (Instrumental) into its title"
        )
    return likeness[0] > likeness[1]


def _correlation(first: Tensor, second: Tensor) -> float:
    """Return the correlation of two waves (c t), 0 where one is silent."""
    norms = (first.square().sum() * second.square().sum()).sqrt()
    return ((first * second).sum() / norms.clamp(min=1e-9)).item()
