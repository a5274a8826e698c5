"""The comparison of pretrainings: its statistics, its report, and what is run again."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from separator import Separator, cli
from separator.cli.compare import comparison_report as reports
from separator.cli.compare import scores as scores_of
from separator.cli.compare.children import Children
from separator.cli.compare.config import Arm, CompareConfig
from separator.cli.compare.intervals import interval, paired, summary
from separator.cli.compare.planning import plan
from separator.cli.compare.runs import Run
from separator.config import parse
from separator.data.corpus import write_corpus
from separator.data.tracks import find_tracks
from separator.errors import SeparatorError
from separator.inference.evaluate import score_track
from tests import toys

MICRO = [*toys.MICRO, "data.valid_share=0.6", "log_every=1"]
ARMS = {"none": {}, "window": {"pretrain": ["pretrain/window.yaml", "mask.span=10"]}}
PRESETS = Path(__file__).parents[1] / "configs"


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_corpus(tmp_path_factory.mktemp("corpus"), songs=4, seconds=3.0)


@pytest.fixture
def in_process(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Make stages functions instead of processes, which take seconds to start; list their words."""
    calls = []

    def run(self: Children, words: list[str], output: Path, ends: tuple[int, ...] = (0,)) -> None:
        calls.append(words)
        command = cli.main if words[0] == "separator" else scores_of.main
        if command(words[1:]) not in ends:
            raise SeparatorError("as its output says")

    monkeypatch.setattr(Children, "run", run)
    return calls


def words(corpus: Path, run: Path, *more: str) -> list[str]:
    return [
        *("compare", f"arms={json.dumps(ARMS)}", "seeds=[0,1]", f"common={json.dumps(MICRO)}"),
        *("pretrain=[valid_crops=2]", "pretrain_steps=2", "train_steps=2", f"run={run}"),
        *(f"library=[{corpus}]", f"stems=[{corpus}]", *more),
    ]


def kinds(calls: list[list[str]]) -> list[str]:
    """The stages that were run, by name."""
    return [words[1] if words[0] == "separator" else "scores" for words in calls]


def state(run: Path) -> dict[Path, tuple[int, int]]:
    paths = [path for path in run.rglob("*") if path.is_file() and path.parent != run]
    return {path: (path.stat().st_mtime_ns, path.stat().st_ino) for path in paths}


def test_summary_by_hand():
    found = summary(np.array([[1.0, 2.0, 6.0], [2.0, 4.0, 9.0]]))
    assert found["by_seed"] == [3.0, 5.0]
    assert found["by_song"] == [1.5, 3.0, 7.5]
    assert found["mean"] == 4.0
    assert found["median"] == 3.0
    assert found["sd"] == pytest.approx(2**0.5)
    assert summary(np.array([[1.0, 2.0]]))["sd"] is None


def test_paired_by_hand():
    found = paired(np.array([[1.0, -1.0], [2.0, 4.0]]))
    assert (found["mean"], found["by_song"]) == (1.5, [1.5, 1.5])
    alone = paired(np.array([[1.0], [3.0]]))
    assert (alone["mean"], alone["low"], alone["high"]) == (2.0, None, None)
    same = paired(np.full((3, 5), 0.25))
    assert [same[key] for key in ("mean", "low", "high")] == pytest.approx([0.25] * 3)


def test_with_one_seed_the_interval_is_scipys_but_for_its_bias():
    from scipy.stats import bootstrap

    values = np.random.default_rng(1).gamma(2.0, 1.0, 8)
    theirs = bootstrap(
        (values,), np.mean, n_resamples=40_000, method="percentile", rng=np.random.default_rng(2)
    ).confidence_interval
    mean, wider = values.mean(), (8 / 7) ** 0.5
    expected = [mean + (bound - mean) * wider for bound in theirs]
    assert interval(values[None], draws=40_000) == pytest.approx(expected, abs=0.015)


