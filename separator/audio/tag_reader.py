"""The tags that all formats share."""

import os

KEYS = (
    *("title", "artist", "album", "albumartist", "composer", "genre", "date"),
    *("tracknumber", "discnumber", "bpm", "copyright"),
)


def read_tags(path: str | os.PathLike) -> dict[str, list[str]]:
    """Return what a file says of `KEYS`, as lists of strings; nothing for a file without tags.

    Raises:
        mutagen.MutagenError: the tags are damaged.
        OSError: the file cannot be read.
    """
    import mutagen

    file = mutagen.File(path, easy=True)
    if file is None or file.tags is None:
        return {}
    tags = {key: file.tags.get(key) for key in KEYS if key in file.tags}
    return {key: [str(value) for value in values] for key, values in tags.items() if values}
