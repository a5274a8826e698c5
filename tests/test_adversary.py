"""The adversary against hand formulas and naive loops; a child process runs this file as a rank."""

import copy
import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrize

from separator.engine import distributed
from separator.errors import SeparatorError
from separator.pretrain.masking.config import MaskConfig
from separator.pretrain.masking.corruption import KINDS, Corrupted
from separator.pretrain.masking.grid import PatchGrid
from separator.pretrain.objectives.adversary import GAN_LOSSES, Adversary, masked_tokens
from separator.pretrain.objectives.auxiliary.adversarial import Adversarial, AdversaryConfig
from separator.pretrain.objectives.discriminators import (
    FrameDiscriminator,
    FrameTransformerDiscriminator,
    TokenDiscriminator,
)

pytestmark = pytest.mark.usefixtures("one_thread")

KINDS_OF_IT = ("token", "frame", "frame_transformer")
CHANNELS, BINS, FRAMES, GROUP = 2, 129, 32, 4
HAND = {  # real, fake and the generator's side, one logit at a time
    "hinge": (lambda y: max(0, 1 - y), lambda y: max(0, 1 + y), lambda y: -y),
    "least_squares": (lambda y: (y - 1) ** 2, lambda y: y**2, lambda y: (y - 1) ** 2),
    "bce": (
        lambda y: -F.logsigmoid(torch.tensor(y)).item(),
        lambda y: -torch.log(1 - torch.sigmoid(torch.tensor(y))).item(),
        lambda y: -torch.log(torch.sigmoid(torch.tensor(y))).item(),
    ),
}


def spectrogram(batch: int, seed: int, bins: int = BINS, frames: int = FRAMES) -> Tensor:
    """About as loud as music: mean 0.1, most cells lower."""
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(batch, CHANNELS, bins, frames, generator=generator) ** 9


def corrupted(target: Tensor, *rows: str, group: int = GROUP) -> Corrupted:
    """Cells of whole frames from pictures such as "..#.", one letter a group ("~" is noise)."""
    kind = {"#": KINDS.index("mask"), "~": KINDS.index("noise"), ".": -1}
    kinds = torch.tensor([[kind[letter] for letter in row] for row in rows])
    grid = PatchGrid(target.shape[-2], target.shape[-1], 1, group)
    kinds = grid.expand(kinds[:, None])
    return Corrupted(torch.where(kinds == 0, 1.0, target), kinds, grid)


def with_sgd(one: Adversary) -> Adversary:
    """Adam makes a full step of the rounding error where a gradient is 0."""
    one.optimizer = torch.optim.SGD(one.network.parameters(), lr=0.1, momentum=0.5)
    return one


def adversary(kind: str = "token", seed: int = 0, **changes: object) -> Adversary:
    torch.manual_seed(seed)
    config = AdversaryConfig(kind=kind, **{"start": 0, "lr": 1e-3, "channels": 4, **changes})
    return Adversary(config, CHANNELS, BINS, GROUP)


def state(network: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in network.state_dict().items()}


def same(left: dict[str, Tensor], right: dict[str, Tensor]) -> bool:
    return left.keys() == right.keys() and all(
        torch.equal(left[name], right[name]) for name in left
    )


@pytest.mark.parametrize("name", GAN_LOSSES)
def test_losses_by_hand(name: str):
    values = [-2.5, -1.0, -0.3, 0.0, 0.2, 0.7, 1.0, 3.0]
    logits, loss = torch.tensor(values), GAN_LOSSES[name]
    for side, hand in zip((loss.real, loss.fake, loss.generator), HAND[name], strict=True):
        expected = torch.tensor([float(hand(value)) for value in values])
        torch.testing.assert_close(side(logits), expected, rtol=1e-4, atol=1e-6)


def naive_tokens(picture: Tensor, hidden: Tensor, group: int) -> list[Tensor]:
    found = []
    for crop, where in zip(picture, hidden.expand(-1, 1, picture.shape[2], -1), strict=True):
        for begin in range(0, picture.shape[-1] - group + 1, group):
            if all(where[0, f, begin + i] for f in range(len(where[0])) for i in range(group)):
                found.append(crop[:, :-1, begin : begin + group])
    return found


