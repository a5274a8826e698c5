"""The report of `separator compare`: what its numbers are, and report.json, report.md, report.png.

report.json is

    schema       1
    definitions  {name of a number: what it is}
    config       what the command was told
    stems        those that the models of all arms give, or that are their sums; arms are compared
                 by the first, which is the accompaniment if there is one
    songs        names of the songs that every run scored; what follows is over these alone
    left_out     names of the others: not scored by all, or with a stem that is silent throughout
    mixture      {stem: mean SDR of the mixture itself as the estimate}
    arms         {arm: {
        "runs": seeds that are done,
        "pretrain", "train": {"steps", "seconds"}, means over the runs; null for no pretraining
        "improvement": of the pretrained files, mean over the runs, or null
        "sdr": {stem: {"mean", "sd", "median", "by_seed", "by_song"}}, null without a run
        "difference": {"mean", "low", "high", "seeds", "by_song"} of the first stem, null for the
            baseline and where it and the arm share no seed
        "best": the best validation score of each run during training, of the first stem
        "curve": [[step, mean over the runs of the validation's mean SDR of the first stem]],
        "reached": {"steps", "seconds"} until the curve is first at the end of the baseline's}}
    failures     [{"arm", "seed", "error"}]

SDR is in dB, global: one ratio for a track. Numbers that do not exist, such as the deviation of one
seed, are null. As the stems add up to the mixture, accompaniment and vocals have the same error:
what an arm gains on the one it gains on the other, song by song.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np

from separator.atomic import replacing, write_text
from separator.cli.compare.config import CompareConfig
from separator.cli.compare.intervals import paired, summary
from separator.cli.compare.planning import common_stems
from separator.cli.compare.runs import Run, last_step
from separator.cli.run_history import read_rows
from separator.config import to_dict
from separator.errors import counted, printable, writing

NUMBERS = {
    "sdr": "of the last averaged weights; SDR = 10 log10(sum reference^2 / sum error^2)",
    "mean": "mean over seeds of the mean over songs",
    "sd": "standard deviation over seeds (n - 1) of the mean over songs",
    "median": "mean over seeds of the median over songs",
    "by_seed": "mean over songs, in the order of `runs`",
    "by_song": "mean over seeds, in the order of `songs`",
    "difference": "arm minus baseline, over the seeds that both have: for each song the difference "
    "of the means over seeds, and the mean of these over songs",
    "low, high": "bounds of its 95 % bootstrap interval: seeds and songs are both drawn anew, or "
    "songs alone where there is one seed; see separator.cli.compare.intervals",
    "improvement": "share by which the pretrained model's error on masked patches of new songs is "
    "below that of the best trivial answer, at its best validation (the file that is fine-tuned)",
    "best": "of the validations on the songs that are scored, so it is too high, most of all for "
    "noisy curves",
    "reached": "step of fine-tuning at which the mean curve first reaches the baseline's last "
    "validation, and the seconds of both stages up to there, without the training of other arms' "
    "models; null where it does not reach it",
    "seconds": "wall clock of the stage's processes, validations included",
}


def write(config: CompareConfig, runs: list[Run], failures: list[dict]) -> dict[str, Any]:
    """Write report.json and report.md of the runs that are done so far; `draw` adds a picture.

    Args:
        config: the comparison.
        runs: all of its runs.
        failures: {"arm", "seed", "error"} of each run that failed.

    Returns:
        The content of report.json.

    Raises:
        SeparatorError: the folder cannot be written.
    """
    report = build(config, runs, failures)
    folder = Path(config.run)
    text = json.dumps(report, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    with writing(folder, "choose a run= that can be written"):
        for name, content in (("report.json", text), ("report.md", markdown(report))):
            write_text(folder / name, content, errors="backslashreplace")  # names need not be text
    return report


def build(config: CompareConfig, runs: list[Run], failures: list[dict]) -> dict[str, Any]:
    """Return the content of report.json, with arguments config, runs and failures as `write`."""
    done = {run: scores for run in runs if (scores := run.scores()) is not None}
    stems = common_stems(runs)
    songs, left_out = _songs(list(done.values()), stems)
    tables = {run: _table(scores, songs, stems, "ours") for run, scores in done.items()}
    mixtures = [_table(scores, songs, stems, "mixture") for scores in done.values()]
    arms = {}
    for name in config.arms:
        arms[name] = _arm([run for run in done if run.arm == name], stems[0])
        arms[name] |= _statistics(name, config.baseline, tables) if songs else {}
    for arm in arms.values():
        arm["reached"] = _reached(arm, arms[config.baseline]["curve"])
    return {
        "schema": 1,
        "definitions": NUMBERS,
        "config": to_dict(config),
        "stems": stems,
        "songs": songs,
        "left_out": left_out,
        "mixture": {s: fmean(mixtures[0][s]) if songs else None for s in stems},
        "arms": arms,
        "failures": failures,
    }


def markdown(report: dict[str, Any]) -> str:
    """Return a report as Markdown: a table with a row for each arm, and how to read it."""
    config, baseline = report["config"], report["config"]["baseline"]
    total, done = len(config["arms"]) * len(config["seeds"]), 0
    main, *others = report["stems"]
    lines = [
        f"| arm | seeds | {main} | its median | best validation | against {baseline} "
        f"| {' | '.join(others)} | pretraining: steps, s | improvement | fine-tuning: steps, s "
        f"| as good as {baseline} after: steps, s |",
        f"|{(10 + len(others)) * '---|'}",
    ]
    for name, arm in report["arms"].items():
        done += len(arm["runs"])
        first, *rest = (arm["sdr"] and arm["sdr"][stem] for stem in report["stems"])
        median = f"{first['median']:.2f}" if first else "-"
        improvement = "-" if arm["improvement"] is None else f"{arm['improvement']:+.3f}"
        columns = [
            *(name, str(len(arm["runs"])), _spread(first), median),
            f"{fmean(arm['best']):.2f}" if arm["best"] else "-",
            *(_interval(arm["difference"]), *map(_spread, rest), _budget(arm["pretrain"])),
            *(improvement, _budget(arm["train"]), _budget(arm["reached"])),
        ]
        lines.append(f"| {' | '.join(columns)} |")
    songs = counted(len(report["songs"]), "song")
    notes = [
        f"SDR in dB over {songs} of validation, {done} of {total} runs done: "
        "mean ± standard deviation over seeds of the mean over songs. Differences are paired by "
        "song and seed; brackets: 95 % of a bootstrap over seeds and songs."
    ]
    mixture = report["mixture"]
    if report["songs"]:
        values = ", ".join(f"{stem} {mixture[stem]:.2f}" for stem in report["stems"])
        notes.append(f"The mixture itself as the estimate: {values}.")
    if len(config["seeds"]) == 1:
        notes.append("With one seed the interval is over songs alone: another seed may turn it.")
    if report["left_out"]:
        names = ", ".join(map(printable, report["left_out"]))
        notes.append(f"Left out, silent or not scored by all: {names}.")
    failed = [f"- failed: {f['arm']}, seed {f['seed']}: {f['error']}" for f in report["failures"]]
    return "\n".join([*lines, "", *notes, *([""] if failed else []), *failed]) + "\n"


def draw(report: dict[str, Any], path: Path) -> None:
    """Draw the arms' SDR with its spread over seeds, and their curves over the fine-tuning: a PNG.

    It takes a second, so it is done once, not after each run.

    Args:
        report: the content of report.json.
        path: of the PNG file.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    arms = {name: arm for name, arm in report["arms"].items() if arm["sdr"]}
    for place, (name, arm) in enumerate(arms.items()):
        sdr, colour = arm["sdr"][report["stems"][0]], f"C{place % 10}"
        seeds = sdr["by_seed"]
        left.plot([place] * len(seeds), seeds, ".", color=colour, alpha=0.5)
        left.errorbar(place + 0.15, sdr["mean"], sdr["sd"] or 0, fmt="o", color=colour, capsize=4)
        if arm["curve"]:
            right.plot(*zip(*arm["curve"], strict=True), ".-", color=colour, label=name)
    left.set_xticks(range(len(arms)), list(arms), rotation=20)
    left.set(ylabel=f"{report['stems'][0]} SDR, dB", title="seeds, mean and standard deviation")
    right.set(xlabel="steps of fine-tuning", title="during fine-tuning, mean over seeds")
    if right.lines:
        right.legend()
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=110)


