"""The report of `separator evaluate`: summary over tracks, table for people, JSON for programs.

The report, which `--json FILE` writes, is

    schema       1
    definitions  {name of a score or an estimate: what it is}
    model        {"path": str or null, "description": what the model's file says of itself, or of
                  a folder of estimates {"stage": "estimates", "stems": which files are which}}
    data, split  where the tracks are from; null when `evaluate` was called from a program
    rate         samples per second at which waves were compared
    stems        the names of the stems that were scored
    n_tracks     tracks that were scored
    tracks       [{"name", "split", "seconds",
                   "silent": [stems whose reference is silent throughout],
                   "scores": {estimate: {stem: {"frames", "sdr_frames", "sdr_global"}}}}]
    summary      {estimate: {stem: {"n_tracks", "sdr_frames_median", "sdr_global_median",
                                    "sdr_global_mean"}}}
    failures     [{"name", "error"}], tracks that could not be scored

An estimate is `ours`, `mixture` or `ideal_mask`. The stems are the model's; of a model with vocals
and more than one other stem the accompaniment, their sum, is scored too. "frames" counts the 1 s
frames that "sdr_frames" is the median of. With `--full` the scores of `ours` also hold "isr", "sir"
and "sar", and its summary "isr_median", "sir_median" and "sar_median".

With several models or folders of estimates the file holds {"schema", "data", "split", "reports":
[a report for each]}.

All scores are dB. In the file a score that does not exist (its reference is silent) is null, and
that of an exact estimate is the string "inf". Tracks with a silent reference are listed, but the
summary leaves them out: BSSEval does not score them, and of two stems the other is the mixture.
"""

import itertools
import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from separator.atomic import check_folder, write_text
from separator.errors import counted, writing
from separator.metrics import median_sdr

SCHEMA = 1
ESTIMATES = ("ours", "mixture", "ideal_mask")
MUSEVAL = ("isr", "sir", "sar")  # measures that it alone computes
DEFINITIONS = {
    "sdr_frames": "BSSEval v4 SDR as museval computes it: median over 1 s frames without overlap;"
    " frames in which a reference or an estimate is silent do not count",
    "sdr_global": "10 log10(sum reference^2 / sum (reference - estimate)^2),"
    " one ratio over all channels and samples of a track",
    "isr": "ISR by museval (BSSEval v4), median over 1 s frames",
    "sir": "SIR by museval (BSSEval v4), median over 1 s frames",
    "sar": "SAR by museval (BSSEval v4), median over 1 s frames",
    "ours": "the estimate of the model, or of the program that wrote the folder",
    "mixture": "the mixture itself as the estimate of each stem",
    "ideal_mask": "min(|S| / |X|, 1) on the mixture's phase, in the model's STFT; for a folder of"
    " estimates in the first model's, or in the default one without a model",
    "_median": "median over tracks that have the score",
    "_mean": "mean over tracks that have the score",
}
LEGEND = (
    "SDR in dB. frames: BSSEval v4, median over 1 s frames (as museval); "
    "global: one ratio for the whole track.\n"
)
JSON_FIX = "give --json a path that can be written"
NAME = 36  # columns for a track's name


def build(description: dict, rate: int, stems: Sequence[str], results: list[dict]) -> dict:
    """Combine the scores of tracks to a report.

    Args:
        description: of the model, as in its file.
        rate: sampling rate of the scores, in Hz.
        stems: those that are scored.
        results: entries of tracks; failures have an "error".

    Returns:
        The report, with model path, data and split still None.
    """
    tracks = [result for result in results if "error" not in result]
    scores = [track["scores"] for track in tracks if not track["silent"]]
    summary = {
        name: {stem: _over_tracks([track[name][stem] for track in scores]) for stem in stems}
        for name in ESTIMATES
    }
    return {
        "schema": SCHEMA,
        "definitions": DEFINITIONS,
        "model": {"path": None, "description": description},
        "data": None,
        "split": None,
        "rate": rate,
        "stems": list(stems),
        "n_tracks": len(tracks),
        "tracks": tracks,
        "summary": summary,
        "failures": [result for result in results if "error" in result],
    }


def check_path(path: str | Path) -> None:
    """Refuse a path at which a report cannot be written, before the work rather than after.

    Raises:
        SeparatorError: its folder cannot be made or written to.
    """
    with writing(path, JSON_FIX):
        check_folder(Path(path).absolute().parent)


def write(report: dict, path: str | Path) -> None:
    """Write a report as JSON, whole or not at all.

    Args:
        report: its NaN become null, its infinite numbers strings.
        path: of the file.

    Raises:
        SeparatorError: the file cannot be written.
    """
    with writing(path, JSON_FIX):
        text = json.dumps(_strict(report), indent=2, ensure_ascii=False, allow_nan=False)
        write_text(path, text + "\n")


def table(report: dict) -> str:
    """Format every track, every failure, and the summary.

    Args:
        report: of one model.

    Returns:
        Lines for a terminal.
    """
    stems = report["stems"]
    columns = "".join(f"  {stem + ' SDR':>19}" for stem in stems)
    names = _labels([report]) + [_words(name) for name in ESTIMATES[1:]]
    width = max(map(len, names))
    head = f"{'':{NAME}}  {'':{width}}{columns}\n"
    head += f"{'track':{NAME}}  {'estimate':{width}}" + f"  {'frames':>9} {'global':>9}" * len(
        stems
    )
    lines = [LEGEND, head, "\n"]
    for track in report["tracks"]:
        for name, estimate in zip(ESTIMATES, names, strict=True):
            scores = [track["scores"][name][stem] for stem in stems]
            cells = "".join(
                f"  {_number(s['sdr_frames']):>9} {_number(s['sdr_global']):>9}" for s in scores
            )
            label = track["name"][:NAME] if name == ESTIMATES[0] else ""
            lines.append(f"{label:{NAME}}  {estimate:{width}}{cells}\n")
    failed = [f"failed: {entry['name']}: {entry['error']}\n" for entry in report["failures"]]
    return "".join([*lines, *failed, "\n", summary_table(report)])


