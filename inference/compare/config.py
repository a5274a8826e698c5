"""What a comparison compares: its arms, their budget, their data."""

import json
import re
from dataclasses import dataclass, field

from separator.errors import SeparatorError
from separator.ranges import MAX_SEED, require

PLACEHOLDER = re.compile(r"\{(\w[\w.+-]*)(@all)?\}")


@dataclass(frozen=True)
class Arm:
    """One of the trainings that are compared.

    In the value of a key, {NAME} stands for the folders of `songs.NAME`, {library} and {stems} for
    those of that name, {ARM} for the model that another arm has fine-tuned with the same seed, as
    in `teacher.models=[{scratch}]`, and {ARM@all} for those of all seeds.

    Attributes:
        pretrain: preset files and key=value of `separator pretrain`; empty starts from scratch.
        train: files and key=value for this arm's fine-tuning alone, such as `steps=900`.
    """

    pretrain: list[str] = field(default_factory=list)
    train: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class CompareConfig:
    """Pretrain, fine-tune and score several recipes on the same budget with several seeds.

    A budget is steps, minutes, or both, whichever ends first. The learning rate falls with the
    steps: with minutes, set the steps to about what fits in them.

    Attributes:
        run: folder of everything that is made; the same folder again goes on.
        library: songs to pretrain on, as `data.roots` of `separator pretrain`.
        stems: songs with stems to fine-tune on and to score, as `data.roots` of `separator train`.
        songs: more lists of folders; an arm uses one as {NAME}.
        arms: for each name, `pretrain` and `train`: lists of files and key=value.
        baseline: the arm that the others are compared with.
        seeds: each arm is trained with each of them.
        common: files and key=value laid over both stages of all arms.
        pretrain: further ones for all pretraining; an arm's own key=value win.
        train: the preset of all fine-tuning, and key=value.
        pretrain_steps: steps of each pretraining.
        train_steps: steps of each fine-tuning.
        pretrain_minutes: most minutes of each pretraining (0: no limit).
        train_minutes: most minutes of each fine-tuning (0: no limit).
        jobs: runs at a time.
    """

    run: str = "runs/compare"
    library: list[str] = field(default_factory=list)
    stems: list[str] = field(default_factory=list)
    songs: dict[str, list[str]] = field(default_factory=dict)
    arms: dict[str, Arm] = field(default_factory=dict)
    baseline: str = "none"
    seeds: list[int] = field(default_factory=lambda: [0, 1, 2])
    common: list[str] = field(default_factory=list)
    pretrain: list[str] = field(default_factory=list)
    train: list[str] = field(default_factory=lambda: ["train/vocals.yaml"])
    pretrain_steps: int = 1000
    train_steps: int = 300
    pretrain_minutes: float = 0.0
    train_minutes: float = 0.0
    jobs: int = 1

    def __post_init__(self) -> None:
        if not self.arms:
            raise SeparatorError("arms: there are none; give a file such as compare/masks.yaml")
        for name in self.arms:
            if not re.fullmatch(r"\w[\w.+-]*", name):
                raise SeparatorError(f"arms: {name!r} is no name for a folder; use letters, -, _")
        if self.baseline not in self.arms:
            raise SeparatorError(
                f"baseline: {self.baseline!r} is not one of {', '.join(self.arms)}"
            )
        if not self.seeds or len(set(self.seeds)) < len(self.seeds):
            raise SeparatorError(f"seeds: {self.seeds}; give at least one, and each only once")
        require(self, "[1, inf)", "pretrain_steps", "train_steps")
        require(self, "[1, 1024]", "jobs")
        require(self, f"[0, {MAX_SEED}]", "seeds")
        require(self, "[0, inf)", "pretrain_minutes", "train_minutes")
        for word in [*self.common, *self.pretrain, *self.train, *self._own_words()]:
            if word.startswith("-"):
                raise SeparatorError(f"{word}: give a YAML file or key=value, without dashes")
        for name in self.arms:
            self._check_names(name)
        for word in [*self.common, *self.pretrain, *self.train]:
            for name, _ in PLACEHOLDER.findall(word):
                if not self._folders().get(name):
                    raise SeparatorError(
                        f"{word}: {name!r} is no list of folders; give songs={{{name}: [FOLDER]}}, "
                        "or name arms in the words of an arm"
                    )

    def _check_names(self, arm: str) -> None:
        """Refuse names in braces that stand for nothing, and arms that need each other."""
        folders = self._folders()
        for word in (*self.arms[arm].pretrain, *self.arms[arm].train):
            for name, _ in PLACEHOLDER.findall(word):
                if name in self.arms:
                    if arm in {name, *self.needed_by(name)}:
                        raise SeparatorError(
                            f"arms.{arm}: {word}: uses its own model; name another arm"
                        )
                elif not folders.get(name):
                    raise SeparatorError(
                        f"arms.{arm}: {word}: {name!r} is no arm and no list of folders; give "
                        f"songs={{{name}: [FOLDER]}}"
                    )

    def needed_by(self, arm: str) -> list[str]:
        """Return the arms whose models an arm uses, directly or not."""
        found: list[str] = []
        waiting = [arm]
        while waiting:
            own = self.arms[waiting.pop()]
            words = (*own.pretrain, *own.train)
            named = dict.fromkeys(name for word in words for name, _ in PLACEHOLDER.findall(word))
            fresh = [name for name in named if name in self.arms and name not in found]
            found += fresh
            waiting += fresh
        return found

    def seeds_needed(self, arm: str, other: str, seed: int) -> list[int]:
        """Return the seeds of another arm whose models an arm uses for one of its seeds."""
        words = (*self.arms[arm].pretrain, *self.arms[arm].train)
        return self.seeds if any(f"{{{other}@all}}" in word for word in words) else [seed]

    def _folders(self) -> dict[str, list[str]]:
        """Return all lists of folders by their names."""
        return {**self.songs, "library": self.library, "stems": self.stems}

    def _own_words(self) -> list[str]:
        return [word for arm in self.arms.values() for word in (*arm.pretrain, *arm.train)]

    def words(self, name: str, stage: str) -> list[str]:
        """Return what the trainer of an arm's stage is told, but for seed and folders.

        Files come first (the stage's, the arm's, the common ones), then key=value (the common
        ones, the stage's, the arm's); what comes later wins.
        """
        stage_words, own = getattr(self, stage), getattr(self.arms[name], stage)
        files = [word for word in (*stage_words, *own, *self.common) if "=" not in word]
        keys = [word for word in (*self.common, *stage_words, *own) if "=" in word]
        steps, minutes = getattr(self, f"{stage}_steps"), getattr(self, f"{stage}_minutes")
        roots = self.library if stage == "pretrain" else self.stems
        songs = f"data.roots={json.dumps(roots)}"  # any path survives that
        keys = [f"steps={steps}", f"max_minutes={minutes}", songs, *map(self._with_folders, keys)]
        return [*files, *keys]

    def _with_folders(self, word: str) -> str:
        """Put lists of folders in the place of their names."""
        folders = self._folders()

        def fill(match: re.Match) -> str:
            name = match[1]
            return match[0] if name in self.arms else json.dumps(folders[name])

        return PLACEHOLDER.sub(fill, word)
