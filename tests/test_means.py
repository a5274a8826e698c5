"""Means of a step's scalars: gaps do not count, faults do."""

import math

import pytest
import torch

from separator.engine.means import StepMeans, mean_over_ranks

NAN = math.nan


def means(*rows: dict[str, float]) -> dict[str, float]:
    found = StepMeans()
    for row in rows:
        found.add({name: torch.tensor(value) for name, value in row.items()})
    return {name: value.item() for name, value in found.values().items()}


def test_what_did_not_occur_does_not_count():
    found = means({"loss": 1.0, "a": 4.0, "b": NAN}, {"loss": 3.0, "a": NAN, "b": NAN})
    assert (found["loss"], found["a"]) == (2.0, 4.0)
    assert math.isnan(found["b"])


@pytest.mark.parametrize("fault", [NAN, math.inf])
def test_a_fault_in_the_loss_stays(fault: float):
    assert not math.isfinite(means({"loss": 1.0, "a": 1.0}, {"loss": fault, "a": 1.0})["loss"])
    assert means({"a": math.inf}, {"a": 1.0})["a"] == math.inf


def test_over_ranks(monkeypatch: pytest.MonkeyPatch):
    """The other rank has what is here in `other`."""
    here = {"loss": 1.0, "a": 4.0, "b": NAN, "c": NAN, "optim/norm": 1.0}
    other = {"loss": 3.0, "a": NAN, "b": 2.0, "c": NAN, "optim/norm": NAN}

    def ask(scalars, merged):
        monkeypatch.setattr("separator.engine.distributed.mean", merged)
        return mean_over_ranks({name: torch.tensor(v) for name, v in scalars.items()})

    sent = []
    ask(other, lambda value: sent.append(value) or value)
    found = ask(here, lambda value: (value + sent[0]) / 2)
    assert (found["loss"], found["a"], found["b"]) == (2.0, 4.0, 2.0)
    assert math.isnan(found["c"]) and math.isnan(found["optim/norm"])
