"""`separator serve`: a page on this machine that separates songs dropped on it."""

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

from separator.config import parse
from separator.inference.serve.server import listen, require_packages, run
from separator.ranges import require


@dataclass(frozen=True)
class ServeConfig:
    """Show a page in the browser on which songs are separated, played and downloaded.

    Songs stay on this machine and are removed when the page has been closed for `keep_minutes`,
    or when the command ends.

    Attributes:
        host: address to listen on; 127.0.0.1 lets nobody in but programs of this machine, 0.0.0.0
            everybody who can reach it, without a password.
        port: port to listen on; 0 takes a free one.
        open: open the page in the browser.
        model: model that the page offers first, a file or a name that `separator models`
            lists; else $SEPARATOR_MODEL or the first of that list.
        device: where to run; auto takes a GPU when there is one.
        jobs: songs separated at the same time.
        max_megabytes: largest file that is taken.
        max_minutes: longest song that is taken.
        max_queue: songs that may wait or be separated at the same time, of all users together.
        max_disk: gigabytes of temporary files, of all users together.
        keep_minutes: minutes after which the files of a page that was closed are removed.
    """

    host: str = "127.0.0.1"
    port: int = 8765
    open: bool = False
    model: str = ""
    device: str = "auto"
    jobs: int = 1
    max_megabytes: float = 500.0
    max_minutes: float = 20.0
    max_queue: int = 20
    max_disk: float = 20.0
    keep_minutes: float = 60.0

    def __post_init__(self) -> None:
        require(self, "[0, 65535]", "port")
        require(self, "[1, 64]", "jobs")
        require(self, "[1, 10000]", "max_queue")
        require(self, "(0, inf)", "max_megabytes", "max_minutes", "max_disk", "keep_minutes")


def main(argv: list[str]) -> int:
    """Serve until a signal ends it; returns 128 and the signal's number."""
    config = parse(ServeConfig, argv, "serve")
    require_packages("serve")
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # waiting threads leave the server a core

    from separator.allocator import keep_memory
    from separator.inference.serve.app import make_app
    from separator.inference.serve.store import Store, remove_abandoned
    from separator.inference.serve.worker import Models
    from separator.inference.stopping import stoppable

    keep_memory()
    remove_abandoned(Path(tempfile.gettempdir()))
    models = Models(config.model, config.device, config.jobs)
    models.get(models.default)  # a wrong model is told before anybody waits for it
    listening = listen(config.host, config.port)
    with stoppable() as stop, listening as listener, Store(config) as store:
        app = make_app(store, models)
        return run(app, listener, config, stop, "ends it and removes its files")
