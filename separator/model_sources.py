"""Find a model file: by a path, the name of a bundled model, a hub, or a web address."""

import hashlib
import importlib
import logging
import os
import re
from pathlib import Path
from types import ModuleType
from typing import Any
from urllib.error import URLError
from urllib.parse import urlsplit

from separator import bundled
from separator.atomic import replacing
from separator.errors import SeparatorError, UsageError, one_line
from separator.logs import bar, shows_bars

FILE = "model"  # of a repository on the hub, without its suffix
HUB = re.compile(r"hf:(?P<repository>[\w.-]+/[\w.-]+)(?:@(?P<revision>[\w./-]+))?")
ADDRESS = re.compile(r"(?P<scheme>https?):/{1,2}(?P<rest>[^#]+)(?:#sha256=(?P<digest>[0-9a-f]+))?")
LOOPBACK = ("localhost", "127.0.0.1", "::1")
TIMEOUT = 30.0  # seconds without an answer
MAX_BYTES = 4_000_000_000
READ_BYTES = 1 << 20


def find_model() -> str:
    """Return $SEPARATOR_MODEL, else the name of the model that comes with the package."""
    return os.environ.get("SEPARATOR_MODEL") or bundled.DEFAULT


def model_file(
    source: str | os.PathLike, suffix: str = ".safetensors", newest: bool = False
) -> Path:
    """Return the file that a model is read from; fetch it where no copy is here.

    Args:
        source: a path; the name of a bundled model; `hf:OWNER/NAME` or `hf:OWNER/NAME@REVISION`, a
            repository of the Hugging Face hub; or `https://…`, optionally with `#sha256=DIGEST`.
        suffix: of the file that a name, a repository or an address stands for: ".safetensors" or
            ".onnx".
        newest: ask for a newer file than the copy.

    Raises:
        UsageError: there is no such file or repository.
        SeparatorError: it cannot be fetched, or has another digest.
    """
    text = os.fspath(source)
    if text.startswith("hf:"):
        return _from_hub(text, suffix, newest)
    address = ADDRESS.fullmatch(text)
    if address:  # a Path has lost one of the two slashes
        url = f"{address['scheme']}://{address['rest']}"
        return _from_address(url, suffix, address["digest"] or "", newest)
    path = bundled.model_path(source, suffix)
    if path.is_dir():
        fix = f"give the model file in it, such as {path / FILE}.safetensors"
        raise UsageError(f"{text}: is a folder; {fix}")
    if not path.exists():
        names = ", ".join(bundled.names())
        fix = f"give a model file, or a name that `separator models` lists ({names})"
        raise UsageError(f"{text}: no such file; {fix}")
    return path


def cache_folder() -> Path:
    """Return the folder of models from web addresses: $SEPARATOR_MODELS, or the user's data."""
    import platformdirs

    default = Path(platformdirs.user_data_dir("separator", appauthor=False)) / "models"
    return Path(os.environ.get("SEPARATOR_MODELS") or default).expanduser()


def _from_hub(source: str, suffix: str, newest: bool) -> Path:
    """Return the copy of a repository's file, fetched if there is none or the newest is wanted."""
    words = HUB.fullmatch(source)
    if not words:
        raise UsageError(f"{source}: give hf:OWNER/NAME or hf:OWNER/NAME@REVISION")
    hub = import_hub()
    name = FILE + suffix
    where = {"repo_id": words["repository"], "filename": name, "revision": words["revision"]}
    if not newest:
        copy = hub.try_to_load_from_cache(**where)
        if isinstance(copy, str):
            return Path(copy)
    try:
        return Path(hub.hf_hub_download(**where))
    except (hub.errors.HFValidationError, hub.errors.RepositoryNotFoundError) as error:
        fix = "no such repository, or a private one: check the name, log in with `hf auth login`"
        raise UsageError(f"{source}: {fix}") from error
    except hub.errors.LocalEntryNotFoundError as error:  # before its base class, EntryNotFound
        fix = "the hub cannot be reached, and no copy is here; check the network"
        raise SeparatorError(f"{source}: {fix}") from error
    except (hub.errors.EntryNotFoundError, hub.errors.RevisionNotFoundError) as error:
        torch = "or install PyTorch: pip install 'separator[train]'"
        fix = f"; its owner adds it with `separator push --onnx`, {torch}"
        fix = fix if suffix == ".onnx" else ""
        raise SeparatorError(f"{source}: has no {name}{fix}") from error
    except Exception as error:  # its own classes, those of its HTTP client, and the system's
        raise SeparatorError(f"{source}: {one_line(error)}") from error


def import_hub() -> ModuleType:
    """Import huggingface_hub, which is an optional dependency.

    Returns:
        The module, whose log messages below errors are switched off.

    Raises:
        SeparatorError: it is not installed.
    """
    try:
        import huggingface_hub
        import huggingface_hub.errors
    except ImportError as error:
        raise SeparatorError("hf: needs a package: pip install 'separator[hub]'") from error
    hub_log = logging.getLogger("huggingface_hub")  # which tells each of its attempts
    hub_log.setLevel(logging.ERROR)
    if not shows_bars():
        importlib.import_module("huggingface_hub.utils").disable_progress_bars()
    return huggingface_hub


def _from_address(url: str, suffix: str, digest: str, newest: bool) -> Path:
    """Return the copy of an address's file, fetched if none fits or the newest is wanted."""
    _check_scheme(url)
    name = re.sub(r"[^\w.-]", "_", urlsplit(url).path.rpartition("/")[2])
    if not name.endswith(suffix):
        raise UsageError(f"{url}: give the address of a {suffix} file")
    path = cache_folder() / f"{hashlib.sha256(url.encode()).hexdigest()[:16]}-{name}"
    fits = path.exists() and (not digest or _sha256(path).startswith(digest))
    if newest or not fits:
        with replacing(path) as temporary:
            _fetch(url, temporary)
            actual = _sha256(temporary)
            if not actual.startswith(digest):
                raise SeparatorError(f"{url}: its sha256 is {actual}, not {digest}")
    return path


def _check_scheme(url: str) -> None:
    """Refuse an address whose answer others could write."""
    about = urlsplit(url)
    if about.scheme != "https" and about.hostname not in LOOPBACK:
        raise UsageError(f"{url}: anyone on the way could change it; give https://")


def _fetch(url: str, path: Path) -> None:
    """Write what an address gives to a file, with a progress bar on a terminal."""
    from http.client import HTTPException
    from urllib.request import HTTPRedirectHandler, build_opener

    class Redirects(HTTPRedirectHandler):
        def redirect_request(self, *words: Any) -> Any:  # the last is the address
            _check_scheme(words[-1])
            return super().redirect_request(*words)

    try:
        opened = build_opener(Redirects).open(url, timeout=TIMEOUT)
        with opened as answer, path.open("wb") as file:
            size = int(answer.headers.get("Content-Length") or 0)
            with bar(total=size or None, unit="B", unit_scale=True) as shown:
                while block := answer.read(READ_BYTES):
                    shown.update(file.write(block))
                    if file.tell() > MAX_BYTES:
                        raise SeparatorError(f"{url}: is larger than 4 GB")
            if size and file.tell() != size:
                raise SeparatorError(f"{url}: the connection ended early; try again")
    except (URLError, HTTPException, TimeoutError, ConnectionError, ValueError) as error:
        reason = getattr(error, "reason", None) or one_line(error)
        raise SeparatorError(f"{url}: cannot be fetched ({reason})") from error


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
