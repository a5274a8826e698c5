"""The pull of each objective, measured where it meets the masked error."""

import pytest
import torch
from torch import Tensor

from separator.pretrain.objectives.balance import Weighted, total


def graph() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """A backbone's output, a masked error and two objectives of very different sizes."""
    torch.manual_seed(0)
    backbone = torch.randn(8, requires_grad=True)
    features = backbone * 2
    return backbone, features, 0.01 * features.square().mean(), 50 * features.abs().sum()


def gradient(loss: Tensor, at: Tensor) -> Tensor:
    return torch.autograd.grad(loss, at, retain_graph=True)[0]


@pytest.mark.parametrize("weight", [0.0, 0.1, 0.5])
def test_an_objectives_gradient_is_its_share_of_the_errors(weight: float):
    _, features, main, other = graph()
    third = features.pow(4).sum()
    objectives = {
        "a": Weighted(other, weight, features),
        "b": Weighted(third, 0.2, features),
    }
    parts = gradient(total(main, objectives), features)
    reference = gradient(main, features)
    unit = [gradient(loss, features) for loss in (other, third)]
    unit = [part / part.norm() * reference.norm() for part in unit]
    torch.testing.assert_close(parts, reference + weight * unit[0] + 0.2 * unit[1])


def test_unbalanced_weights_are_plain_factors():
    _, features, main, other = graph()
    loss = total(main, {"a": Weighted(other, 0.3, features)}, balance=False)
    torch.testing.assert_close(loss, main + 0.3 * other)


def test_an_error_without_gradient_gives_none_to_others_and_no_nan():
    backbone, features, _, other = graph()
    loss = total(0 * features.sum(), {"a": Weighted(other, 0.3, features)})
    assert gradient(loss, backbone).abs().max() == 0
    loss = total(features.sum(), {"a": Weighted(0 * other, 0.3, features)})
    assert gradient(loss, backbone).isfinite().all()
