"""Find the stem of each file in a song's folder by the file's name."""

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from separator import audio
from separator.errors import SeparatorError, printable
from separator.stems import FOUR_STEMS, MIXTURE, TWO_STEMS, StemSet

if TYPE_CHECKING:
    from separator.data.tracks import Source, Track

MIXTURE_ONLY = (MIXTURE,)

# Whole names, their words apart, in small letters and without numbers: "Backing_Track 2" is one.
STEMS_BY_NAME = {
    **dict.fromkeys(("mixture", "linear mixture", "mix", "full mix", "fullmix"), "mixture"),
    **dict.fromkeys(("mixdown", "master", "original", "original mix"), "mixture"),
    **dict.fromkeys(("accompaniment", "instrumental", "instrumentals"), "accompaniment"),
    **dict.fromkeys(("karaoke", "backing track", "minus one"), "accompaniment"),
    **dict.fromkeys(("drums", "drum"), "drums"),
    "bass": "bass",
    **dict.fromkeys(("other", "others"), "other"),
}
# A name with one of these words is a voice, in any company of _BESIDE; "lead_vocals", "BackingVox".
_VOICE = re.compile(
    "(lead|back|backing|background|bg|b|main)?(vocals?|vox|voices?)|choirs?|bgvs?|ac+ap+el+as?"
)
_LEAD = frozenset({"lead", "leads", "main", "leadvocal", "leadvocals", "leadvox", "mainvocals"})
_QUALIFIERS = (
    "back backing background bg harmony harmonies male female double doubles dbl adlib adlibs ad "
    "lib l r left right dry wet stem stems track audio all group bus only"
)
_BESIDE = _LEAD.union(_QUALIFIERS.split())
MAX_FORMULAS = 4  # combinations of files that are named for each stem
_NONE = frozenset({"no", "non", "without", "minus", "less"})
_WITHOUT = re.compile("(no|non|minus)(vocals?|vox|voices?)")


@dataclass(frozen=True)
class StemFile:
    """A stream of a file that a stem consists of, with its factor; `info` where already known."""

    path: Path
    stream: int = 0
    gain: float = 1.0
    info: audio.AudioInfo | None = None


Stems = dict[str, tuple[StemFile, ...]]


def role(name: str) -> tuple[str, bool]:
    """Return what a file's name (without suffix) says it is, and whether all of it is understood.

    Returns:
        "vocals", "drums", "bass", "other", "accompaniment" (all but the vocals) or "mixture"; a
        name that is not known is "other", or "vocals" if a word of it says so.
    """
    words = _words(name)
    bare = " ".join(word for word in words if word not in ("stem", "audio"))
    stem = STEMS_BY_NAME.get(" ".join(words)) or STEMS_BY_NAME.get(bare)
    if stem:
        return stem, True
    if not any(map(_VOICE.fullmatch, words)):
        without = any(map(_WITHOUT.fullmatch, words))
        return ("accompaniment", len(words) == 1) if without else ("other", False)
    rest = [word for word in words if not _VOICE.fullmatch(word)]
    if _NONE & set(rest):
        return "accompaniment", len(rest) == 1
    return "vocals", _BESIDE.issuperset(rest)


def holds_stems(names: Iterable[str]) -> bool:
    """Whether files of these names (without suffix) in one folder are the stems of a song.

    A voice alone needs the plain name: an album may have a song called "Voices".
    """
    names = list(names)
    kinds = Counter(kind for kind, sure in map(role, names) if sure)
    if any(name.casefold() == "vocals" for name in names):
        return True
    company = kinds.total() - kinds["vocals"]
    return bool((kinds["vocals"] and company) or (kinds["mixture"] and kinds["accompaniment"]))


def sorted_stems(files: Mapping[str, Path]) -> Stems | None:
    """Sort a song's files into the four stems, or else into accompaniment and vocals.

    The accompaniment is a file of that kind; else, where not all stems are there, the mixture less
    the vocals; else the sum of all that is not vocals. A plain "vocals" beside "lead vocals" is the
    sum of all voices, as "vocals" beside "backing vocals" is not.

    Args:
        files: paths by names without suffix.

    Returns:
        The files of each stem; None where there are no vocals and accompaniment.
    """
    if not holds_stems(files):
        return None
    by_role: dict[str, dict[str, StemFile]] = {}
    for name, path in sorted(files.items(), key=lambda item: (len(item[0]), item[0])):
        kind, sure = role(name)
        kind = "more" if kind == "other" and not sure else kind
        by_role.setdefault(kind, {})[name] = StemFile(path)
    vocals = _voices(by_role.get("vocals", {}))
    mixture = tuple(by_role.get("mixture", {}).values())[:1]
    whole = tuple(by_role.get("accompaniment", {}).values())[:1]
    backing = FOUR_STEMS.names[:3]
    single = {kind: tuple(by_role.get(kind, {}).values()) for kind in (*backing, "more")}
    if vocals and all(single[kind] for kind in backing):
        other = single["other"] + single["more"]
        return {"drums": single["drums"], "bass": single["bass"], "other": other, "vocals": vocals}
    if vocals and whole:
        return {"accompaniment": whole, "vocals": vocals}
    if vocals and mixture:
        return {"accompaniment": (*mixture, *map(_negative, vocals)), "vocals": vocals}
    if vocals and any(single.values()):
        rest = tuple(file for group in single.values() for file in group)
        return {"accompaniment": rest, "vocals": vocals}
    if mixture and whole:
        return {"accompaniment": whole, "vocals": (*mixture, *map(_negative, whole))}
    return None


