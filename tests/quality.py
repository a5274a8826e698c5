"""What chunk, overlap, shifts and averages gain: `python -m tests.quality ~/MUSDB18 [MODEL…]`.

Prints the accompaniment's SDR (mean of the songs' global SDR) of the validation songs, or of all
songs of data without a split, and the speed in seconds of music for each second of one core: for
the bundled model, and for its average with each other model.
"""

import sys
import time

import torch

from separator import Ensemble, Separator, bundled
from separator.data.reader import load_stems
from separator.data.roots import parse_root
from separator.data.tracks import find_tracks
from separator.metrics import global_sdr
from separator.stems import ACCOMPANIMENT, public_name

RATE = 44100
SETTINGS = (
    {},
    *({"overlap": overlap} for overlap in (0.0, 2.0, 4.0)),
    *({"chunk": chunk} for chunk in (3.0, 6.0, 24.0, 60.0)),
    *({"shifts": shifts} for shifts in (2, 4)),
)


def main(root: str, models: list[str]) -> None:
    """Print a line for each setting."""
    torch.set_num_threads(1)
    tracks = find_tracks(*parse_root(root), valid_share=0.0)
    tracks = [track for track in tracks if track.split == "valid"] or tracks
    songs = [load_stems(track, RATE) for track in tracks]
    own = Separator.load(bundled.DEFAULT, "cpu")
    rows = [(str(s), Separator.load(bundled.DEFAULT, "cpu", **s)) for s in SETTINGS]
    for path in models:
        pair = [own, Separator.load(path, "cpu")]
        rows.append((path, pair[1]))
        for weights in ((), (2, 1), (4, 1)):
            rows.append((f"average with it, weights {weights}", Ensemble(pair, weights=weights)))
    for name, separator in rows:
        scores, seconds, spent = [], 0.0, 0.0
        for stems in songs:
            mixture = torch.stack(list(stems.values())).sum(dim=0)
            start = time.process_time()
            estimates = separator.separate_wave(mixture, RATE)
            spent += time.process_time() - start
            seconds += mixture.shape[-1] / RATE
            reference = stems[ACCOMPANIMENT][None]
            estimate = estimates[public_name(ACCOMPANIMENT)][None]
            scores.append(global_sdr(reference, estimate)[0])
        print(f"{name}: {torch.stack(scores).mean():.2f} dB, {seconds / spent:.0f} x", flush=True)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
