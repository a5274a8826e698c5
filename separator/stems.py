"""The names of stems, and the sets of stems that a model separates a song into."""

from collections.abc import Iterable
from dataclasses import dataclass

from separator.errors import SeparatorError

ACCOMPANIMENT, VOCALS, MIXTURE = "accompaniment", "vocals", "mixture"
DRUMS, BASS, OTHER = "drums", "bass", "other"
NAMES = (ACCOMPANIMENT, DRUMS, BASS, OTHER, VOCALS)
REST = (ACCOMPANIMENT, OTHER)  # all of a mixture that the other stems of a set leave
# Results are called after a stem, but that what is left of a song without its vocals is called:
INSTRUMENTAL = "instrumental"
POOL_FOLDERS = (f"{INSTRUMENTAL}s", VOCALS)  # of the accompaniments and the voices of a pool


@dataclass(frozen=True)
class StemSet:
    """Stems that add up to the mixture.

    One of them, `rest`, is all that the others leave: the accompaniment of vocals, or else "other",
    which is added where a set names neither: ("drums",) is the drums and all else.

    Args:
        names: of the stems, in the order of results.

    Raises:
        SeparatorError: no stem, an unknown one, one twice, or the accompaniment beside its parts.
    """

    names: tuple[str, ...]

    def __post_init__(self) -> None:
        names = tuple(self.names)
        if unknown := [name for name in names if name not in NAMES]:
            raise SeparatorError(f"model.stems: {unknown[0]!r} is none of {', '.join(NAMES)}")
        if not names or len(set(names)) < len(names):
            raise SeparatorError(f"model.stems: [{', '.join(names)}]; name each stem once")
        if ACCOMPANIMENT in names and not set(names) <= {ACCOMPANIMENT, VOCALS}:
            raise SeparatorError(
                f"model.stems: [{', '.join(names)}]; {ACCOMPANIMENT} stands for all but "
                f"the {VOCALS}; for the rest beside more stems give {OTHER}"
            )
        if not set(REST) & set(names):
            names += (ACCOMPANIMENT if names == (VOCALS,) else OTHER,)
        elif len(names) == 1:
            names += (VOCALS,)
        object.__setattr__(self, "names", names)

    @property
    def rest(self) -> str:
        """The stem that is all that the others leave."""
        return next(name for name in self.names if name in REST)

    @property
    def masks(self) -> int:
        """Masks that a network gives: of two stems the rest's alone, since the other is 1 - m."""
        return 1 if len(self.names) == 2 else len(self.names)

    @property
    def estimated(self) -> tuple[str, ...]:
        """The stems that masks are of, in the order of the masks."""
        return (self.rest,) if self.masks == 1 else self.names

    @property
    def scored(self) -> tuple[str, ...]:
        """The stems that are scored: beside several also the accompaniment, as with two."""
        sums = VOCALS in self.names and ACCOMPANIMENT not in self.names
        return (*self.names, ACCOMPANIMENT) if sums else self.names

    def parts(self, names: Iterable[str]) -> dict[str, tuple[str, ...]]:
        """Return which stems of a song with other stems, such as more of them, make up each stem.

        Args:
            names: of the song's stems.
        """
        names = tuple(names)
        rest = tuple(name for name in names if name == self.rest or name not in self.names)
        single = {name: (name,) if name in names else () for name in self.names}
        return single | {self.rest: rest}

    def lacking(self, names: Iterable[str]) -> list[str]:
        """Return the stems that a song with stems of these names cannot give."""
        return [name for name, parts in self.parts(names).items() if not parts]


TWO_STEMS = StemSet((ACCOMPANIMENT, VOCALS))
FOUR_STEMS = StemSet((DRUMS, BASS, OTHER, VOCALS))


def public_name(stem: str) -> str:
    """Return the name of a stem in results: the accompaniment is called the instrumental.

    Args:
        stem: name of the stem in the code.
    """
    return INSTRUMENTAL if stem == ACCOMPANIMENT else stem


def title(stem: str) -> str:
    """Return a stem's name in the names of files: "Instrumental", "Vocals", "Drums", …"""
    return public_name(stem).capitalize()


def stem_of(name: str) -> str:
    """Return the stem that has a name in results; the inverse of `public_name`.

    Args:
        name: as users write it.
    """
    name = name.strip().lower()
    return ACCOMPANIMENT if name == INSTRUMENTAL else name
