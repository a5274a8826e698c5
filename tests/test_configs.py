"""Every configuration file is read, and trains with micro sizes on top."""

import functools
import json
from pathlib import Path

import pytest
import yaml

from separator import cli
from separator.cli.compare.config import CompareConfig
from separator.cli.compare.planning import settings
from separator.config import from_dict, parse, to_dict
from separator.data.corpus import write_corpus
from separator.engine import optim
from separator.pretrain import schedules
from separator.pretrain.config import PretrainConfig
from separator.pretrain.masking.strategies.dispersion import uniform_share
from separator.pretrain.task import PretrainTask
from separator.train.config import TrainConfig
from tests import toys

CONFIGS = Path(__file__).parents[1] / "configs"
KINDS = {"pretrain": PretrainConfig, "train": TrainConfig}
PRESETS = [(kind, path) for kind in KINDS for path in sorted((CONFIGS / kind).glob("*.yaml"))]
SIZES = sorted(path.name for path in CONFIGS.glob("*.yaml"))

MICRO = [*toys.MICRO, "steps=2"]


# what presets made for minutes of music need in order to go into a second of it
SHORT = {
    "next": ["data.segment_seconds=2"],
    "recipe": [*("data.segment_seconds=2", "adversary.weight=[[0,0],[1,0.1]]"),
               "adversary.start=0"],
    "growing": ["mask.group=4", "crop_frames=[[0,16],[1,32]]"],
    "labels": ["labels.clusters=4", "labels.crops=8"],
    "adversary": ["adversary.weight=[[0,0],[1,0.1]]", "adversary.start=0"],
    "maskspec": [*("patch.width=16", "patch.depth=2", "patch.heads=2", "patch.ffn_dim=32"),
                 *("patch.decoder_width=16", "patch.decoder_depth=1", "patch.decoder_heads=2")],
}  # fmt: skip
TINY = {  # the same for three seconds at the sizes of tiny.yaml
    "recipe": ["adversary.weight=[[0,0],[1,0.1]]", "adversary.start=0"],
    "growing": ["crop_frames=[[0,32],[1,64]]"],
    "labels": ["labels.clusters=8", "labels.crops=16"],
    "adversary": SHORT["adversary"],
    "maskspec": ["patch.decoder_width=192", "patch.decoder_depth=2", "patch.decoder_heads=4"],
}

NEEDED = {  # what presets must be told beside data.roots
    "remix": ["remix.voices=[{voices}]"],
    "teacher": ["teacher.models=[{model}]"],
}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_corpus(tmp_path_factory.mktemp("corpus"), songs=3, seconds=3.0)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, corpus: Path) -> Path:
    """A model that can separate, at the micro rate."""
    run = tmp_path_factory.mktemp("trained")
    assert cli.main(["train", *MICRO, f"data.roots=[{corpus}]", f"run={run}"]) == 0
    return run / "model.safetensors"


@pytest.mark.parametrize(("kind", "path"), PRESETS, ids=lambda value: getattr(value, "name", value))
def test_presets_train(kind: str, path: Path, corpus: Path, trained: Path, tmp_path: Path):
    micro = [*MICRO, "mask.band_span=3"] if kind == "pretrain" else MICRO
    micro = [*micro, *SHORT.get(path.stem, [])]
    micro += [word.format(voices=corpus, model=trained) for word in NEEDED.get(path.stem, [])]
    words = [kind, str(path), "tiny.yaml", *micro, f"data.roots=[{corpus}]", f"run={tmp_path}"]
    assert cli.main(words) == 0
    rows = [json.loads(row) for row in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows if row["kind"] == "train"] == [1, 2]


