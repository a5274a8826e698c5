"""`separator evaluate MODEL… --data ROOT`: score models on songs with known stems."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Annotated, Literal

from separator.config import parse
from separator.data.config import DataConfig
from separator.errors import SeparatorError
from separator.ranges import CheckedConfig, Within


@dataclass(frozen=True)
class EvaluateConfig(CheckedConfig):
    """Score models, or stems of other programs, on songs with known stems, in one table.

    Attributes:
        model: model files, or names that `separator models` lists; not needed with --estimates.
        data: folder of MUSDB18, MUSDB18-HQ, or with one subfolder of stems for each song; PATH or
            KIND:PATH, as in training's data.roots.
        estimates: folder of the stems that another program (demucs, spleeter, open-unmix, …) wrote
            for these songs: it, or a folder below it, holds one folder for each song, or files
            such as "SONG (Vocals).flac"; repeatable.
        split: songs that are scored.
        valid_share: share of the songs that training kept for validation. Give the same as
            data.valid_share, or songs that the model was trained on are scored. Data that has a
            split ignores it.
        jobs: number of processes; 0 takes one for each core, at most 8, or one on a GPU.
        full: also compute museval's ISR, SIR and SAR (half a minute and 4 GB for each song).
        json: file for the report.
        device: cpu, cuda, mps, or auto, which takes a GPU if there is one.
    """

    data: str = field(metadata={"metavar": "FOLDER"})
    model: list[str] = field(default_factory=list)
    estimates: list[str] = field(default_factory=list, metadata={"metavar": "FOLDER"})
    split: Literal["train", "valid", "test"] = "valid"
    valid_share: Annotated[float, Within("[0, 1)")] = DataConfig.valid_share
    jobs: Annotated[int, Within("[0, 1024]")] = 0
    full: bool = False
    json: str | None = field(default=None, metadata={"metavar": "FILE"})
    device: str = "auto"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.model and not self.estimates:
            raise SeparatorError("model: give a model file, or a folder of stems with --estimates")
        for key, paths in (("model", self.model), ("estimates", self.estimates)):
            twice = [path for path, number in Counter(paths).items() if number > 1]
            if twice:
                raise SeparatorError(f"{key}: {twice[0]} is given twice; give each once")
        if self.json:
            from separator.arguments import check_report  # numpy, which `--help` does not need

            check_report(self.json, "json")


def main(argv: list[str]) -> int:
    """Run the command; the exit status is 1 when a track could not be scored."""
    config = parse(EvaluateConfig, argv, "evaluate", positional="model")

    from separator.inference.evaluate import run  # torch, which `--help` does not need

    return run(config)
