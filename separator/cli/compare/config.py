"""Configuration of a comparison: its arms, their limits, their data."""

import json
import re
from dataclasses import dataclass, field
from typing import Annotated

from separator.engine.run_config import Steps, check_run_folder
from separator.errors import SeparatorError
from separator.ranges import MAX_SEED, CheckedConfig, Within

PLACEHOLDER = re.compile(r"\{(\w[\w.+-]*)(@all)?\}")
Seed = Annotated[int, Within(f"[0, {MAX_SEED}]")]
Minutes = Annotated[float, Within("[0, inf)")]


@dataclass(frozen=True)
class Arm:
    """One of the trainings that are compared.

    In the value of a key, {NAME} stands for the folders of `songs.NAME`, {library} and {stems} for
    those of `library` and `stems`, {ARM} for the model that another arm has fine-tuned with the
    same seed, as in `teacher.models=[{scratch}]`, and {ARM@all} for its models of all seeds.

    Attributes:
        pretrain: YAML files and key=value for `separator pretrain`; if empty, this arm is trained
            from scratch.
        train: YAML files and key=value for the fine-tuning of this arm only, such as `steps=900`.
    """

    pretrain: list[str] = field(default_factory=list)
    train: list[str] = field(default_factory=list)

    @property
    def words(self) -> list[str]:
        """The words of both stages."""
        return [*self.pretrain, *self.train]


@dataclass(frozen=True)
class CompareConfig(CheckedConfig):
    """Pretrain, fine-tune and score several arms with several seeds, within the same limits.

    A limit of a stage is a number of steps, a time, or both; a run ends at the first of them. The
    learning rate depends on the number of steps, so choose one that about fits the time limit.

    Attributes:
        run: folder for all results; with a folder of earlier results, the comparison goes on.
        library: folders of songs to pretrain on (`data.roots` of `separator pretrain`).
        stems: folders of songs with stems to fine-tune on and to score (`data.roots` of
            `separator train`).
        songs: more lists of folders, by name; the keys of an arm refer to one as {NAME}.
        arms: the trainings to compare, by name; each has the lists `pretrain` and `train` of YAML
            files and key=value.
        baseline: the arm that the others are compared with.
        seeds: random seeds; each arm is trained with each of them.
        common: YAML files and key=value for the pretraining and the fine-tuning of all arms.
        pretrain: YAML files and key=value for the pretraining of all arms; those of an arm override
            them.
        train: YAML files and key=value for the fine-tuning of all arms.
        pretrain_steps: steps of each pretraining.
        train_steps: steps of each fine-tuning.
        pretrain_minutes: time limit of each pretraining in minutes (0: no limit).
        train_minutes: time limit of each fine-tuning in minutes (0: no limit).
        jobs: number of runs at the same time.
    """

    run: str = "runs/compare"
    library: list[str] = field(default_factory=list)
    stems: list[str] = field(default_factory=list)
    songs: dict[str, list[str]] = field(default_factory=dict)
    arms: dict[str, Arm] = field(default_factory=dict)
    baseline: str = "none"
    seeds: list[Seed] = field(default_factory=lambda: [0, 1, 2])
    common: list[str] = field(default_factory=list)
    pretrain: list[str] = field(default_factory=list)
    train: list[str] = field(default_factory=lambda: ["train/vocals.yaml"])
    pretrain_steps: Steps = 1000
    train_steps: Steps = 300
    pretrain_minutes: Minutes = 0.0
    train_minutes: Minutes = 0.0
    jobs: Annotated[int, Within("[1, 1024]")] = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        check_run_folder(self.run)
        if not self.arms:
            raise SeparatorError("arms: there are none; give a file such as compare/masks.yaml")
        for name in self.arms:
            if not re.fullmatch(r"\w[\w.+-]*", name):
                raise SeparatorError(f"arms: {name!r} is no name for a folder; use letters, -, _")
        if self.baseline not in self.arms:
            names = ", ".join(self.arms)
            raise SeparatorError(f"baseline: {self.baseline!r} is not one of {names}")
        if not self.seeds or len(set(self.seeds)) < len(self.seeds):
            raise SeparatorError(f"seeds: {self.seeds}; give at least one, and each only once")
        shared = [*self.common, *self.pretrain, *self.train]
        for name, words in {"": shared, **{n: arm.words for n, arm in self.arms.items()}}.items():
            for word in words:
                if word.startswith("-"):
                    raise SeparatorError(f"{word}: give a YAML file or key=value, without dashes")
                self._check_names(word, name)

    def _check_names(self, word: str, arm: str = "") -> None:
        """Refuse names in braces that are not defined, and arms that need each other.

        Args:
            word: a file or key=value.
            arm: the arm that has it; empty for the words of all arms, which may name no arm.
        """
        where = f"arms.{arm}: {word}" if arm else word
        for name, _ in PLACEHOLDER.findall(word):
            if arm and name in self.arms:
                if arm in {name, *self.needed_by(name)}:
                    raise SeparatorError(f"{where}: uses its own model; name another arm")
            elif not self._folders().get(name):
                kind = "no arm and no list of folders" if arm else "no list of folders"
                fix = "" if arm else ", or name arms in the words of an arm"
                raise SeparatorError(
                    f"{where}: {name!r} is {kind}; give songs={{{name}: [FOLDER]}}{fix}"
                )

    def needed_by(self, arm: str) -> list[str]:
        """Return the arms whose models an arm uses, directly or not."""
        needed: list[str] = []
        waiting = [arm]
        while waiting:
            words = self.arms[waiting.pop()].words
            named = dict.fromkeys(name for word in words for name, _ in PLACEHOLDER.findall(word))
            fresh = [name for name in named if name in self.arms and name not in needed]
            needed += fresh
            waiting += fresh
        return needed

    def seeds_needed(self, arm: str, other: str, seed: int) -> list[int]:
        """Return the seeds of the models that an arm uses for one of its own seeds.

        Args:
            arm: the arm that uses models.
            other: the arm that has trained them.
            seed: of the first.
        """
        every = any(f"{{{other}@all}}" in word for word in self.arms[arm].words)
        return self.seeds if every else [seed]

    def _folders(self) -> dict[str, list[str]]:
        """Return all lists of folders by their names."""
        return {**self.songs, "library": self.library, "stems": self.stems}

    def words(self, name: str, stage: str) -> list[str]:
        """Return the words of the trainer's command for one stage of an arm.

        Files come first (the stage's, the arm's, the common ones), then key=value (the common
        ones, the stage's, the arm's); later ones override earlier ones. The seed and the run folder
        are left out.

        Args:
            name: the arm.
            stage: pretrain or train.
        """
        stage_words, arm_words = getattr(self, stage), getattr(self.arms[name], stage)
        files = [word for word in (*stage_words, *arm_words, *self.common) if "=" not in word]
        keys = [word for word in (*self.common, *stage_words, *arm_words) if "=" in word]
        steps, minutes = getattr(self, f"{stage}_steps"), getattr(self, f"{stage}_minutes")
        roots = self.library if stage == "pretrain" else self.stems
        songs = f"data.roots={json.dumps(roots)}"  # any path survives that
        keys = [f"steps={steps}", f"max_minutes={minutes}", songs, *map(self._with_folders, keys)]
        return [*files, *keys]

    def _with_folders(self, word: str) -> str:
        """Replace the names of lists of folders by the lists."""
        folders = self._folders()
        lists = {name: json.dumps(folders[name]) for name in folders if name not in self.arms}
        return PLACEHOLDER.sub(lambda match: lists.get(match[1], match[0]), word)
