"""The layouts people keep songs in: which files belong to which song, without opening them."""

import os
import unicodedata
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from separator import audio
from separator.data.cache import STEM_SUFFIX
from separator.errors import SeparatorError

FOUR = ("drums", "bass", "other", "vocals")
TWO = ("accompaniment", "vocals")
ONE = ("mixture",)
_WHOLES = ("accompaniment", "instrumental", "instrumentals")  # already sums: not stems beside stems
_MIXTURES = ("mixture", "mix")
_SUBSETS = ("train", "test")


@dataclass(frozen=True)
class Part:
    """A stream of a file that a stem consists of, with its factor; `info` where already known."""

    path: Path
    stream: int = 0
    gain: float = 1.0
    info: audio.AudioInfo | None = None


@dataclass(frozen=True)
class Found:
    """A song as found: its collection's split, if it has one, and each stem's parts."""

    name: str
    split: str | None
    parts: dict[str, tuple[Part, ...]]


def recognise(root: Path) -> str:
    """The kind of layout that a folder has; "library" when it is none of the others."""
    if any(True for folder in (".", *_SUBSETS) for _ in (root / folder).glob(f"*{STEM_SUFFIX}")):
        return "musdb18"
    if any(_vocals(root / subset) for subset in _SUBSETS):
        return "musdb18hq"
    if (root / "instrumentals").is_dir() and (root / "mixtures").is_dir():
        return "pairs"
    if (root / "instrumentals").is_dir() and (root / "vocals").is_dir():
        return "pool"
    return "stems" if _vocals(root) else "library"


def _vocals(folder: Path) -> bool:
    """Whether a folder holds song folders with a vocals file."""
    return any(path.suffix.lower() in audio.SUFFIXES for path in folder.glob("*/vocals.*"))


def _audio_files(folder: Path) -> Iterator[Path]:
    """Audio files at any depth, sorted; hidden ones, such as macOS's "._song.mp3", left out."""
    for place, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            if Path(name).suffix.lower() in audio.SUFFIXES and not name.startswith("."):
                yield Path(place) / name


def _musdb_setup(root: Path) -> dict:
    """musdb's own list of validation songs and numbers of the streams.

    The songs are listed here, not by musdb: it starts ffprobe for each of them, and one broken file
    ends its listing.
    """
    import musdb

    return musdb.DB(root=str(root), subsets=[]).setup


def _musdb18(root: Path, skipped: list[str]) -> Iterator[Found]:
    """MUSDB18's compressed songs: five streams each, of which 0 is the mixture."""
    setup = _musdb_setup(root)
    for subset in (*_SUBSETS, "."):
        for path in (root / subset).glob(f"*{STEM_SUFFIX}"):
            name = path.name.removesuffix(STEM_SUFFIX)
            parts = {stem: (Part(path, setup["stem_ids"][stem]),) for stem in FOUR}
            yield Found(name, _official(name, subset, setup), parts)


def _musdb18hq(root: Path, skipped: list[str]) -> Iterator[Found]:
    """MUSDB18-HQ's folders; the split is that of the compressed songs."""
    setup = _musdb_setup(root)
    for subset in _SUBSETS:
        for song in _stem_folders(root / subset, skipped):
            yield Found(song.name, _official(song.name, subset, setup), song.parts)


def _official(name: str, subset: str, setup: dict) -> str | None:
    """The split of a MUSDB18 song; None outside the official folders."""
    held_out = subset == "train" and name in setup["validation_tracks"]
    return "valid" if held_out else subset if subset in _SUBSETS else None


def _stem_folders(root: Path, skipped: list[str]) -> Iterator[Found]:
    """Every folder with a vocals file, or with a mixture and an instrumental."""
    folders: dict[Path, dict[str, Path]] = {}
    for path in _audio_files(root):
        folders.setdefault(path.parent, {}).setdefault(path.stem.lower(), path)
    for folder, files in folders.items():
        parts = _stem_parts(files)
        name = folder.relative_to(root).as_posix() if folder != root else root.name
        if parts is None:
            skipped.append(f"{folder}: has no vocals and accompaniment; name the files by stem")
        else:
            yield Found(name, None, parts)


