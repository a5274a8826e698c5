"""Make crops of the waves that are read."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from separator.pretrain.lazy_torch import Generator, Tensor

if TYPE_CHECKING:
    from separator.data.config import DataConfig
    from separator.data.dataset import Batch
    from separator.pretrain.config import PretrainConfig
    from separator.pretrain.masking.corruption import Corrupted
    from separator.pretrain.masking.grid import PatchGrid


@dataclass(frozen=True)
class CropBatch:
    """Crops before their corruption.

    Attributes:
        spectrogram: (b c f n) complex.
        continues: boolean (b), whether the second half of a crop is the true one; None where all
            are.
    """

    spectrogram: Tensor
    continues: Tensor | None = None


class Crops:
    """Crops that are pieces of the waves.

    Args:
        run: settings of the run.
    """

    def __init__(self, run: "PretrainConfig") -> None:
        self.run = run

    def data(self) -> "DataConfig":
        """Return the settings by which the waves of a batch are read."""
        return self.run.data

    def samples(self, frames: int) -> int:
        """Return how many samples are read for a crop of so many frames."""
        return (frames - 1) * self.run.stft.hop

    def seconds(self, batch: "Batch") -> float:
        """Return the seconds of audio in the crops of a batch."""
        return batch.seconds(self.run.rate)

    def make(
        self, spectrogram: Tensor, generator: Generator, songs: Tensor, cropped: Tensor
    ) -> CropBatch:
        """Make crops of the spectrograms of pieces of waves.

        Args:
            spectrogram: (k c f N) complex.
            generator: on the CPU; all randomness comes from it.
            songs: (k) the song of each piece.
            cropped: (b) pieces that crops are made of; the others may lend parts.
        """
        return CropBatch(spectrogram)

    def allowed(self, grid: "PatchGrid") -> Tensor | None:
        """Return the frame groups of a grid that may be masked, boolean (m); None where all may."""
        return None

    def finish(
        self, target: Tensor, corrupted: "Corrupted", music: Tensor | None
    ) -> "tuple[Tensor, Corrupted]":
        """Return the target and the corrupted crops as the model is to see them.

        Args:
            target: (b c f n) in [0, 1].
            corrupted: of the same crops.
            music: (b) frames of each crop that are music; the padding behind them is ignored.
                All of them by default.
        """
        from separator.pretrain.masking.corruption import ignore_padding

        return target, corrupted if music is None else ignore_padding(target, corrupted, music)
