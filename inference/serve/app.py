"""The server: one page, and an interface for it under /api/."""

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor, wait
from typing import Annotated, Any

from fastapi import Body, Depends, FastAPI, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import FileResponse
from pydantic import BaseModel, Field
from starlette.requests import ClientDisconnect

from separator import audio, bundled
from separator.errors import SeparatorError
from separator.inference.failures import named
from separator.inference.serve import downloads
from separator.inference.serve.session import Session, Song, safe_name, without_folder
from separator.inference.serve.store import Store
from separator.inference.serve.web import RefusedError, new_app
from separator.inference.serve.worker import VOICE, Models, Worker

SERVE_FILES = ("index.html", "style.css", "page.js", "player.js", "common.js")
FORMAT_CHOICES = ("input", *audio.ENCODINGS)
EXPIRY_SECONDS = 20.0
MAX_ENCODING = 2  # downloads made at the same time
PATIENCE_SECONDS = 0.5  # after which a page is told how far its download is
MAX_GAIN = 10.0

Natural = Annotated[int, Field(ge=0, lt=1 << 40)]


class Download(BaseModel):
    """A page's request for a download; see `downloads.Request`."""

    songs: Annotated[list[str], Field(min_length=1)]
    format: str = "flac"
    stems: list[str] = []
    gains: dict[str, Annotated[float, Field(ge=0, le=MAX_GAIN)]] = {}


def make_app(store: Store, models: Models) -> FastAPI:
    """Return the application, whose workers live as long as its lifespan.

    Args:
        store: the songs.
        models: those that the page offers.
    """

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        workers = [Worker(store, models) for _ in range(store.config.jobs)]
        expiry = asyncio.create_task(_expire(store))
        try:
            yield
        finally:
            expiry.cancel()
            store.stop()
            for worker in workers:
                await run_in_threadpool(worker.join)

    app = new_app(store.config.host, SERVE_FILES, lifespan)
    session = _add_session(app, store, models)
    _add_songs(app, store, models, session)
    _add_sound(app, session)
    _add_downloads(app, store, session)
    return app


async def _expire(store: Store) -> None:
    while True:
        await asyncio.sleep(min(EXPIRY_SECONDS, 10 * store.config.keep_minutes))
        await run_in_threadpool(store.expire)


def _cookie(request: Request) -> str:
    """Return a cookie's name for this server: cookies of a host are those of all its ports."""
    return f"separator-{request.url.port or 80}"


def _add_session(app: FastAPI, store: Store, models: Models) -> Any:
    """Let a page start or find its session; returns the dependency that finds it."""
    config = store.config

    def find(request: Request) -> Session:
        session = store.session(request.cookies.get(_cookie(request)))
        if not session:
            raise RefusedError(403, "the session has ended; reload the page")
        return session

    @app.post("/api/session")
    def start(request: Request, response: Response) -> dict[str, Any]:
        """Start a session where there is none, and say what can be chosen."""
        if not store.session(request.cookies.get(_cookie(request))):
            token = store.open_session()
            response.set_cookie(_cookie(request), token, httponly=True, samesite="strict")
        about = {
            name: next(line for line in bundled.card(name).splitlines()[1:] if line.strip())
            for name in bundled.names()
        }
        offered = [
            {"name": name, "about": about.get(name, ""), "stems": models.stems(name)}
            for name in models.paths
        ]
        limits = {"megabytes": config.max_megabytes, "minutes": config.max_minutes}
        return {"models": offered, "formats": FORMAT_CHOICES, "voice": VOICE, "limits": limits}

    return Annotated[Session, Depends(find)]


def _add_songs(app: FastAPI, store: Store, models: Models, Own: Any) -> None:
    """Let a page send, list and remove its songs."""

    @app.get("/api/songs")
    def songs(session: Own) -> list[dict[str, Any]]:
        return store.view(session)

    @app.put("/api/songs", status_code=201)
    async def send(request: Request, session: Own, name: str, model: str = "") -> dict[str, str]:
        """Take a song, the body of the request, into the queue."""
        model = model or models.default
        if model not in models.paths:
            raise RefusedError(422, "model: not one of those on the page; reload it")
        try:
            song = await _received(request, store, session, name, (model, models.stems(model)))
        except RefusedError:
            # browsers hear an answer only when all of the song is sent
            with contextlib.suppress(RuntimeError):  # it is
                async for _ in request.stream():
                    pass
            raise
        return {"id": song.id}

    @app.exception_handler(ClientDisconnect)
    async def gone(request: Request, error: Exception) -> Response:
        """Answer nobody: the page has cancelled its upload."""
        return Response(status_code=400)

    @app.delete("/api/songs")
    def clear(session: Own) -> None:
        store.clear(session)

    @app.delete("/api/songs/{id}")
    def remove(session: Own, id: str) -> None:
        store.remove(session, session.song(id, ready=False))


async def _received(
    request: Request, store: Store, session: Session, name: str, wanted: tuple[str, tuple[str, ...]]
) -> Song:
    """Put the body of a request, if it is a song, into the queue; `wanted`: model and its stems."""
    with store.receiving(session, int(request.headers.get("content-length") or 0)) as folder:
        path = folder / safe_name(name)
        with path.open("wb") as file:
            async for data in request.stream():
                store.check_size(file.tell() + len(data))
                file.write(data)
        try:
            info = await run_in_threadpool(audio.probe, path)
            store.check_length(path, info.seconds)
        except SeparatorError as error:
            raise RefusedError(422, without_folder(named(path, error), folder)) from error
        song = Song(folder, path, info, *wanted, notices=list(info.notices))
        store.add(session, song)
        return song


def _add_sound(app: FastAPI, Own: Any) -> None:
    """Let a page draw and play its songs."""

    @app.get("/api/songs/{id}/waveform")
    def waveform(session: Own, id: str) -> dict[str, list[int]]:
        return session.song(id).spool.waveform()

    @app.get("/api/songs/{id}/samples")
    def samples(session: Own, id: str, start: Natural, count: Natural) -> Response:
        """Return frames of 32-bit floats, as `Spool` orders them."""
        data = session.song(id).spool.read(start, count)
        return Response(data, media_type="application/octet-stream")


def _add_downloads(app: FastAPI, store: Store, Own: Any) -> None:
    """Let a page have files made, and fetch them."""
    encoders, lock = ThreadPoolExecutor(MAX_ENCODING), threading.Lock()

    @app.post("/api/downloads")
    def make(session: Own, wanted: Annotated[Download, Body()]) -> dict[str, Any]:
        """Make a file; asked again, tell how far it is, and at the end where it is."""
        if wanted.format not in FORMAT_CHOICES:
            raise RefusedError(
                422, f"format: {wanted.format} is not one of {', '.join(FORMAT_CHOICES)}"
            )
        chosen = tuple(session.song(id) for id in wanted.songs)
        made = downloads.Request(chosen, tuple(wanted.stems), wanted.gains, wanted.format)
        with lock:
            if made.id not in session.making:
                if not session.download(made.id):
                    store.make_room(session, made.bytes)
                future = encoders.submit(downloads.prepare, session, made)
                session.making[made.id] = made, future
            made, future = session.making[made.id]
        if not wait([future], PATIENCE_SECONDS).done:
            return {"progress": made.progress}
        session.making.pop(made.id, None)
        return {"url": f"api/downloads/{made.id}", "name": future.result().name}

    @app.get("/api/downloads/{id}")
    def fetch(session: Own, id: str) -> Response:
        path = session.download(id)
        if not path:
            raise RefusedError(404, "this download is not there any more; ask for it again")
        return FileResponse(path, filename=path.name)
