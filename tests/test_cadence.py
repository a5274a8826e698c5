"""When a run validates, when not told."""

import pytest

from separator.config import parse
from separator.engine.cadence import next_validation, validation_due
from separator.engine.run_config import RunConfig
from separator.errors import SeparatorError


def test_the_first_validations_come_early():
    due = [step for step in range(1, 1201) if validation_due(step, "auto")]
    assert due == [1, 10, 100, 500, 1000]
    assert RunConfig().validate_every == "auto"


@pytest.mark.parametrize("every", ["auto", 0, 1, 7, 500])
def test_the_next_one_is_the_next_that_is_due(every):
    for steps in (6, 600):
        due = [step for step in range(1, steps) if validation_due(step, every)] + [steps]
        for step in range(steps):
            expected = next(later for later in due if later > step)
            assert next_validation(step, every, steps) == expected


def test_it_is_a_number_or_auto():
    assert parse(RunConfig, ["validate_every=7"], "toy").validate_every == 7
    assert parse(RunConfig, ["validate_every=auto"], "toy").validate_every == "auto"
    with pytest.raises(SeparatorError, match=r"^validate_every: -1 "):
        parse(RunConfig, ["validate_every=-1"], "toy")
    with pytest.raises(SeparatorError, match=r"^validate_every: ") as caught:
        parse(RunConfig, ["validate_every=often"], "toy")
    assert "\n" not in str(caught.value)
