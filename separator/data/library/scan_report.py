"""The output of `separator scan`: a summary, and a report of every file with a reason."""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from separator.atomic import write_text
from separator.data.library.scan import Library
from separator.errors import printable, writing

MAX_NAMED = 5  # files of each kind that `named_files` names


def summary(library: Library) -> str:
    """Return the totals as a few lines of text.

    Args:
        library: result of a scan.
    """
    totals = library.totals()
    rates = {f"{rate} Hz": count for rate, count in totals["rates"].items()}
    kinds = _counts(totals["quarantined"])
    lines = [
        f"files        {totals['files']}",
        f"songs        {totals['songs']}, {totals['hours']:.2f} hours",
        f"formats      {_counts(totals['formats'])}",
        f"rates        {_counts(rates)}",
        f"quarantined  {len(library.quarantined)}" + (f": {kinds}" if kinds != "none" else ""),
        f"duplicates   {totals['duplicates']}",
    ]
    if library.notices:
        lines.append(f"notices      {totals['notices']}, of files that are used all the same")
    if library.passed_over:
        lines.append(f"passed over  {_counts(totals['passed_over'])}")
    return "\n".join(lines)


def named_files(library: Library) -> str:
    """Return lines that name the first quarantined files, duplicates and notices.

    Args:
        library: result of a scan.

    Returns:
        The lines; "" where there is nothing to name.
    """
    lines = []
    for kind, rows in _listed(library).items():
        link = ", of " if kind == "duplicate" else ": "
        named = (f"{kind:<13}{path}{link}{text}" for path, text in rows[:MAX_NAMED])
        lines += [printable(line) for line in named]
        if len(rows) > MAX_NAMED:
            lines.append(f"{'':13}and {len(rows) - MAX_NAMED} more; --report FILE lists all")
    return "\n".join(lines)


def write_report(library: Library, path: str | os.PathLike) -> None:
    """Write totals, quarantined files, duplicates and notices.

    JSON for *.json: {"roots": [folder], "totals": `Library.totals`, "quarantined": [{"path",
    "reason"}], "duplicates": [{"path", "same_as"}], "notices": [{"path", "notice"}]}. A byte of a
    name that is not UTF-8 is a lone surrogate, as Python writes it (PEP 383: "\\udce9" for E9), so
    that `os.fsencode` gives the name on the disk. Else tab-separated text to be read by people: a
    `#` line for each of the totals, then kind, path, and reason or the song that is kept, in which
    all that does not print is escaped.

    Raises:
        SeparatorError: the file cannot be written.
    """
    text = _as_json(library) if Path(path).suffix.lower() == ".json" else _as_table(library)
    with writing(path, "give another path with --report (the scan itself is kept)"):
        write_text(path, text)


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in counts.items()) or "none"


def _listed(library: Library) -> dict[str, Sequence[tuple[Path, object]]]:
    """Return by kind each file, with its reason or the song that is kept."""
    kinds = library.quarantined, library.duplicates, library.notices
    return dict(zip(("quarantined", "duplicate", "notice"), kinds, strict=True))


def _as_json(library: Library) -> str:
    quarantined = [{"path": str(path), "reason": reason} for path, reason in library.quarantined]
    duplicates = [{"path": str(path), "same_as": str(song)} for path, song in library.duplicates]
    values = {
        "roots": [str(root) for root in library.roots],
        "totals": library.totals(),
        "quarantined": quarantined,
        "duplicates": duplicates,
        "notices": [{"path": str(path), "notice": notice} for path, notice in library.notices],
    }
    return json.dumps(values, indent=1) + "\n"


def _as_table(library: Library) -> str:
    rows = [f"# {line}" for line in summary(library).splitlines()]
    rows += [_row(kind, *cells) for kind, files in _listed(library).items() for cells in files]
    return "\n".join(rows) + "\n"


def _row(*cells: object) -> str:
    """One line, also when a name holds a tab or a line break."""
    plain = (printable(str(cell)) for cell in cells)
    return "\t".join(cell.translate({9: "\\t", 10: "\\n", 13: "\\r"}) for cell in plain)