def estimated_stems(files: Mapping[str, Path]) -> Stems | None:
    """Sort the files that a program separated a song into, by name without suffix.

    The accompaniment is a file of that kind, else the sum of all that is not vocals. A mixture
    does not count.

    Returns:
        Stems as of `sorted_stems`; the vocals or the accompaniment alone where the files say
        nothing of the other; None where they say nothing of either.
    """
    roles = {name: role(name) for name in files}
    whole = any(kind == "accompaniment" for kind, _ in roles.values())
    kinds = TWO_STEMS.names if whole else FOUR_STEMS.names
    chosen = {name: path for name, path in files.items() if roles[name][0] in kinds}
    if stems := sorted_stems(chosen):
        return stems
    for kind in TWO_STEMS.names:
        alone = {name: StemFile(chosen[name]) for name in chosen if roles[name] == (kind, True)}
        if alone:
            return {kind: _voices(alone) if kind == "vocals" else tuple(alone.values())[:1]}
    return None


def unclear(stems: Stems) -> list[Path]:
    """List files that count as vocals for one word of a name that is not understood.

    Args:
        stems: of a song.

    Returns:
        Their paths, sorted.
    """
    voices = {file.path for file in stems.get("vocals", ()) if file.gain > 0}
    return sorted(path for path in voices if role(path.stem) == ("vocals", False))


def table(songs: "Iterable[Mapping[str, Iterable[StemFile | Source]]]") -> str:
    """Describe the files that stems consist of, with the number of songs of each combination.

    Args:
        songs: stems of each song.

    Returns:
        One line: "vocals = vocals (12); accompaniment = mixture - vocals (12)".
    """
    formulas: dict[str, Counter[str]] = {}
    for stems in songs:
        for stem, files in stems.items():
            formulas.setdefault(stem, Counter())[_formula(files)] += 1
    columns = []
    for stem, counts in formulas.items():
        shown = counts.most_common(MAX_FORMULAS)
        if rest := counts.total() - sum(number for _, number in shown):
            shown.append(("others", rest))
        columns.append(f"{stem} = {', '.join(f'{text} ({number})' for text, number in shown)}")
    return "; ".join(columns)


def _formula(files: "Iterable[StemFile | Source]") -> str:
    """ "mixture - vocals": the files' names with their signs."""
    signed = [("- " if file.gain < 0 else "+ ") + printable(file.path.stem) for file in files]
    return " ".join(signed).removeprefix("+ ")


def _voices(files: Mapping[str, StemFile]) -> tuple[StemFile, ...]:
    """The files whose sum is the vocals: all, or the plain one where it holds the lead too."""
    plain = [file for name, file in files.items() if _words(name) in (["vocals"], ["vocal"])]
    lead = any(_LEAD & set(_words(name)) for name in files)
    return tuple(plain[:1] if plain and lead else files.values())


def _negative(file: StemFile) -> StemFile:
    return replace(file, gain=-1.0)


def _words(name: str) -> list[str]:
    """Words of a name, in small letters: "BackingVox1", "backing-vox" and "Backing Vox" are one."""
    plain = unicodedata.normalize("NFKC", name)
    apart = re.sub(r"(?<=[^\W\d_A-Z])(?=[A-Z])", " ", plain).casefold()
    return re.findall(r"[^\W\d_]+", apart)


def check_stems(tracks: "Sequence[Track]", stems: StemSet, fix: str) -> None:
    """Make sure that songs have the stems of a set; those of one stem have them together.

    Songs without stems are left to whoever reads them.

    Args:
        tracks: the songs.
        stems: those that are wanted.
        fix: end of the error's line.

    Raises:
        SeparatorError: names the root, a song of it and the stem that it lacks.
    """
    halves: dict[str, set[str]] = {}  # of the pool in each root
    for track in tracks:
        if len(track.names) == 1:
            halves.setdefault(track.root, set()).update(track.names)
    for track in tracks:
        names = sorted(halves[track.root]) if len(track.names) == 1 else track.names
        if MIXTURE not in names and (lacking := stems.lacking(names)):
            raise SeparatorError(
                f"{track.root}: {track.name} has no {' and no '.join(lacking)}, only "
                f"{' and '.join(names)}; {fix}"
            )
