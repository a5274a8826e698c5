"""Refuse what other web sites send, and tell browsers to load nothing from elsewhere."""

import ipaddress
import json
import socket
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

Message = MutableMapping[str, Any]
App = Callable[..., Awaitable[None]]

HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
        "img-src 'self' data:; media-src 'self'; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
MAX_BODY = 1 << 16  # bytes of a request that is no song, which is held in memory
_ENCODED = [(name.lower().encode(), value.encode()) for name, value in HEADERS.items()]


class Guard:
    """ASGI middleware that checks the Host and Origin headers and adds HEADERS to every answer.

    A page of another site can make its own name lead to this machine (DNS rebinding), but not an
    address, so Host must be an address or a name of this machine. What a page of another origin
    sends says so in Origin or Sec-Fetch-Site.

    Args:
        app: the application.
        host: the name that the server was told to listen on.
    """

    def __init__(self, app: App, host: str) -> None:
        machine = socket.gethostname().lower()
        self._app = app
        self._names = {"localhost", host.lower(), machine, f"{machine}.local"}

    async def __call__(self, scope: Message, receive: App, send: App) -> None:
        """Answer a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), *_ENCODED]
            await send(message)

        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in
                   scope["headers"]}  # fmt: skip
        reason = self._refusal(headers, scope)
        if not reason:
            await self._app(scope, receive, send_guarded)
            return
        body = json.dumps({"error": reason}).encode()
        start = {"type": "http.response.start", "status": 403}
        start["headers"] = [(b"content-type", b"application/json")]
        await send_guarded(start)
        await send({"type": "http.response.body", "body": body})

    def _refusal(self, headers: dict[str, str], scope: Message) -> str:
        """Return why a request is refused, or ""."""
        host = headers.get("host", "")
        if not self._is_own(host):
            return "Host: not a name of this machine; open the address that the command prints"
        small = int(headers.get("content-length", 0)) <= MAX_BODY
        if scope["method"] != "PUT" and not (small and "transfer-encoding" not in headers):
            return "Content-Length: only songs may be large"
        origin = headers.get("origin")
        foreign = origin is not None and origin.partition("://")[2] != host
        foreign |= headers.get("sec-fetch-site", "none") not in ("none", "same-origin")
        if foreign and scope["path"].startswith("/api/"):
            return "Origin: requests of other pages are refused"
        return ""

    def _is_own(self, host: str) -> bool:
        name = host.rpartition("]")[0][1:] if host.startswith("[") else host.partition(":")[0]
        if name.lower() in self._names:
            return True
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return False
        return True
