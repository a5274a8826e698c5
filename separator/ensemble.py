"""Several models whose estimates are averaged."""

import hashlib
from collections.abc import Iterable, Sequence
from typing import Any, Literal, get_args

import numpy as np

from separator.arguments import check_kind, number_of
from separator.errors import ArgumentError, UsageError, counted
from separator.streaming import StreamingSeparator

Average = Literal["mean", "median"]


class Ensemble(StreamingSeparator[Any]):
    """Separates as its models do together, chunk by chunk as the first one does.

    Averaged are the waves that the models estimate: the rest is the mixture without the others, so
    that the stems add up to it, whatever the average.

    Args:
        models: of the same stems and rate, each with shifts of its own: `Separator` or
            `OnnxSeparator`.
        average: "mean", or "median" (of each sample).
        weights: of the models in the mean; by default all weigh alike.

    Raises:
        UsageError: the models do not go together, or the weights do not go with them.
    """

    def __init__(
        self,
        models: Sequence[StreamingSeparator[Any]],
        average: Average = "mean",
        weights: Sequence[float] = (),
    ) -> None:
        models = [*models] if isinstance(models, Iterable) else []
        if not models or not all(isinstance(model, StreamingSeparator) for model in models):
            raise UsageError("models: give a list of loaded models, such as Separator.load(…)")
        if average not in get_args(Average):
            raise ArgumentError(
                f"average: {average!r} is not one of {', '.join(get_args(Average))}"
            )
        weights = _weights_of(weights, len(models), average)
        first = models[0]
        for number, model in enumerate(models[1:], 2):
            for key, ours, other in (
                ("stems", ", ".join(first.stems.names), ", ".join(model.stems.names)),
                ("rate", f"{first.rate} Hz", f"{model.rate} Hz"),
            ):
                if ours != other:
                    raise ArgumentError(
                        f"model: number {number} has another {key} than the first ({other}, not "
                        f"{ours}); only models of the same stems and rate can be averaged"
                    )
        digests = [model.description.get("digest", "") for model in models]
        text = " ".join([average, *map(str, weights), *digests])
        digest = hashlib.blake2b(text.encode(), digest_size=32).hexdigest()
        description = {"digest": digest}
        quality = 1, first.chunk, first.overlap  # each model has its own shifts
        super().__init__(first.stft, first.rate, description, first.stems, *quality)
        self.models, self.average, self.weights = models, average, weights
        self._given = first._given  # results are as those of the first model

    def _masked(self, mixtures: np.ndarray) -> np.ndarray:
        estimates = np.stack([model._shifted(mixtures) for model in self.models])
        if self.average == "median":
            return np.median(estimates, axis=0)
        return np.average(estimates, axis=0, weights=self.weights or None).astype(np.float32)


def _weights_of(weights: Any, models: int, average: Average) -> list[float]:
    """Return an argument that has to be a weight for each model, or nothing."""
    check_kind(weights, "weights", Iterable, "list of numbers")
    weights = [number_of(weight, "weights", "(0, 1e12]") for weight in weights]
    if weights and average != "mean":
        raise ArgumentError("weights: are for the average mean; leave one of them out")
    if weights and len(weights) != models:
        raise ArgumentError(
            f"weights: {len(weights)} for {counted(models, 'model')}; give one for each"
        )
    return weights
