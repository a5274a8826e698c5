"""Separate songs in threads beside the server, and stop in the middle of one that is cancelled."""

import contextlib
import logging
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path

from torch import Tensor

from separator import audio, bundled
from separator.arguments import Samples
from separator.errors import SeparatorError, printable
from separator.inference.failures import named
from separator.inference.serve.session import Song, without_folder
from separator.inference.serve.spool import Spool
from separator.inference.serve.store import Store
from separator.model_sources import find_model
from separator.separation import Separator
from separator.stems import VOCALS, public_name

log = logging.getLogger(__name__)

VOICE = VOCALS  # the stem that karaoke lowers


class CancelledError(Exception):
    """Nobody wants the song any more."""


class Models:
    """The models that the page offers, by name; those used last stay in memory.

    Args:
        first: a model file, or the name of a bundled model; "" takes $SEPARATOR_MODEL or the first
            bundled one.
        device: where to run them.
        keep: how many stay in memory.
    """

    def __init__(self, first: str, device: str, keep: int) -> None:
        first = first or find_model()
        names = bundled.names()
        self.default = first if first in names else printable(Path(first).stem)
        self.paths = {self.default: first} | {name: name for name in names if name != first}
        self._device, self._keep = device, keep
        self._loaded: dict[str, Separator] = {}
        self._stems: dict[str, tuple[str, ...]] = {}
        self._lock = threading.Lock()

    def get(self, name: str) -> Separator:
        """Return a model, ready to separate.

        Args:
            name: one of `paths`.

        Raises:
            SeparatorError: its file cannot be used.
        """
        with self._lock:
            model = self._loaded.pop(name, None) or Separator.load(self.paths[name], self._device)
            self._loaded[name] = model  # the last
            while len(self._loaded) > self._keep:
                del self._loaded[next(iter(self._loaded))]
            return model

    def stems(self, name: str) -> tuple[str, ...]:
        """Return the stems that a model separates songs into.

        Args:
            name: one of `paths`.
        """
        if name not in self._stems:
            self._stems[name] = tuple(map(public_name, self.get(name).stems.names))
        return self._stems[name]


class Worker:
    """A thread that separates one song after another."""

    def __init__(self, store: Store, models: Models) -> None:
        self._store, self._models = store, models
        self._thread = threading.Thread(target=self._run, name="separator", daemon=True)
        self._thread.start()

    def join(self) -> None:
        """Wait until the thread has ended, which is after the present chunk at most."""
        self._thread.join(timeout=30)

    def _run(self) -> None:
        while song := self._store.take():
            error = ""
            try:
                with _collecting(song):
                    self._separate(song)
            except CancelledError:
                pass
            except Exception as failure:  # decoders raise all kinds, and the next song is wanted
                log.debug("%s", song.path, exc_info=True)
                error = without_folder(named(song.path, failure), song.folder)
            self._store.finish(song, error)

    def _separate(self, song: Song) -> None:
        separator = self._models.get(song.model)
        info = song.info
        if info.channels > 2:
            song.notices.append(f"{info.channels} channels are folded to stereo")
        channels = min(info.channels, 2)
        spool = Spool(song.folder / ".stems", song.stems, channels, info.samples)
        for stems in _stems(separator, audio.blocks(song.path), info.rate):
            if song.cancelled.is_set():
                raise CancelledError
            spool.write(stems)
            song.done = spool.samples / info.rate
            self._store.check_length(song.path, song.done - 1)
        if not spool.samples:
            raise SeparatorError(f"{song.path}: holds no sound")
        song.spool = spool


def _stems(separator: Separator, blocks: Iterable[Samples], rate: int) -> Iterator[Tensor]:
    """Yield chunks (s c t) of all stems, which add up to the mixture."""
    for _, stems in separator.stream(blocks, rate):
        yield stems


class _Collector(logging.Handler):
    """Gives the warnings of one thread to its song."""

    def __init__(self, song: Song) -> None:
        super().__init__(logging.WARNING)
        self._song, self._thread = song, threading.get_ident()

    def emit(self, record: logging.LogRecord) -> None:
        """Add a warning to the song's notices, without the song's name."""
        if record.thread == self._thread:
            text = without_folder(printable(record.getMessage()), self._song.folder)
            name = printable(self._song.path.name)
            self._song.notices.append(text.removeprefix(f"{name}: "))


@contextlib.contextmanager
def _collecting(song: Song) -> Iterator[None]:
    """Show on the page what the command line shows as warnings."""
    handler = _Collector(song)
    logger = logging.getLogger("separator")
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