def together(reports: Sequence[dict]) -> dict:
    """Combine the reports of several models or folders on the same songs.

    Args:
        reports: of the same data and split.

    Returns:
        One report, with the others in "reports".
    """
    shared = {name: reports[0][name] for name in ("schema", "data", "split")}
    return {**shared, "reports": list(reports)}


def tables(reports: Sequence[dict]) -> str:
    """Format the table of one model, or the failures and one summary of several.

    Args:
        reports: of the same data and split.

    Returns:
        Lines for a terminal.
    """
    models = ", ".join(str(report["model"]["path"]) for report in reports)
    rates = " and ".join(dict.fromkeys(f"{report['rate']} Hz" for report in reports))
    head = f"{models} on {reports[0]['data']} ({reports[0]['split']}) at {rates}\n"
    if len(reports) == 1:
        return head + table(reports[0])
    failed = [
        f"failed: {label}: {entry['name']}: {entry['error']}\n"
        for label, report in zip(_labels(reports), reports, strict=True)
        for entry in report["failures"]
    ]
    return "".join([head, LEGEND, *failed, "\n", summary_table(*reports)])


def summary_table(*reports: dict) -> str:
    """Format the summary: the estimate of each model, and the two references.

    There are three figures over tracks for each stem, "-" where a model does not have the stem.
    References that are equal for all models appear once.

    Args:
        reports: of the same data and split.

    Returns:
        Lines for a terminal.
    """
    stems = list(dict.fromkeys(stem for report in reports for stem in report["stems"]))
    counts = [_counted(report) for report in reports]
    rows = [*zip(_labels(reports), [report["summary"]["ours"] for report in reports], strict=True)]
    for name in ESTIMATES[1:]:
        others = [report["summary"][name] for report in reports]
        rows += [(_words(name), row) for i, row in enumerate(others) if row not in others[:i]]
    width = max(10, *(len(label) for label, _ in rows))
    lines = [
        f"over {counts[0]}; frames: median over tracks of the median over 1 s frames\n",
        f"{'':{width}}" + "".join(f"  {stem + ' SDR, dB':>29}" for stem in stems) + "\n",
        f"{'':{width}}" + f"  {'frames':>9} {'global':>9} {'global':>9}" * len(stems) + "\n",
        f"{'estimate':{width}}" + f"  {'median':>9} {'median':>9} {'mean':>9}" * len(stems) + "\n",
        *(_summary_row(label, row, width, stems) for label, row in rows),
    ]
    for label, report, count in zip(_labels(reports), reports, counts, strict=True):
        lines += _museval_rows(label, report["summary"]["ours"])
        if count != counts[0]:
            lines.append(f"{label}: over {count}, so its figures do not compare with the others\n")
    return "".join(lines)


def _counted(report: dict) -> str:
    """Say over how many tracks a summary is."""
    used = report["summary"][ESTIMATES[0]][report["stems"][0]]["n_tracks"]
    left_out = report["n_tracks"] - used
    note = f" ({left_out} with a silent stem left out)" if left_out else ""
    return counted(used, "track") + note


def _labels(reports: Sequence[dict]) -> list[str]:
    """Name the models and folders: the ends of their paths, as far as there is room."""
    paths = [str(report["model"]["path"] or "model") for report in reports]
    return [path if len(path) <= NAME else f"…{path[1 - NAME :]}" for path in paths]


def _summary_row(label: str, row: dict, width: int, stems: Sequence[str]) -> str:
    kinds = ("sdr_frames_median", "sdr_global_median", "sdr_global_mean")
    scores = [row.get(stem, dict.fromkeys(kinds, math.nan)) for stem in stems]
    cells = (" ".join(f"{_number(score[kind], '-'):>9}" for kind in kinds) for score in scores)
    return f"{label:{width}}" + "".join(f"  {cell}" for cell in cells) + "\n"


def _museval_rows(label: str, summary: dict) -> Iterator[str]:
    for stem, scores in summary.items():
        if "sir_median" in scores:
            ratios = (f"{name.upper()} {_number(scores[f'{name}_median'])}" for name in MUSEVAL)
            yield f"{label}, {stem}, museval, median of medians: {', '.join(ratios)} dB\n"


def _over_tracks(rows: list[dict]) -> dict:
    """Medians over tracks, and the mean of the global SDR, of what is not NaN."""
    names = dict.fromkeys(("sdr_frames", "sdr_global", *itertools.chain(*rows)))
    names.pop("frames", None)
    columns = {n: torch.tensor([row[n] for row in rows], dtype=torch.float64) for n in names}
    medians = {f"{name}_median": float(median_sdr(column)) for name, column in columns.items()}
    mean = float(columns["sdr_global"].nanmean())
    return {"n_tracks": len(rows), **medians, "sdr_global_mean": mean}


def _words(name: str) -> str:
    return name.replace("_", " ")


def _number(value: float, missing: str = "silent") -> str:
    return missing if math.isnan(value) else f"{value:.2f}"


def _strict(value: Any) -> Any:
    """Replace what JSON has no number for: NaN by null, infinities by strings."""
    if isinstance(value, dict):
        return {key: _strict(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_strict(entry) for entry in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else str(value)
    return value
