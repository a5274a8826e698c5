"""`python -m separator.cli.compare.scores TRAIN_FOLDER`: score a finished fine-tuning, once.

The last averaged weights (`last.pt`) are scored, not `model.safetensors`: that is the best of
several validations on these very songs, and picking it would flatter the arm whose curve is the
noisiest. The songs are the validation songs of the fine-tuning, whole.

`scores.json` is the report of `separator evaluate` (`separator.inference.report`) with

    made_by  settings of the stages that led to the weights: what they differ in from the defaults
    step     finished steps of fine-tuning
"""

import json
import sys
from dataclasses import replace
from pathlib import Path

import yaml

from separator.allocator import keep_memory
from separator.cli import guarded
from separator.cli.compare.runs import RECORD, SCORES
from separator.config import from_dict
from separator.data.config import DataConfig
from separator.data.tracks import training_tracks
from separator.errors import SeparatorError
from separator.inference import report as reports
from separator.inference.evaluate import evaluate
from separator.separation import Separator


def score(folder: Path) -> dict:
    """Score the last weights of a run folder of `separator train`, and write scores.json.

    Returns:
        The report of `separator evaluate`.

    Raises:
        SeparatorError: the weights or the songs cannot be read, or no song can be scored.
    """
    config = yaml.safe_load((folder / "config.yaml").read_text("utf-8"))
    record = json.loads((folder / RECORD).read_text("utf-8"))
    _, tracks = training_tracks(from_dict(DataConfig, config["data"]))
    if len({track.root for track in tracks}) > 1:  # names are unique within a root only
        tracks = [replace(track, name=f"{track.root}/{track.name}") for track in tracks]
    separator = Separator.load(folder / "last.pt", config["device"])
    report = evaluate(separator, tracks)
    if not report["tracks"]:
        failure = report["failures"][0]
        raise SeparatorError(f"no song could be scored; {failure['name']}: {failure['error']}")
    report["model"]["path"] = str(folder / "last.pt")
    report |= {"data": config["data"]["roots"], "split": "valid"}
    step = separator.description["trained"]["step"]
    reports.write({**report, "made_by": record["made_by"], "step": step}, folder / SCORES)
    return report


def main(argv: list[str]) -> int:
    """Score one run folder."""
    keep_memory()
    score(Path(argv[0]))
    return 0


if __name__ == "__main__":
    sys.exit(guarded(main, sys.argv[1:]))
