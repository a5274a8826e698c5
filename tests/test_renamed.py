"""Keys and tensors of the previous version are read under their new names, with one notice."""

import logging
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file

from separator.bundled import model_path
from separator.config import from_dict, parse, to_dict
from separator.dsp.config import STFTConfig
from separator.engine import checkpoint
from separator.engine.model_file import export, load_model, load_model_file
from separator.errors import SeparatorError
from separator.models.build import create, describe
from separator.models.config import ModelConfig, PatchConfig
from separator.pretrain.config import PretrainConfig
from separator.renamed import KEYS, rename_keys, rename_tensors, rename_words
from separator.train.config import TrainConfig

OLD = {"channels": [2, 4], "encoder_blocks": [0, 1], "decoder_blocks": [0, 1], "hidden": [0, 32]}
FEW = {"channels": (2, 4), "encoder_blocks": (0, 1), "decoder_blocks": (0, 1), "ffn_dim": (0, 32)}
NOTICE = "model.hidden is now model.ffn_dim"


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    """What commands log."""
    caplog.set_level(logging.INFO, "separator")
    return caplog


def pretrain(*words: object) -> PretrainConfig:
    return parse(PretrainConfig, ["data.roots=[a]", *map(str, words)], "pretrain")


@pytest.mark.parametrize("config", [PretrainConfig, TrainConfig])
def test_every_new_key_is_one_of_a_trainer_and_no_old_one_is(config: type):
    values = to_dict(parse(config, ["data.roots=[a]"], "x"))
    for old, new in KEYS.items():
        renamed, found = rename_keys({})
        assert (renamed, found) == ({}, set())
        assert (lookup(values, old), old in KEYS.values()) == (False, False)
        in_mapping = new.startswith("loss.")  # whose keys are names of losses
        assert in_mapping or lookup(values, new) or config is TrainConfig


def lookup(values: dict, key: str) -> bool:
    for part in key.split("."):
        if part not in values:
            return False
        values = values[part]
    return True


@pytest.mark.parametrize(
    "words",
    [
        ("model.hidden=[0,32,0,0,0,0]",),
        ("--model.hidden=[0,32,0,0,0,0]",),
        ("--model.hidden", "[0,32,0,0,0,0]"),
    ],
    ids=str,
)
def test_an_old_key_on_the_command_line(words: tuple[str, ...], log: pytest.LogCaptureFixture):
    blocks = "model.encoder_blocks=[0,1,0,0,0,0]", "model.decoder_blocks=[0,1,0,0,0,0]"
    assert pretrain(*words, *blocks).model.ffn_dim == (0, 32, 0, 0, 0, 0)
    assert [NOTICE in notice for notice in log.messages] == [True]


def test_old_keys_in_files_and_words_are_noted_once(tmp_path: Path, log: pytest.LogCaptureFixture):
    path = tmp_path / "old.yaml"
    path.write_text(yaml.safe_dump({"model": OLD, "patch": {"hidden": 40}, "run": "#1: a, {b}"}))
    config = pretrain(path, path, "model.recall=2")
    assert config.model == ModelConfig(**FEW, cross_frame_bands=2)
    assert (config.patch.ffn_dim, config.run) == (40, "#1: a, {b}")
    assert len(log.messages) == 1
    assert NOTICE in log.messages[0]
    assert "patch.hidden is now patch.ffn_dim" in log.messages[0]
    assert "model.recall is now model.cross_frame_bands" in log.messages[0]


def test_what_comes_later_wins_whatever_its_name(tmp_path: Path):
    path = tmp_path / "old.yaml"
    path.write_text(yaml.safe_dump({"model": OLD}))
    assert pretrain(path, "model.ffn_dim=[0,64]").model.ffn_dim == (0, 64)
    path.write_text(yaml.safe_dump({"model": {"cross_frame_bands": 2}}))
    assert pretrain(path, "model.recall=0").model.cross_frame_bands == 0


def test_new_keys_are_not_noted(log: pytest.LogCaptureFixture):
    pretrain("tiny.yaml", "model.cross_frame_bands=2")
    assert log.messages == []


def test_a_key_under_both_names_is_refused_in_a_line(tmp_path: Path):
    message = "model.recall: is now model.cross_frame_bands, which is given as well"
    with pytest.raises(SeparatorError) as error:
        pretrain("model.recall=2", "model.cross_frame_bands=4")
    assert str(error.value) == f"{message}; remove model.recall"
    path = tmp_path / "both.yaml"
    path.write_text("model: {recall: 2, cross_frame_bands: 4}")
    with pytest.raises(SeparatorError) as error:
        pretrain(path)
    assert str(error.value) == f"{path}: {message}; remove model.recall"


def test_words_that_are_no_old_keys_stay_as_they_are():
    words = ["--model.hidden+=2", "--run", "model.hidden", "b.yaml", "--model.hidden_=1", "-m=1"]
    renamed = ["--model.ffn_dim+=2", *words[1:]]
    assert rename_words(words) == (renamed, {"model.hidden"})
    values = {"model": {"x": 1, "hidden": None, "y": 2}, "patch": 3, "hidden": 4}
    renamed, found = rename_keys(values)
    assert (renamed, found) == (
        {"model": {"x": 1, "ffn_dim": None, "y": 2}, "patch": 3, "hidden": 4},
        {"model.hidden"},
    )
    assert [*renamed["model"]] == ["x", "ffn_dim", "y"]