def test_the_interval_holds_the_spread_of_seeds_and_that_of_songs():
    """Seed effects plus song effects: the two variances of a mean add."""
    rng = np.random.default_rng(3)
    seeds, songs = rng.normal(0, 1, 12), rng.normal(0, 2, 40)
    table = seeds[:, None] + songs
    deviation = (seeds.var(ddof=1) / 12 + songs.var(ddof=1) / 40) ** 0.5
    low, high = interval(table)
    assert high - low == pytest.approx(2 * 1.96 * deviation, rel=0.04)
    assert (low + high) / 2 == pytest.approx(table.mean(), abs=0.06 * deviation)
    only_songs = interval(table.mean(0, keepdims=True))
    assert only_songs[1] - only_songs[0] < 0.9 * (high - low)
    assert interval(table) == (low, high)


def made_up(folder: Path, arm: str, seed: int, scores: dict[str, float], silent: str = "") -> Run:
    """A finished run with the accompaniment's SDR of each song; its vocals are 5 dB below."""
    run = Run(arm, seed, folder / arm / f"seed{seed}", {"train": ([], {})})
    train = run.folder / "train"
    train.mkdir(parents=True)
    tracks = []
    for name, sdr in scores.items():
        both = {"accompaniment": {"sdr_global": sdr}, "vocals": {"sdr_global": sdr - 5.0}}
        quiet = ["vocals"] if name == silent else []
        tracks.append({"name": name, "silent": quiet, "scores": {"ours": both, "mixture": both}})
    content = {"made_by": {"train": {}}, "tracks": tracks, "failures": []}
    (train / "scores.json").write_text(json.dumps(content))
    curve = [
        {"step": s, "kind": "validation", "valid/accompaniment_sdr_mean": s + seed}
        for s in (5, 10 + seed)
    ]
    (train / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in curve))
    (train / "stage.json").write_text(json.dumps({"seconds": 10.0 + seed}))
    return run


def test_the_report_pairs_songs_and_seeds(tmp_path: Path):
    runs = [
        made_up(tmp_path, "none", 0, {"a": 1.0, "b": 2.0, "c": 7.0, "d": 9.0}, silent="c"),
        made_up(tmp_path, "none", 1, {"b": 4.0, "a": 3.0, "c": 7.0}, silent="c"),
        made_up(tmp_path, "better", 1, {"a": 3.5, "b": 5.5, "c": 7.0, "d": 9.0}, silent="c"),
        Run("better", 0, tmp_path / "better" / "seed0", {"train": ([], {})}),  # not done
    ]
    config = CompareConfig(run=str(tmp_path), arms={"none": Arm(), "better": Arm()}, seeds=[0, 1])
    failures = [{"arm": "better", "seed": 0, "error": "broke"}]
    reports.draw(reports.write(config, runs, failures), tmp_path / "report.png")
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["songs"] == ["a", "b"]
    assert report["left_out"] == ["c", "d"]
    none, better = report["arms"]["none"], report["arms"]["better"]
    assert none["sdr"]["accompaniment"]["by_seed"] == [1.5, 3.5]
    assert none["sdr"]["vocals"]["mean"] == -2.5
    assert (none["runs"], better["runs"]) == ([0, 1], [1])
    assert none["difference"] is None
    assert better["difference"]["seeds"] == [1]
    assert better["difference"]["by_song"] == [0.5, 1.5]
    assert better["difference"]["mean"] == 1.0
    assert none["curve"] == [[5, 5.5]]
    assert none["train"] == {"steps": 10.5, "seconds": 10.5}
    text = (tmp_path / "report.md").read_text()
    assert "| none | 2 | 2.50 ± 1.41 | 2.50 | 11.00 | - |" in text
    assert none["best"] == [10, 12]
    assert "| better | 1 | 4.50 | 4.50 | 12.00 | +1.00 [" in text
    assert "failed: better, seed 0: broke" in text
    assert (tmp_path / "report.png").read_bytes().startswith(b"\x89PNG")


