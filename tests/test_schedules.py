"""Settings over a run, against numpy and by hand."""

import numpy as np
import pytest

from separator.pretrain.schedules import Growing, enabled, highest, step_value, value


def test_a_ramp_is_numpys_interpolation():
    schedule = ((10.0, 1.0), (20.0, 3.0), (50.0, 0.0))
    steps = np.arange(80)
    expected = np.interp(steps, *np.array(schedule).T)
    assert [value(schedule, int(step)) for step in steps] == pytest.approx(expected.tolist())
    assert (value(0.5, 7), highest(schedule), enabled(schedule), enabled(0)) == (
        0.5,
        3.0,
        True,
        False,
    )


def test_a_step_value_jumps_at_its_steps():
    schedule = ((0, 256), (8, 1024), (9, 2048))
    assert [step_value(schedule, step) for step in (0, 7, 8, 9, 99)] == [256, 256, 1024, 2048, 2048]
    assert step_value(((5, 64),), 0) == 64  # before the first step its value


@pytest.mark.parametrize("schedule", [-1.0, (), ((5, 1), (5, 2)), ((5, 1), (3, 2)), ((0, -1),)])
def test_what_is_no_schedule_is_refused(schedule: object):
    assert Growing().refusal(schedule).startswith("give a number")
