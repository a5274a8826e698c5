"""Settings outside their range are refused by name."""

import dataclasses
from collections.abc import Iterator
from typing import Annotated, Literal

import pytest

from separator.cli.compare.config import Arm, CompareConfig
from separator.config import parse
from separator.data.config import DataConfig
from separator.engine.run_config import OptimConfig
from separator.errors import SeparatorError
from separator.inference.evaluate_command import EvaluateConfig
from separator.inference.separate import SeparateConfig
from separator.pretrain.config import PretrainConfig
from separator.ranges import CheckedConfig, Within, group_of
from separator.train.config import TrainConfig


@pytest.mark.parametrize(
    ("interval", "inside", "outside"),
    [
        ("[1, inf)", [1, 7, 1.0], [0, 0.999, -3, float("inf"), float("nan")]),
        ("(0, inf)", [1e-9], [0, -1, float("nan")]),
        ("[0, 1)", [0, 0.5, (0.9, 0.98)], [1, -0.1, (0.9, 1.0), float("nan")]),
        ("(0, 1]", [1, 0.1], [0, 1.001]),
        ("[0.05, 0.95]", [0.05, 0.95, []], [0.04, 0.96]),
    ],
)
def test_a_value_is_inside_or_the_key_is_named(interval, inside, outside):
    for value in inside:
        Within(interval).check("optim.lr", value)
    for value in outside:
        with pytest.raises(SeparatorError) as caught:
            Within(interval).check("optim.lr", value)
        assert str(caught.value).startswith(f"optim.lr: {value} is not ")


def test_the_message_says_what_may_be():
    for interval, words in {
        "[1, inf)": "at least 1",
        "(0, inf)": "above 0",
        "[-9, -2]": "in [-9, -2]",
        "[0.05, 0.95]": "in [0.05, 0.95]",
    }.items():
        with pytest.raises(SeparatorError, match=f"^n: -1 is not {words}".replace("[", r"\[")):
            Within(interval).check("n", -1)
    with pytest.raises(SeparatorError, match=r"^n: 1000000000001 is not at most 1e\+12$"):
        Within("[1, inf)").check("n", 10**12 + 1)
    with pytest.raises(SeparatorError) as caught:
        Within("[1, inf)").check("n", [10**4000] * 10**5)
    assert len(str(caught.value)) < 400
    word = Within("[0, 9]", "auto")
    word.check("n", "auto")
    with pytest.raises(SeparatorError, match=r"^n: -1 is not auto and not in \[0, 9\]$"):
        word.check("n", -1)


def configs(*instances: object) -> Iterator[object]:
    """Yield configurations and the ones inside them."""
    for instance in instances:
        yield instance
        inner = (getattr(instance, field.name) for field in dataclasses.fields(instance))
        yield from configs(*filter(dataclasses.is_dataclass, inner))


DATA = DataConfig(roots=["x"])
EVERY = [
    *(SeparateConfig(inputs=["x"]), EvaluateConfig(model=["x"], data="x")),
    CompareConfig(arms={"none": Arm()}),
    *configs(TrainConfig(data=DATA), PretrainConfig(data=DATA)),
]


def numbers() -> Iterator[tuple[object, str]]:
    for config in {type(config): config for config in EVERY}.values():
        for field in dataclasses.fields(config):
            value = getattr(config, field.name)
            items = value if isinstance(value, list | tuple) else [value]
            if items and all(type(item) in (int, float) for item in items):
                yield config, field.name


@pytest.mark.parametrize(
    ("config", "key"), [*numbers()], ids=lambda x: x if isinstance(x, str) else type(x).__name__
)
@pytest.mark.parametrize("absurd", [10**15, -(10**15), 1e300])
def test_no_setting_takes_an_absurd_value(config: object, key: str, absurd: float):
    value = getattr(config, key)
    bad = type(value)([absurd] * len(value)) if isinstance(value, list | tuple) else absurd
    with pytest.raises(SeparatorError, match=rf"(^|[ .]){key}\b") as caught:
        dataclasses.replace(config, **{key: bad})
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400


@dataclasses.dataclass(frozen=True)
class Inner(CheckedConfig):
    """Numbers and words with limits in their types."""

    share: Annotated[float, Within("[0, 1)")] = 0.5
    sizes: tuple[Annotated[int, Within("[1, 9]")], ...] = (1, 2)
    kind: Literal["a", "b"] = "a"
    other: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.other > self.share:
            raise self.invalid("other, share", f"{self.other} is above {{}}share; lower {{}}other")


@dataclasses.dataclass(frozen=True)
class Middle:
    """A group in a group."""

    inner: Inner = dataclasses.field(default_factory=Inner)


@dataclasses.dataclass(frozen=True)
class Outer:
    """A command's configuration."""

    middle: Middle = dataclasses.field(default_factory=Middle)


REFUSED = {
    "share=1": "share: 1.0 is not in [0, 1)",
    "sizes=[3,0]": "sizes: (3, 0) is not in [1, 9]",
    "other=4": "other, {}share: 4 is above {}share; lower {}other",
}


@pytest.mark.parametrize(("word", "message"), REFUSED.items(), ids=REFUSED)
def test_a_configuration_in_groups_is_refused_by_its_full_key(word: str, message: str):
    for cls, group in ((Inner, ""), (Outer, "middle.inner.")):
        with pytest.raises(SeparatorError) as caught:
            parse(cls, [f"{group}{word}"], "x")
        assert str(caught.value) == f"{group}{message.replace('{}', group)}"


def test_a_configuration_made_in_python_is_checked_too():
    with pytest.raises(SeparatorError, match=r"^share: nan is not in \[0, 1\)$"):
        Inner(share=float("nan"))
    with pytest.raises(SeparatorError, match=r"^kind: 'c' is not one of a, b$"):
        Inner(kind="c")
    assert Inner(share=0.0, sizes=()).kind == "a"


def test_where_a_configuration_stands():
    assert group_of(Inner, Outer) == "middle.inner."
    assert group_of(Outer, Outer) == ""
    assert group_of(OptimConfig, PretrainConfig) == "optim."
    assert group_of(Outer, Inner) is None
