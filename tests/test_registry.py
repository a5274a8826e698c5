"""An architecture is a class, its configuration and a row of the registry."""

from dataclasses import dataclass
from typing import Annotated, get_args

import pytest
import torch
from torch import Tensor, nn

from separator.dsp.config import STFTConfig
from separator.engine.model_file import export, load_model
from separator.errors import SeparatorError
from separator.models.base import Architecture, Outputs
from separator.models.build import create, describe
from separator.models.config import ModelConfig, PatchConfig
from separator.models.registry import ARCHITECTURES, Entry, ModelChoice
from separator.ranges import CheckedConfig, Within

STFT = STFTConfig(n_fft=64, hop=32)
ONE = (1,)
SMALL = {
    "frame_transformer": dict(channels=ONE, encoder_blocks=(0,), decoder_blocks=ONE, ffn_dim=(8,)),
    "patch_transformer": dict(patch=4, width=4, depth=1, heads=1),
}


@dataclass(frozen=True)
class GainConfig(CheckedConfig):
    """A gain for each bin."""

    start: Annotated[float, Within("[0, 1]")] = 0.5

    blocks = 0


class Gain(nn.Module):
    """The whole of an architecture: a mask that is the same for all inputs."""

    HEAD = ("gain",)

    def __init__(self, config: GainConfig, bins: int, audio_channels: int = 2) -> None:
        super().__init__()
        if bins > 40:
            raise config.invalid("start", f"{bins} bins are too many")
        self.config, self.bottleneck_features, self.pre_head_channels = config, bins, 1
        self.gain = nn.Parameter(torch.empty(bins, 1))
        self.reset_head()

    def forward(self, x: Tensor, masked: Tensor | None = None) -> Tensor:
        return self.features(x, masked).mask

    def features(self, x: Tensor, masked: Tensor | None = None) -> Outputs:
        mask = self.gain.expand_as(x)
        return Outputs(mask, x.mean(1).mT, x.mean(1).mT[..., None], mask)

    def stages(self) -> list[list[nn.Parameter]]:
        return [[self.gain]]

    def reset_head(self) -> None:
        nn.init.constant_(self.gain, self.config.start)


@pytest.fixture
def gain(monkeypatch: pytest.MonkeyPatch) -> None:
    """The architecture in the registry."""
    monkeypatch.setitem(ARCHITECTURES, "gain", Entry("gain", GainConfig, f"{__name__}:Gain"))


@pytest.mark.usefixtures("gain")
def test_a_row_makes_an_architecture_that_is_created_saved_and_loaded(tmp_path):
    model = create(GainConfig(start=0.25), STFT.bins)
    path = tmp_path / "gain.safetensors"
    description = describe(model.config, STFT, 44100)
    assert (description["architecture"], description["model"]) == ("gain", {"start": 0.25})
    export(path, model.state_dict(), description)
    loaded, stft, _ = load_model(path)
    assert (type(loaded), loaded.config, stft) == (Gain, model.config, STFT)
    assert torch.equal(loaded(torch.rand(1, 2, STFT.bins, 3)), torch.full((1, 2, 33, 3), 0.25))


@pytest.mark.usefixtures("gain")
def test_what_an_architecture_refuses_is_named_by_its_group():
    with pytest.raises(SeparatorError, match=r"^gain\.start: 65 bins are too many$"):
        create(GainConfig(), 65)


def test_a_run_chooses_among_all_architectures():
    names = get_args(ModelChoice.__dataclass_fields__["architecture"].type)
    assert names == tuple(ARCHITECTURES)
    assert ModelChoice().sizes == ModelConfig()
    assert ModelChoice(architecture="patch_transformer").sizes == PatchConfig()


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_each_architecture_offers_what_the_protocol_asks_for(name: str):
    model = create(ARCHITECTURES[name].config(**SMALL[name]), STFT.bins)
    members = {*Architecture.__annotations__, *vars(Architecture)} - {*vars(object), "_is_protocol"}
    public = {member for member in members if not member.startswith("_")}
    assert {"HEAD", "features", "stages", "reset_head", "bottleneck_features"} <= public
    assert not [member for member in public if not hasattr(model, member)]
    parameters = [parameter for stage in model.stages() for parameter in stage]
    assert sorted(map(id, parameters)) == sorted(map(id, model.parameters()))
    x = torch.rand(2, 2, STFT.bins, 5)
    outputs = model.eval().features(x)
    assert torch.equal(outputs.mask, model(x))
    assert outputs.bottleneck.shape == (2, 5, model.bottleneck_features)
    assert outputs.pre_head.shape == (2, 5, STFT.bins - 1, model.pre_head_channels)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    for parameter in model.parameters():
        nn.init.constant_(parameter, 7.0)
    model.reset_head()
    changed = {key for key, value in model.state_dict().items() if not (value == 7.0).all()}
    assert changed - {key for key in before if not before[key].is_floating_point()}
    assert all(key.startswith(model.HEAD) for key in changed)
