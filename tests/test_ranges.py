"""Settings outside their range are refused by name."""

from types import SimpleNamespace

import pytest

from separator.errors import SeparatorError
from separator.ranges import require


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
        require(SimpleNamespace(lr=value), interval, "optim.lr")
    for value in outside:
        with pytest.raises(SeparatorError) as caught:
            require(SimpleNamespace(ok=inside[0], lr=value), interval, "optim.ok", "optim.lr")
        assert str(caught.value).startswith(f"optim.lr: {value} is not ")


def test_the_message_says_what_may_be():
    for interval, words in {
        "[1, inf)": "at least 1",
        "(0, inf)": "above 0",
        "[0.05, 0.95]": "in [0.05, 0.95]",
    }.items():
        with pytest.raises(SeparatorError, match=f"^n: -1 is not {words}".replace("[", r"\[")):
            require(SimpleNamespace(n=-1), interval, "n")
