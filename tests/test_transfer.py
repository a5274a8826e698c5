"""From a pretrained file to a run: what is taken over, what starts anew, how fast each learns."""

import dataclasses
import logging
from pathlib import Path

import pytest
import torch

from separator import Separator
from separator.data.config import DataConfig
from separator.dsp.config import STFTConfig
from separator.engine import model_file, optim
from separator.engine.run_config import OptimConfig
from separator.errors import SeparatorError
from separator.models.build import describe
from separator.models.config import ModelConfig
from separator.models.frame_transformer import FrameTransformer
from separator.stems import FOUR_STEMS, TWO_STEMS
from separator.train.config import TrainConfig
from separator.train.transfer import freeze_body, layer_rates, load_pretrained

MODEL = ModelConfig(
    channels=(2, 4, 4), encoder_blocks=(0, 1, 1), decoder_blocks=(0, 1, 1), ffn_dim=(0, 32, 32)
)
STFT = STFTConfig(256, 128)


def make(seed: int, config: ModelConfig = MODEL) -> FrameTransformer:
    torch.manual_seed(seed)
    return FrameTransformer(config, STFT.bins)


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("pretrained") / "model.safetensors"
    description = {"stage": "pretrain", **describe(MODEL, STFT, 8000)}
    model_file.export(path, make(0).state_dict(), description)
    return path


def config(path: Path, **changes: object) -> TrainConfig:
    base = TrainConfig(
        data=DataConfig(["none"]), rate=8000, stft=STFT, model=MODEL, pretrained=str(path)
    )
    return dataclasses.replace(base, **changes)


def test_all_weights_are_taken_over(pretrained: Path):
    model = make(1)
    load_pretrained(model, config(pretrained, head="keep"))
    torch.testing.assert_close(model.state_dict(), make(0).state_dict(), rtol=0, atol=0)


def test_a_fresh_head_lets_nine_tenths_through(pretrained: Path, caplog):
    model, source = make(1), make(0).state_dict()
    with caplog.at_level(logging.INFO):
        load_pretrained(model, config(pretrained))
    state = model.state_dict()
    changed = {name for name in state if not torch.equal(state[name], source[name])}
    assert changed == {"head.weight"}  # the file's bias and mask bias were as new too
    assert f"{len(state) - 3} of {len(state)} tensors taken over" in caplog.text
    with torch.no_grad():
        mask = model(torch.rand(2, 2, STFT.bins, 20, generator=torch.Generator().manual_seed(0)))
    assert mask.mean().item() == pytest.approx(0.9, abs=0.02)
    assert mask.std() > 0


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"model": dataclasses.replace(MODEL, channels=(2, 4, 6))}, "model.channels"),
        ({"model": dataclasses.replace(MODEL, position="relative")}, "model.position"),
        ({"model": dataclasses.replace(MODEL, cross_frame_bands=2)}, "model.cross_frame_bands"),
        ({"stft": STFTConfig(512, 128)}, "stft.n_fft"),
        ({"stft": STFTConfig(256, 128, 0.3)}, "stft.power"),
        ({"rate": 16000}, "rate"),
    ],
)
def test_another_configuration_is_named(pretrained: Path, changes: dict, key: str):
    run = config(pretrained, **changes)
    with pytest.raises(
        SeparatorError, match=f"^{key}: .*model.safetensors was made with"
    ) as caught:
        load_pretrained(FrameTransformer(run.model, run.stft.bins), run)
    assert "\n" not in str(caught.value)


def test_dropout_may_differ(pretrained: Path):
    model = make(1)
    run = config(pretrained, head="keep", model=dataclasses.replace(MODEL, dropout=0.1))
    load_pretrained(model, run)
    torch.testing.assert_close(model.state_dict(), make(0).state_dict(), rtol=0, atol=0)


def test_a_missing_file_is_named(tmp_path: Path):
    with pytest.raises(SeparatorError, match=r"absent\.safetensors: no such file"):
        load_pretrained(make(1), config(tmp_path / "absent.safetensors"))


def test_rates_fall_from_the_head_down_and_hold_every_weight():
    model = make(0)
    groups = layer_rates(model, 0.5)
    last = len(groups) - 1
    assert [group["lr_scale"] for group in groups] == [0.5 ** (last - k) for k in range(last + 1)]
    held = [id(weight) for group in groups for weight in group["params"]]
    assert sorted(held) == sorted(id(weight) for weight in model.parameters())
    scale = {id(weight): group["lr_scale"] for group in groups for weight in group["params"]}
    assert scale[id(model.encoders[0].conv.weight)] == 0.5**5
    assert scale[id(model.encoder_tokens[2].blocks[0].attention.q.weight)] == 0.5**3
    assert scale[id(model.decoder_tokens[0].blocks[0].attention.q.weight)] == 0.5**2
    assert scale[id(model.head.bias)] == 1
    rates = OptimConfig(lr=0.1, warmup_steps=0)
    optimizer = optim.build(groups, rates)
    optim.set_rate(optimizer, rates, 0, 10)
    by_weight = {
        id(weight): group["lr"] for group in optimizer.param_groups for weight in group["params"]
    }
    assert len(by_weight) == len(held)
    assert by_weight[id(model.head.bias)] == pytest.approx(0.1)
    assert by_weight[id(model.encoders[0].conv.weight)] == pytest.approx(0.1 * 0.5**5)


