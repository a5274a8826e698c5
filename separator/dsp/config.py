"""Settings of the transform and the Wiener filter, apart from them: `--help` needs no torch."""

from dataclasses import dataclass, replace
from typing import Annotated

from separator.ranges import CheckedConfig, Within

FLOOR = 1e-3  # a full-scale sine peaks near n_fft / 4; below -60 dB of that a crop is not amplified
COVARIANCE_SHRINKAGE = 0.1  # weight of the identity beside a stem's measured covariance
POWER_FLOOR = 1e-12  # 120 dB below full scale, as a power


@dataclass(frozen=True)
class STFTConfig(CheckedConfig):
    """Short-time Fourier transform.

    Attributes:
        n_fft: window length in samples, a power of two.
        hop: samples from one frame to the next, at most half of n_fft.
        power: exponent on the normalised magnitudes that the model sees (1 leaves them linear).
    """

    n_fft: Annotated[int, Within("[16, 65536]")] = 4096
    hop: int = 1024
    power: Annotated[float, Within("[0.05, 1]")] = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.n_fft & (self.n_fft - 1):
            raise self.invalid("n_fft", f"{self.n_fft} is not a power of two")
        least, most = max(1, self.n_fft // 64), self.n_fft // 2
        if not least <= self.hop <= most:
            raise self.invalid(
                "hop", f"{self.hop} is not in [{least}, {most}] (n_fft / 64 to n_fft / 2)"
            )

    @property
    def bins(self) -> int:
        """Bins of the spectrogram, the Nyquist bin included."""
        return self.n_fft // 2 + 1

    @property
    def for_filter(self) -> "STFTConfig":
        """Transform in which the stereo filter is applied: with half of a wide hop.

        Windows that overlap by three quarters instead of a half gain 0.06 dB
        (docs/log/2026-11-29-finer-filter.md); a still smaller hop gains no more.
        """
        wide = self.hop > self.n_fft // 4 and self.hop % 2 == 0
        return replace(self, hop=self.hop // 2) if wide else self
