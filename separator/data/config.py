"""Settings of the data: folders of songs, segments and batches, and augmentation."""

from dataclasses import dataclass, field
from typing import Annotated

from separator.ranges import CheckedConfig, Within

NORMAL = 10  # tenths: resampling by such ratios is cheap


@dataclass(frozen=True)
class AugmentConfig(CheckedConfig):
    """Random changes of the stems; zeros switch a change off.

    Attributes:
        gain_db: each stem is made louder or softer by up to this many decibels, uniformly.
        swap: probability that a stem's left and right channels are exchanged.
        polarity: probability that a stem is multiplied by -1.
        remix: probability that a batch's stems are regrouped into mixtures of different songs.
        speed: stems are played faster or slower by up to this share, a multiple of 0.1.
        drop_vocals: probability that a mixture has no vocals, so that the network learns to leave
            instrumental music unchanged.
    """

    gain_db: Annotated[float, Within("[0, 100]")] = 6.0
    swap: Annotated[float, Within("[0, 1]")] = 0.5
    polarity: Annotated[float, Within("[0, 1]")] = 0.5
    remix: Annotated[float, Within("[0, 1]")] = 0.5
    speed: float = 0.0
    drop_vocals: Annotated[float, Within("[0, 1]")] = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.speed not in (0, 0.1, 0.2, 0.3, 0.4, 0.5):
            raise self.invalid("speed", f"tenths from 0 to 0.5, got {self.speed}")

    def source_samples(self, samples: int) -> int:
        """Return how many samples must be read to leave `samples` at the highest speed."""
        return -(-samples * (NORMAL + self.steps) // NORMAL)

    @property
    def steps(self) -> int:
        """Tenths by which the speed may differ from normal."""
        return round(self.speed * NORMAL)


@dataclass(frozen=True)
class DataConfig(CheckedConfig):
    """Folders of songs, and the way they are cut into training batches.

    Attributes:
        roots: folders with songs, each PATH, KIND:PATH, PATH@WEIGHT or KIND:PATH@WEIGHT; KIND is
            the name of a layout, such as stems or library, and is detected when left out.
        segment_seconds: length of a training segment in seconds.
        batch: segments in a batch, on each device.
        workers: processes that read ahead; 0 reads in the training process.
        fraction: share of the training songs of each root to use; pools and libraries are used
            whole. A larger share contains the songs of a smaller one, whatever the run's seed.
        valid_share: share of the songs kept for validation where a collection has no split.
        cache_gb: largest disk space for MUSDB18's decoded stems, in gigabytes.
        memory_mb: largest memory for decoded songs of up to 30 s, shared by all workers, in
            megabytes.
        silence_db: segments below this level, in dB of full scale, are drawn again.
        augment: random changes of the stems.
    """

    roots: list[str]
    segment_seconds: Annotated[float, Within("[0.05, 600]")] = 6.0
    batch: Annotated[int, Within("[1, 4096]")] = 8
    workers: Annotated[int, Within("[0, 256]")] = 2
    fraction: Annotated[float, Within("(0, 1]")] = 1.0
    valid_share: Annotated[float, Within("[0, 1)")] = 0.1
    cache_gb: Annotated[float, Within("[0, 10000000]")] = 60.0
    memory_mb: Annotated[float, Within("[0, 10000000]")] = 1024.0
    silence_db: Annotated[float, Within("[-1000, 0]")] = -60.0
    augment: AugmentConfig = field(default_factory=AugmentConfig)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.roots:
            raise self.invalid("roots", "is empty; give at least one folder with songs")
