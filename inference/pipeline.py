"""Songs in threads around one model: while it works on one, others are read and written.

The model runs in the thread that calls `Pipeline.run`, one request at a time, so its memory is
that of one song, and a signal stops it as in a program without threads. The request of the song
that comes first is answered first: songs end one after another, not all at once.
"""

import functools
import itertools
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from queue import PriorityQueue
from typing import Any, TypeVar

import numpy as np

from separator.streaming import Model

Song = TypeVar("Song")


class StoppedError(Exception):
    """The work is stopped before the song's end."""


class Pipeline:
    """Runs a function for each song in a thread, and the model for all of them.

    Attributes:
        first: when the model was called first, on the clock of `time.perf_counter`; None before.
        last: when it returned the last time.
        busy: seconds that it has worked.

    Args:
        model: takes a song's number and chunks, and returns their stems.
        jobs: songs that are worked on at the same time.
    """

    def __init__(self, model: Callable[[int, np.ndarray], np.ndarray], jobs: int) -> None:
        self._model, self._jobs = model, jobs
        # ends of songs before requests, these in the order of the songs: (is request, song,
        # serial number, chunks, answer)
        self._events: PriorityQueue[tuple] = PriorityQueue()
        self._serial = itertools.count()
        self._unanswered: set[Future] = set()
        self._lock, self._stopped = threading.Lock(), False
        self.first: float | None = None
        self.last = self.busy = 0.0

    @property
    def span(self) -> float:
        """Seconds from the model's first work to its last."""
        return self.last - self.first if self.first else 0.0

    def run(
        self,
        separate: Callable[[Song, Model], Any],
        songs: Sequence[Song],
        ended: Callable[[int, Future], None],
    ) -> None:
        """Work on all songs.

        Whatever ends this early, such as a signal, ends the songs that are in work, too: it goes on
        when their threads have cleaned up.

        Args:
            separate: takes a song and the model; runs in threads. It should call `check` between
                calls of the model.
            songs: in the order in which they are to be done.
            ended: called with each song's number and what became of it, in the order of their ends.
        """
        pool = ThreadPoolExecutor(self._jobs, "song")
        try:
            for number, song in enumerate(songs):
                outcome = pool.submit(separate, song, functools.partial(self._ask, number))
                outcome.add_done_callback(functools.partial(self._tell, number))
            for _ in songs:
                ended(*self._next_end())
        finally:
            self._stop()
            pool.shutdown(cancel_futures=True)

    def check(self) -> None:
        """Raise when the work is stopped.

        Raises:
            StoppedError: it is.
        """
        if self._stopped:
            raise StoppedError

    def _ask(self, number: int, chunks: np.ndarray) -> np.ndarray:
        """Let the model's thread separate chunks of a song, and wait for it."""
        answer: Future = Future()
        with self._lock:  # after `_stop` nobody would answer
            self.check()
            self._unanswered.add(answer)
            self._events.put((True, number, next(self._serial), chunks, answer))
        try:
            return answer.result()
        finally:
            self._unanswered.discard(answer)

    def _tell(self, number: int, outcome: Future) -> None:
        """Tell the model's thread that a song has ended."""
        self._events.put((False, number, next(self._serial), None, outcome))

    def _next_end(self) -> tuple[int, Future]:
        """Answer requests until a song ends; return its number and what became of it."""
        while True:
            _, number, _, chunks, answer = self._events.get()
            if chunks is None:
                return number, answer
            began = time.perf_counter()
            self.first = self.first or began
            try:
                answer.set_result(self._model(number, chunks))
            except Exception as error:
                answer.set_exception(error)
            self.last = time.perf_counter()
            self.busy += self.last - began

    def _stop(self) -> None:
        """Let every song's thread that waits for the model, or is going to, raise an error."""
        with self._lock:
            self._stopped = True
            for answer in list(self._unanswered):
                if not answer.done():
                    answer.set_exception(StoppedError())
