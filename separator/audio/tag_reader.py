"""The tags that all formats share."""

import os
import re

RESULT_TAG = "SEPARATOR"  # of results: the song, model and settings that they came from
RESULT_INDEX = ".separator.jsonl"  # says the same of all results in its folder
TAGS = (
    *("title", "artist", "album", "albumartist", "composer", "genre", "date"),
    *("tracknumber", "discnumber", "bpm", "copyright"),
)

_ID3_NAMES = {  # of wav and aiff files, for which mutagen has no simple names
    **{"TIT2": "title", "TPE1": "artist", "TALB": "album", "TPE2": "albumartist"},
    **{"TCOM": "composer", "TCON": "genre", "TDRC": "date", "TRCK": "tracknumber"},
    **{"TPOS": "discnumber", "TBPM": "bpm", "TCOP": "copyright"},
}
_OTHER_NAMES = {  # of APE and WMA
    **{"year": "date", "track": "tracknumber", "disc": "discnumber", "album artist": "albumartist"},
    **{"author": "artist", "wm/albumtitle": "album", "wm/albumartist": "albumartist"},
    **{"wm/tracknumber": "tracknumber", "wm/year": "date", "wm/genre": "genre"},
}

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
    texts = text_tags(path)
    return {key: texts[key] for key in TAGS if texts.get(key)}


def text_tags(path: str | os.PathLike) -> dict[str, list[str]]:
    """Return all of a file's tags that have a simple name, under the names of Vorbis comments.

    Args:
        path: the file.

    Raises:
        mutagen.MutagenError: the tags are damaged.
        OSError: the file cannot be read.
    """
    import mutagen
    from mutagen.id3 import ID3

    file = mutagen.File(path, easy=True)
    if file is None or file.tags is None:
        return {}
    if isinstance(file.tags, ID3):
        frames = {_ID3_NAMES[key]: f for key, f in file.tags.items() if key in _ID3_NAMES}
        return {key: [str(text) for text in frame.text] for key, frame in frames.items()}
    texts: dict[str, list[str]] = {}
    for key, values in file.tags.items():
        if getattr(values, "kind", 0) == 0:  # APE has binary ones, too
            texts[_OTHER_NAMES.get(key.lower(), key.lower())] = [str(value) for value in values]
    return texts


def result_record(path: str | os.PathLike) -> str | None:
    """Return what the tags of a file that `separator separate` wrote say of its origin, as JSON.

    Args:
        path: the file.

    Returns:
        The text in its tag `RESULT_TAG`; None for other files, and for damaged tags.
    """
    import mutagen

    try:
        tags = mutagen.File(path).tags
        names = f"TXXX:{RESULT_TAG}", RESULT_TAG, f"----:com.apple.iTunes:{RESULT_TAG}"
        value = next(tags[name] for name in names if name in tags)[0]
        return bytes(value).decode() if isinstance(value, bytes) else str(value)
    except (mutagen.MutagenError, OSError, AttributeError, TypeError, LookupError, ValueError,
            StopIteration):  # fmt: skip
        return None


def is_of_the_sound(name: str) -> bool:
    """Return whether a tag tells of the sound or the coding of its own file, not of the song.

    Args:
        name: as any of the formats has it.
    """
    return bool(_OF_THE_SOUND.fullmatch(re.sub("[ _-]", "", name.lower())))