@pytest.mark.slow
@pytest.mark.parametrize("preset", ["recipe.yaml", "maskspec.yaml", "hpm.yaml", "mixcorrupt.yaml"])
def test_presets_take_real_steps_on_real_music(preset: str, shared_data: Path, tmp_path: Path):
    words = [
        *("pretrain", f"pretrain/{preset}", "tiny.yaml", f"run={tmp_path}", "steps=2"),
        *(f"data.roots=[{shared_data / 'songs'}]", "data.valid_share=0.5", "data.workers=0"),
        *("data.batch=2", "valid_crops=2", "device=cpu", "log_every=1"),
        *TINY.get(Path(preset).stem, []),
    ]
    assert cli.main(words) == 0
    rows = [json.loads(row) for row in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    for row in (row for row in rows if row["kind"] == "train"):
        lowest = -1 if "loss/wave" in row else 0  # decibels: below 0 where good
        assert lowest < row["loss"] < 1
    assert 0 < rows[-1]["valid/l1_model"] < 1


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("kind", KINDS)
def test_sizes_lie_over_every_preset(kind: str, size: str):
    for path in sorted((CONFIGS / kind).glob("*.yaml")):
        needed = [word.format(voices="x", model="x") for word in NEEDED.get(path.stem, [])]
        short = [*TINY.get(path.stem, []), *needed]
        words = [str(path), size, "data.roots=[x]", "data.batch=2", *short]
        config = parse(KINDS[kind], words, kind)
        given = yaml.safe_load((CONFIGS / size).read_text())
        for key, value in given.get("model", {}).items():
            there = getattr(config.model, key)
            assert (list(there) if isinstance(there, tuple) else there) == value


BERT = {
    **{"share": 0.15, "mask": 0.8, "noise": 0.1, "mix": 0.0, "clean_share": 0.0},
    **{"strategy": "uniform", "group": 16, "band": 0},
}
RECIPE = {"error": "l1", "masked_weight": 1, "unmasked_weight": 0}
FILLED = {"mask": 1.0, "noise": 0.0, "mix": 0.0, "clean_share": 0.0}


@pytest.mark.parametrize(
    ("name", "mask", "others"),
    [
        ("bert15", BERT, {**RECIPE, "next.weight": 0, "adversary.weight": 0}),
        ("next", BERT, {"next.token": 16, "next.same": 0, "next.bands": False}),
        ("adversary", BERT, {"adversary.kind": "token", "adversary.start": 1000}),
        (
            "recipe",
            BERT,
            {
                **RECIPE,
                "next.token": 16,
                "next.same": 0,
                "next.bands": False,
                "adversary.kind": "token",
                "adversary.start": 1000,
            },
        ),
        ("frequency", {**FILLED, "band": 1, "band_span": 15}, {}),
        ("time_frequency", {**FILLED, "band": 1, "band_span": 15, "span": 40, "group": 1}, {}),
        ("random_time", {**FILLED, "span": 40, "band": 0}, {"error": "l1"}),
        ("window", {**FILLED, "span": 40, "band": 0}, {"error": "l1"}),
        ("maskspec", {**FILLED, "share": 0.75, "group": 16, "band": 16}, {"error": "mse"}),
        ("maskspec75", {**FILLED, "share": 0.75, "group": 16, "band": 16}, {"error": "mse"}),
        ("ssast", {**FILLED, "share": 400 / 512}, {"error": "mse"}),
        ("ibm", {**FILLED, "share": 0.7}, {}),
        ("dwm", {**FILLED, "share": 0.7}, {}),
        ("hpm", {**FILLED, "share": 0.75}, {}),
        ("hubert", {**FILLED, "span": 10}, {"masked_weight": 1, "unmasked_weight": 0}),
        ("labels", {**FILLED, "span": 10}, {}),
    ],
)
def test_presets_have_their_sources_numbers(name: str, mask: dict, others: dict):
    short = TINY.get(name, [])
    short = [] if name in ("adversary", "recipe") else short
    config = parse(PretrainConfig, [f"pretrain/{name}.yaml", "data.roots=[x]", *short], "pretrain")
    for key, value in mask.items():
        there = getattr(config.mask, key)
        assert there == (value if isinstance(value, str) else pytest.approx(value, abs=2e-3)), key
    for key, value in others.items():
        assert functools.reduce(getattr, key.split("."), config) == value, key


@pytest.mark.parametrize("name", ["next", "adversary", "recipe"])
def test_objectives_of_presets_pull(name: str):
    config = parse(PretrainConfig, [f"pretrain/{name}.yaml", "data.roots=[x]"], "pretrain")
    if name != "adversary":
        assert config.next.weight == 0.1
    if name != "next":
        weights = [schedules.value(config.adversary.weight, step) for step in (1999, 4000, 10**6)]
        assert weights == [0, 0.1, 0.1]
        assert config.adversary.start < 2000


@pytest.mark.parametrize("name", ["recipe", "bert15", "next", "adversary"])
@pytest.mark.parametrize(("size", "frames"), [("tiny", 8), ("base", 16), ("large", 16)])
def test_groups_last_as_long_at_any_hop(name: str, size: str, frames: int):
    """Without a key set by hand; what is given in frames counts as frames."""
    words = [f"pretrain/{name}.yaml", f"{size}.yaml", "data.roots=[x]"]
    config = parse(PretrainConfig, words, "pretrain")
    assert config.mask.group == frames
    assert config.mask.group * config.stft.hop / config.rate == pytest.approx(0.3715, abs=1e-4)
    if name in ("recipe", "next"):
        assert config.next.token == frames
    assert from_dict(PretrainConfig, to_dict(config)) == config
    config = parse(PretrainConfig, [*words, "mask.group=5", "next.token=6"], "pretrain")
    assert (config.mask.group, config.next.token) == (5, 6)


@pytest.mark.slow
def test_one_real_step_of_the_seed(tmp_path: Path):
    """The whole recipe at the source's own sizes, on an eighth of its crop: all weights move."""
    corpus = write_corpus(tmp_path / "corpus", songs=3, seconds=7.0)
    words = [f"data.roots=[{corpus}]", f"run={tmp_path / 'run'}", "data.workers=0", "device=cpu"]
    words += ["valid_crops=1", "adversary.start=0", "adversary.weight=0.1"]
    words += [f"data.segment_seconds={127 * 1024 / 44100}"]
    config = parse(PretrainConfig, ["pretrain/recipe.yaml", "large.yaml", *words], "pretrain")
    task = PretrainTask(config)
    optimizer = optim.build(task.parameter_groups(), config.optim)
    batch = next(task.batches(0))
    assert task.example(batch, 0, toys.seeded()).target.shape == (1, 2, 1025, 128)
    scalars = task.step(task.model, batch, 0, toys.seeded())
    assert all(scalars[f"loss/{name}"].isfinite() for name in ("masked", "next", "adversary"))
    scalars["loss"].backward()
    still = [n for n, weight in task.model.named_parameters() if not weight.grad.abs().max() > 0]
    assert not still
    before = task.model.backbone.head.weight.detach().clone()
    optimizer.step()
    assert (task.model.backbone.head.weight != before).all()
    assert all(weight.isfinite().all() for weight in task.model.parameters())


def test_dwm_begins_uniformly_for_a_sixth_of_its_steps():
    config = parse(PretrainConfig, ["pretrain/dwm.yaml", "data.roots=[x]"], "pretrain").mask
    assert config.uniform_steps == round(config.weighted_steps / 6)
    assert [uniform_share(step, config) == 1 for step in (0, 1666, 1667)] == [True, True, False]


@pytest.mark.parametrize("name", sorted(path.name for path in (CONFIGS / "compare").glob("*")))
def test_every_arm_of_a_comparison_is_a_valid_run(name: str):
    words = [f"compare/{name}", "library=[x]", "stems=[y]"]
    songs = {name: ["z"] for name in ("instrumentals", "voices", "mixtures", "estimated")}
    config = parse(CompareConfig, [*words, f"songs={json.dumps(songs)}"], "compare")
    for arm, of in config.arms.items():
        assert settings("train", config.words(arm, "train"))["data"]["roots"] == ["y"]
        if of.pretrain:
            told = settings("pretrain", config.words(arm, "pretrain"))
            assert told["data"]["roots"] in (["x"], ["z"])


def test_base_is_the_default():
    plain = parse(TrainConfig, ["data.roots=[x]"], "train")
    base = parse(TrainConfig, ["base.yaml", "data.roots=[x]"], "train")
    assert (plain.model, plain.stft, plain.data) == (base.model, base.stft, base.data)


def test_packaged_files_are_found_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    for name in ("tiny.yaml", "configs/tiny.yaml"):
        config = parse(TrainConfig, [name, "data.roots=[x]"], "train")
        assert config.stft.hop == 2048
