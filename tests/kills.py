"""Kill training at its file operations and by the clock, resume, and compare with a whole run.

    python -m tests.kills [--at-operations 100] [--by-clock 25] [--ranks 1 2]

Half of the kills are of a run of one process, half of one of two ranks. Each run is started again
with the same command until it is complete; then its weights, averages, optimizer state, scores and
metrics must equal, to the last bit, those of a run that nothing stopped. Not part of `make test`,
since it takes some ten minutes.
"""

import argparse
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.toys import MICRO

WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT
STEPS = 12


def main() -> int:
    """Run the campaign; the exit status is 1 where anything differs."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--at-operations", type=int, default=100)
    parser.add_argument("--by-clock", type=int, default=25)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--ranks", type=int, nargs="+", default=[1, 2])
    wanted = parser.parse_args()
    draw, differ = random.Random(wanted.seed), 0
    with tempfile.TemporaryDirectory() as folder:
        campaign = Campaign(Path(folder))
        for ranks in wanted.ranks:
            whole = campaign.run(ranks, "whole")
            for kind, number in (("operation", wanted.at_operations), ("clock", wanted.by_clock)):
                kills = runs = 0
                share = number // 2 + (ranks == 1) * (number % 2)
                while kills < share:
                    done, killed = campaign.killed_run(ranks, kind, draw, share - kills)
                    kills, runs = kills + killed, runs + 1
                    if done != whole:
                        differ += 1
                        print(f"DIFFERS: {ranks} ranks, {kind}, run {runs}", flush=True)
                print(f"{ranks} ranks, by {kind}: {kills} kills, {runs} runs resumed", flush=True)
    print("all equal" if not differ else f"{differ} runs differ")
    return 1 if differ else 0


class Campaign:
    """Starts runs of one small training in a folder."""

    def __init__(self, folder: Path) -> None:
        from separator.data.corpus import write_corpus

        self.folder, self.count = folder, 0
        write_corpus(folder / "corpus", 4, 2.0)
        os.environ |= {
            "OMP_NUM_THREADS": "1",
            "SEPARATOR_CACHE": str(folder / "cache"),
            "SEPARATOR_INDEX": str(folder / "index.sqlite"),
        }

    def words(self, name: str) -> list[str]:
        """Return the command of a run."""
        return [
            "train", *MICRO, f"data.roots=[{self.folder / 'corpus'}]", "data.valid_share=0.25",
            f"run={self.folder / name}", f"steps={STEPS}", "validate_every=3", "checkpoint_every=2",
            "log_every=1", "valid_seconds=1", "model.dropout=0.1",
        ]  # fmt: skip

    def run(self, ranks: int, name: str, kill: dict[str, str] | None = None) -> dict | None:
        """Start a run, and return its result, or None where it was killed."""
        process = subprocess.Popen(
            [*launcher(ranks), "-m", "tests.kills", *self.words(f"{name}{ranks}")],
            env=os.environ | (kill or {}),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            limit = float(kill["KILL_AFTER"]) if kill and "KILL_AFTER" in kill else None
            out = process.communicate(timeout=limit)[0]
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
            return None
        if process.returncode == 0:
            return result(self.folder / f"{name}{ranks}")
        if not kill:
            raise SystemExit(f"a run that nobody killed failed:\n{out.decode(errors='replace')}")
        return None

    def killed_run(self, ranks: int, kind: str, draw: random.Random, most: int) -> tuple[dict, int]:
        """Kill a run again and again until it is done; return its result and how often."""
        self.count += 1
        name, kills = f"killed{self.count}-", 0
        while True:
            kill = None
            if kills < most and kind == "operation":
                kill = {
                    "KILL_AT": str(draw.randint(1, 60)),
                    "KILL_RANK": str(draw.randrange(ranks)),
                }
            elif kills < most:
                kill = {"KILL_AFTER": f"{draw.uniform(3, 12):.2f}"}
            done = self.run(ranks, name, kill)
            if done is not None:
                shutil.rmtree(self.folder / f"{name}{ranks}")
                return done, kills
            kills += 1


def launcher(ranks: int) -> list[str]:
    """Return the words that start Python, under torchrun for two ranks."""
    if ranks == 1:
        return [sys.executable]
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    return [
        sys.executable, "-m", "torch.distributed.run", f"--nproc_per_node={ranks}",
        f"--master_port={port}",
    ]  # fmt: skip


def result(run: Path) -> dict:
    """Return all of a finished run that must be equal, as text: state, scores and metrics."""
    import torch

    from tests.toys import read_model_file

    payload = torch.load(run / "last.pt", weights_only=True)
    rows = [json.loads(row) for row in (run / "metrics.jsonl").read_text().splitlines()]
    rows = [{k: v for k, v in row.items() if not k.startswith("speed")} for row in rows]
    kept = {k: v for k, v in payload.items() if k not in ("config", "description")}
    leftovers = [path.name for path in run.iterdir() if ".part" in path.name]
    return {
        "state": digest(kept),
        "model": digest(read_model_file(run / "model.safetensors")[0]),
        "metrics": rows,
        "leftovers": leftovers,
    }


def digest(value: object) -> str:
    """Hash tensors to the last bit, and everything around them."""
    import hashlib

    import torch

    total = hashlib.sha256()

    def add(part: object) -> None:
        if isinstance(part, torch.Tensor):
            total.update(f"{part.dtype}{tuple(part.shape)}".encode())
            total.update(part.contiguous().view(-1).view(torch.uint8).numpy().tobytes())
        elif isinstance(part, dict):
            for key in sorted(part, key=str):
                total.update(str(key).encode())
                add(part[key])
        elif isinstance(part, list | tuple):
            for entry in part:
                add(entry)
        else:
            total.update(repr(part).encode())

    add(value)
    return total.hexdigest()


def child() -> int:
    """Be a run: kill this process with SIGKILL at the operation that the environment says."""
    from separator.cli import main as command

    at = int(os.environ.get("KILL_AT", "0"))
    mine = os.environ.get("KILL_RANK", "0") == os.environ.get("RANK", "0")
    run = next(word[4:] for word in sys.argv if word.startswith("run="))
    count = 0

    def operation(event: str, arguments: tuple) -> None:
        nonlocal count
        if event == "open":
            path, _, flags = arguments
            counts = isinstance(path, str | bytes | os.PathLike) and bool(flags & WRITING)
        else:
            path = arguments[0] if arguments else ""
            counts = event in ("os.rename", "os.remove", "os.link", "os.truncate", "os.mkdir")
        if counts and os.fsdecode(path).startswith(run):
            count += 1
            if count == at:
                os.kill(os.getpid(), signal.SIGKILL)
                time.sleep(60)

    if at and mine:
        sys.addaudithook(operation)
    return command(sys.argv[1:])


if __name__ == "__main__":
    sys.exit(child() if len(sys.argv) > 1 and sys.argv[1] == "train" else main())
