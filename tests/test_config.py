"""Words and YAML files to checked settings, and one line for each mistake."""

import dataclasses
import json
import re
from pathlib import Path

import pytest
import yaml

from separator.cli import main
from separator.cli.scan_command import ScanConfig
from separator.config import from_dict, nearest, parse, to_dict
from separator.data.config import DataConfig
from separator.errors import SeparatorError
from separator.inference.separate import SeparateConfig
from separator.pretrain.config import PretrainConfig
from separator.train.config import TrainConfig


def pretrain(*words: object) -> PretrainConfig:
    return parse(PretrainConfig, [str(word) for word in words], "pretrain")


def error(*words: object, cls: type = PretrainConfig) -> str:
    with pytest.raises(SeparatorError) as caught:
        parse(cls, [str(word) for word in words], "pretrain")
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 600
    return message


def written(path: Path, values: dict) -> Path:
    path.write_text(yaml.safe_dump(values))
    return path


def test_a_tilde_is_the_home_folder_in_quotes_and_after_an_equals_sign(monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    words = [
        "~/a.mp3",
        "b~/~",
        "~",
        "~other/a",
        "--output=~/out",
        "-m",
        "~/m.onnx",
        "--report=~/r.json",
        "--name={name}~.{format}",
    ]
    config = parse(SeparateConfig, words, "separate", positional="inputs")
    assert config.inputs == ["/home/me/a.mp3", "b~/~", "/home/me", "~other/a"]
    assert (config.output, config.model) == ("/home/me/out", ["/home/me/m.onnx"])
    assert (config.report, config.name) == ("/home/me/r.json", "{name}~.{format}")
    assert pretrain("data.roots=[a]", "run=~/runs/1").run == "/home/me/runs/1"


def test_words_of_every_kind():
    config = pretrain(
        "data.roots=[a,stems:/b c@0.5]", "steps=7", "--optim.lr=0.25", "--optim.power", "2",
        "model.channels=[4,8,8]", "model.encoder_blocks=[0,1,1]", "model.decoder_blocks=[0,1,1]",
        "model.ffn_dim=[64,64,64]", "optim.betas=[0.8,0.99]", "mask.share=0.2", "run=runs/x=y",
        "--compile",
    )  # fmt: skip
    assert config.data.roots == ["a", "stems:/b c@0.5"]
    assert (config.steps, config.optim.lr, config.optim.power) == (7, 0.25, 2.0)
    assert config.model.channels == (4, 8, 8)
    assert tuple(config.optim.betas) == (0.8, 0.99)
    assert (config.mask.share, config.run, config.compile) == (0.2, "runs/x=y", True)
    assert (
        config.stft == PretrainConfig(data=config.data).stft
    )  # what is not said keeps its default


def test_one_root_may_stand_alone():
    assert pretrain("data.roots=[music]").data.roots == ["music"]


def test_what_comes_later_wins(tmp_path: Path):
    first = written(
        tmp_path / "first.yaml",
        {"steps": 1, "seed": 1, "data": {"roots": ["a"], "batch": 3}, "optim": {"lr": 0.5}},
    )
    second = written(tmp_path / "second.yaml", {"steps": 2, "data": {"batch": 5}})
    both = pretrain(first, second)
    assert (both.steps, both.seed, both.data.batch, both.optim.lr) == (2, 1, 5, 0.5)
    assert both.data.roots == ["a"]
    assert pretrain(second, first).data.batch == 3
    assert pretrain(first, second, "steps=3").steps == 3
    assert pretrain(first, "steps=3", second).steps == 2


def test_a_config_survives_dict_and_yaml(tmp_path: Path):
    config = pretrain("data.roots=[a,b]", "mask.group=8", "stft.power=0.3", "model.heads=4")
    values = to_dict(config)
    assert from_dict(PretrainConfig, values) == config
    assert pretrain(written(tmp_path / "config.yaml", values)) == config
    assert yaml.safe_load(yaml.safe_dump(values)) == values


@pytest.mark.parametrize(
    ("word", "key", "guess"),
    [
        ("stesp=3", "stesp", "steps"),
        ("optim.lrr=3", "optim.lrr", "optim.lr"),
        ("lr=3", "lr", "optim.lr"),
        ("--optim.warmup=3", "optim.warmup", "optim.warmup_steps"),
        ("model.n_fft=3", "model.n_fft", "stft.n_fft"),
    ],
)
def test_an_unknown_key_gets_the_nearest(word: str, key: str, guess: str):
    message = error("data.roots=[a]", word)
    assert f"unknown key {key!r}; did you mean {guess!r}?" in message


@pytest.mark.parametrize(
    ("command", "preset", "owner"),
    [
        ("train", "pretrain/recipe.yaml", "pretrain"),
        ("pretrain", "configs/train/vocals.yaml", "train"),
        ("compare", "train/vocals.yaml", "train"),
        ("train", "compare/masks.yaml", "compare"),
    ],
)
def test_a_preset_of_another_command(command: str, preset: str, owner: str, capsys):
    assert main([command, preset, "tiny.yaml", "data.roots=[a]"]) == 2
    line = f"separator: {preset}: is for `separator {owner}`; give `separator {command}` "
    assert capsys.readouterr().err.startswith(line)


def test_a_size_is_no_preset_of_compare(capsys):
    assert main(["compare", "tiny.yaml", "library=[a]"]) == 2
    line = "tiny.yaml: is a model's size, for `separator train` and `separator pretrain`; give "
    said = capsys.readouterr().err
    assert said.startswith(f"separator: {line}`separator compare` one of compare/evidence.yaml, ")


def test_an_unknown_key_in_a_file_gets_the_nearest(tmp_path: Path):
    path = written(tmp_path / "typo.yaml", {"data": {"roots": ["a"]}, "optim": {"lrr": 1}})
    message = error(path)
    assert message == f"{path}: unknown key 'optim.lrr'; did you mean 'optim.lr'?"
    message = error(written(path, {"data": {"roots": ["a"]}, "stesp": 1}))
    assert message == f"{path}: unknown key 'stesp'; did you mean 'steps'?"
    assert error("data.roots=[a]", "loss.sdr=0.1").startswith("loss: only objective=remix")
    with pytest.raises(SeparatorError, match="stesp"):
        from_dict(PretrainConfig, {**to_dict(pretrain("data.roots=[a]")), "stesp": 1})


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("data.roots=A", "data.roots: expected a list, such as [A]"),
        ("steps=x", "steps: expected int, got x"),
        (
            "labels.weight=x",
            "labels.weight: expected float, tuple[tuple[float, float], ...], got x",
        ),
        ("error=l3", "error: expected one of 'l1', 'mse', got l3"),
        ("data.batch=2.5", "data.batch: expected int, got 2.5"),
        ("log.wandb=maybe", "log.wandb: expected true or false, got maybe"),
    ],
)
def test_a_wrong_type_is_said_in_few_words(word: str, message: str):
    assert error(word) == message


