"""InfoNCE against a naive loop, and that it can be learned."""

from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from separator.errors import SeparatorError
from separator.pretrain.masking.config import MaskConfig
from separator.pretrain.masking.corruption import Corrupted, corrupt
from separator.pretrain.objectives import Prediction
from separator.pretrain.objectives.auxiliary.contrastive import MIN_TARGET, Contrast, ContrastConfig
from tests.toys import seeded

MASK = MaskConfig(group=4, band=8, share=0.5, mask=1.0, noise=0.0)


def example(seed: int = 0, batch: int = 2) -> tuple[Tensor, Corrupted]:
    target = torch.rand(batch, 2, 33, 22, generator=seeded(seed))
    return target, corrupt(target, MASK, 0, seeded(seed + 1))


def made(channels: int, **values: int) -> tuple[Contrast, nn.ModuleDict]:
    """The objective and its head, for a backbone with so many channels before its last layer."""
    objective = Contrast(ContrastConfig(weight=1.0, **values), SimpleNamespace(mask=MASK))
    return objective, objective.head(SimpleNamespace(pre_head_channels=channels))


def loss_of(objective: Contrast, head: nn.Module, fine: Tensor, *batch: object, seed: int = 0):
    target, corrupted = batch
    prediction = Prediction(SimpleNamespace(pre_head=fine), target, 0, seeded(seed))
    return objective.loss(head, SimpleNamespace(target=target, corrupted=corrupted), prediction)


def cell(values: Tensor, band: int, group: int) -> Tensor:
    """(c f n) to the mean over a cell's frames, bins outermost."""
    part = values[:, 8 * band : 8 * band + 8, 4 * group : 4 * group + 4].mean(-1)
    return part.T.flatten()


def test_the_loss_is_the_naive_loop():
    torch.manual_seed(0)
    objective, head = made(3, features=16)
    target, corrupted = example()
    fine = torch.randn(2, 22, 32, 3)
    level = target[:, :, :-1].clamp(min=MIN_TARGET).log()
    losses, found = [], []
    for item in range(2):
        centred = level[item] - level[item].mean()
        places = corrupted.masked_patches[item].nonzero().tolist()
        answers = fine[item].permute(2, 1, 0)
        guess = torch.stack([head["guess"](cell(answers, *place)) for place in places])
        truth = torch.stack([head["truth"](cell(centred, *place)) for place in places])
        cosine = F.normalize(guess, dim=-1) @ F.normalize(truth, dim=-1).T / 0.1
        for place in range(len(places)):
            losses.append(cosine[place].logsumexp(0) - cosine[place, place])
            found.append((cosine[place].argmax() == place).float())
    loss, logged = loss_of(objective, head, fine, target, corrupted)
    torch.testing.assert_close(loss, torch.stack(losses).mean(), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(logged["contrast/accuracy"], torch.stack(found).mean())


def test_only_masked_patches_are_compared():
    objective, head = made(3, features=16)
    target, corrupted = example()
    fine = torch.randn(2, 22, 32, 3, requires_grad=True)
    loss_of(objective, head, fine, target, corrupted)[0].backward()
    hidden = corrupted.masked[:, 0, :-1].transpose(1, 2)  # (b n f)
    used = fine.grad.abs().sum(-1) > 0
    assert (used == hidden).all()


def test_the_number_compared_is_bounded_and_no_cell_is_no_error():
    objective, head = made(3, features=16, most=3)
    target, corrupted = example()
    fine = torch.randn(2, 22, 32, 3, requires_grad=True)
    loss_of(objective, head, fine, target, corrupted)[0].backward()
    frames = (fine.grad.abs().sum(-1) > 0).sum(dim=(1, 2))
    assert (frames <= 3 * 8 * 4).all()
    nothing = Corrupted(target, torch.full_like(corrupted.kinds, -1), corrupted.grid)
    loss, logged = loss_of(objective, head, fine, target, nothing)
    assert (loss.item(), logged["contrast/accuracy"].item()) == (0, 0)


def test_it_learns_far_beyond_chance_on_unseen_crops():
    torch.manual_seed(0)
    objective, head = made(2, features=32)
    rate = torch.optim.Adam(head.parameters(), lr=3e-3)
    for seed in range(150):
        target, corrupted = example(seed, batch=4)
        fine = target[:, :, :-1].permute(0, 3, 2, 1) + 0.05 * torch.randn(4, 22, 32, 2)
        loss, logged = loss_of(objective, head, fine, target, corrupted, seed=seed)
        loss.backward()
        rate.step()
        rate.zero_grad()
    target, corrupted = example(5000, batch=4)
    fine = target[:, :, :-1].permute(0, 3, 2, 1)
    logged = loss_of(objective, head, fine, target, corrupted)[1]
    assert logged["contrast/accuracy"] > 0.5  # of 12 cells each: chance is 0.08


@pytest.mark.parametrize("change", [{"features": 0}, {"most": 1}, {"temperature": 0.0}])
def test_what_cannot_be_is_refused(change: dict):
    with pytest.raises(SeparatorError, match=rf"^{next(iter(change))}: "):
        ContrastConfig(**change)
