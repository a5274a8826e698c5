"""The runs of a comparison: each arm with each seed, and the settings of their stages."""

from pathlib import Path
from typing import Any

from separator.cli.compare.config import PLACEHOLDER, CompareConfig
from separator.cli.compare.runs import Run
from separator.config import changed_settings
from separator.errors import SeparatorError, UsageError
from separator.pretrain.config import PretrainConfig
from separator.train.config import TrainConfig

CONFIGS = {"pretrain": PretrainConfig, "train": TrainConfig}
# Keys that do not change the scores of a run, or that the comparison itself sets for each run.
IGNORED_KEYS = {"run", "device", "keep_best", "log_every", "checkpoint_every", "pretrained", "seed"}


def plan(config: CompareConfig) -> list[Run]:
    """List the runs of a comparison, all arms with the first seed, then with the next.

    Args:
        config: the comparison.

    Returns:
        The runs; each comes after those whose models it uses.

    Raises:
        UsageError: an arm's preset is not there, one of its keys is unknown, or the models of two
            arms share no stem.
    """
    stages = {}
    for name, arm in config.arms.items():
        needed = ["pretrain", "train"] if arm.pretrain else ["train"]
        words = {stage: config.words(name, stage) for stage in needed}
        try:
            stages[name] = {s: (words[s], settings(s, words[s])) for s in needed}
        except SeparatorError as error:
            raise UsageError(f"arms.{name}: {error}") from error
    folder = Path(config.run)
    runs: dict[tuple[str, int], Run] = {}
    for seed in config.seeds:
        # each arm after those whose models it uses
        for name in sorted(config.arms, key=lambda name: len(config.needed_by(name))):
            owners = [folder / alike / f"seed{seed}" for alike in _same_pretraining(name, stages)]
            begun = [owner for owner in owners if (owner / "pretrain").exists()]
            pretrained = (begun or owners)[0] / "pretrain"
            place = folder / name / f"seed{seed}"
            runs[name, seed] = Run(name, seed, place, stages[name], pretrained)
    for (name, seed), run in runs.items():
        for other in config.needed_by(name):
            wanted = config.seeds_needed(name, other, seed)
            run.needs[other] = [runs[other, needed] for needed in wanted]
    if not common_stems(list(runs.values())):
        raise UsageError("arms: no stem is given by the models of all; give equal model.stems")
    return list(runs.values())


def common_stems(runs: list[Run]) -> tuple[str, ...]:
    """Return the stems that the models of all runs are scored in, the accompaniment first.

    Args:
        runs: at least one.
    """
    return tuple(stem for stem in runs[0].stems if all(stem in run.stems for run in runs))


def _same_pretraining(name: str, stages: dict[str, dict]) -> list[str]:
    """Return the arms with the same pretraining as this one, which all of them share."""
    settings_of = {other: stages[other].get("pretrain", ([], None))[1] for other in stages}
    return [other for other in stages if settings_of[other] == settings_of[name]]


def settings(stage: str, words: list[str]) -> dict[str, Any]:
    """Return the settings of a stage that differ from the trainer's defaults and matter.

    Args:
        stage: pretrain or train.
        words: files and key=value of that command.

    Returns:
        Nested settings, by their keys.

    Raises:
        SeparatorError: a file that does not exist, an unknown key, a value of a wrong type.
    """
    # The model files that stand for {ARM} do not exist yet: their names stay in the settings.
    words = [PLACEHOLDER.sub(r"\1\2", word) for word in words]
    values = changed_settings(CONFIGS[stage], words, stage)
    values["data"].pop("workers", None)
    return {key: value for key, value in values.items() if key not in IGNORED_KEYS}