@pytest.mark.parametrize(
    ("word", "reason", "fix"),
    [
        ("data.roots=[h #1]", "' #' begins a comment in YAML", '["h #1"]'),
        ("data.roots=[a, b #2]", "' #' begins a comment in YAML", '["a", "b #2"]'),
        ("data.roots=[~/x\t#1, ~/y]", "' #' begins a comment in YAML", '["~/x\\t#1", "~/y"]'),
        ("data.roots=[Bach: Masses]", "YAML takes Bach: Masses for a mapping", '["Bach: Masses"]'),
        ("data.roots=[1999, a]", "YAML takes 1999 for a number", '["1999", "a"]'),
        ("data.roots=[yes]", "YAML takes true for yes or no", '["yes"]'),
        ("data.roots=[@home]", "[@home] is no list in YAML", '["@home"]'),
        ("data.roots=[AC/DC [live]", "[AC/DC [live] is no list in YAML", '["AC/DC [live"]'),
        ("--data.roots+=[Bach: Masses]", "YAML takes Bach: Masses", '["Bach: Masses"]'),
    ],
)
def test_names_that_yaml_reads_otherwise_are_to_be_quoted(word: str, reason: str, fix: str):
    message = error(word)
    key = word.partition("=")[0].removeprefix("--").removesuffix("+")
    assert message.startswith(f"{key}: {reason}")
    assert f"put the name in quotes: '{key}={fix}'" in message
    assert pretrain(f"{key}={fix}").data.roots == yaml.safe_load(fix)  # the advice helps


@pytest.mark.parametrize(
    "name", ["h #1", "Bach: Masses", "1999", "it's", "a, b", "#1", "h#1", "{x}", "null", "- a"]
)
def test_any_name_in_quotes_is_taken(name: str):
    assert pretrain(f"data.roots={json.dumps([name])}").data.roots == [name]


def test_a_plus_appends_to_a_list():
    assert pretrain("data.roots=[a]", "data.roots+=[b]", "--data.roots+=c").data.roots == [*"abc"]


def test_a_single_name_is_shown_in_a_list():
    assert error("data.roots=h #1") == 'data.roots: expected a list, such as ["h #1"]'


