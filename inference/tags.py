"""Tags and cover art from a song to its stems, whatever the two formats are."""

import base64
import logging
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mutagen
from mutagen import FileType
from mutagen.flac import FLAC, Picture
from mutagen.id3 import APIC, COMM, ID3, TXXX, USLT
from mutagen.mp4 import MP4, MP4Cover, MP4FreeForm, MP4Tags

from separator import audio
from separator.audio.tag_reader import is_of_the_sound, text_tags
from separator.errors import one_line, printable
from separator.inference.results import Record

log = logging.getLogger(__name__)

_FREE = "----:com.apple.iTunes:"  # MP4's tags of any name


def copy_tags(source: Path, target: Path, suffix: str) -> None:
    """Copy a song's tags and front cover to a stem; the title gets " (SUFFIX)".

    Tags of the song's own sound, such as ReplayGain's, are left out. wav and aiff stay without
    tags. If the tags cannot be read or written, the stem stays without them and the log says so:
    the audio matters more.

    Args:
        source: the song.
        target: the stem's file, changed in place.
        suffix: title of the stem.
    """
    if not _is_tagged(target):
        return
    try:
        song, picture = mutagen.File(source), _picture(source)
        tags = _texts(source) if song and song.tags else {}
        if not tags and not picture:
            return
        title = tags.get("title", [source.stem])[0]
        copied = _copy_all(song, target)
        if not copied:
            _write_texts(target, tags)
        file = _with_tags(target, easy=True)
        file["title"] = [f"{title} ({suffix})"]
        file.save()
        if picture and not copied:
            _set_picture(target, *picture)
    except Exception as error:  # whatever mutagen raises, the sound is more than its tags
        name = printable(str(source))
        log.warning("%s: its tags are not copied (%s)", name, one_line(error))


def _with_tags(path: Path, easy: bool = False) -> FileType:
    """Open a file with mutagen, and add tags where it has none."""
    file = mutagen.File(path, easy=easy)
    if file.tags is None:
        file.add_tags()
    return file


def _copy_all(song: FileType, target: Path) -> bool:
    """Copy tags and pictures as they are, where both files are MP4, or both have ID3 tags."""
    file = _with_tags(target)
    if isinstance(song.tags, ID3) and isinstance(file.tags, ID3):
        for frame in song.tags.values():
            names = (frame.FrameID, getattr(frame, "desc", ""), getattr(frame, "owner", ""))
            if not any(map(is_of_the_sound, names)):
                file.tags.add(frame)
    elif isinstance(song.tags, MP4Tags) and isinstance(file.tags, MP4Tags):
        for key, values in song.tags.items():
            if not is_of_the_sound(key.rpartition(":")[2]):
                file[key] = values
    else:
        return False
    file.save()
    return True


def _texts(path: Path) -> dict[str, list[str]]:
    """Return all tags that are text, under the names that Vorbis comments have."""
    texts = text_tags(path)
    names = {re.sub("[ _-]", "", key) for key in texts}
    for key, values in _free_texts(mutagen.File(path).tags):
        if re.sub("[ _-]", "", key) not in names:
            texts.setdefault(key, []).extend(values)
    return {key: values for key, values in texts.items() if values and not is_of_the_sound(key)}


def _free_texts(tags: Any) -> Iterator[tuple[str, list[str]]]:
    """Yield the tags of ID3 and MP4 that mutagen has no simple name for."""
    if isinstance(tags, ID3):
        for frame in tags.getall("TXXX"):
            yield frame.desc.lower(), list(map(str, frame.text))
        for frame in tags.getall("COMM"):
            yield frame.desc.lower() or "comment", list(map(str, frame.text))
        for frame in tags.getall("USLT"):
            yield "lyrics", [frame.text]
    elif isinstance(tags, MP4Tags):
        for key, values in tags.items():
            if key.startswith("----:"):
                name = key.rpartition(":")[2].lower()
                yield name, [bytes(value).decode(errors="replace") for value in values]
        yield from [("lyrics", tags["©lyr"])] if "©lyr" in tags else []


def _write_texts(path: Path, texts: dict[str, list[str]]) -> None:
    """Store tags under the names that the file's format has for them."""
    file, free = _with_tags(path, easy=True), {}
    for key, values in texts.items():
        try:
            file[key] = values
        except KeyError:  # no simple name
            free[key] = values
        except (ValueError, TypeError):
            log.debug("%s has no place for the tag %s", path.suffix, key)
    file.save()
    file = mutagen.File(path)
    for key, values in free.items():
        if isinstance(file.tags, MP4Tags):
            lyrics = key == "lyrics"
            name = "©lyr" if lyrics else _FREE + key.upper()
            file[name] = values if lyrics else [value.encode() for value in values]
        elif isinstance(file.tags, ID3):
            place = {"encoding": 3, "lang": "XXX", "desc": ""}
            if key == "lyrics":
                file.tags.add(USLT(**place, text="\n".join(values)))
            elif key == "comment":
                file.tags.add(COMM(**place, text=values))
            else:
                file.tags.add(TXXX(encoding=3, desc=key.upper(), text=values))
    file.save()


def mark(target: Path, record: Record) -> None:
    """Put a stem's record into its tags, in formats that have tags.

    Args:
        target: the stem's file, changed in place.
        record: of the song, the model and the settings; its paths are left out.
    """
    if not _is_tagged(target):
        return
    kept = Record(record.content, record.song, record.made_by, record.gain).to_json()
    try:
        file = _with_tags(target)
        if isinstance(file, MP4):
            file[f"{_FREE}{audio.RESULT_TAG}"] = [MP4FreeForm(kept.encode())]
        elif hasattr(file.tags, "getall"):
            file.tags.add(TXXX(encoding=3, desc=audio.RESULT_TAG, text=[kept]))
        else:
            file[audio.RESULT_TAG] = [kept]
        file.save()
    except Exception as error:  # whatever mutagen raises, the sound is more than its tags
        log.warning("no record in the tags (%s)", one_line(error))


def _is_tagged(path: Path) -> bool:
    encoding = audio.ENCODINGS.get(audio.format_of(path))
    return encoding is not None and encoding.tagged


def _picture(path: Path) -> tuple[bytes, str] | None:
    """Return the front cover and its MIME type, if there is one."""
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
