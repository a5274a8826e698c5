"""From waves to what the model is shown: crops, the separator, and how losses are put together."""

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor

from separator.cli import main
from separator.config import parse
from separator.data.corpus import write_corpus
from separator.errors import SeparatorError
from separator.pretrain.config import PretrainConfig
from separator.pretrain.example import cut_crops, make_example
from separator.pretrain.objectives import masked_error
from separator.stft import stft

MICRO = [
    *(
        "rate=8000",
        "stft.n_fft=256",
        "stft.hop=128",
        "device=cpu",
        "data.workers=0",
        "data.batch=2",
    ),
    *("model.channels=[2,4,4]", "model.encoder_blocks=[0,1,1]", "model.decoder_blocks=[0,1,1]"),
    *("model.hidden=[0,32,32]", "data.segment_seconds=2", "mask.group=4", "valid_crops=2"),
]


def config(*words: str) -> PretrainConfig:
    return parse(PretrainConfig, [*MICRO, "data.roots=[x]", *words], "pretrain")


def waves(batch: int = 2, seconds: float = 2.0) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(batch, 2, round(8000 * seconds), generator=generator) * 0.1


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_crops_grow_by_the_global_step_and_lose_nothing_but_the_rest():
    grows = config("crop_frames=[[0,16],[10,32],[20,0]]")
    x = waves()
    for step, frames, pieces in ((0, 16, 8), (9, 16, 8), (10, 32, 4), (20, 126, 1)):
        crops = cut_crops(x, grows, step)
        assert len(crops) == 2 * pieces
        assert stft(crops, grows.stft).shape[-1] == frames
        length = crops.shape[-1]
        for index, crop in enumerate(crops):
            item, piece = divmod(index, pieces)
            assert torch.equal(crop, x[item, :, piece * length : (piece + 1) * length])


def test_items_of_next_spectrogram_prediction_give_crops_of_the_asked_length():
    asked = config("crop_frames=24", "next.weight=0.1", "next.token=4")
    example = make_example(waves(), asked, asked.mask, 0, generator())
    assert example.target.shape[-1] == 24
    assert len(example.target) == 2 * (16000 // ((48 + 3 - 1) * 128))


def test_the_separator_is_seen_and_counts_nowhere():
    asked = config("next.weight=0.1", "next.token=4", "unmasked_weight=0.5", "mask.share=0.5")
    example = make_example(waves(), asked, asked.mask, 0, generator())
    frames = example.target.shape[-1]
    joint = slice(frames // 2 - 2, frames // 2 + 2)
    pattern = torch.tensor([1.0, 0.0]).repeat(65)[:129, None]
    for seen in (example.target, example.corrupted.spectrogram):
        assert torch.equal(seen[..., joint], pattern.expand(2, 2, -1, 4))
    restored = torch.rand(example.target.shape, generator=generator(1))
    changed = restored.clone()
    changed[..., joint] = 7
    first, second = (
        masked_error(x, example.target, example.corrupted, 1.0, 0.5) for x in (restored, changed)
    )
    assert first == second


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_corpus(tmp_path_factory.mktemp("corpus"), songs=3, seconds=3.0)


def row(corpus: Path, run: Path, *more: str) -> dict:
    """The logged numbers of one step."""
    words = [*MICRO, f"data.roots=[{corpus}]", f"run={run}", "steps=1", "log_every=1", *more]
    assert main(["pretrain", *words]) == 0
    return json.loads((run / "metrics.jsonl").read_text().splitlines()[0])


@pytest.mark.parametrize("unmasked", [0.0, 0.1, 1.0])
def test_the_two_weights_of_the_error(unmasked: float, corpus: Path, tmp_path: Path):
    got = row(corpus, tmp_path, f"unmasked_weight={unmasked}")
    assert got["loss"] == pytest.approx(got["loss/masked"] + unmasked * got["loss/unmasked"])


def test_ssasts_sum_is_ten_to_one(corpus: Path, tmp_path: Path):
    got = row(
        corpus,
        tmp_path,
        *("pretrain/ssast.yaml", "model.recall=2", "balance=false"),
        *("masked_weight=10", "contrast.weight=1"),
    )
    assert got["loss/contrast"] > 0
    assert got["loss"] == pytest.approx(10 * got["loss/masked"] + got["loss/contrast"], rel=1e-5)


@pytest.mark.parametrize(
    ("words", "key"),
    [
        (["mask.strategy=hard"], "mask.strategy, hard.weight"),
        (["hard.weight=0.1"], "mask.strategy, hard.weight"),
        (["adversary.weight=0.1", "mask.band=16"], "adversary.kind"),
        (["adversary.weight=0.1", "adversary.lr=0.1"], "adversary.lr"),
        (["adversary.weight=0.3"], "adversary.weight"),
        (["next.weight=0.1", "next.token=62"], "next.token"),
        (["labels.weight=0.1", "labels.group=200"], "labels.group"),
        (["crop_frames=500"], "crop_frames"),
        (["crop_frames=80", "next.weight=0.1", "next.token=4"], "crop_frames"),
        (["crop_frames=6"], "mask.group"),
        (["masked_weight=0"], "masked_weight, unmasked_weight"),
        (["masked_weight=[[5,1],[5,0]]"], "masked_weight"),
        (["architecture=cnn"], "architecture"),
        (["nxt.weight=1"], "unknown key 'nxt.weight'"),
    ],
)
def test_what_does_not_go_together_is_one_line(words: list[str], key: str):
    with pytest.raises(SeparatorError, match=f"^{key}") as caught:
        config(*words)
    assert "\n" not in str(caught.value)
