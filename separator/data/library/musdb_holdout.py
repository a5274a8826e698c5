"""The songs of MUSDB18's test set, by name: who trains on them can no longer be scored on them."""

import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import yaml

TEST_SONGS = yaml.safe_load(Path(__file__).with_name("musdb18_test.yaml").read_text("utf-8"))

_FOLDERS = 3  # above a file that may name its artist: ARTIST/ALBUM/CD 1/01 TITLE.flac


def held_out(path: Path, tags: Mapping[str, Sequence[str]]) -> str | None:
    """Return which of MUSDB18's test songs a file is by its tags, its name or its folders.

    Artist and title must both agree, case, accents, punctuation, track numbers and what stands in
    brackets behind the title ("(Remastered)", "[Vocals]") aside.

    Args:
        path: the file.
        tags: its "artist", "albumartist" and "title", if it has any.
    """
    for artist, title in _claims(path, tags):
        bare = re.sub(r"\s*[(\[][^()\[\]]*[)\]]\s*$", "", title)
        song = _SONGS.get((plain_name(artist), plain_name(bare)))
        if song:
            return song
    return None


def _claims(path: Path, tags: Mapping[str, Sequence[str]]) -> Iterator[tuple[str, str]]:
    """Yield each (artist, title) that a file may be said to be."""
    artists = [*tags.get("artist", ()), *tags.get("albumartist", ())]
    yield from ((artist, title) for title in tags.get("title", ()) for artist in artists)
    folders = [folder.name for folder in path.parents][:_FOLDERS]
    stem = path.name.removesuffix(path.suffix).removesuffix(".stem")
    for name in (stem, *folders):
        parts = _parts(name)
        yield from ((a, b) for i, a in enumerate(parts) for b in parts[i + 1 :])
    yield from ((folder, _parts(stem)[-1]) for folder in folders)


def _parts(name: str) -> list[str]:
    """Split "01 - Artist - Title" at its dashes; numbers in front of a part are those of tracks."""
    parts = name.replace("_", " ").split(" - ")
    return [re.sub(r"^\s*\d{1,3}[\s.)]+(?=\S)", "", part) for part in parts]


def plain_name(text: str) -> str:
    """Reduce a name to letters and digits, in lower case and without accents.

    Args:
        text: the name.

    Returns:
        Equal strings for names that differ in nothing else.
    """
    plain = unicodedata.normalize("NFKD", text).casefold()
    return "".join(letter for letter in plain if letter.isalnum())


def _by_artist_and_title() -> dict[tuple[str, str], str]:
    """Map (artist, title) to the song; of "Triviul feat. The Fiend" the first will do."""
    songs = {}
    for song in TEST_SONGS:
        artist, title = song.split(" - ")
        for name in (artist, re.split(r" feat\. | \(", artist)[0]):
            songs[plain_name(name), plain_name(title)] = song
    return songs


_SONGS = _by_artist_and_title()
