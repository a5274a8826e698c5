"""Show that a change of the code changes no result: losses of every preset, and one separation.

    python -m tests.same_results before.json            # before the change
    python -m tests.same_results after.json before.json # after it

Each preset takes ten steps on made music, with a network of a few thousand numbers. The second form
lists what differs from the first in any bit and ends with status 1 if something does. Both must run
on one machine with one version of PyTorch. It takes about two minutes.
"""

import hashlib
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.test_configs import MICRO, NEEDED, PRESETS, SHORT

STEPS = 10


def results() -> dict[str, object]:
    """Return the losses of every preset by its name, and the digest of a separation."""
    import torch

    from separator import separate
    from separator.data.corpus import song, write_corpus

    table: dict[str, object] = {}
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        corpus = write_corpus(root / "corpus", songs=4, seconds=3.0)
        micro = [word for word in MICRO if not word.startswith("steps=")]
        micro += [f"data.roots=[{corpus}]", f"steps={STEPS}", "log_every=1"]
        train("train", [*micro, f"run={root / 'trained'}"])
        model = root / "trained" / "model.safetensors"
        for kind, path in PRESETS:
            run = root / "runs" / kind / path.stem
            more = [*SHORT.get(path.stem, []), *NEEDED.get(path.stem, [])]
            more = [word.format(voices=corpus, model=model) for word in more]
            more += ["mask.band_span=3"] if kind == "pretrain" else []
            train(kind, [str(path), "tiny.yaml", *micro, *more, f"run={run}"])
            rows = [json.loads(row) for row in (run / "metrics.jsonl").read_text().splitlines()]
            table[f"{kind}/{path.stem}"] = [row["loss"] for row in rows if row["kind"] == "train"]
        wave = torch.from_numpy(sum(song(6.0).values())).float()
        stems = separate(wave, rate=44100, device="cpu")
        bits = {name: stem.contiguous().numpy().tobytes() for name, stem in stems.items()}
        table["separation"] = {n: hashlib.sha256(b).hexdigest() for n, b in sorted(bits.items())}
    return table


def train(kind: str, words: list[str]) -> None:
    """Run a trainer in a process of its own, on one thread."""
    command = [sys.executable, "-m", "separator", kind, *words]
    subprocess.run(command, check=True, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                   env={**os.environ, "OMP_NUM_THREADS": "1"})  # fmt: skip


def main() -> int:
    """Write the results; compare them with earlier ones if they are given."""
    now = results()
    Path(sys.argv[1]).write_text(json.dumps(now, indent=1))
    if len(sys.argv) < 3:
        return 0
    before = json.loads(Path(sys.argv[2]).read_text())
    differing = [name for name in {**before, **now} if before.get(name) != now.get(name)]
    print(f"{len(now)} results, {len(differing)} differ: {', '.join(differing) or 'none'}")
    return bool(differing)


if __name__ == "__main__":
    sys.exit(main())
