"""Names of results by a template such as "{artist}/{album}/{title} ({stem}).{format}"."""

import logging
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from string import Formatter

from separator import audio
from separator.audio import AudioInfo
from separator.errors import SeparatorError, one_line, printable
from separator.inference.choices import RESULT_TITLES

log = logging.getLogger(__name__)

USUAL_NAME = "{folder}/{name} ({stem}).{format}"
TAG_FIELDS = {  # field -> tags, of which the first that there is counts, and what stands for none
    "artist": (("artist", "albumartist"), "Unknown artist"),
    "albumartist": (("albumartist", "artist"), "Unknown artist"),
    "album": (("album",), "Unknown album"),
    "title": (("title",), ""),  # the file's name
    "track": (("tracknumber",), "00"),
    "disc": (("discnumber",), "1"),
    "year": (("date",), "Unknown year"),
    "genre": (("genre",), "Unknown genre"),
    "composer": (("composer",), "Unknown composer"),
}
FIELDS = (*TAG_FIELDS, "name", "folder", "stem", "format")
MAX_VALUE, MAX_PART = 100, 200  # bytes; a temporary file's name is longer, and may have 255


class NameTemplate:
    """Makes the paths of a song's results, below the output folder.

    Names that a user's template gives are made safe for every file system; the usual ones are
    those of the songs and their folders, as they are.

    Attributes:
        label: the field that gets a number where two songs have one name: the last one of the song.
        names_stems: whether names tell the stem; if not, a file of such a name may be a song.

    Args:
        text: fields in braces, and "/" between folders; "" stands for the usual names.

    Raises:
        SeparatorError: it has an unknown field, none of the song, or not ".{format}" at its end.
    """

    def __init__(self, text: str = "") -> None:
        self._is_usual = not text
        text = text or USUAL_NAME
        try:
            parts = list(Formatter().parse(text))
        except ValueError as error:
            raise SeparatorError(f"name: {error}; write fields as {USUAL_NAME}") from error
        self._parts = [(literal, field) for literal, field, _, _ in parts]
        self.fields = [field for _, field in self._parts if field is not None]
        for field, (_, _, form, conversion) in zip(self.fields, parts, strict=False):
            if field not in FIELDS or form or conversion:
                name = f"{{{field}{form and ':' + form}}}"
                raise SeparatorError(f"name: {name} is not one of {', '.join(FIELDS)}")
        if ".." in text.split("/"):
            fix = "choose another folder with -o"
            raise SeparatorError(f"name: '..' leads out of the output folder; {fix}")
        if not text.endswith(".{format}"):
            raise SeparatorError("name: does not end in .{format}, the suffix of the results")
        labels = [field for field in self.fields if field in TAG_FIELDS or field == "name"]
        if not labels:
            raise SeparatorError("name: has no field of the song; add {title} or {name}")
        self.label = labels[-1]
        self.names_stems = "stem" in self.fields

    def values(self, info: AudioInfo, below: Path, name: str, suffix: str) -> dict[str, str]:
        """Return the fields of a song.

        Args:
            info: the song.
            below: its folder, relative to the input's.
            name: of its file, without its suffix.
            suffix: of the results, without the dot.
        """
        values = {"folder": below.as_posix(), "name": name, "format": suffix}
        if set(self.fields) & set(TAG_FIELDS):
            values |= _tag_values(info.path) | {"name": name}
            values["title"] = values["title"] or name
        if self._is_usual:
            return values
        return {key: value if key == "folder" else _cut(value) for key, value in values.items()}

    def paths(self, values: dict[str, str], label: str, titles: Iterable[str]) -> tuple[Path, ...]:
        """Return the relative path of each file of a song.

        Args:
            values: the song's fields.
            label: takes the place of the one that may get a number.
            titles: of the stems.
        """
        values = values | {self.label: label}
        return tuple(self._path(values | {"stem": title}) for title in titles)

    def _path(self, values: dict[str, str]) -> Path:
        text = "".join(literal + (values[field] if field else "") for literal, field in self._parts)
        parts = [part for part in text.split("/") if part not in ("", ".")]
        return Path(*(parts if self._is_usual else map(_safe, parts)))

    def labels(self, name: str, values: dict[str, str], bases: Iterable[str]) -> Iterator[str]:
        """Yield the label with which a file got its name, if it is one of `bases` or has a number.

        Args:
            name: of the file.
            values: fields of the song.
            bases: labels without a number.
        """
        ends = ["", *re.findall(r" \d+", name)]
        for label in (f"{base}{end}" for base in bases for end in ends):
            if name in (path.name for path in self.paths(values, label, RESULT_TITLES)):
                yield label


def _tag_values(path: Path) -> dict[str, str]:
    """Return what a song's tags give for TAG_FIELDS."""
    import mutagen

    try:
        tags = audio.read_tags(path)
    except (mutagen.MutagenError, OSError, ValueError) as error:
        log.warning("%s: its tags cannot be read (%s)", printable(str(path)), one_line(error))
        tags = {}
    values = {}
    for field, (names, fallback) in TAG_FIELDS.items():
        texts = [text for name in names for text in tags.get(name, []) if text.strip()]
        values[field] = texts[0].strip() if texts else fallback
    number = re.match(r"\d+", values["track"])
    values["track"] = number[0].zfill(2) if number else values["track"]
    values["disc"] = values["disc"].partition("/")[0]
    values["year"] = values["year"][:4] if values["year"][:4].isdigit() else values["year"]
    return values


def _cut(value: str) -> str:
    """Return a value without separators of folders and bytes that are no text, and not too long."""
    coded = re.sub(r"[/\\]", "-", value).encode(errors="replace")
    return coded[:MAX_VALUE].decode(errors="ignore").strip()


def _safe(part: str) -> str:
    """Return a name that every file system takes."""
    from pathvalidate import sanitize_filename

    part = part.encode(errors="replace").decode().lstrip(". ")
    part = sanitize_filename(part, "_", platform="universal", max_len=255)
    return part.rstrip(". ") or "_"


def check_length(paths: Iterable[Path]) -> None:
    """Refuse names that are too long for file systems.

    Args:
        paths: of the results.

    Raises:
        SeparatorError: a part of one is.
    """
    for part in {part for path in paths for part in path.parts}:
        if len(os.fsencode(part)) > MAX_PART:
            raise SeparatorError(f"name: {part[:40]}… is too long; leave some fields out of --name")
