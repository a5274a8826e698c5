"""Kill `separator separate` on a library again and again, and compare all bytes with a whole run.

    python -m tests.library_kills [--songs 200] [--kills 10] [--real FOLDER] [--seed 0]

The library is made: songs of 3 to 20 s in every format that is written, with tags, in a tree; files
of a real one are added. One run is left alone, another killed with SIGKILL at random times and
started again with the same command until it is complete. Then every result must be equal to the
last byte, and no temporary file left. Not part of `make test`, since it takes minutes.
"""

import argparse
import contextlib
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from separator.inference.results import INDEX

FORMATS = ("wav", "flac", "mp3", "ogg", "opus", "m4a", "aiff")


def main() -> int:
    """Run the campaign; the exit status is 1 where anything differs."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--songs", type=int, default=200)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--real", type=Path, help="a folder of songs that are added")
    parser.add_argument("--seed", type=int, default=0)
    wanted = parser.parse_args()
    draw = random.Random(wanted.seed)
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        make_library(Path("music"), wanted.songs, draw)
        if wanted.real:
            shutil.copytree(wanted.real, "music/real")
        if separate("whole") != 0:
            raise SystemExit("a run that nobody killed failed")
        summary = json.loads(Path("whole.json").read_text())["summary"]
        longest = 1.4 * summary["elapsed"] / wanted.kills
        kills = runs = 0
        finished = []  # results after each kill
        while True:
            after = draw.uniform(0.1, longest) if kills < wanted.kills else None
            status = separate("killed", after)
            runs += 1
            if status != -signal.SIGKILL:
                break
            kills += 1
            finished.append(sum(".part" not in name for name in digests(Path("killed"))))
        print(f"{kills} kills, {runs} runs; results after each kill: {finished}")
        return verdict(summary, status)


def verdict(summary: dict, status: int) -> int:
    """Print what differs between the folders of results; return the exit status."""
    whole, killed = digests(Path("whole")), digests(Path("killed"))
    differing = sorted(n for n in whole.keys() | killed.keys() if whole.get(n) != killed.get(n))
    leftovers = [name for name in killed if ".part" in name]
    print(
        f"{len(whole)} results, {summary['seconds']:.0f} s of sound in {summary['elapsed']:.0f} s,"
    )
    print(f"the model idle {summary['model_idle_share']:.1%}")
    report = json.loads(Path("killed.json").read_text())
    unlisted = len(whole) - sum(len(row["outputs"]) for row in report["songs"])
    print(f"the last report counts {report['summary']}; {unlisted} results are not in it")
    print(f"{len(differing)} results differ, {len(leftovers)} temporary files are left")
    for name in [*differing, *leftovers][:20]:
        print(f"  {name}")
    return 1 if differing or leftovers or unlisted or status else 0


def make_library(folder: Path, count: int, draw: random.Random) -> None:
    """Write songs of all formats in a tree, with tags where there are some."""
    import mutagen

    from tests.songs import song

    for number in range(count):
        suffix = FORMATS[number % len(FORMATS)]
        path = folder / f"album {number // 12}" / f"{number % 12:02} song.{suffix}"
        rate = 48000 if suffix == "opus" else draw.choice((44100, 48000, 22050))
        song(path, draw.uniform(3, 20), rate=rate, channels=draw.choice((1, 2)), seed=number)
        file = mutagen.File(path, easy=True)
        if suffix not in ("wav", "aiff"):
            if file.tags is None:
                file.add_tags()
            file["title"], file["artist"] = f"Song {number}", f"Artist {number % 5}"
            file.save()


def separate(name: str, kill_after: float | None = None) -> int:
    """Separate the library in its own formats, killed after so many seconds; return the status."""
    words = ["separate", "music", "-o", name, "--format", "input", "--report", f"{name}.json"]
    command = [sys.executable, "-m", "separator", *words]
    with open(f"{name}.log", "ab") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
        while kill_after and process.poll() is None:
            time.sleep(0.01)
            if any(Path(name).rglob(f".*.{process.pid}-*")):  # its first songs are in work
                with contextlib.suppress(subprocess.TimeoutExpired):
                    return process.wait(kill_after)
                process.kill()
        return process.wait()


def digests(folder: Path) -> dict[str, str]:
    """Return a hash of each file's bytes, but for the index of results: it holds times."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file() and path.name != INDEX
    }


if __name__ == "__main__":
    sys.exit(main())
