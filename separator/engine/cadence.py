"""The steps after which a run validates: a function of the step, equal for resumed runs."""

from typing import Annotated, Literal

from separator.ranges import MAX_STEPS, Within

Every = Annotated[int | Literal["auto"], Within(f"[0, {MAX_STEPS}]", "auto")]

EARLY = (1, 10, 100)  # steps; slow machines show something soon, and faults of the data too
PERIOD = 500


def validation_due(step: int, every: Every) -> bool:
    """Whether a run validates after a step.

    Args:
        step: finished steps.
        every: steps between validations, 0 for none before the end; "auto" validates after steps
            1, 10 and 100 and then every 500.
    """
    if every == "auto":
        return step in EARLY or step % PERIOD == 0
    return due(step, every)


def due(step: int, every: int) -> bool:
    """Whether a step ends a period of `every` steps; never where `every` is 0."""
    return every > 0 and step % every == 0


def validations_left(step: int, every: Every, steps: int) -> int:
    """Return how many validations follow a step.

    Args:
        step: finished steps.
        every: steps between validations, or "auto".
        steps: length of the run, whose end is validated too.
    """
    period = PERIOD if every == "auto" else every
    early = sum(step < place < steps for place in EARLY) if every == "auto" else 0
    regular = (steps - 1) // period - step // period if period else 0
    return early + regular + 1 if step < steps else 0


def next_validation(step: int, every: Every, steps: int) -> int:
    """Return the first step after `step` at which a run validates.

    Args:
        step: finished steps.
        every: steps between validations, or "auto".
        steps: length of the run.
    """
    if every == "auto":
        following = next((early for early in EARLY if early > step), (step // PERIOD + 1) * PERIOD)
    else:
        following = (step // every + 1) * every if every else steps
    return min(following, steps)
