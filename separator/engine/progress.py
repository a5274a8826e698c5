"""The display of a run in the terminal: a progress bar, and messages above it."""

import contextlib
import logging
import time

from separator.engine.cadence import Every, next_validation
from separator.logs import bar

logger = logging.getLogger(__name__)

MEASURED = 10.0  # seconds of training after which its speed is believed
SOON = 60.0  # seconds; a validation that comes sooner is not announced


class Progress:
    """A bar with the loss, the speed and the time to the next validation.

    Where stderr is no terminal there is no bar; messages come all the same.

    Args:
        step: finished steps of the run so far.
        steps: of the whole run.
        every: steps between validations.
    """

    def __init__(self, step: int, steps: int, every: Every) -> None:
        from tqdm.contrib.logging import logging_redirect_tqdm

        self._step, self._steps, self._every = step, steps, every
        self._loss, self._speed = float("nan"), float("nan")
        self._trained, self._counted = 0.0, 0  # seconds and steps that give the pace
        self._announced = False
        self._since: float | None = None
        self._bar = bar(initial=step, total=steps, unit="step", mininterval=1, dynamic_ncols=True)
        self._stack = contextlib.ExitStack()
        if not self._bar.disable:
            self._stack.enter_context(logging_redirect_tqdm())
            logger.info(
                "the bar shows steps, the loss, seconds of audio trained on per second "
                "(audio-s/s) and the time to the next validation"
            )

    def close(self) -> None:
        """Leave the bar as it is."""
        self._bar.close()
        self._stack.close()

    def pause(self) -> None:
        """Leave the time until the next step out of the pace."""
        self._since = None

    def advance(self) -> None:
        """Count a finished step."""
        now = time.perf_counter()
        if self._since is not None:
            self._trained += now - self._since
            self._counted += 1
        self._since = now
        self._step += 1
        if not self._announced and self._trained >= MEASURED:
            self._announce()
        self._bar.set_postfix_str(self._text(), refresh=False)
        self._bar.update()

    def show(self, loss: float, speed: float) -> None:
        """Show the latest step on the progress bar.

        Args:
            loss: of the step.
            speed: seconds of audio that are processed in a second.
        """
        self._loss, self._speed = loss, speed

    def _remaining(self) -> float | None:
        """Seconds to the next validation; None while nothing is known."""
        if not self._counted:
            return None
        steps = next_validation(self._step, self._every, self._steps) - self._step
        return steps * self._trained / self._counted

    def _announce(self) -> None:
        self._announced = True
        seconds = self._remaining() or 0.0
        if seconds > SOON:
            step = next_validation(self._step, self._every, self._steps)
            logger.info("next validation after step %d, in about %s", step, duration(seconds))

    def _text(self) -> str:
        parts = []
        if self._speed == self._speed:
            parts += [f"loss {self._loss:.4g}", f"{self._speed:.0f} audio-s/s"]
        seconds = self._remaining()
        if seconds is not None:
            parts.append(f"validation in {duration(seconds)}")
        return ", ".join(parts)


def duration(seconds: float) -> str:
    """Return seconds as a person says them: 40 s, 12 min, 3.5 h."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