def _stem_parts(files: dict[str, Path]) -> dict[str, tuple[Part, ...]] | None:
    """Sort a song's files, by name, into stems: the four, or else vocals and accompaniment."""
    single = {name: Part(path) for name, path in files.items()}
    mixture = next((single[name] for name in _MIXTURES if name in single), None)
    whole = next((single[name] for name in _WHOLES if name in single), None)
    vocals = single.get("vocals")
    rest = {k: v for k, v in single.items() if k not in (*_MIXTURES, *_WHOLES, "vocals")}
    if vocals and all(name in rest for name in FOUR[:3]):
        more = tuple(part for name, part in rest.items() if name not in FOUR)
        four = {"drums": (rest["drums"],), "bass": (rest["bass"],)}
        return four | {"other": (rest["other"], *more), "vocals": (vocals,)}
    if vocals and (whole or rest):
        return {"accompaniment": (whole,) if whole else tuple(rest.values()), "vocals": (vocals,)}
    if mixture and vocals:
        return {"accompaniment": (mixture, Part(vocals.path, gain=-1.0)), "vocals": (vocals,)}
    if mixture and whole:
        return {"accompaniment": (whole,), "vocals": (mixture, Part(whole.path, gain=-1.0))}
    return None


def _by_name(folder: Path, skipped: list[str]) -> dict[str, Path]:
    """Files by their path below a folder, without suffix; the same on every file system."""
    named: dict[str, Path] = {}
    for path in _audio_files(folder):
        name = unicodedata.normalize("NFC", path.relative_to(folder).with_suffix("").as_posix())
        if name in named:
            skipped.append(f"{path}: {named[name].name} has the same name; rename or remove one")
        named.setdefault(name, path)
    return named


def _pairs(root: Path, skipped: list[str]) -> Iterator[Found]:
    """Mixtures and instrumentals matched by name; what is left over is reported."""
    mixtures, instrumentals = (_by_name(root / s, skipped) for s in ("mixtures", "instrumentals"))
    for name in sorted(mixtures.keys() ^ instrumentals.keys()):
        path = mixtures.get(name) or instrumentals[name]
        other = "instrumentals" if name in mixtures else "mixtures"
        skipped.append(f"{path}: has no file of the same name in {other}/; add or rename one")
    for name in mixtures.keys() & instrumentals.keys():
        parts = _stem_parts({"mixture": mixtures[name], "instrumental": instrumentals[name]})
        if parts:
            yield Found(name, None, parts)


def _pool(root: Path, skipped: list[str]) -> Iterator[Found]:
    """Every instrumental and every voice on its own."""
    for folder, stem in (("instrumentals", "accompaniment"), ("vocals", "vocals")):
        for name, path in _by_name(root / folder, skipped).items():
            yield Found(f"{folder}/{name}", None, {stem: (Part(path),)})


def _library(root: Path, skipped: list[str]) -> Iterator[Found]:
    """Songs that the scan found sound: no broken, silent, duplicate or test-set ones."""
    from separator.data.library import library_songs

    for info in library_songs(root):
        name = info.path.relative_to(root).as_posix() if info.path.is_relative_to(root) else None
        yield Found(name or str(info.path), None, {"mixture": (Part(info.path, info=info),)})


FINDERS: dict[str, Callable[[Path, list[str]], Iterator[Found]]] = {
    "musdb18": _musdb18,
    "musdb18hq": _musdb18hq,
    "stems": _stem_folders,
    "pairs": _pairs,
    "pool": _pool,
    "library": _library,
}


def check_kind(root: Path, kind: str) -> str:
    """The kind of layout of `root`: as given, or recognised for "auto"."""
    if kind != "auto" and kind not in FINDERS:
        raise SeparatorError(f"{root}: kind {kind!r} is not known; use auto, {', '.join(FINDERS)}")
    return recognise(root) if kind == "auto" else kind
