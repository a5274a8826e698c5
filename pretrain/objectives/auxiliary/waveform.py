"""The error of the chosen patches, measured on waves as in the training on stems."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from separator.pretrain.lazy_torch import nn
from separator.pretrain.objectives import Loss, Objective, ObjectiveConfig, Prediction, register

if TYPE_CHECKING:
    from separator.pretrain.batch import Example


@dataclass(frozen=True)
class WaveConfig(ObjectiveConfig):
    """Restore the waves of the chosen patches.

    Mixed patches get the phases of the mixture, filled and noisy ones the true phases.

    Attributes:
        weight: weight of the negative SDR.
    """


@register
class Wave(Objective[WaveConfig]):
    """Measure the error of the chosen patches on waves."""

    key = "wave"
    meeting_point = "restored"

    def loss(self, head: "nn.Module", batch: "Example", prediction: Prediction) -> Loss:
        """Return the negative SDR in dB, limited to 30 dB, of the part that was chosen.

        All other patches are 0 in both waves, so they have no error and no gradient, while the
        windows of neighbouring chosen frames overlap as in the whole wave.
        """
        from separator.dsp.stft import istft, linear_mask
        from separator.losses import waveform_sdr

        transform, chosen = self.run.stft, batch.corrupted.chosen
        magnitude = batch.scale * linear_mask(prediction.restored, transform)
        restored = magnitude * batch.mixture.sgn()  # filled and noisy patches have the true phase
        samples = (restored.shape[-1] - 1) * transform.hop
        waves = [istft(x * chosen, transform, samples) for x in (restored, batch.spectrogram)]
        return waveform_sdr(*waves), {}
