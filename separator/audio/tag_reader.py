"""The tags that all formats share."""

import os

TAGS = (
    *("title", "artist", "album", "albumartist", "composer", "genre", "date"),
    *("tracknumber", "discnumber", "bpm", "copyright"),
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
