"""`separator serve`: a page on this machine that separates songs dropped on it."""

import errno
import ipaddress
import logging
import os
import signal
import socket
import tempfile
from dataclasses import dataclass
from pathlib import Path

from separator.config import parse
from separator.errors import SeparatorError, UsageError, one_line
from separator.ranges import require

log = logging.getLogger(__name__)


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
    try:
        import fastapi  # noqa: F401
        import uvicorn
    except ImportError as error:
        raise UsageError(
            f"serve needs {error.name}; install it with pip install 'separator[serve]'"
        ) from error
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # waiting threads leave the server a core

    from separator.allocator import keep_memory
    from separator.inference.serve.app import make_app
    from separator.inference.serve.store import Store, remove_abandoned
    from separator.inference.serve.worker import Models
    from separator.inference.stopping import stoppable
    from separator.inference.terminal import say

    keep_memory()
    remove_abandoned(Path(tempfile.gettempdir()))
    models = Models(config.model, config.device, config.jobs)
    models.get(models.default)  # a wrong model is told before anybody waits for it
    listening = _listen(config.host, config.port)
    with stoppable() as stop, listening as listener, Store(config) as store:
        url = _url(config.host, listener.getsockname()[1])
        settings = uvicorn.Config(
            make_app(store, models),
            **{"log_config": None, "access_log": False, "server_header": False, "ws": "none"},
            **{"lifespan": "on", "timeout_graceful_shutdown": 2},
        )
        say(f"{url} is ready; Ctrl-C ends it and removes its files")
        if not _is_loopback(config.host):
            log.warning("everybody who can reach this machine can use the page")
        if config.open:
            _open(url)
        server = uvicorn.Server(settings)

        def leave(number: int, frame: object) -> None:
            stop.number, server.should_exit = number, True

        hang_up = getattr(signal, "SIGHUP", None)  # uvicorn leaves in this way for the others
        if hang_up and signal.getsignal(hang_up) is stop:
            signal.signal(hang_up, leave)
        try:
            server.run(sockets=[listener])
        except KeyboardInterrupt:
            if not stop.number:
                raise
        return stop.status if stop.number else 1


def _listen(host: str, port: int) -> socket.socket:
    """Return a listening socket.

    Raises:
        SeparatorError: the port is in use, or the address is not one of this machine.
    """
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family, backlog=128)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            fix = f"port: {port} is in use; choose another, or --port 0 for a free one"
            raise SeparatorError(fix) from error
        name = "port" if error.errno == errno.EACCES else "host"
        value = {"port": port, "host": host}[name]
        raise SeparatorError(f"{name}: cannot listen on {value} ({one_line(error)})") from error


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _url(host: str, port: int) -> str:
    name = {"0.0.0.0": socket.gethostname(), "::": socket.gethostname()}.get(host, host)
    return f"http://[{name}]:{port}" if ":" in name else f"http://{name}:{port}"


def _open(url: str) -> None:
    """Open the page from a thread: some browsers do not return, and it works without one too."""
    import threading
    import webbrowser

    threading.Thread(target=webbrowser.open, args=(url,), daemon=True).start()
