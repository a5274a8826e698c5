"""`separator monitor RUN…`: a page on this machine that shows trainings while they go on."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from separator.config import parse
from separator.ranges import CheckedConfig, Within

if TYPE_CHECKING:
    from fastapi import FastAPI

    from separator.cli.run_history import Runs

MONITOR_FILES = ("monitor.html", "style.css", "monitor.js", "common.js")


@dataclass(frozen=True)
class MonitorConfig(CheckedConfig):
    """Show the curves, pictures and sounds of runs in the browser, and compare the runs.

    The page follows runs that go on, and tells the hours left and what the next validation will
    cost. Run folders are read only.

    Attributes:
        runs: run folders, or folders that hold some.
        host: address to listen on; 127.0.0.1 lets nobody in but programs of this machine, 0.0.0.0
            everybody who can reach it, without a password.
        port: port to listen on; 0 takes a free one.
        open: open the page in the browser.
    """

    runs: list[str]
    host: str = "127.0.0.1"
    port: Annotated[int, Within("[0, 65535]")] = 8766
    open: bool = False


def main(argv: list[str]) -> int:
    """Show the page until a signal ends it; returns 128 and the signal's number."""
    config = parse(MonitorConfig, argv, "monitor", positional="runs")
    from separator.cli.run_history import Runs
    from separator.inference.serve.server import listen, require_packages, run
    from separator.inference.stopping import stoppable

    require_packages("monitor")
    runs = Runs(config.runs)
    with stoppable() as stop, listen(config.host, config.port) as listener:
        return run(make_app(runs, config.host), listener, config, stop, "ends it")


def make_app(runs: "Runs", host: str) -> "FastAPI":
    """Return the application.

    Args:
        runs: what the page shows.
        host: the name that the server was told to listen on.
    """
    from fastapi import Response

    from separator.cli.run_history import MEDIA_TYPES
    from separator.inference.serve.web import RefusedError, new_app

    app = new_app(host, MONITOR_FILES)

    @app.get("/api/runs")
    def summaries() -> list[dict]:
        return [run.summary() for run in runs.find()]

    @app.get("/api/curves")
    def curves(run: str) -> dict:
        return runs.get(run).curves()

    @app.get("/api/media")
    def media(run: str) -> list[dict]:
        return runs.get(run).media()

    @app.get("/api/medium")
    def medium(run: str, kind: str, tag: str, step: int) -> Response:
        data = runs.get(run).medium(kind, tag, step)
        if data is None:
            raise RefusedError(404, "this picture or sound is not there (any more)")
        return Response(data, media_type=MEDIA_TYPES[kind])

    return app