@pytest.mark.parametrize("kind", ["adamw", "muon"])
@pytest.mark.parametrize("decay", [1.0, 0.5])
def test_in_a_frozen_start_the_last_layer_alone_learns(kind: str, decay: float):
    model = make(0)
    groups = layer_rates(model, decay) if decay < 1 else [{"params": list(model.parameters())}]
    groups = freeze_body(model, groups, 2)
    held = [id(weight) for group in groups for weight in group["params"]]
    assert sorted(held) == sorted(id(weight) for weight in model.parameters())
    rates = OptimConfig(kind=kind, lr=0.1, weight_decay=0.1, warmup_steps=0)
    optimizer = optim.build(groups, rates)
    start = {name: weight.detach().clone() for name, weight in model.named_parameters()}
    for step in range(3):
        moved = {n for n, w in model.named_parameters() if not torch.equal(w, start[n])}
        expected = {"head.weight", "head.bias", "mask_bias"} if step else set()
        assert moved == expected
        for weight in model.parameters():
            weight.grad = torch.rand_like(weight)
        optim.set_rate(optimizer, rates, step, 10)
        optimizer.step()
    assert all(not torch.equal(w, start[n]) for n, w in model.named_parameters())


def test_a_pretrained_file_does_not_separate(pretrained: Path):
    with pytest.raises(SeparatorError) as caught:
        Separator.load(pretrained, device="cpu")
    message = str(caught.value)
    assert message.startswith(f"{pretrained}: ")
    assert f"separator train CONFIG pretrained={pretrained}" in message
    assert "\n" not in message


GROWN = dataclasses.replace(
    MODEL,
    encoder_blocks=tuple(n and n + 1 for n in MODEL.encoder_blocks),
    decoder_blocks=tuple(n and n + 2 for n in MODEL.decoder_blocks),
    ffn_dim=tuple(2 * n for n in MODEL.ffn_dim),
    channels=tuple(
        c if e + d else c + 3
        for c, e, d in zip(MODEL.channels, MODEL.encoder_blocks, MODEL.decoder_blocks, strict=True)
    ),
)


@pytest.mark.parametrize("stride", [1, 2])
def test_a_larger_network_starts_with_the_masks_of_a_smaller_one(tmp_path: Path, stride: int):
    small = dataclasses.replace(MODEL, time_stride=stride)
    large = dataclasses.replace(GROWN, time_stride=stride)
    larger = dataclasses.replace(large, encoder_blocks=(0, 2, 3), ffn_dim=(0, 64, 80))
    model = make(0, small)
    with torch.no_grad():
        for weight in model.parameters():  # the mask of a new network hardly depends on its input
            weight.add_(0.1 * torch.randn_like(weight))
    x = torch.rand(2, 2, STFT.bins, 21, generator=torch.Generator().manual_seed(0))
    mask = model(x).detach()
    assert mask.std() > 0.05
    path = tmp_path / "model.safetensors"
    for sizes in (large, larger):
        model_file.export(path, model.state_dict(), {**describe(model.config, STFT, 8000)})
        model = make(1, sizes)
        load_pretrained(model, config(path, head="keep", model=sizes, grow=True))
        torch.testing.assert_close(model(x), mask, rtol=1e-5, atol=1e-6)
    model(x).square().mean().backward()
    new = model.state_dict()["decoders.0.conv.weight"].shape
    assert new[1] == small.channels[1] + larger.encoder_blocks[1]
    gradient = model.decoders[0].conv.weight.grad[:, -1]  # of the newest block's output
    assert (gradient != 0).any()


@pytest.mark.parametrize("names", [(TWO_STEMS, FOUR_STEMS), (FOUR_STEMS, TWO_STEMS)])
def test_a_network_of_other_stems_grows_up_to_its_last_layer(tmp_path: Path, names: tuple):
    sizes = [
        dataclasses.replace(size, stems=stems.names)
        for size, stems in zip((MODEL, GROWN), names, strict=True)
    ]
    small, large = map(make, (0, 1), sizes)
    path = tmp_path / "model.safetensors"
    model_file.export(path, small.state_dict(), describe(small.config, STFT, 8000))
    load_pretrained(large, config(path, head="keep", model=large.config, grow=True))
    x = torch.rand(2, 2, STFT.bins, 21, generator=torch.Generator().manual_seed(0))
    features = [
        model.features(x).pre_head[..., : small.pre_head_channels] for model in (small, large)
    ]
    torch.testing.assert_close(*features, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("sizes", "key"),
    [
        ({"channels": (1, 4, 4)}, "model.channels"),  # smaller
        ({"channels": (2, 4, 4, 4)}, "model.channels"),
        ({"channels": (2, 6, 4)}, "model.channels"),  # where there are blocks
        ({"encoder_blocks": (1, 1, 1)}, "model.encoder_blocks"),  # where there are none
        ({"ffn_dim": (0, 16, 32)}, "model.ffn_dim"),
        ({"position": "relative"}, "model.position"),
    ],
)
def test_what_cannot_grow_is_named(pretrained: Path, sizes: dict, key: str):
    sizes = {"ffn_dim": (64, 32, 32)} | sizes
    if len(sizes.get("channels", "123")) == 4:
        sizes |= {name: (0, 1, 1, 1) for name in ("encoder_blocks", "decoder_blocks")}
        sizes["ffn_dim"] = (0, 32, 32, 32)
    run = config(pretrained, model=dataclasses.replace(MODEL, **sizes), grow=True)
    with pytest.raises(SeparatorError, match=f"^{key}: "):
        load_pretrained(FrameTransformer(run.model, run.stft.bins), run)