def test_a_report_of_nothing_yet(tmp_path: Path):
    run = Run("none", 0, tmp_path / "none" / "seed0", {"train": ([], {})})
    config = CompareConfig(run=str(tmp_path), arms={"none": Arm()}, seeds=[0])
    report = reports.write(config, [run], [])
    assert report["arms"]["none"]["sdr"] is None
    reports.draw(report, tmp_path / "report.png")
    assert "| none | 0 | - |" in (tmp_path / "report.md").read_text()


def test_arms_are_compared_in_the_stems_that_all_give(
    corpus: Path, tmp_path: Path, in_process: list
):
    four = {"train": ["model.stems=[vocals,drums,bass,other]"]}
    drums = {"train": ["model.stems=[drums]"]}
    cases = [("two", {}, ["accompaniment", "vocals"]), ("drums", drums, ["drums", "other"])]
    for name, arm, stems in cases:
        run = tmp_path / name
        arms = json.dumps({"four": four, name: arm})
        assert cli.main([*words(corpus, run, "seeds=[0]", "baseline=four"), f"arms={arms}"]) == 0
        report = json.loads((run / "report.json").read_text())
        assert report["stems"] == stems
        sdr = report["arms"]["four"]["sdr"]
        scores = json.loads((run / "four" / "seed0" / "train" / "scores.json").read_text())
        for stem in stems:
            assert sdr[stem]["mean"] == pytest.approx(
                scores["summary"]["ours"][stem]["sdr_global_mean"]
            )
        assert len(report["arms"]["four"]["curve"]) > 0
        assert f"| {name} | 1 |" in (run / "report.md").read_text()
        assert (run / "report.md").read_text().startswith(f"| arm | seeds | {stems[0]} |")


def test_arms_without_a_common_stem_are_refused(corpus: Path, tmp_path: Path, capsys):
    arms = json.dumps({"two": {}, "drums": {"train": ["model.stems=[drums]"]}})
    assert cli.main([*words(corpus, tmp_path / "run", "baseline=two"), f"arms={arms}"]) == 2
    assert "arms: no stem is given by the models of all" in capsys.readouterr().err


def test_a_comparison_and_what_a_second_call_does(
    corpus: Path, tmp_path: Path, in_process: list, capsys: pytest.CaptureFixture
):
    run = tmp_path / "run"
    assert cli.main(words(corpus, run)) == 0
    assert sorted(kinds(in_process)) == ["pretrain"] * 2 + ["scores"] * 4 + ["train"] * 4
    tuned = [w for w in in_process if f"run={run / 'window' / 'seed1' / 'train'}" in w]
    file = run / "window" / "seed1" / "pretrain" / "model.safetensors"
    assert "seed=1" in tuned[0] and f"pretrained={file}" in tuned[0]
    report = json.loads((run / "report.json").read_text())
    assert {name: arm["runs"] for name, arm in report["arms"].items()} == {
        "none": [0, 1],
        "window": [0, 1],
    }
    assert report["arms"]["none"]["pretrain"] is None
    assert report["arms"]["window"]["pretrain"]["steps"] == 2
    assert report["arms"]["window"]["improvement"] is not None
    assert (run / "report.md").read_text() in capsys.readouterr().out

    valid = [t for t in find_tracks(corpus, valid_share=0.6) if t.split == "valid"]
    assert report["songs"] == [track.name for track in valid]
    last = Separator.load(run / "window" / "seed1" / "train" / "last.pt", device="cpu")
    scores = [score_track(last, t)["scores"]["ours"]["vocals"]["sdr_global"] for t in valid]
    by_seed = report["arms"]["window"]["sdr"]["vocals"]["by_seed"]
    assert by_seed[1] == pytest.approx(np.mean(scores), abs=1e-5)
    assert by_seed[0] != pytest.approx(by_seed[1], abs=1e-5)

    before = state(run)
    in_process.clear()
    assert cli.main(words(corpus, run)) == 0
    assert not in_process
    assert state(run) == before

    removed = run / "none" / "seed1" / "train" / "scores.json"
    removed.unlink()
    (removed.parent / "model.safetensors").unlink()  # the last weights are scored, not the best
    assert cli.main(words(corpus, run)) == 0
    assert kinds(in_process) == ["scores"]
    assert {path for path, seen in state(run).items() if before[path] != seen} <= {removed}
    again = json.loads((run / "report.json").read_text())
    assert again["arms"] == report["arms"]

    assert cli.main(words(corpus, run, "train_steps=3")) == 1
    assert "train.steps" in capsys.readouterr().err
    assert cli.main(words(corpus, run, 'pretrain=[valid_crops=2,"mask.span=9"]')) == 0  # the arm's