def test_a_type_that_may_be_left_out_is_said_in_few_words():
    with pytest.raises(SeparatorError, match=r"^--jobs: expected int, got x$"):
        parse(ScanConfig, ["A", "--jobs", "x"], "scan", positional="roots")


@pytest.mark.parametrize(
    ("name", "guess"),
    [
        ("pretrain/bert1.yaml", "did you mean pretrain/bert15.yaml?"),
        ("bert15.yaml", "did you mean pretrain/bert15.yaml?"),
        ("mine.yaml", "give a YAML file that exists"),
    ],
)
def test_a_preset_that_is_not_there_gets_the_nearest(name: str, guess: str):
    assert error("data.roots=[a]", name) == f"{name}: no such file; {guess}"


@pytest.mark.parametrize("run", ["", __file__])
def test_a_run_needs_a_folder(run: str):
    assert error("data.roots=[a]", f"run={run}").startswith(f"run: {run!r} is no folder")


def test_nothing_near_lists_the_keys():
    assert nearest("zzz", ["steps", "seed"]) == "; the keys are steps, seed"
    assert error("zzz=1") == "unknown key 'zzz'; --help lists the keys"  # a hundred of them


@pytest.mark.parametrize(
    ("word", "key"),
    [
        ("steps=many", "steps"),
        ("steps=1.5", "steps"),
        ("optim.lr=fast", "optim.lr"),
        ("model.channels=[a,b]", "model.channels"),
        ("optim.schedule=linear", "optim.schedule"),
        ("compile=perhaps", "compile"),
        ("device=tpu", "device"),
    ],
)
def test_a_wrong_type_names_the_key_and_the_value(word: str, key: str):
    message = error("data.roots=[a]", word)
    assert key in message
    assert word.split("=")[1].strip("[]").split(",")[0] in message


@pytest.mark.parametrize(
    ("word", "start"),
    [
        ("steps=0", "steps: 0"),
        ("optim.lr=-1", "optim.lr: -1"),
        ("optim.lr=.nan", "optim.lr: nan"),
        ("data.segment_seconds=.inf", "data.segment_seconds: inf"),
        ("stft.n_fft=1000", "stft.n_fft: 1000"),
        ("mask.share=3", "mask.share: 3"),
        ("mask.group=500", "mask.group: 500 frames, but the shortest crops have"),
        ("model.norm=group", "model.norm: expected one of 'rms', "),
        ("model.channels=[1,2]", "model.encoder_blocks: "),
        ("data.batch=0", "data.batch: "),
        ("data.roots=[]", "data.roots: "),
        ("rate=10", "rate: 10"),
        ("masked_weight=0", "masked_weight, unmasked_weight: "),
        ("valid_crops=0", "valid_crops: 0"),
        ("ema_decay=1", "ema_decay: 1"),
    ],
)
def test_a_value_out_of_range_names_the_key(word: str, start: str):
    assert start in error("data.roots=[a]", word)


@pytest.mark.parametrize(
    ("word", "start"),
    [
        ("layer_decay=0", "layer_decay: 0"),
        ("valid_seconds=-1", "valid_seconds: -1"),
        ("loss.wave_l1=-1", "loss.wave_l1: -1"),
        ("rate=10", "rate: 10"),
    ],
)
def test_the_same_of_training(word: str, start: str):
    assert start in error("data.roots=[a]", word, cls=TrainConfig)


def test_a_key_that_must_be_given():
    assert "data.roots" in error("steps=3")


def test_files_that_are_none(tmp_path: Path):
    absent = tmp_path / "absent.yaml"
    assert error(absent).startswith(f"{absent}: no such file")
    path = tmp_path / "bad.yaml"
    for text, reason in (
        ("- a\n- b\n", "holds no keys"),
        ("", "holds no keys"),
        ("just words", "holds no keys"),
        ("a: [1,\nb: }", "not YAML"),
        ("\x00\x01", "not YAML"),
    ):
        path.write_text(text)
        message = error(path)
        assert message.startswith(f"{path}: ")
        assert reason in message
    path.write_bytes(b"\xff\xfe\x00a: 1")
    assert error(path).startswith(f"{path}: ")
    assert error("music/song.mp3").startswith("'music/song.mp3' is neither")


def test_the_command_says_it_in_one_line(capsys):
    assert main(["pretrain", "data.roots=[a]", "stesp=1"]) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("separator: unknown key 'stesp'")
    assert captured.err.count("\n") == 1
    assert captured.out == ""


@pytest.mark.parametrize("command", ["pretrain", "train", "compare"])
def test_usage_shows_files_and_words(command: str, capsys):
    with pytest.raises(SystemExit):
        main([command, "--help"])
    usage = f"usage: separator {command} [FILE.yaml ...] [key=value ...]"
    assert capsys.readouterr().out.splitlines()[0] == usage


