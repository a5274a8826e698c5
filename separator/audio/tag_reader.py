"""The tags that all formats share."""

import os
import re

TAGS = (
    *("title", "artist", "album", "albumartist", "composer", "genre", "date"),
    *("tracknumber", "discnumber", "bpm", "copyright"),
)

# Names, in small letters and without spaces, "_" and "-", of tags that tell of the song's own sound
# or file, such as how much a player is to change its volume: they would be wrong in a stem.
_OF_THE_SOUND = re.compile(
    r"replaygain.*|r128.*|itunnorm|itunsmpb|mp3gain.*|rva2|rvad|xrva|equ2|equa|peakvalue|averagelevel"
    r"|aspi|mllt|tlen|length|tsse|tenc|©too|©enc|encoder|encodedby|encodersettings|encoding"
    r"|acoustidfingerprint|waveformatextensiblechannelmask|cuesheet|separator"
    r"|metadatablockpicture|coverart.*"
)


def read_tags(path: str | os.PathLike) -> dict[str, list[str]]:
    """Return a file's tags of `TAGS`, as lists of strings; nothing for a file without tags.

    Args:
        path: the file.

    Raises:
        mutagen.MutagenError: the tags are damaged.
        OSError: the file cannot be read.
    """
    import mutagen

    file = mutagen.File(path, easy=True)
    if file is None or file.tags is None:
        return {}
    tags = {key: file.tags.get(key) for key in TAGS if key in file.tags}
    return {key: [str(value) for value in values] for key, values in tags.items() if values}


def is_of_the_sound(name: str) -> bool:
    """Return whether a tag tells of the sound or the coding of its own file, not of the song.

    Args:
        name: as any of the formats has it.
    """
    return bool(_OF_THE_SOUND.fullmatch(re.sub("[ _-]", "", name.lower())))
