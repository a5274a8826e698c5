"""Next-spectrogram prediction, after BERT's next-sentence prediction (arXiv 1810.04805)."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Self

from separator.errors import SeparatorError
from separator.pretrain.lazy_torch import nn
from separator.pretrain.objectives import Loss, Objective, ObjectiveConfig, Prediction, register
from separator.ranges import SettingError, Within

if TYPE_CHECKING:
    from separator.data.tracks import Track
    from separator.pretrain.batch import Example
    from separator.pretrain.crops import Crops


@dataclass(frozen=True)
class NextConfig(ObjectiveConfig):
    """Predict whether the second half of a crop continues the first.

    Half of the crops go on with another song, or another place of the song.

    Attributes:
        weight: weight of this objective; 0 leaves it and the [SEP] frames out.
        token: frames of [SEP], half of them on each side of the boundary; with 0, `token_seconds`
            gives the length.
        token_seconds: length of [SEP] in seconds where `token` is 0, so that a preset fits any hop.
        same: share of the negative pairs whose second half is from the same song, at least half a
            crop away from the true continuation; these are harder. The others have a second half
            from another song.
        bands: add to the answer a comparison of 64 frequency bands of the input; otherwise that
            comparison is only logged.
        gain_db: largest random gain of each half, and of the difference between its channels.
        tilt_db: largest decibels per octave by which each half's spectrum is tilted, and by which
            it is bent.
        lowpass: share of the crops whose halves both go through the same low-pass filter.
    """

    token: Annotated[int, Within("[0, 65536]")] = 16
    token_seconds: Annotated[float, Within("[0, 60]")] = 0.0
    same: Annotated[float, Within("[0, 1]")] = 0.0
    bands: bool = False
    gain_db: Annotated[float, Within("[0, 100]")] = 6.0
    tilt_db: Annotated[float, Within("[0, 100]")] = 1.0
    lowpass: Annotated[float, Within("[0, 1]")] = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.token % 2 or not (self.token or self.token_seconds):
            raise self.invalid(
                "token",
                f"{self.token} frames; give an even number of at least 2, or 0 and "
                "{}token_seconds",
            )

    def in_frames(self, frames_per_second: float) -> Self:
        """Return this with `token` in frames, made of `token_seconds` where it is 0."""
        token = self.token or 2 * max(1, round(self.token_seconds * frames_per_second / 2))
        return replace(self, token=token, token_seconds=0.0)


@register
class NextSpectrogram(Objective[NextConfig]):
    """Predict whether the second half of a crop continues the first."""

    key = "next"

    def check(self) -> None:
        """Refuse pairs that are too long, and a [SEP] that leaves nothing to mask beside it."""
        from separator.pretrain.masking.grid import PatchGrid
        from separator.pretrain.objectives.segment_pairs import allowed_groups, sep_frames

        run = self.run
        try:
            self.crops().data()
        except SettingError as error:
            raise SeparatorError(
                f"data.segment_seconds: {run.data.segment_seconds:g} is too long, as pairs of two "
                f"segments are read: {error.reason}; give a shorter one"
            ) from error
        grid = PatchGrid(run.stft.bins, run.shortest_crop, 1, run.mask.group)
        first, last = sep_frames(grid.frames, self.config)
        allowed = int(allowed_groups(grid, self.config).sum())
        if first < 1 or last > grid.frames - 2 or allowed < 2:
            raise SeparatorError(
                f"next.token: [SEP] of {self.config.token} frames leaves {allowed} of the "
                f"{grid.groups} frame groups in the shortest crops, of {grid.frames} frames; 2 are "
                "needed: make it or mask.group smaller, or data.segment_seconds longer"
            )

    def check_tracks(self, tracks: "Sequence[Track]") -> None:
        """Refuse a single song where crops go on with other songs."""
        if self.config.same < 1 and len(tracks) < 2:
            raise SeparatorError(
                "next.same: pairs need a second song, but there is one song to train on; give "
                "next.same=1, which takes another place of the same song, or more songs"
            )

    def crops(self) -> "Crops":
        """Return crops of two halves."""
        from separator.pretrain.objectives.segment_pairs import SegmentPairs

        return SegmentPairs(self.run, self.config)

    def head(self, backbone: "nn.Module") -> "nn.Module":
        """Return the classifier."""
        from separator.pretrain.objectives.next_head import NextHead

        return NextHead(backbone.bottleneck_features, self.run.stft.bins - 1, self.config)

    def loss(self, head: "nn.Module", batch: "Example", prediction: Prediction) -> Loss:
        """Return the binary cross-entropy and the accuracy."""
        corrupted = batch.corrupted
        bottleneck = prediction.outputs.bottleneck
        return head.loss(bottleneck, corrupted.spectrogram, corrupted.masked, batch.continues)