def test_arms_that_pretrain_alike_share_it(corpus: Path, tmp_path: Path, in_process: list):
    arms = {"first": ARMS["window"], "frozen": {**ARMS["window"], "train": ["frozen_steps=1"]}}
    arms["wider"] = {"pretrain": ["pretrain/window.yaml", "mask.span=9"]}
    more = [f"arms={json.dumps(arms)}", "baseline=first", "seeds=[0]"]
    assert cli.main(words(corpus, tmp_path, *more)) == 0
    # an arm that waits for the pretraining of another comes last
    assert kinds(in_process) == ["pretrain", "train", "scores"] * 2 + ["train", "scores"]
    shared = f"pretrained={tmp_path / 'first' / 'seed0' / 'pretrain' / 'model.safetensors'}"
    assert sum(shared in w for w in in_process) == 2
    assert not (tmp_path / "frozen" / "seed0" / "pretrain").exists()
    report = json.loads((tmp_path / "report.json").read_text())["arms"]
    assert report["frozen"]["improvement"] == report["first"]["improvement"]
    assert report["wider"]["improvement"] != report["first"]["improvement"]

    in_process.clear()  # in another order, the pretraining stays where it was begun
    del arms["wider"]
    turned = {name: arms[name] for name in reversed(arms)}
    more = [f"arms={json.dumps(turned)}", "baseline=first", "seeds=[0]"]
    assert cli.main(words(corpus, tmp_path, *more)) == 0
    assert not in_process


def test_other_settings_do_not_mix(corpus: Path, tmp_path: Path, in_process: list, capsys):
    one = ["seeds=[0]", f"arms={json.dumps({'window': ARMS['window']})}", "baseline=window"]
    assert cli.main(words(corpus, tmp_path, *one)) == 0
    in_process.clear()
    for key, more in {
        "pretrain.optim.lr": 'pretrain=[valid_crops=2,"optim.lr=0.1"]',
        "train.loss.sdr": 'train=["train/vocals.yaml","loss.sdr=2"]',
        "train.max_minutes": "train_minutes=3",
    }.items():
        arm = {"window": {"pretrain": ["pretrain/window.yaml", "mask.span=10", "optim.lr=0.1"]}}
        arms = [f"arms={json.dumps(arm)}"] if key == "pretrain.optim.lr" else []
        assert cli.main(words(corpus, tmp_path, *one, more, *arms)) == 1
        assert key in capsys.readouterr().err.splitlines()[-1]
    assert not in_process
    workers = f"common={json.dumps([*MICRO, 'data.workers=1'])}"
    assert cli.main(words(corpus, tmp_path, *one, workers)) == 0
    assert not in_process  # how songs are read changes nothing


def test_a_failing_arm_leaves_the_others_done(
    corpus: Path, tmp_path: Path, in_process: list, capsys: pytest.CaptureFixture
):
    arms = {"none": {}, "bad": {"train": ["model.heads=0"]}}
    assert cli.main(words(corpus, tmp_path, f"arms={json.dumps(arms)}", "seeds=[0]")) == 1
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["arms"]["none"]["runs"] == [0]
    assert report["arms"]["bad"]["runs"] == []
    (failure,) = report["failures"]
    assert (failure["arm"], failure["seed"]) == ("bad", 0)
    assert "failed: bad, seed 0" in capsys.readouterr().out


