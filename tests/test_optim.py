"""Groups, schedules and the average of the weights, against arithmetic done by hand."""

import copy
import math

import pytest
import torch
from torch import nn

from separator.engine import ema, muon, optim
from separator.engine.run_config import OptimConfig
from separator.errors import SeparatorError
from separator.models.frame_transformer import FrameTransformer
from separator.train.transfer import layer_rates
from tests.toys import STFT, TINY


class Mixed(nn.Module):
    """A bit of everything that has weights."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv1d(2, 4, 3)
        self.norm = nn.BatchNorm1d(4)
        self.head = nn.Linear(4, 1)
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, wave: torch.Tensor) -> torch.Tensor:
        return self.scale * self.head(self.norm(self.convolution(wave)).mean(-1))


def test_only_matrices_decay():
    model = Mixed()
    groups = optim.build([{"params": model.parameters()}], OptimConfig()).param_groups
    decay = {id(weight): group["weight_decay"] for group in groups for weight in group["params"]}
    decayed = {name for name, weight in model.named_parameters() if decay[id(weight)] > 0}
    assert decayed == {"convolution.weight", "head.weight"}
    assert len(decay) == len(list(model.parameters()))


@pytest.mark.parametrize("kind", ["adamw", "muon"])
@pytest.mark.parametrize("by_stage", [False, True])
def test_a_bias_of_each_bin_does_not_decay(kind: str, by_stage: bool):
    model = FrameTransformer(TINY, STFT.bins)
    groups = layer_rates(model, 0.5) if by_stage else [{"params": model.parameters()}]
    built = optim.build(groups, OptimConfig(kind=kind, weight_decay=0.1)).param_groups
    decay = {id(weight): group["weight_decay"] for group in built for weight in group["params"]}
    assert decay[id(model.mask_bias)] == 0
    assert decay[id(model.head.weight)] == 0.1
    assert len(decay) == len(list(model.parameters()))


@pytest.mark.parametrize("by_stage", [False, True])
def test_a_state_from_before_biases_of_two_axes_did_not_decay_fits(by_stage: bool):
    model = FrameTransformer(TINY, STFT.bins)
    groups = layer_rates(model, 0.5) if by_stage else [{"params": list(model.parameters())}]
    earlier = []
    for group in groups:
        for vectors in (False, True):
            weights = [weight for weight in group["params"] if (weight.ndim < 2) is vectors]
            earlier += [{"params": weights, "lr_scale": 1.0}] if weights else []
    old = torch.optim.AdamW(earlier, lr=0.1)
    for weight in model.parameters():
        weight.grad = torch.rand_like(weight)
    old.step()
    new = optim.build(groups, OptimConfig())
    optim.load(new, old.state_dict())
    for weight in model.parameters():
        torch.testing.assert_close(new.state[weight], old.state[weight], rtol=0, atol=0)
    decay = {id(w): group["weight_decay"] for group in new.param_groups for w in group["params"]}
    assert decay[id(model.mask_bias)] == 0


def test_a_state_of_other_shapes_is_refused():
    narrow, wide = ([{"params": [nn.Parameter(torch.ones(2, n))]}] for n in (3, 4))
    old = optim.build(narrow, OptimConfig())
    narrow[0]["params"][0].grad = torch.ones(2, 3)
    old.step()
    with pytest.raises(ValueError, match="other shapes"):
        optim.load(optim.build(wide, OptimConfig()), old.state_dict())


def test_frozen_weights_are_left_out():
    model = Mixed()
    model.head.requires_grad_(False)
    groups = optim.build([{"params": model.parameters()}], OptimConfig()).param_groups
    assert sum(len(group["params"]) for group in groups) == len(list(model.parameters())) - 2


def test_groups_scale_the_learning_rate():
    model, config = Mixed(), OptimConfig(lr=0.1, warmup_steps=0, schedule="constant")
    optimizer = optim.build(
        [{"params": model.head.parameters(), "lr_scale": 10.0}, {"params": [model.scale]}], config
    )
    optim.set_rate(optimizer, config, 5, 10)
    rates = {id(w): group["lr"] for group in optimizer.param_groups for w in group["params"]}
    assert rates[id(model.head.weight)] == rates[id(model.head.bias)] == 1.0
    assert rates[id(model.scale)] == 0.1


def test_adamw_equals_the_formula():
    weight = nn.Parameter(torch.tensor([[1.0, -2.0]]))
    config = OptimConfig(lr=0.1, betas=(0.8, 0.9), weight_decay=0.5)
    optimizer = optim.build([{"params": [weight]}], config)
    mean, square, expected = 0.0, 0.0, weight.detach().clone()
    for step in range(1, 4):
        weight.grad = torch.tensor([[0.3 * step, -1.0]])
        mean = 0.8 * mean + 0.2 * weight.grad
        square = 0.9 * square + 0.1 * weight.grad**2
        expected = expected * (1 - 0.1 * 0.5)
        update = (mean / (1 - 0.8**step)) / ((square / (1 - 0.9**step)).sqrt() + 1e-8)
        expected = expected - 0.1 * update
        optimizer.step()
    torch.testing.assert_close(weight.detach(), expected)


def test_muon_moves_along_the_nearest_orthogonal_matrix():
    torch.manual_seed(0)
    weight = nn.Parameter(torch.randn(48, 20))
    config = OptimConfig(kind="muon", lr=0.1, weight_decay=0.5)
    optimizer = optim.build([{"params": [weight, nn.Parameter(torch.ones(3))]}], config)
    momentum = torch.zeros(48, 20)
    for step in range(3):
        before = weight.detach().clone()
        weight.grad = torch.randn(48, 20) * 10.0**step
        momentum = 0.95 * momentum + 0.05 * weight.grad
        optimizer.step()
        moved = (before * (1 - 0.1 * 0.5) - weight.detach()) / (0.1 * 0.2 * 48**0.5)
        u, _, v = torch.linalg.svd(0.95 * momentum + 0.05 * weight.grad, full_matrices=False)
        sizes = torch.linalg.svdvals(moved)
        assert 0.6 < sizes.min() < sizes.max() < 1.3  # five iterations come about so near to 1
        cosine = (moved * (u @ v)).sum() / moved.norm() / (u @ v).norm()
        assert cosine > 0.97


def test_muon_is_that_of_torch_whatever_the_shapes(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(muon, "MAX_ENTRIES", 2 * 40 * 24)  # three matrices of this size do not fit
    shapes = [(40, 24)] * 3 + [(24, 40), (32, 32), (32, 32)]
    torch.manual_seed(0)
    ours = [nn.Parameter(torch.randn(shape)) for shape in shapes]
    theirs = [nn.Parameter(weight.detach().clone()) for weight in ours]
    groups = [
        [{"params": some[:4]}, {"params": some[4:], "lr": 0.1, "weight_decay": 0.5}]
        for some in (ours, theirs)
    ]
    optimizers = (
        muon.Muon(groups[0], lr=0.1),
        torch.optim.Muon(groups[1], lr=0.1, weight_decay=0.0, adjust_lr_fn="match_rms_adamw"),
    )
    for step in range(3):
        for index, pair in enumerate(zip(ours, theirs, strict=True)):
            gradient = torch.randn_like(pair[0])
            for weight in pair:  # the second matrix has a gradient at the second step only
                weight.grad = None if index == 1 and step != 1 else gradient.clone()
        for optimizer in optimizers:
            optimizer.step()
    for pair in zip(ours, theirs, strict=True):
        torch.testing.assert_close(*pair, rtol=2e-3, atol=2e-3)


@pytest.mark.parametrize(
    ("capabilities", "dtype"),
    [({"avx512_bf16": True, "amx_bf16": False}, torch.bfloat16),
     ({"avx512_bf16": False, "avx512_f": True}, torch.float32), ({}, torch.float32)],
)  # fmt: skip
def test_muon_works_in_what_the_processor_multiplies_fastest(
    monkeypatch: pytest.MonkeyPatch, capabilities: dict, dtype: torch.dtype
):
    seen = []
    monkeypatch.setattr(muon, "orthogonal", lambda x: seen.append(x.dtype) or x)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities, raising=False)
    weight = nn.Parameter(torch.ones(3, 4))
    weight.grad = torch.ones(3, 4)
    muon.Muon([{"params": [weight]}], lr=0.1).step()
    assert seen == [dtype]


def test_muon_is_for_wide_matrices_and_leaves_the_rest_to_adamw():
    shapes = {"wide": (32, 16), "narrow": (32, 15), "convolution": (32, 32, 1, 3), "bias": (32,)}
    torch.manual_seed(0)
    start = {name: torch.randn(shape) for name, shape in shapes.items()}
    gradients = [{name: torch.randn(shape) for name, shape in shapes.items()} for _ in range(3)]
    ends = []
    for kind in ("adamw", "muon"):
        weights = {name: nn.Parameter(value.clone()) for name, value in start.items()}
        optimizer = optim.build([{"params": weights.values()}], OptimConfig(kind=kind))
        for gradient in gradients:
            for name, weight in weights.items():
                weight.grad = gradient[name].clone()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            assert all(weight.grad is None for weight in weights.values())
        ends.append(weights)
    changed = {name for name in shapes if not torch.equal(ends[0][name], ends[1][name])}
    assert changed == {"wide"}


def test_the_rates_of_a_chain_are_set_and_its_state_fits_no_other():
    groups = [{"params": [nn.Parameter(torch.ones(16, 16))], "lr_scale": 0.5}]
    groups.append({"params": [nn.Parameter(torch.ones(16))]})
    config = OptimConfig(kind="muon", lr=0.1, warmup_steps=0, schedule="constant")
    chain, plain = optim.build(groups, config), optim.build(groups, OptimConfig())
    optim.set_rate(chain, config, 0, 10)
    rates = {group["params"][0].shape: group["lr"] for group in chain.param_groups}
    assert rates == {(16, 16): 0.05, (16,): 0.1}
    optim.load(chain, chain.state_dict())
    with pytest.raises(KeyError):
        optim.load(chain, plain.state_dict())
    with pytest.raises(KeyError):
        optim.load(plain, chain.state_dict())


@pytest.mark.parametrize("kind", ["cosine", "polynomial", "constant"])
def test_schedules_rise_then_fall_to_the_final_rate(kind: str):
    config = OptimConfig(warmup_steps=10, schedule=kind, final_lr=0.1, power=2.0)
    rates = [optim.schedule(config, step, 101) for step in range(101)]
    assert rates[:10] == pytest.approx([(step + 1) / 10 for step in range(10)])
    assert rates[10] == 1.0
    middle = {
        "cosine": 0.1 + 0.9 * (1 + math.cos(math.pi / 2)) / 2,
        "polynomial": 0.1 + 0.9 * 0.25,
        "constant": 1.0,
    }
    assert rates[55] == pytest.approx(middle[kind])
    assert rates[100] == pytest.approx(1.0 if kind == "constant" else 0.1)
    assert all(0 < rate <= 1 for rate in rates)
    assert rates[10:] == sorted(rates[10:], reverse=True)


def test_schedules_of_very_short_runs():
    for steps in (1, 2, 5):
        config = OptimConfig(warmup_steps=4)
        assert all(0 < optim.schedule(config, step, steps) <= 1 for step in range(steps))
    assert optim.schedule(OptimConfig(warmup_steps=0), 0, 1) == 1.0


def test_bad_settings_name_the_key():
    for key, value in (("lr", 0.0), ("betas", (0.9, 1.0)), ("final_lr", 2.0)):
        with pytest.raises(SeparatorError, match=rf"^{key}: "):
            OptimConfig(**{key: value})
    with pytest.raises(SeparatorError, match="warmup_steps"):
        OptimConfig(warmup_steps=-1)


def test_the_average_equals_the_formula_buffers_included():
    torch.manual_seed(0)
    model = Mixed()
    average = ema.averaged(model, decay=0.5)
    expected = None
    for count in range(8):
        with torch.no_grad():
            for weight in model.parameters():
                weight.add_(torch.randn_like(weight))
        model(torch.randn(3, 2, 9))  # moves the running statistics
        average.update_parameters(model)
        now = copy.deepcopy(model.state_dict())
        if count == 0:
            expected = now
        else:
            decay = min(0.5, (1 + count) / (10 + count))
            for name, value in now.items():
                blended = decay * expected[name] + (1 - decay) * value
                expected[name] = blended if value.is_floating_point() else value
    torch.testing.assert_close(dict(average.module.state_dict()), dict(expected))
    assert average.module.norm.num_batches_tracked == 8
    assert not average.module.training
    assert not any(weight.requires_grad for weight in average.module.parameters())
    assert model.training
    assert all(weight.requires_grad for weight in model.parameters())


def test_an_infinite_buffer_cannot_be_averaged():
    model = nn.Linear(2, 2)
    model.register_buffer("hidden", torch.full((2, 2), -torch.inf).triu(1))
    with pytest.raises(ValueError, match="'hidden'"):
        ema.averaged(model, 0.9)
