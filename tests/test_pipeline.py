"""Songs side by side around one model, which waits for none of them."""

import threading
import time

import numpy as np
import pytest

from separator.inference.pipeline import Pipeline, StoppedError
from separator.streaming import Model


def test_a_song_is_read_and_written_while_the_model_works_on_others() -> None:
    """Each of three songs waits until the others have asked: one after another would never end."""
    together, owner = threading.Barrier(3, timeout=10), threading.current_thread()
    calls, ends = [], {}

    def model(number: int, chunks: np.ndarray) -> np.ndarray:
        assert threading.current_thread() is owner
        calls.append(number)
        return chunks * number

    def separate(song: int, model: Model) -> float:
        together.wait()
        total = sum(model(np.ones(2)) for _ in range(4))
        together.wait()
        return float(total.sum())

    pipeline = Pipeline(model, 3)
    pipeline.run(separate, [7, 8, 9], lambda number, outcome: ends.update({number: outcome}))
    assert {number: ends[number].result() for number in ends} == {0: 0.0, 1: 8.0, 2: 16.0}
    assert sorted(calls) == [0] * 4 + [1] * 4 + [2] * 4
    assert 0 < pipeline.busy <= pipeline.span


def test_the_first_song_that_asks_is_answered_first() -> None:
    calls = []

    def model(number: int, chunks: np.ndarray) -> np.ndarray:
        deadline = time.monotonic() + 10
        while not calls and pipeline._events.qsize() < 2 and time.monotonic() < deadline:
            time.sleep(0.001)
        calls.append(number)
        return chunks

    def separate(song: int, model: Model) -> None:
        time.sleep(0.01 * (2 - song))  # the last asks first
        model(np.ones(1))

    pipeline = Pipeline(model, 3)
    pipeline.run(separate, range(3), lambda *_: None)
    assert calls[1] < calls[2]


def test_an_error_costs_one_song_and_an_interrupt_ends_all() -> None:
    ends, cleaned = {}, []

    def model(number: int, chunks: np.ndarray) -> np.ndarray:
        if number == 1:
            raise ValueError("no")
        if number == 3:
            raise KeyboardInterrupt
        return chunks

    def separate(song: int, model: Model) -> None:
        try:
            model(np.ones(1))
        except StoppedError:
            cleaned.append(song)
            raise

    pipeline = Pipeline(model, 1)
    with pytest.raises(KeyboardInterrupt):
        pipeline.run(separate, range(5), lambda number, outcome: ends.update({number: outcome}))
    assert sorted(ends) == [0, 1, 2] and cleaned == [3]
    assert isinstance(ends[1].exception(), ValueError) and not ends[2].exception()
    with pytest.raises(StoppedError):
        pipeline.check()