def test_what_was_stopped_goes_on(
    corpus: Path, tmp_path: Path, in_process: list, monkeypatch: pytest.MonkeyPatch
):
    whole, run = Children.run, tmp_path / "run"
    one = ["seeds=[0]", 'arms={"none": {}}', "train_steps=3"]

    def short(self: Children, words: list[str], output: Path, **how: Any) -> None:
        whole(self, [*words, "max_minutes=0.00001"], output, **how)

    monkeypatch.setattr(Children, "run", short)
    assert cli.main(words(corpus, run, *one)) == 1
    folder = run / "none" / "seed0" / "train"
    assert "was stopped early" in (run / "report.md").read_text()
    seconds = json.loads((folder / "stage.json").read_text())["seconds"]
    monkeypatch.setattr(Children, "run", whole)
    assert cli.main(words(corpus, run, *one)) == 0
    rows = [json.loads(row) for row in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows if row["kind"] == "train"] == [1, 2, 3]
    assert json.loads((folder / "scores.json").read_text())["step"] == 3
    assert json.loads((folder / "stage.json").read_text())["seconds"] > seconds > 0


def test_a_budget_of_minutes_ends_a_run(corpus: Path, tmp_path: Path, in_process: list):
    one = ["seeds=[0]", 'arms={"none": {}}', "train_steps=50000", "train_minutes=0.001"]
    assert cli.main(words(corpus, tmp_path, *one)) == 0
    report = json.loads((tmp_path / "report.json").read_text())
    assert 1 <= report["arms"]["none"]["train"]["steps"] < 50000
    in_process.clear()
    assert cli.main(words(corpus, tmp_path, *one)) == 0
    assert not in_process


@pytest.mark.slow
def test_processes_and_ctrl_c(corpus: Path, tmp_path: Path):
    """A stage stopped by a signal to the command saves; the command's children end with it."""
    run = tmp_path / "run"
    one = ["seeds=[0, 1]", 'arms={"none": {}}', "train_steps=100000", "train_minutes=10"]
    command = [sys.executable, "-m", "separator", *words(corpus, run, *one)]
    folder = run / "none" / "seed0" / "train"
    with subprocess.Popen(
        command,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as parent:
        deadline = time.monotonic() + 200
        while (
            not (folder / "metrics.jsonl").exists() or not (folder / "metrics.jsonl").stat().st_size
        ):
            assert parent.poll() is None and time.monotonic() < deadline
            time.sleep(0.2)
        parent.send_signal(signal.SIGINT)
        _, told = parent.communicate(timeout=90)
    assert parent.returncode == 130
    assert told.splitlines()[-1] == "separator: interrupted"
    said = (folder / "output.log").read_text()
    assert "the same command resumes" in said  # so the child had come to its end
    assert json.loads((folder / "stage.json").read_text())["finished"] is False
    assert (folder / "last.pt").exists()


@pytest.mark.slow
def test_a_process_that_fails_is_told_in_a_line(tmp_path: Path):
    with pytest.raises(SeparatorError, match=r"^unknown command 'trian'; did you mean 'train'"):
        Children(1).run(["separator", "trian"], tmp_path / "output.log")
    (tmp_path / "die.py").write_text(
        "import os; print('so far', flush=True); os.kill(os.getpid(), 9)"
    )
    path = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = str(tmp_path)
    try:
        with pytest.raises(SeparatorError, match=r"^killed by SIGKILL after: so far"):
            Children(1).run(["die"], tmp_path / "output.log")
    finally:
        os.environ.pop("PYTHONPATH") if path is None else os.environ.update(PYTHONPATH=path)


def test_masks_compares_the_presets_that_there_are(corpus: Path):
    config = parse(
        CompareConfig, ["compare/masks.yaml", f"library=[{corpus}]", f"stems=[{corpus}]"], "compare"
    )
    assert list(config.arms) == ["none", "random_time", "window", "frequency", "both"]
    for arm in config.arms.values():
        assert all((PRESETS / name).exists() for name in arm.pretrain)
    runs = plan(config)
    assert len(runs) == 5 * len(config.seeds)
    strategies = {
        run.arm: run.made_by("train").get("pretrain", {}).get("mask", {}).get("strategy")
        for run in runs
    }
    assert strategies == {
        "none": None,
        "random_time": "random_time",
        "window": "window",
        "frequency": "frequency",
        "both": "time_frequency",
    }
    fine = [run.made_by("train")["train"] for run in runs]
    assert all(settings == fine[0] for settings in fine)  # the same for all arms
    sizes = [run.made_by("pretrain") for run in runs if "pretrain" in run.stages]
    assert all(s["pretrain"]["optim"] == sizes[0]["pretrain"]["optim"] for s in sizes)


def test_order_of_the_words():
    arm = Arm(["pretrain/window.yaml", "mask.group=8"], ["steps=900"])
    config = CompareConfig(
        library=["a, b"],
        stems=["c"],
        arms={"none": Arm(), "x": arm},
        common=["tiny.yaml", "data.batch=2"],
        pretrain=["mask.group=4"],
    )
    assert config.words("x", "pretrain") == [
        *("pretrain/window.yaml", "tiny.yaml", "steps=1000", "max_minutes=0.0"),
        *('data.roots=["a, b"]', "data.batch=2", "mask.group=4", "mask.group=8"),
    ]
    assert config.words("x", "train")[-3:] == ['data.roots=["c"]', "data.batch=2", "steps=900"]


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["baseline=nine"], "baseline: 'nine' is not one of none, window"),
        (["seeds=[]"], "seeds: []"),
        (["seeds=[1,1]"], "seeds: [1, 1]"),
        (["arms={}"], "arms: there are none"),
        (['arms={"../x": {}}'], "no name for a folder"),
        (["jobs=0"], "jobs: 0"),
        (["train_steps=0"], "train_steps: 0"),
        (["pretrain_minutes=-1"], "pretrain_minutes: -1"),
        (["library=[]"], "library: is empty, but window pretrain"),
        (["stems=[]"], "stems: is empty"),
        (["stems=[/nowhere]"], "stems: /nowhere: no such folder"),
        (["common=[tiny.yml2]"], "tiny.yml2"),
        (['train=["--steps=3"]'], "without dashes"),
        (['arms={"none": {"train": ["optim.lrr=1"]}}'], "did you mean 'optim.lr'"),
        (
            ['arms={"none": {"pretrain": ["pretrain/wndow.yaml"]}}'],
            "arms.none: pretrain/wndow.yaml",
        ),
        (["sedes=[1]"], "did you mean 'seeds'"),
    ],
)
def test_mistakes_are_told_in_a_line_before_anything_starts(
    more: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture
):
    run = tmp_path / "run"
    assert cli.main(words(tmp_path, run, *more)) == 2
    message = capsys.readouterr().err
    assert said in message
    assert message.count("\n") == 1
    assert not run.exists()


