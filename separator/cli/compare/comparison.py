"""`separator compare SPEC.yaml [key=value …]`: does pretraining help separation, and which does?

Every arm of the comparison is trained with every seed within the same limits: pretraining (or
none), a short fine-tuning on stems, and the SDR of the validation songs. Finished work is never
repeated and interrupted work is resumed, so the same command is given until all runs are done. The
report (`separator.cli.compare.comparison_report` describes it) is written after each run:
`report.md` and `report.json` in the run folder, and at the end `report.png`.

    RUN/ARM/seedN/pretrain/   a run folder of `separator pretrain`; arms with the same pretraining
                              share one, in the folder of the arm that began it
    RUN/ARM/seedN/train/      a run folder of `separator train`, and scores.json
"""

import sys
from pathlib import Path

from separator.cli.compare.config import CompareConfig
from separator.config import parse
from separator.data.roots import parse_root
from separator.errors import UsageError


def main(argv: list[str]) -> int:
    """Do the runs that are missing and report; the exit status is 1 when a run failed."""
    config = parse(CompareConfig, argv, "compare")

    from separator.cli.compare import comparison_report, execution  # torch; not for `--help`
    from separator.cli.compare.planning import plan

    _check_roots(config)
    runs = plan(config)
    for run in runs:
        run.check()
    failures = execution.run_all(config, runs)
    report = comparison_report.write(config, runs, failures)
    comparison_report.draw(report, Path(config.run) / "report.png")
    sys.stdout.write(comparison_report.markdown(report))
    return 1 if failures else 0


def _check_roots(config: CompareConfig) -> None:
    """Refuse lists of songs that are missing, and folders that do not exist."""
    pretrained = [name for name, arm in config.arms.items() if arm.pretrain]
    if pretrained and not config.library:
        raise UsageError(
            f"library: is empty, but {', '.join(pretrained)} pretrain; give library=[FOLDER]"
        )
    if not config.stems:
        raise UsageError("stems: is empty; give stems=[FOLDER] with songs that have stems")
    lists = {f"songs.{name}": roots for name, roots in config.songs.items()}
    for key, roots in {"library": config.library, "stems": config.stems, **lists}.items():
        for root in roots:
            if not Path(parse_root(root)[0]).expanduser().is_dir():
                raise UsageError(f"{key}: {root}: no such folder; give a folder with music")
