"""What both pages of this program share: the rules of security, errors in one line, files."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from separator.errors import SeparatorError, explain
from separator.inference.serve.guard import Guard

PAGE = Path(__file__).parent / "page"
TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript"}


class RefusedError(SeparatorError):
    """A request that is not served, with HTTP's number for the reason."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


def new_app(host: str, files: Iterable[str], lifespan: Callable | None = None) -> FastAPI:
    """Return an application that serves files of the folder `page`, the first one as "/".

    Args:
        host: the name that the server was told to listen on.
        files: their names.
        lifespan: as FastAPI takes it.
    """
    # the pages of an interface's description load scripts from another host
    options: dict[str, Any] = {"openapi_url": None, "docs_url": None, "redoc_url": None}
    options["telemetry"] = dict.fromkeys(("tracing", "metrics", "logs", "auto_configure"), False)
    app = FastAPI(lifespan=lifespan, **options)
    app.add_middleware(Guard, host=host)
    for kind in (SeparatorError, OSError, HTTPException, RequestValidationError, Exception):
        app.add_exception_handler(kind, _failure)
    for number, name in enumerate(files):
        answer = _constant((PAGE / name).read_bytes(), TYPES[Path(name).suffix])
        app.add_api_route(f"/{name if number else ''}", answer, methods=["GET"])
    return app


def _failure(request: Request, error: Exception) -> Response:
    """Tell any error in one line."""
    if isinstance(error, RequestValidationError):
        status, text = 422, "; ".join(f"{e['loc'][-1]}: {e['msg']}" for e in error.errors())
    elif isinstance(error, HTTPException):
        status, text = error.status_code, str(error.detail)
    elif isinstance(error, RefusedError):
        status, text = error.status, str(error)
    else:
        status, text = 400 if isinstance(error, SeparatorError) else 500, explain(error)
    return JSONResponse({"error": text}, status)


def _constant(content: bytes, kind: str) -> Any:
    async def answer() -> Response:
        return Response(content, media_type=kind)

    return answer