def test_print_config_takes_no_value(capsys):
    with pytest.raises(SystemExit):
        main(["train", "--print_config", "train/vocals.yaml", "data.roots=[a]"])
    assert "kind: muon" in capsys.readouterr().out


def test_flags_are_shown_as_they_are_taken(capsys):
    with pytest.raises(SystemExit):
        main(["separate", "--help"])
    text = " ".join(capsys.readouterr().out.split())
    assert " [--strict] " in text and " --strict refuse songs " in text
    assert "=false" not in text and "type: str" not in text and '"--two-stems vocals"' in text
    for words, expected in ((["--strict"], True), (["--strict=false"], False), ([], False)):
        assert parse(SeparateConfig, ["a.wav", *words], "separate", "inputs").strict is expected


@pytest.mark.parametrize(("command", "cls"), [("pretrain", PretrainConfig), ("train", TrainConfig)])
def test_help_has_type_default_and_sentence_of_every_option(command: str, cls: type, capsys):
    with pytest.raises(SystemExit) as caught:
        main([command, "--help"])
    assert caught.value.code == 0
    text = " ".join(capsys.readouterr().out.split())
    text = text[text.index(" --config CONFIG a YAML file") :]  # after the usage
    for name, default, owner in _leaves(cls):
        start = text.index(f" --{name} ")
        end = re.search(rf" --(?!{re.escape(name)}[ +])", text[start:])
        entry = text[start : start + end.start() if end else None]
        assert "(type: " in entry or "(required, type: " in entry, entry
        if default is not dataclasses.MISSING:
            assert "default: " in entry, entry
        sentence = _sentence(owner, name.split(".")[-1])
        assert sentence in entry, f"{entry!r} lacks {sentence!r}"


def _leaves(cls: type, prefix: str = "") -> list[tuple[str, object, type]]:
    """Every option: its full name, its default and the dataclass it belongs to."""
    found = []
    for field in dataclasses.fields(cls):
        name, default = prefix + field.name, field.default
        factory = field.default_factory
        inner = DataConfig if name == "data" else type(factory()) if callable(factory) else None
        if dataclasses.is_dataclass(inner):
            found += _leaves(inner, f"{name}.")
        else:
            found.append((name, default, cls))
    return found


def _sentence(owner: type, name: str) -> str:
    """The first words of a field's help, from the docstring of its class or of its parents."""
    for cls in owner.__mro__:
        lines = (cls.__doc__ or "").splitlines()
        for line in lines:
            if line.strip().startswith(f"{name}: "):
                return " ".join(line.split()[1:6])
    raise AssertionError(f"{owner.__name__}.{name} has no help")


@pytest.mark.parametrize(
    ("word", "key"),
    [
        ("mask.strategy=random", "mask.strategy: 'random' is not one of clusters"),
        ("mask.band=7", "mask.band: 7 does not divide 2048 bins"),
        ("error=l2", "error"),
        ("mask.strategy=frequency", "mask.band, mask.band_span: 0 x 15 bins of 2048"),
        (
            "mask.strategy=window",
            "mask.span: runs of up to 640 frames, but the shortest crops have 260",
        ),
    ],
)
def test_what_pretraining_does_not_know_is_named(word: str, key: str):
    assert error("data.roots=[x]", word).startswith(key)


def test_covering_crops_with_another_needs_two():
    message = error("data.roots=[x]", "mask.mix=0.1", "data.batch=1")
    assert message.startswith("mask.mix: ")
    assert "data.batch" in message


def test_the_rate_is_that_of_the_stage():
    rates = [parse(cls, ["data.roots=[x]"], "x").optim.lr for cls in (PretrainConfig, TrainConfig)]
    assert rates == [0.001, 0.002]


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ([], "data.roots: is not given; write 'data.roots=[FOLDER]', with your folder of songs"),
        (["data.roots", "x"], "key=value; write 'data.roots=[FOLDER]', with your folder of songs"),
        (["steps"], "'steps' is neither a YAML file nor key=value; write steps=VALUE"),
        (["model"], "nor key=value; write model.KEY=VALUE, --help lists the keys"),
        (["my music"], "key=value; write 'data.roots=[my music]'"),
        (["nothing"], "'nothing' is neither a YAML file nor key=value"),
    ],
)
def test_errors_show_how_a_setting_is_written(words, line, tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my music").mkdir()
    with pytest.raises(SeparatorError) as caught:
        parse(TrainConfig, words, "train")
    assert str(caught.value).endswith(line)
