"""Classification of masked frame groups by their cluster (HuBERT, arXiv 2106.07447)."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

from separator.errors import SeparatorError
from separator.pretrain.lazy_torch import Lazy, Tensor, nn, torch
from separator.pretrain.objectives import Loss, Objective, ObjectiveConfig, Prediction, register
from separator.ranges import Within

if TYPE_CHECKING:
    from separator.pretrain.batch import Example

clusters = Lazy("separator.pretrain.objectives.clusters")
label_head = Lazy("separator.pretrain.objectives.label_head")


@dataclass(frozen=True)
class LabelConfig(ObjectiveConfig):
    """Predict the cluster of masked frame groups (HuBERT, arXiv 2106.07447).

    Attributes:
        weight: weight of the objective; 0 leaves it out.
        clusters: number of labels.
        group: frames that share a label; frames at a crop's end that do not fill a group have no
            label.
        crops: number of training crops to which the clusters are fitted when a run starts.
        source: features to cluster: "spectrum" (log-mel), or "deep" (the bottleneck features of
            labels.model, as in HuBERT's second iteration).
        model: file of a pretrained model, for "deep".
        unmasked_weight: weight of the groups that are not masked; masked ones have 1.
    """

    clusters: Annotated[int, Within("[2, 65536]")] = 128
    group: Annotated[int, Within("[1, 65536]")] = 16
    crops: Annotated[int, Within("[1, 65536]")] = 256
    source: Literal["spectrum", "deep"] = "spectrum"
    model: str = ""
    unmasked_weight: Annotated[float, Within("[0, inf)")] = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if (self.source == "deep") != bool(self.model):
            raise self.invalid(
                "model",
                f"{self.model!r} with {{}}source={self.source}; deep needs a pretrained model's "
                "file, and spectrum takes none",
            )


@register
class ClusterLabels(Objective[LabelConfig]):
    """Predict the cluster of each masked frame group.

    Attributes:
        extract: computes the features that are clustered.
    """

    key = "labels"

    def check(self) -> None:
        """Refuse groups longer than the shortest crop.

        Raises:
            SeparatorError: names the key and the fix.
        """
        shortest = self.run.shortest_crop
        if self.config.group > shortest:
            raise SeparatorError(
                f"labels.group: {self.config.group} frames, but the shortest crops have "
                f"{shortest}; use smaller groups or longer crops"
            )

    def prepare(self, device: "torch.device") -> None:
        """Load the features' extractor."""
        self.extract = clusters.extractor(self.config, self.run.stft, self.run.rate).to(device)

    def head(self, backbone: "nn.Module") -> "nn.Module":
        """Return the classifier, with the clusters."""
        head = label_head.LabelHead(backbone.bottleneck_features, self.config)
        head.labeller = clusters.Labeller(self.extract.features, self.config.clusters)
        return head

    def start(self, head: "nn.Module", waves: Iterable[Tensor]) -> None:
        """Fit the clusters."""
        clusters.fit_labels(head.labeller, self.extract, waves, self.config)

    def loss(self, head: "nn.Module", batch: "Example", prediction: Prediction) -> Loss:
        """Return the cross-entropy and the accuracy."""
        masked = label_head.masked_groups(batch.corrupted, self.config.group)
        return head.loss(prediction.outputs.bottleneck, self.observe(head, batch), masked)

    def observe(self, head: "nn.Module", batch: "Example") -> Tensor:
        """Return the labels (b m) of a batch."""
        labels = head.labeller(self.extract(batch.spectrogram))
        return label_head.ignore_outside(labels, batch.corrupted, self.config.group)

    def summarise(self, observed: Tensor, songs: Tensor) -> dict[str, float]:
        """Return how useful the clusters are."""
        metrics = clusters.cluster_metrics(observed, songs, self.config.clusters)
        return metrics | {"labels/unigram_entropy": label_head.unigram_entropy(observed).item()}