def _songs(scores: list[dict], stems: Sequence[str]) -> tuple[list[str], list[str]]:
    """Names of the songs that all runs scored in all stems, and of the rest."""
    entries = [entry for run in scores for entry in (*run["tracks"], *run["failures"])]
    names = dict.fromkeys(entry["name"] for entry in entries)
    scored = [{t["name"] for t in run["tracks"] if _numbers(t, stems)} for run in scores]
    kept = [name for name in names if all(name in run for run in scored)]
    return kept, [name for name in names if name not in kept]


def _numbers(track: dict, stems: Sequence[str]) -> bool:
    """Whether all scores of a track are numbers; a silent stem's are null, an exact one's "inf"."""
    scores = [track["scores"][kind][stem] for kind in ("ours", "mixture") for stem in stems]
    return not set(stems) & set(track["silent"]) and all(
        isinstance(s["sdr_global"], float) for s in scores
    )


def _table(
    scores: dict, songs: list[str], stems: Sequence[str], estimate: str
) -> dict[str, list[float]]:
    """Global SDR of one run for each stem, in the order of the songs."""
    tracks = {track["name"]: track["scores"][estimate] for track in scores["tracks"]}
    return {s: [tracks[name][s]["sdr_global"] for name in songs] for s in stems}


def _statistics(name: str, baseline: str, tables: dict[Run, dict]) -> dict[str, Any]:
    """The SDR of an arm by stem, and its difference to the baseline's."""
    ours, theirs = (
        {run.seed: table for run, table in tables.items() if run.arm == arm}
        for arm in (name, baseline)
    )
    both = [seed for seed in ours if seed in theirs and name != baseline]

    def matrix(runs: dict[int, dict], seeds: list[int], stem: str) -> np.ndarray:
        return np.array([runs[seed][stem] for seed in seeds])

    stems = list(next(iter(tables.values())))
    sdr = {stem: summary(matrix(ours, list(ours), stem)) for stem in stems} if ours else None
    if not both:
        return {"sdr": sdr, "difference": None}
    apart = matrix(ours, both, stems[0]) - matrix(theirs, both, stems[0])
    return {"sdr": sdr, "difference": {"seeds": both, **paired(apart)}}


