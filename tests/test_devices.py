"""Devices by name, on machines that have them and on those that have not."""

import pytest
import torch

from separator.devices import find_device
from separator.engine.distributed import own_device
from separator.errors import SeparatorError


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch):
    """A function that makes torch see the given kinds of devices only."""

    def has(*kinds: str) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: "cuda" in kinds)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda: "mps" in kinds)

    return has


def test_auto_takes_the_best_that_is_here(machine):
    machine()
    assert find_device("auto") == own_device("auto") == torch.device("cpu")
    machine("mps")
    assert find_device("auto") == torch.device("mps")
    assert own_device("auto") == own_device("mps") == torch.device("mps")  # training too
    machine("mps", "cuda")
    assert find_device("auto") == torch.device("cuda")
    assert own_device("auto") == torch.device("cuda", 0)


def test_each_rank_has_its_own_card(machine, monkeypatch: pytest.MonkeyPatch):
    machine("cuda")
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert own_device("cuda") == torch.device("cuda", 1)
    assert find_device("cuda:3") == torch.device("cuda", 3)
    monkeypatch.setenv("LOCAL_RANK", "2")
    with pytest.raises(SeparatorError, match=r"^device: LOCAL_RANK is 2, but .* has 2 GPU"):
        own_device("auto")


@pytest.mark.parametrize("name", ["tpu", "cpu:x", "cpu:", "cuda", "mps", "cuda:0"])
def test_what_is_not_here_is_refused(name: str, machine):
    machine()
    assert find_device("cpu:0").type == "cpu"
    with pytest.raises(SeparatorError, match=f"^device: '{name}' is not on this machine; it has"):
        find_device(name)