def test_a_saved_configuration(log: pytest.LogCaptureFixture):
    values = to_dict(pretrain())
    old = {**values, "model": {**values["model"]}}
    old["model"]["hidden"] = old["model"].pop("ffn_dim")
    assert from_dict(PretrainConfig, old) == pretrain()
    assert log.messages == []  # nobody typed it


def old_file(path: Path, sizes: ModelConfig | PatchConfig) -> dict:
    """Write a model file of the previous version; return the weights under today's names."""
    torch.manual_seed(0)
    stft = STFTConfig(n_fft=64, hop=32)
    description = {"stage": "train", **describe(sizes, stft, 44100)}
    names = {"ffn_dim": "hidden", "decoder_ffn_dim": "decoder_hidden", "block": "cell"}
    names |= {"cross_frame_bands": "recall", "mask_known": "told"}
    description["model"] = {names.get(k, k): v for k, v in description["model"].items()}
    model = create(sizes, stft.bins)
    state = {name: torch.randn_like(value) for name, value in model.state_dict().items()}
    old = {previous_name(name): value for name, value in state.items()}
    assert (old.keys() != state.keys()) == isinstance(sizes, ModelConfig)
    export(path, old, description)
    return state


def previous_name(name: str) -> str:
    """Return what a tensor of a model was called."""
    parts = {"blocks": "cells", "cross_frame": "recall", "mask_bias": "profile"}
    parts |= {"mask_detector": "white"}
    return ".".join(parts.get(part, part) for part in name.split("."))


@pytest.mark.parametrize(
    "sizes",
    [
        ModelConfig(**FEW),
        ModelConfig(**FEW, mask_known=False),
        PatchConfig(patch=4, width=16, depth=1, heads=2, ffn_dim=24, decoder_depth=1),
    ],
    ids=["frame", "detector", "patch"],
)
def test_a_model_file_of_the_previous_version(
    sizes: ModelConfig | PatchConfig, tmp_path: Path, log: pytest.LogCaptureFixture
):
    path = tmp_path / "old.safetensors"
    state = old_file(path, sizes)
    model, stft, description = load_model(path)
    same = create(sizes, stft.bins).eval()
    same.load_state_dict(state)
    x = torch.rand(2, 2, stft.bins, 5)
    with torch.inference_mode():
        assert torch.equal(model.eval()(x), same(x))
    assert description["model"] == to_dict(sizes)
    group = "patch" if isinstance(sizes, PatchConfig) else "model"
    assert [f"{path}: " in n and f"{group}.hidden is now" in n for n in log.messages] == [True]
    assert "`separator export`" in log.messages[0]
    weights, described = load_model_file(path)
    export(tmp_path / "new.safetensors", weights, described)
    log.clear()
    assert load_model(tmp_path / "new.safetensors")[2]["model"] == to_dict(sizes)
    assert log.messages == []


def test_a_description_with_both_names_is_refused(tmp_path: Path):
    path = tmp_path / "both.safetensors"
    state = old_file(path, ModelConfig(**FEW))
    description = load_model_file(path)[1]
    description["model"]["recall"] = 4
    export(path, state, description)
    with pytest.raises(SeparatorError, match=f"{path}: describes no model .*model.recall: is now"):
        load_model(path)


def test_the_bundled_model_has_names_of_this_version(log: pytest.LogCaptureFixture):
    path = model_path("tiny-vocals")
    stored, (model, _, description) = load_file(path), load_model(path)
    assert description["model"] == to_dict(model.config)
    assert stored.keys() == model.state_dict().keys()
    for name, value in model.state_dict().items():
        assert torch.equal(value, stored[name].float()), name
    assert log.messages == []


def test_a_checkpoint_of_the_previous_version(tmp_path: Path):
    path = tmp_path / "last.pt"
    payload = {
        **{
            "format": checkpoint.CHECKPOINT_FORMAT,
            "averaged": 0,
            "optimizer": {},
            "step": 3,
            "companion": {"optimizer": {}},
            "scores": [],
        },
        **{
            "skipped": 0,
            "rollbacks": 0,
            "config": {"model": OLD},
            "micro_batches": 1,
            "songs": torch.tensor([1]),
        },
        "description": {"architecture": "frame_transformer", "model": OLD, "part": "trunk"},
        "model": {"trunk.encoder_tokens.1.cells.0.norm1.gain": torch.ones(2)},
        "ema": {"recall.q.weight": torch.zeros(3)},
    }
    torch.save(payload, path)
    loaded = checkpoint.load(path)
    for part in ("config", "description"):
        assert loaded[part]["model"]["ffn_dim"] == [0, 32]
        assert "hidden" not in loaded[part]["model"]
    assert [*loaded["model"]] == ["backbone.encoder_tokens.1.blocks.0.norm1.gain"]
    assert loaded["description"]["part"] == "backbone"
    assert loaded["discriminator"] == {"optimizer": {}} and "companion" not in loaded
    assert [*loaded["ema"]] == ["cross_frame.q.weight"]


def test_clusters_of_labels_are_part_of_their_head():
    assert rename_tensors({"labeller.mean": 1, "heads.labels.norm.weight": 2}) == {
        "heads.labels.labeller.mean": 1,
        "heads.labels.norm.weight": 2,
    }


def test_a_preset_is_found_under_its_old_name(caplog: pytest.LogCaptureFixture):
    words = ["pretrain/recipe.yaml", "data.roots=[x]", "run=x"]
    old = parse(PretrainConfig, [*words, "seed.yaml"], "pretrain")
    assert "seed.yaml is now large.yaml" in caplog.text
    assert old == parse(PretrainConfig, [*words, "large.yaml"], "pretrain")
