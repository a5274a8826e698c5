"""A headless Chromium, driven through pipes by its DevTools protocol."""

import base64
import contextlib
import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

PROGRAM = shutil.which("chromium") or shutil.which("chromium-browser")
FLAGS = [
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync", "--no-first-run", "--hide-scrollbars"),
    *("--disable-dev-shm-usage", "--remote-debugging-pipe", "--window-size=1600,2400"),
]


class Browser:
    """The pipes to a browser."""

    def __init__(self, to: int, answers: int) -> None:
        self._to, self._answers, self._rest, self._number = to, answers, b"", 0

    def ask(self, method: str, session: str | None = None, **values: Any) -> dict:
        """Call a method of the protocol and return its result."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": values}
        if session:
            message["sessionId"] = session
        os.write(self._to, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._read()
            if answer.get("id") == self._number:
                assert "error" not in answer, answer
                return answer["result"]

    def _read(self) -> dict:
        while b"\0" not in self._rest:
            data = os.read(self._answers, 65536)
            assert data, "chromium has gone"
            self._rest += data
        message, self._rest = self._rest.split(b"\0", 1)
        return json.loads(message)


class Page:
    """One page, by whose session everything is asked."""

    def __init__(self, browser: Browser, **context: str) -> None:
        self.browser = browser
        target = browser.ask("Target.createTarget", url="about:blank", **context)["targetId"]
        attached = browser.ask("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]

    def of_another_user(self) -> "Page":
        """Return a page that shares no cookies with this one."""
        return Page(self.browser, **self.browser.ask("Target.createBrowserContext"))

    def ask(self, method: str, **values: Any) -> dict:
        """Call a method of the protocol for this page and return its result."""
        return self.browser.ask(method, self._session, **values)

    def open(self, url: str) -> None:
        """Load an address, also where only what is behind its # differs from the present one."""
        for address in ("about:blank", url):
            self.ask("Page.navigate", url=address)

    def value(self, script: str) -> Any:
        """Return what JavaScript says, a promise's value if it is one."""
        options = {"returnByValue": True, "awaitPromise": True, "userGesture": True}
        result = self.ask("Runtime.evaluate", expression=script, **options)
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    def wait(self, script: str, seconds: float = 60) -> Any:
        """Wait until JavaScript says something true, and return it."""
        end = time.monotonic() + seconds
        while not (said := self.value(script)):
            assert time.monotonic() < end, f"not within {seconds} s: {script}"
            time.sleep(0.3)
        return said

    def choose(self, selector: str, *files: Path) -> None:
        """Choose files in a field, as a user does."""
        found = self.ask("Runtime.evaluate", expression=f"document.querySelector({selector!r})")
        names = [str(path) for path in files]
        self.ask("DOM.setFileInputFiles", objectId=found["result"]["objectId"], files=names)

    def screenshot(self) -> bytes:
        """Return the page as a PNG."""
        return base64.b64decode(self.ask("Page.captureScreenshot", format="png")["data"])


@contextlib.contextmanager
def chromium(folder: Path) -> Iterator[Page]:
    """Run a browser whose profile is in a folder, for as long as the block lasts."""
    theirs_in, to = os.pipe()
    answers, theirs_out = os.pipe()
    # the browser reads its file 3 and writes its file 4
    redirect = f'exec "$@" 3<&{theirs_in} 4>&{theirs_out}'
    command = ["bash", "-c", redirect, "chromium", PROGRAM, *FLAGS]
    process = subprocess.Popen(
        [*command, f"--user-data-dir={folder}", f"--crash-dumps-dir={folder}"],
        pass_fds=(theirs_in, theirs_out),
        stderr=subprocess.DEVNULL,
    )
    os.close(theirs_in)
    os.close(theirs_out)
    try:
        yield Page(Browser(to, answers))
    finally:
        process.terminate()
        process.wait(timeout=30)
        os.close(to)
        os.close(answers)
