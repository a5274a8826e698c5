"""`separator serve`: a page on this machine that separates songs dropped on it."""

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from separator.config import parse
from separator.inference.serve.server import listen, require_packages, run
from separator.machine import wait_passively
from separator.ranges import CheckedConfig, Within


@dataclass(frozen=True)
class ServeConfig(CheckedConfig):
    """Show a page in the browser on which songs are separated, played and downloaded.

    Songs stay on this machine and are removed when the page has been closed for `keep_minutes`,
    or when the command ends.

    Attributes:
        host: address to listen on; 127.0.0.1 can be reached from this machine only, 0.0.0.0 from
            every machine of the network, without a password.
        port: port to listen on; 0 takes a free one.
        open: open the page in the browser.
        model: model that the page offers first, a file or a name that `separator models` lists; by
            default $SEPARATOR_MODEL, or the first model of that list.
        device: cpu, cuda, mps, or auto, which takes a GPU if there is one.
        jobs: songs separated at the same time.
        max_megabytes: largest file that is accepted.
        max_minutes: longest song that is accepted.
        max_queue: songs that may wait or be separated at the same time, of all users together.
        max_disk: gigabytes of temporary files, of all users together.
        keep_minutes: minutes after which the files of a page that was closed are removed.
    """

    host: str = "127.0.0.1"
    port: Annotated[int, Within("[0, 65535]")] = 8765
    open: bool = False
    model: str = ""
    device: str = "auto"
    jobs: Annotated[int, Within("[1, 64]")] = 1
    max_megabytes: Annotated[float, Within("(0, inf)")] = 500.0
    max_minutes: Annotated[float, Within("(0, inf)")] = 20.0
    max_queue: Annotated[int, Within("[1, 10000]")] = 20
    max_disk: Annotated[float, Within("(0, inf)")] = 20.0
    keep_minutes: Annotated[float, Within("(0, inf)")] = 60.0


def main(argv: list[str]) -> int:
    """Serve until a signal ends it; returns 128 and the signal's number."""
    config = parse(ServeConfig, argv, "serve", positional="")
    require_packages("serve")
    wait_passively()  # leaves the server a core

    from separator.allocator import keep_memory
    from separator.inference.serve.app import make_app
    from separator.inference.serve.store import Store
    from separator.inference.serve.temporary import remove_abandoned
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
