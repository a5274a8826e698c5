"""The layouts people keep songs in: which files belong to which song, without opening them."""

import importlib.util
import logging
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import yaml

from separator import audio
from separator.data.cache import STEM_SUFFIX
from separator.data.walk import audio_files
from separator.errors import SeparatorError

log = logging.getLogger(__name__)

FOUR = ("drums", "bass", "other", "vocals")
TWO = ("accompaniment", "vocals")
ONE = ("mixture",)
_WHOLES = ("accompaniment", "instrumental", "instrumentals", "no_vocals")  # sums: no further stems
_MIXTURES = ("mixture", "mix")
_SPLITS = ("train", "valid", "test")


@dataclass(frozen=True)
class Part:
    """A stream of a file that a stem consists of, with its factor; `info` where already known."""

    path: Path
    stream: int = 0
    gain: float = 1.0
    info: audio.AudioInfo | None = None


@dataclass(frozen=True)
class Found:
    """A song as found: its collection's split, if it has one, and each stem's parts.

    `content` is what the scan of a library tells the same audio by, in any file.
    """

    name: str
    split: str | None
    parts: dict[str, tuple[Part, ...]]
    content: str = ""


def recognise(root: Path) -> str:
    """The kind of layout that a folder has; "library" when it is none of the others.

    Stems must be in half of its folders or more: one among a library's albums is not its layout.
    """
    if any(_compressed(root)):
        return "musdb18"
    if (root / "instrumentals").is_dir() and (root / "mixtures").is_dir():
        return "pairs"
    if (root / "instrumentals").is_dir() and (root / "vocals").is_dir():
        return "pool"
    folders = _folders(root, [])
    songs = [place for place, files in folders.items() if "vocals" in files or _stem_parts(files)]
    if not songs or 2 * len(songs) < len(folders):
        return "library"
    splits = {_placed(root, song)[0] for song in songs}
    return "musdb18hq" if splits <= {"train", "test"} else "stems"


def _audio_files(folder: Path, skipped: list[str]) -> list[Path]:
    """Audio files at any depth, in order."""
    stamps, problems = audio_files([str(folder)])
    skipped += [f"{path}: {reason}" for path, reason in problems.items()]
    return sorted(map(Path, stamps))


def _folders(root: Path, skipped: list[str]) -> dict[Path, dict[str, Path]]:
    """The folders that hold audio files, each with these by their names in small letters."""
    folders: dict[Path, dict[str, Path]] = {}
    for path in _audio_files(root, skipped):
        folders.setdefault(path.parent, {}).setdefault(path.stem.lower(), path)
    return folders


def _compressed(root: Path) -> Iterator[Path]:
    """MUSDB18's files, which are in a folder itself or in those of its splits."""
    for place in (root, *(root / split for split in _SPLITS)):
        yield from place.glob(f"*{STEM_SUFFIX}")


def _placed(root: Path, song: Path) -> tuple[str | None, str]:
    """The split whose folder a song is in, if any, and the song's name below that."""
    first, *rest = song.relative_to(root).parts or (root.name,)
    if rest and first in _SPLITS:
        return first, "/".join(rest)
    return None, "/".join((first, *rest))


def _musdb_setup() -> dict:
    """musdb's own list of validation songs and numbers of the streams.

    The file is read without musdb, which cannot be imported where the ffmpeg program is missing.
    The songs are not listed by musdb either: it starts ffprobe for each of them, and one broken
    file ends its listing.
    """
    package = Path(importlib.util.find_spec("musdb").origin).parent
    return yaml.safe_load((package / "configs" / "mus.yaml").read_text(encoding="utf-8"))


def _musdb18(root: Path, skipped: list[str]) -> list[Found]:
    """MUSDB18's compressed songs: five streams each, of which 0 is the mixture."""
    streams = _musdb_setup()["stem_ids"]
    songs = []
    for path in _compressed(root):
        split, name = _placed(root, path)
        parts = {stem: (Part(path, streams[stem]),) for stem in FOUR}
        songs.append(Found(name.removesuffix(STEM_SUFFIX), split, parts))
    return _with_valid(songs)


def _stem_folders(root: Path, skipped: list[str]) -> list[Found]:
    """Every folder with a vocals file, or with a mixture and an instrumental."""
    songs = []
    for folder, files in _folders(root, skipped).items():
        parts = _stem_parts(files)
        if parts is None:
            skipped.append(f"{folder}: has no vocals and accompaniment; name the files by stem")
        else:
            split, name = _placed(root, folder)
            songs.append(Found(name, split, parts))
    return _with_valid(songs)


def _with_valid(songs: list[Found]) -> list[Found]:
    """Validate, where there is no valid/, with the songs of train/ that musdb names.

    Where it names none of them, they are left without a split: a share of them can then validate.
    """
    splits = {song.split for song in songs}
    if "valid" in splits or "train" not in splits:
        return songs
    named = {song.name for song in songs} & set(_musdb_setup()["validation_tracks"])

    def split(song: Found) -> str | None:
        if song.split != "train":
            return song.split
        return "valid" if song.name in named else "train" if named else None

    return [replace(song, split=split(song)) for song in songs]


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
    for path in _audio_files(folder, skipped):
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
    """Songs that the scan found sound: no broken, silent or duplicate ones."""
    from separator.data.library import scan

    found = scan([root])
    if found.quarantined:
        kinds = ", ".join(f"{kind} {n}" for kind, n in found.totals()["quarantined"].items())
        log.warning("%s: left out: %s; `separator scan --report FILE` says why", root, kinds)
    for content, info in zip(found.keys, found.songs, strict=True):
        name = info.path.relative_to(root).as_posix()
        yield Found(name, None, {"mixture": (Part(info.path, info=info),)}, content)


FINDERS: dict[str, Callable[[Path, list[str]], Iterable[Found]]] = {
    "musdb18": _musdb18,
    "musdb18hq": _stem_folders,
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
