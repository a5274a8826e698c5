"""Restore masked patches."""

from typing import TYPE_CHECKING

from separator.errors import SeparatorError
from separator.pretrain import schedules
from separator.pretrain.objectives import OBJECTIVES, PrimaryObjective, register

if TYPE_CHECKING:
    from separator.pretrain.config import PretrainConfig


@register
class Restore(PrimaryObjective[None]):
    """Patches of a spectrogram are masked; the network restores them."""

    key = "restore"
    task_class = "separator.pretrain.task:PretrainTask"

    def check(self) -> None:
        """Convert lengths to frames; refuse masks and objectives that cannot be."""
        run = self.run
        weights = run.masked_weight, run.unmasked_weight
        steps = {int(step) for weight in weights for step, _ in schedules.pairs(weight)}
        if not all(sum(schedules.value(weight, step) for weight in weights) for step in steps):
            raise SeparatorError(
                "masked_weight, unmasked_weight: both are 0 at a step; 1 and 0 are usual"
            )
        frames_per_second = run.rate / run.stft.hop
        for key in ("mask", *OBJECTIVES):  # some lengths may be in seconds
            object.__setattr__(run, key, getattr(run, key).in_frames(frames_per_second))
        _check_mask(run)
        _check_objectives(run)


def _check_objectives(run: "PretrainConfig") -> None:
    """Refuse combinations of objectives that cannot be."""
    predicting = [key for key, objective in OBJECTIVES.items() if objective.predicts_errors]
    active = run.objectives
    predicted = any(objective.predicts_errors for objective in active)
    if run.mask.chosen_strategy.predicted_error != predicted:
        weight = f"{predicting[0]}.weight"
        raise SeparatorError(
            f"mask.strategy, {weight}: hard patches are chosen by a predictor, trained with "
            f"that weight; give mask.strategy=hard and a {weight} above 0, or neither"
        )
    inside = [objective.key for objective in active if objective.meeting_point != "restored"]
    if inside and run.compile and run.balance:
        raise SeparatorError(
            f"compile: the gradients of {', '.join(inside)} cannot be balanced in a compiled "
            "model; give compile=false, or balance=false"
        )
    for objective in active:
        if objective.needs_masked and not run.mask.mask:
            raise SeparatorError(
                f"mask.mask: 0 masks no patch, but {objective.key} needs masked ones; give a share"
            )
        objective.check()


def _check_mask(run: "PretrainConfig") -> None:
    """Refuse patches that would cover whole crops, or none."""
    mask, bins, strategy = run.mask, run.stft.bins - 1, run.mask.chosen_strategy
    if mask.band and bins % mask.band:
        raise SeparatorError(f"mask.band: {mask.band} does not divide {bins} bins (stft.n_fft / 2)")
    if strategy.bands and not 0 < mask.band * mask.band_span < bins:
        raise SeparatorError(
            f"mask.band, mask.band_span: {mask.band} x {mask.band_span} bins of {bins}; "
            f"{mask.strategy} needs at least 1 and less than all"
        )
    if "mix" in mask.kinds and run.data.batch < 2:
        raise SeparatorError(
            "mask.mix: mixes a crop with another one of its batch; give data.batch of 2 up"
        )
    if mask.voices and not mask.voice:
        raise SeparatorError(
            "mask.voices: no patch is mixed with one; give mask.mix and mask.voice_share above 0"
        )
    frames = run.shortest_crop
    if 2 * mask.group > frames:
        raise SeparatorError(
            f"mask.group: {mask.group} frames, but the shortest crops have {frames}, "
            "which must be two groups or more; use smaller ones, or longer data.segment_seconds"
        )
    longest = strategy.longest_run * mask.span * mask.group
    if longest >= frames:
        raise SeparatorError(
            f"mask.span: runs of up to {longest} frames, but the shortest crops have {frames}; "
            "use a smaller mask.span or mask.group, or longer crops"
        )
