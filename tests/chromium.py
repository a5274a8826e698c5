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


class Page:
    """One page, by whose session everything is asked."""

    def __init__(self, to: int, answers: int) -> None:
        self._to, self._answers, self._rest, self._number = to, answers, b"", 0
        self._session: str | None = None
        target = self.ask("Target.createTarget", url="about:blank")["targetId"]
        attached = self.ask("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]

    def ask(self, method: str, **values: Any) -> dict:
        """Call a method of the protocol and return its result."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": values}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._to, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._read()
            if answer.get("id") == self._number:
                assert "error" not in answer, answer
                return answer["result"]

    def open(self, url: str) -> None:
        """Load an address, also where only what is behind its # differs from the present one."""
        for address in ("about:blank", url):
            self.ask("Page.navigate", url=address)

    def value(self, script: str) -> Any:
        """Return what JavaScript says."""
        result = self.ask("Runtime.evaluate", expression=script, returnByValue=True)
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    def wait(self, script: str, seconds: float = 60) -> Any:
        """Wait until JavaScript says something true, and return it."""
        end = time.monotonic() + seconds
        while not (said := self.value(script)):
            assert time.monotonic() < end, f"not within {seconds} s: {script}"
            time.sleep(0.3)
        return said

    def screenshot(self) -> bytes:
        """Return the page as a PNG."""
        return base64.b64decode(self.ask("Page.captureScreenshot", format="png")["data"])

    def _read(self) -> dict:
        while b"\0" not in self._rest:
            data = os.read(self._answers, 65536)
            assert data, "chromium has gone"
            self._rest += data
        message, self._rest = self._rest.split(b"\0", 1)
        return json.loads(message)


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
        yield Page(to, answers)
    finally:
        process.terminate()
        process.wait(timeout=30)
        os.close(to)
        os.close(answers)
