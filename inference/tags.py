"""Tags and cover art from a song to its stems, whatever the two formats are."""

import logging
from pathlib import Path

from separator import audio
from separator.errors import one_line, printable
from separator.inference.results import Record, write_record

log = logging.getLogger(__name__)


def copy_tags(source: Path, target: Path, suffix: str) -> None:
    """Copy a song's tags and front cover to a stem; the title gets " (SUFFIX)".

    wav and aiff stay without tags. If the tags cannot be read or written, the stem stays without
    them and the log says so: the audio matters more.

    Args:
        source: the song.
        target: the stem's file, changed in place.
        suffix: title of the stem.
    """
    if not _is_tagged(target):
        return
    import mutagen

    try:
        tags, picture = audio.read_tags(source), _picture(source)
        if not tags and not picture:
            return
        title = tags.get("title", [source.stem])[0]
        tags["title"] = [f"{title} ({suffix})"]
        file = mutagen.File(target, easy=True)
        if file.tags is None:
            file.add_tags()
        for key, values in tags.items():
            try:
                file[key] = values
            except (KeyError, ValueError, TypeError):  # this format has no such tag
                log.debug("%s has no place for the tag %s", target.suffix, key)
        file.save()
        if picture:
            _set_picture(target, *picture)
    except (mutagen.MutagenError, OSError, ValueError) as error:
        name = printable(str(source))
        log.warning("%s: its tags are not copied (%s)", name, one_line(error))


def mark(target: Path, record: Record) -> None:
    """Put a stem's record into its tags, in formats that have tags.

    Args:
        target: the stem's file, changed in place.
        record: of the song, the model and the settings.
    """
    if not _is_tagged(target):
        return
    import mutagen

    try:
        write_record(target, record)
    except (mutagen.MutagenError, OSError, ValueError) as error:
        log.warning("no record in the tags (%s)", one_line(error))


def _is_tagged(path: Path) -> bool:
    return audio.ENCODINGS[audio.format_of(path)].tagged


def _picture(path: Path) -> tuple[bytes, str] | None:
    """Return the front cover and its MIME type, if there is one."""
    import base64

    import mutagen
    from mutagen.flac import FLAC, Picture
    from mutagen.mp4 import MP4, MP4Cover

    file = mutagen.File(path)
    if file is None or file.tags is None:
        return None
    if isinstance(file, FLAC):
        return (file.pictures[0].data, file.pictures[0].mime) if file.pictures else None
    if isinstance(file, MP4):
        covers = file.tags.get("covr")
        png = covers and covers[0].imageformat == MP4Cover.FORMAT_PNG
        return (bytes(covers[0]), "image/png" if png else "image/jpeg") if covers else None
    if "metadata_block_picture" in file.tags:
        picture = Picture(base64.b64decode(file.tags["metadata_block_picture"][0]))
        return picture.data, picture.mime
    frames = file.tags.getall("APIC") if hasattr(file.tags, "getall") else []
    return (frames[0].data, frames[0].mime) if frames else None


def _set_picture(path: Path, data: bytes, mime: str) -> None:
    """Store a front cover in the way the file's format does."""
    import base64

    import mutagen
    from mutagen.flac import FLAC, Picture
    from mutagen.id3 import APIC
    from mutagen.mp4 import MP4, MP4Cover

    file = mutagen.File(path)
    picture = Picture()
    picture.type, picture.mime, picture.data = 3, mime, data
    if isinstance(file, FLAC):
        file.add_picture(picture)
    elif isinstance(file, MP4):
        kind = MP4Cover.FORMAT_PNG if mime == "image/png" else MP4Cover.FORMAT_JPEG
        file["covr"] = [MP4Cover(data, kind)]
    elif hasattr(file.tags, "getall"):
        file.tags.add(APIC(encoding=3, mime=mime, type=3, desc="Cover", data=data))
    else:
        file["metadata_block_picture"] = [base64.b64encode(picture.write()).decode("ascii")]
    file.save()