def test_names_in_braces_are_folders_or_the_models_of_other_arms(tmp_path: Path):
    taught = ["pretrain/teacher.yaml", "data.roots={voiced}", "teacher.models=[{none}]"]
    config = CompareConfig(
        run=str(tmp_path),
        library=["a"],
        stems=["c"],
        songs={"voiced": ["d, e", "f"]},
        arms={"taught": Arm(taught), "none": Arm()},
        seeds=[3],
    )
    assert config.words("taught", "pretrain")[-2:] == [
        'data.roots=["d, e", "f"]',
        "teacher.models=[{none}]",
    ]
    none, taught_run = plan(config)  # the arm that is needed comes first
    assert (none.arm, taught_run.arm) == ("none", "taught")
    model = tmp_path / "none" / "seed3" / "train" / "last.pt"
    words = [taught_run._with_models(word) for word in taught_run.stages["pretrain"][0]]
    assert words[-1] == f'teacher.models=["{model}"]'
    made_by = taught_run.made_by("pretrain")["pretrain"]
    assert made_by["teacher"]["models"] == ["none"]  # the same wherever the folder is moved


def test_the_models_of_all_seeds_are_used_together(tmp_path: Path):
    taught = ["pretrain/teacher.yaml", "teacher.models=[{none@all}]"]
    config = CompareConfig(
        run=str(tmp_path),
        library=["a"],
        stems=["c"],
        arms={"none": Arm(), "taught": Arm(taught)},
        seeds=[3, 4],
    )
    runs = plan(config)
    assert [(run.arm, run.seed) for run in runs[:2]] == [("none", 3), ("taught", 3)]
    models = ",".join(f'"{tmp_path}/none/seed{seed}/train/last.pt"' for seed in (3, 4))
    for run in runs[1::2]:
        words = [run._with_models(word) for word in run.stages["pretrain"][0]]
        assert f"teacher.models=[{models}]" in words
        assert run.needs == {"none": [runs[0], runs[2]]}
        assert run.made_by("pretrain")["pretrain"]["teacher"]["models"] == ["none@all"]


