"""Run a page of this machine: where it listens, what it prints, how it ends."""

import errno
import ipaddress
import logging
import signal
import socket
from typing import Any

from separator.errors import SeparatorError, UsageError, one_line

log = logging.getLogger(__name__)


def require_packages(command: str) -> None:
    """Refuse a command that needs the extra `serve` where that is not installed.

    Raises:
        UsageError: names the package, and how to install it.
    """
    try:
        import fastapi  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError as error:
        raise UsageError(
            f"{command} needs {error.name}; install it with pip install 'separator[serve]'"
        ) from error


def run(app: Any, listener: socket.socket, config: Any, stop: Any, end: str) -> int:
    """Serve an application until a signal ends it.

    Args:
        app: of `new_app`.
        listener: of `listen`.
        config: has `host` and `open`, as `ServeConfig`.
        stop: of `stoppable`, within which this is called.
        end: what Ctrl-C does, for the message.

    Returns:
        128 and the signal's number.
    """
    import uvicorn

    from separator.inference.terminal import say

    url = _url(config.host, listener.getsockname()[1])
    settings = uvicorn.Config(
        app, log_config=None, access_log=False, server_header=False, ws="none",
        lifespan="on", timeout_graceful_shutdown=2,
    )  # fmt: skip
    say(f"{url} is ready; Ctrl-C {end}")
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


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that listens on a host and a port.

    Raises:
        SeparatorError: the port is in use, or the address is not one of this machine.
    """
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family, backlog=128)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            fix = f"--port: {port} is in use; choose another, or --port 0 for a free one"
            raise SeparatorError(fix) from error
        name = "port" if error.errno == errno.EACCES else "host"
        value = {"port": port, "host": host}[name]
        reason = one_line(error).partition(" (while")[0]
        raise SeparatorError(f"--{name}: cannot listen on {value} ({reason})") from error


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