def _arm(runs: list[Run], stem: str) -> dict[str, Any]:
    """Summarise the runs of an arm: cost, improvement in pretraining, and a stem's curve."""
    key, logs = "valid/improvement", [read_rows(run.run_folder("pretrain")) for run in runs]
    scores = [[row[key] for row in log if row.get(key)] for log in logs]
    improvements = [max(values) for values in scores if values]
    curves = [_validations(run, stem) for run in runs]
    return {
        "runs": [run.seed for run in runs],
        "pretrain": _cost([run for run in runs if "pretrain" in run.stages], "pretrain"),
        "train": _cost(runs, "train"),
        "improvement": fmean(improvements) if improvements else None,
        "sdr": None,
        "difference": None,
        "best": [max(curve.values()) for curve in curves if curve],
        "curve": _curve(curves),
    }


def _reached(arm: dict[str, Any], baseline: list[list[float]]) -> dict[str, float] | None:
    """Say when an arm's curve is first as high as the baseline's is at its end."""
    steps = [step for step, value in arm["curve"] if baseline and value >= baseline[-1][1]]
    if not steps or not arm["train"]:
        return None
    share = steps[0] / max(1, arm["train"]["steps"])
    before = arm["pretrain"]["seconds"] if arm["pretrain"] else 0.0
    return {"steps": steps[0], "seconds": before + share * arm["train"]["seconds"]}


def _cost(runs: list[Run], stage: str) -> dict[str, float] | None:
    """Steps and seconds of a stage, means over runs whose folders are still there."""
    runs = [run for run in runs if run.record(stage)]
    if not runs:
        return None
    return {
        "steps": fmean(last_step(run.run_folder(stage)) for run in runs),
        "seconds": fmean(run.record(stage)["seconds"] for run in runs),
    }


def _validations(run: Run, stem: str) -> dict[int, float]:
    """Mean SDR of a stem in a run's validations, by step."""
    key = f"valid/{stem}_sdr_mean"
    validations = read_rows(run.run_folder("train"))
    return {row["step"]: row[key] for row in validations if row.get(key) is not None}


def _curve(curves: list[dict[int, float]]) -> list[list[float]]:
    """Mean over runs, at each step that all of them were validated at."""
    steps = sorted(set.intersection(*map(set, curves))) if curves else []
    return [[step, fmean(curve[step] for curve in curves)] for step in steps]


def _spread(sdr: dict | None) -> str:
    if sdr is None:
        return "-"
    return f"{sdr['mean']:.2f}" + ("" if sdr["sd"] is None else f" ± {sdr['sd']:.2f}")


def _interval(difference: dict | None) -> str:
    if difference is None:
        return "-"
    mean, low, high = (difference[key] for key in ("mean", "low", "high"))
    return f"{mean:+.2f}" + ("" if low is None else f" [{low:+.2f}, {high:+.2f}]")


def _budget(cost: dict | None) -> str:
    return f"{cost['steps']:.0f}, {cost['seconds']:.0f}" if cost else "-"
