"""What the tests share: where real music is, when there is some."""

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

SHARED = Path(__file__).parents[2] / "shared" / "data"


@pytest.fixture(scope="session", autouse=True)
def private_folders(tmp_path_factory: pytest.TempPathFactory):
    """Caches and indexes of the tests never touch the user's own."""
    os.environ["SEPARATOR_CACHE"] = str(tmp_path_factory.mktemp("cache"))
    os.environ["SEPARATOR_INDEX"] = str(tmp_path_factory.mktemp("index") / "library.sqlite")


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Return the folder of real music; tests that want it are skipped where it is not."""
    folder = Path(os.environ.get("SEPARATOR_TEST_DATA", SHARED))
    if not (folder / "songs").is_dir():
        pytest.skip(f"no real music at {folder} (set SEPARATOR_TEST_DATA to a copy)")
    return folder


@pytest.fixture(scope="session")
def example_stem() -> Path:
    """Return the real song with five streams that stempeg ships."""
    import importlib.util

    package = Path(importlib.util.find_spec("stempeg").origin).parent
    return package / "data" / "The Easton Ellises - Falcon 69.stem.mp4"


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """Small layers on many threads only wait for each other; and sums depend on their number."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def two_ranks() -> list[dict[str, str]]:
    """Environments in which two processes are the ranks of one run."""
    return rank_variables()


def rank_variables() -> list[dict[str, str]]:
    """Return the variables by which torchrun would tell two processes what they are."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    shared = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    return [{**shared, "RANK": str(rank)} for rank in (0, 1)]