@pytest.mark.parametrize(("frames", "group"), [(16, 4), (18, 4), (19, 8), (7, 1), (5, 8)])
@pytest.mark.parametrize("bins", [1, 5])
def test_tokens_are_those_of_a_naive_loop(frames: int, group: int, bins: int):
    picture = spectrogram(3, 0, bins=5, frames=frames)
    draw = torch.rand(3, 1, bins, -(-frames // group), generator=torch.Generator().manual_seed(1))
    hidden = (draw < 0.8 if bins > 1 else draw < 0.5).repeat_interleave(group, -1)[..., :frames]
    hidden[0, ..., 0] = False  # a group that is hidden in part
    expected = naive_tokens(picture, hidden, group)
    tokens = masked_tokens(picture, hidden, group)
    assert tokens.shape == (len(expected), CHANNELS, 4, group)
    for token, one in zip(tokens, expected, strict=True):
        assert torch.equal(token, one)


@pytest.mark.parametrize("rows", [("....", "...."), ("..#.", "...."), ("###.", "#..#")])
def test_one_token_and_none(rows: tuple[str, ...]):
    picture = spectrogram(2, 0, frames=15)  # the last group is cut short
    tokens = masked_tokens(picture, corrupted(picture, *rows).masked, GROUP)
    assert len(tokens) == sum(row[:3].count("#") for row in rows)


@pytest.mark.parametrize("kind", KINDS_OF_IT)
def test_every_weight_is_bounded_and_nothing_is_normalised_over_the_batch(kind: str):
    network = adversary(kind).network
    weighted = [m for m in network.modules() if isinstance(m, nn.Conv1d | nn.Conv2d | nn.Linear)]
    assert len(weighted) > 4
    for module in weighted:
        assert parametrize.is_parametrized(module, "weight")
        with torch.no_grad():
            original = module.parametrizations.weight.original
            original.copy_(7 * torch.rand(original.shape))
            for _ in range(20):
                weight = module.weight
        assert torch.linalg.svdvals(weight.flatten(1))[0].item() == pytest.approx(1, abs=0.02)
    over_batch = nn.modules.batchnorm._NormBase
    assert not any(isinstance(module, over_batch) for module in network.modules())


@pytest.mark.parametrize("train", [False, True])
def test_tokens_do_not_depend_on_each_other(train: bool):
    network = TokenDiscriminator(2, 128, 4).train(train)
    tokens = spectrogram(5, 0, bins=128, frames=4)
    together = copy.deepcopy(network)(tokens)
    for index in range(5):
        alone = copy.deepcopy(network)(tokens[index : index + 1])
        torch.testing.assert_close(alone[0], together[index])
    assert together.std() > 1e-3
    assert network(tokens[:0]).shape == (0,)


@pytest.mark.parametrize("inputs", [1, 2])
@pytest.mark.parametrize("usual", [1, 8, 64])
def test_tokens_of_any_size_give_one_logit(inputs: int, usual: int):
    for bins in (4, 100, 128):
        network = TokenDiscriminator(inputs, bins, usual, 4)
        for frames in (1, 2, 3, 8, 64):
            logits = network(torch.rand(3, inputs, bins, frames))
            assert logits.shape == (3,)
            logits.sum().backward()
        assert all(weight.grad.isfinite().all() for weight in network.parameters())


def test_the_discriminator_knows_which_bins_it_hears():
    network = TokenDiscriminator(2, 128, 4)
    tokens = spectrogram(4, 0, bins=128, frames=4)
    with torch.no_grad():
        assert (network(tokens) - network(tokens.roll(64, 2))).abs().min() > 1e-4


def test_frames_are_judged_with_three_on_each_side():
    network = FrameDiscriminator(2, 128).eval()
    pair = torch.cat([spectrogram(1, seed, bins=128) for seed in (0, 1)], dim=1).requires_grad_()
    network(pair)[0, 15].backward()
    reach = pair.grad.abs().sum(dim=(0, 1, 2)) > 0
    assert reach.nonzero().flatten().tolist() == list(range(12, 19))
    assert (pair.grad[0].abs().sum(dim=(1, 2)) > 0).all()  # both pictures, both channels


def test_a_frame_transformer_judges_each_frame_knowing_all_of_them():
    torch.manual_seed(0)
    network = FrameTransformerDiscriminator(2, 128).eval()
    pair = torch.cat([spectrogram(1, seed, bins=128) for seed in (0, 1)], dim=1).requires_grad_()
    logits = network(pair)
    assert logits.shape == (1, FRAMES)
    logits[0, 15].backward()
    reach = pair.grad.abs().sum(dim=(0, 1, 2))
    assert (reach > 0).all()
    assert reach.argmax() == 15
    assert (pair.grad[0].abs().sum(dim=(1, 2)) > 0).all()  # both pictures, both channels
    with torch.no_grad():  # where a frame is counts: the same frames in another order
        turned = network(pair.flip(-1)).flip(-1)
    assert (turned - logits).abs().max() > 1e-4


def naive_logits(one: Adversary, picture: Tensor, where: Corrupted) -> Tensor:
    """What a network says of the hidden tokens or frames of a picture."""
    if one.config.kind == "token":
        return one.network(torch.stack(naive_tokens(picture, where.masked, GROUP)))
    pasted = where.spectrogram * ~where.masked + picture * where.masked
    logits = one.network(torch.cat([where.spectrogram, pasted], 1)[:, :, :-1])
    return logits[where.masked[:, 0, 0]]


def by_hand(one: Adversary, real: Tensor, fake: Tensor, where: Corrupted) -> tuple[Tensor, float]:
    """Loss and accuracy from the definitions."""
    sides = [naive_logits(one, picture, where) for picture in (real, fake)]
    middle = 0.5 if one.config.loss == "least_squares" else 0
    right = (sides[0] > middle).sum() + (sides[1] <= middle).sum()
    if one.config.loss == "hinge":
        loss = F.relu(1 - sides[0]).mean() + F.relu(1 + sides[1]).mean()
    elif one.config.loss == "least_squares":
        loss = (sides[0] - 1).square().mean() + sides[1].square().mean()
    else:
        labels = torch.ones_like(sides[0]), torch.zeros_like(sides[1])
        loss = sum(map(F.binary_cross_entropy_with_logits, sides, labels))
    return loss, right.item() / (2 * len(sides[0]))


@pytest.mark.parametrize("loss", GAN_LOSSES)
@pytest.mark.parametrize("kind", KINDS_OF_IT)
def test_a_step_by_hand(kind: str, loss: str):
    one, two = (with_sgd(adversary(kind, loss=loss)) for _ in range(2))
    two.network.eval()  # one power iteration less; the weights are still orthogonal
    real, fake = spectrogram(2, 0), spectrogram(2, 1)
    where = corrupted(real, "#.~#....", ".....##.")
    expected, accuracy = by_hand(two, real, fake, where)
    expected.backward()
    two.optimizer.step()
    out = one.discriminate(real, fake, where, GROUP, 0)
    assert out["adversary/loss"].item() == pytest.approx(expected.item(), rel=1e-5)
    assert out["adversary/accuracy"].item() == pytest.approx(accuracy)
    assert any(weight.grad.abs().max() > 1e-3 for weight in two.network.parameters())
    for left, right in zip(one.network.parameters(), two.network.parameters(), strict=True):
        torch.testing.assert_close(left, right, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("loss", GAN_LOSSES)
@pytest.mark.parametrize("kind", KINDS_OF_IT)
def test_fooling_moves_the_generator_only(kind: str, loss: str):
    one = adversary(kind, loss=loss)
    real = spectrogram(2, 0)
    where = corrupted(real, "#.~#....", ".....##.")
    fake = spectrogram(2, 1).requires_grad_()
    before = state(one.network)
    value = one.generator_loss(fake, where, GROUP)
    value.backward()
    assert all(weight.grad is None for weight in one.network.parameters())
    assert all(weight.requires_grad for weight in one.network.parameters())
    assert same(state(one.network), before)
    touched = fake.grad.abs().sum(dim=(0, 1)) > 0
    assert touched[:-1].any()
    assert not touched[-1].any()  # the Nyquist bin
    assert fake.grad.isfinite().all()
    assert not (fake.grad * ~where.masked).any()
    assert (fake.grad[0, :, :-1, :GROUP].abs().sum(dim=(0, 1)) > 0).all()
    step = (fake.detach() - 0.1 * fake.grad / fake.grad.norm()).clamp(0, 1)
    assert one.generator_loss(step, where, GROUP) < value
    with torch.no_grad():
        logits = naive_logits(one, fake, where)  # the network is still in evaluation mode
    hand = sum(HAND[loss][2](logit) for logit in logits.tolist()) / len(logits)
    assert value.item() == pytest.approx(hand, rel=1e-4, abs=1e-6)


@pytest.mark.parametrize("kind", KINDS_OF_IT)
def test_only_what_was_hidden_tells_real_from_fake(kind: str):
    real = spectrogram(2, 0)
    where = corrupted(real, "#.~#....", ".....##.")
    fake = torch.where(where.masked, real, spectrogram(2, 1))
    one = adversary(kind)
    for step in range(3):
        out = one.discriminate(real, fake, where, GROUP, step)
        assert out["adversary/accuracy"].item() == 0.5


@pytest.mark.parametrize("kind", KINDS_OF_IT)
def test_nothing_hidden_changes_nothing(kind: str):
    one, real, fake = adversary(kind), spectrogram(2, 0), spectrogram(2, 1).requires_grad_()
    one.discriminate(real, fake, corrupted(real, "#...#...", "........"), GROUP, 0)  # a momentum
    before = list(one.network.parameters())
    before = [weight.clone() for weight in before]
    where = corrupted(real, "..~.....", "........")
    out = one.discriminate(real, fake, where, GROUP, 1)
    assert out.keys() == {"adversary/loss", "adversary/accuracy"}
    assert [value.item() for value in out.values()] == [0, 0]
    assert all(map(torch.equal, before, one.network.parameters()))
    value = one.generator_loss(fake, where, GROUP)
    value.backward()
    assert value.item() == 0
    assert not fake.grad.any()


def test_it_waits_for_its_start():
    one, real = adversary(start=10), spectrogram(1, 0)
    before, where = state(one.network), corrupted(real, "#.......")
    early = one.discriminate(real, real, where, GROUP, 9)
    assert same(state(one.network), before)
    assert all(value.isnan() for value in early.values())
    assert one.discriminate(real, real, where, GROUP, 10).keys() == early.keys()
    assert not same(state(one.network), before)
    config = AdversaryConfig(weight=((0, 0.0), (20, 0.2)), start=10)
    assert [Adversarial(config, None).weight(step) for step in (5, 9, 10, 15, 99)] == [
        0,
        0,
        0.1,
        0.15,
        0.2,
    ]


@pytest.mark.parametrize("kind", KINDS_OF_IT)
def test_it_waits_while_it_is_right_too_often(kind: str):
    real = spectrogram(2, 0)
    where, silent = corrupted(real, "#.~#....", ".....##."), torch.zeros_like(real)
    waiting, always = (
        adversary(kind, lr=1e-2, loss="bce", ceiling=ceiling) for ceiling in (0.8, 1.0)
    )

    def learns(one: Adversary, *pictures: Tensor) -> tuple[bool, float]:
        before = [weight.clone() for weight in one.network.parameters()]
        right = one.discriminate(*pictures, where, GROUP, 0)["adversary/accuracy"].item()
        return not all(map(torch.equal, before, one.network.parameters())), right

    running, learned = 0.5, []
    for _ in range(40):
        assert learns(always, real, silent)[0]
        moved, right = learns(waiting, real, silent)
        running = 0.9 * running + 0.1 * right
        learned.append(moved)
        assert moved == (running <= 0.8)
    assert learned[0] and not learned[-1]
    # shown the other way round it is wrong, and goes on
    assert any(learns(waiting, silent, real)[0] for _ in range(20))


def test_a_loss_that_is_not_finite_changes_no_weight():
    one, real, fake = adversary(), spectrogram(1, 0), spectrogram(1, 1)
    where = corrupted(real, "#.......")
    before = [weight.clone() for weight in one.network.parameters()]
    out = one.discriminate(real, fake * float("nan"), where, GROUP, 0)
    assert out["adversary/loss"].isnan()
    assert all(map(torch.equal, before, one.network.parameters()))
    one.discriminate(real, fake, where, GROUP, 1)
    assert all(weight.isfinite().all() for weight in one.network.parameters())
    assert not all(map(torch.equal, before, one.network.parameters()))


def test_autocast_around_it_changes_nothing():
    real, fake = spectrogram(1, 0), spectrogram(1, 1)
    where = corrupted(real, "#..#....")
    results = []
    for enabled in (False, True):
        one = adversary()
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            for step in range(3):
                out = one.discriminate(real, fake, where, GROUP, step)
                value = one.generator_loss(fake, where, GROUP)
        results.append((out["adversary/loss"], value, *one.network.parameters()))
    assert all(map(torch.equal, *results))


@pytest.mark.parametrize("kind", KINDS_OF_IT)
def test_a_state_from_the_disk_goes_on_bit_for_bit(kind: str, tmp_path: Path):
    def train(one: Adversary, steps: range) -> list[Tensor]:
        outs = []
        for step in steps:
            real, fake = spectrogram(2, 2 * step), spectrogram(2, 2 * step + 1)
            where = corrupted(real, "#.~#....", ".....##.")
            outs += one.discriminate(real, fake, where, GROUP, step).values()
            outs.append(one.generator_loss(fake, where, GROUP))
        return outs

    whole = adversary(kind)
    train(whole, range(3))
    torch.save(whole.state_dict(), tmp_path / "state.pt")
    expected = train(whole, range(3, 6))
    later = adversary(kind, seed=5)
    assert not same(later.state_dict()["network"], whole.state_dict()["network"])
    later.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    assert all(map(torch.equal, train(later, range(3, 6)), expected))
    assert same(later.state_dict()["network"], whole.state_dict()["network"])
    assert later.state_dict()["accuracy"] == whole.state_dict()["accuracy"] != 0.5


def accuracies(kind: str, alike: bool, steps: int) -> float:
    """Mean of the last 20 accuracies; fakes are smeared over bins, or drawn like the originals."""
    one = adversary(kind, lr=2e-3)
    seen = []
    for step in range(steps):
        real, fake = spectrogram(4, 2 * step), spectrogram(4, 2 * step + 1)
        if not alike:
            fake = F.avg_pool2d(fake, (5, 1), 1, (2, 0))
        where = corrupted(real, "#..#..#.", ".#...##.", "##....#.", "....##.#")
        seen.append(one.discriminate(real, fake, where, GROUP, step)["adversary/accuracy"].item())
    return sum(seen[-20:]) / 20


@pytest.mark.parametrize("kind", KINDS_OF_IT)
def test_what_differs_is_told_apart(kind: str):
    assert accuracies(kind, alike=False, steps=60) > 0.9


@pytest.mark.parametrize("kind", KINDS_OF_IT)
def test_what_is_alike_is_not(kind: str):
    assert accuracies(kind, alike=True, steps=60) == pytest.approx(0.5, abs=0.08)


@pytest.mark.parametrize(
    ("key", "values"),
    [
        ("weight", {"weight": 0.21}),
        ("weight", {"weight": ((0, 0.0), (100, 0.3), (200, 0.1))}),
        ("weight", {"weight": -0.1}),
        ("channels", {"channels": 0}),
        ("lr", {"lr": 0.0}),
        ("betas", {"betas": (0.5, 1.0)}),
        ("start", {"start": -1}),
        ("ceiling", {"ceiling": 0.5}),
        ("ceiling", {"ceiling": 1.1}),
    ],
)
def test_bad_settings_name_their_key(key: str, values: dict):
    with pytest.raises(SeparatorError, match=re.escape(key)) as caught:
        AdversaryConfig(**values)
    assert "\n" not in str(caught.value)


def test_only_tokens_need_whole_frames():
    run = SimpleNamespace(mask=MaskConfig(band=4), optim=SimpleNamespace(lr=1.0))
    for kind in ("frame", "frame_transformer"):
        Adversarial(AdversaryConfig(kind=kind), run).check()
    with pytest.raises(SeparatorError, match=r"^adversary\.kind: token judges whole frames"):
        Adversarial(AdversaryConfig(kind="token"), run).check()


ROWS = ["#.~#....", "........", ".....#..", "...#...."]  # two ranks: 2 + 0 cells, and 1 + 1


def train_rank(kind: str, crops: slice) -> Adversary:
    """Three steps on some of the four crops; in the second only the last one has hidden cells."""
    one = with_sgd(adversary(kind))
    for step in range(3):
        real, fake = spectrogram(4, 2 * step)[crops], spectrogram(4, 2 * step + 1)[crops]
        rows = ["........"] * 3 + ROWS[3:] if step == 1 else ROWS
        where = corrupted(real, *rows[crops])
        fake.requires_grad_()
        one.discriminate(real, fake, where, GROUP, step)
        one.generator_loss(fake, where, GROUP).backward()
    return one


def test_two_ranks_equal_one(tmp_path: Path, two_ranks: list[dict[str, str]]):
    command = [sys.executable, __file__, str(tmp_path)]
    ranks = [subprocess.Popen(command, env={**os.environ, **rank}) for rank in two_ranks]
    assert [rank.wait(timeout=200) for rank in ranks] == [0, 0]
    for kind in ("token", "frame"):
        left, right = (
            torch.load(tmp_path / f"{kind}{rank}.pt", weights_only=True)["network"]
            for rank in (0, 1)
        )
        assert same(left, right)
        one, new = state(train_rank(kind, slice(4)).network), state(adversary(kind).network)
        torch.testing.assert_close(left, one, rtol=1e-4, atol=1e-6)
        assert max((one[name] - new[name]).abs().max().item() for name in new) > 1e-2


if __name__ == "__main__":
    torch.set_num_threads(1)
    rank = distributed.rank()
    with distributed.session(torch.device("cpu")):
        for kind in ("token", "frame"):
            trained = train_rank(kind, slice(2 * rank, 2 * rank + 2))
            torch.save(trained.state_dict(), Path(sys.argv[1]) / f"{kind}{rank}.pt")