@pytest.mark.parametrize(
    ("arms", "told"),
    [
        ({"a": Arm(["x={b}"]), "b": Arm(["x={a}"]), "none": Arm()}, "uses its own model"),
        ({"a": Arm(["x={a}"]), "none": Arm()}, "uses its own model"),
        ({"a": Arm(["x={voices}"]), "none": Arm()}, "songs={voices: [FOLDER]}"),
    ],
)
def test_names_that_cannot_be_filled_are_refused(arms: dict[str, Arm], told: str):
    with pytest.raises(SeparatorError) as error:
        CompareConfig(library=["l"], stems=["s"], arms=arms)
    assert told in str(error.value)


@pytest.mark.parametrize("key", ["common", "pretrain", "train"])
def test_words_of_all_arms_can_name_folders_only(key: str):
    common = {"library": ["l"], "stems": ["s"], "arms": {"none": Arm()}}
    CompareConfig(**common, **{key: ["data.roots={stems}"]})
    for name in ("none", "foo"):
        with pytest.raises(SeparatorError) as error:
            CompareConfig(**common, **{key: [f"x={{{name}}}"]})
        assert f"songs={{{name}: [FOLDER]}}" in str(error.value)


def test_an_arm_that_uses_anothers_model_waits_for_it(corpus: Path, tmp_path: Path, in_process):
    arms = {
        "taught": {"pretrain": ["pretrain/teacher.yaml", "teacher.models=[{none}]"]},
        "none": {},
    }
    more = ["seeds=[0]", f"arms={json.dumps(arms)}", "pretrain=[valid_crops=1]", "jobs=2"]
    assert cli.main(words(corpus, tmp_path / "run", *more)) == 0
    trained = [call for call in in_process if call[:2] == ["separator", "train"]]
    taught = [call for call in in_process if call[:2] == ["separator", "pretrain"]]
    assert len(trained) == 2 and len(taught) == 1  # `none` once, whoever asked first
    assert in_process.index(taught[0]) > in_process.index(trained[0])


def test_runs_that_wait_for_others_come_last(corpus: Path, tmp_path: Path, in_process, caplog):
    taught = ["pretrain/teacher.yaml", "teacher.models=[{none@all}]"]
    arms = {"none": {}, "taught": {"pretrain": taught}}
    more = ["seeds=[0,1]", f"arms={json.dumps(arms)}", "pretrain=[valid_crops=1]", "jobs=1"]
    caplog.set_level("INFO", logger="separator")
    assert cli.main(words(corpus, tmp_path / "run", *more)) == 0
    done = [re.search(r"of 4: (.*?): acc", one.getMessage()) for one in caplog.records]
    order = ["none, seed 0", "none, seed 1", "taught, seed 0", "taught, seed 1"]
    assert [match[1] for match in done if match] == order


def test_when_an_arm_is_as_good_as_the_baseline():
    arm = {"curve": [[10, 5.0], [20, 7.5], [40, 7.0]], "pretrain": {"steps": 5, "seconds": 30.0}}
    arm["train"] = {"steps": 40.0, "seconds": 80.0}
    assert reports._reached(arm, [[10, 6.0], [40, 7.2]]) == {"steps": 20, "seconds": 70.0}
    assert reports._reached(arm, [[40, 8.0]]) is None
    assert reports._reached({**arm, "pretrain": None}, [[40, 5.0]])["seconds"] == 20.0
    assert reports._reached({**arm, "train": None, "curve": []}, []) is None
