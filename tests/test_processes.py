"""Processes that end when the one that started them is gone."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from separator.data.corpus import write_corpus
from tests.toys import MICRO


@pytest.mark.slow
def test_ranks_end_when_torchrun_was_killed(tmp_path: Path):
    """Else they would wait three hours for each other, and hold the run folder."""
    write_corpus(tmp_path / "corpus", 4, 2.0)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    rows = tmp_path / "run" / "metrics.jsonl"
    torchrun = subprocess.Popen(
        [
            *(sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2"),
            *(f"--master_port={port}", "-m", "separator", "train", *MICRO),
            *(f"data.roots=[{tmp_path / 'corpus'}]", "data.valid_share=0.25", "log_every=1"),
            *(f"run={tmp_path / 'run'}", "steps=100000", "validate_every=0"),
        ],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    until, ranks = time.monotonic() + 120, []
    try:
        while not rows.exists() or not rows.read_text():
            assert torchrun.poll() is None and time.monotonic() < until
            time.sleep(0.1)
        children = Path(f"/proc/{torchrun.pid}/task/{torchrun.pid}/children")
        ranks = [int(pid) for pid in children.read_text().split()] if children.exists() else []
        torchrun.kill()
        said = torchrun.communicate(timeout=60)[0]  # the ranks hold the pipe until they end
    finally:
        torchrun.kill()
        for pid in ranks:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
    # the first rank says why it ends, unless it first notices that the other one has ended
    reasons = (
        "torchrun was killed, so its ranks end; the same command resumes",
        "the same command on all ranks resumes",
    )
    assert any(reason in said for reason in reasons), said
    assert "Traceback" not in said
