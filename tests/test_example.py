"""From waves to what the model is shown: crops, the separator, and how losses are put together."""

import functools
import json
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from separator.cli import main
from separator.config import parse
from separator.data.corpus import write_corpus
from separator.dsp.stft import stft
from separator.engine import checkpoint
from separator.engine.loop import fit
from separator.errors import SeparatorError
from separator.models.base import Outputs
from separator.models.build import create
from separator.pretrain.batch import cut_crops, make_example
from separator.pretrain.config import PretrainConfig
from separator.pretrain.masking.grid import PatchGrid
from separator.pretrain.model import Pretrainer, predict_errors
from separator.pretrain.objectives import Prediction
from separator.pretrain.objectives.balance import auxiliary_losses, total
from separator.pretrain.objectives.restoration import masked_error
from separator.pretrain.objectives.segment_pairs import allowed_groups
from separator.pretrain.task import PretrainTask
from tests import toys
from tests.toys import seeded

MICRO = [*toys.MICRO, "data.segment_seconds=2", "mask.group=4", "valid_crops=2"]


def config(*words: str) -> PretrainConfig:
    return parse(PretrainConfig, [*MICRO, "data.roots=[x]", *words], "pretrain")


def waves(batch: int = 2, seconds: float = 2.0) -> Tensor:
    return torch.randn(batch, 2, round(8000 * seconds), generator=seeded()) * 0.1


def test_crops_grow_by_the_global_step_and_lose_nothing_but_the_rest():
    grows = config("crop_frames=[[0,16],[10,32],[20,0]]")
    x = waves()
    for step, frames, pieces in ((0, 16, 8), (9, 16, 8), (10, 32, 4), (20, 126, 1)):
        crops = cut_crops(x, grows, step)
        assert len(crops) == 2 * pieces
        assert stft(crops, grows.stft).shape[-1] == frames
        length = crops.shape[-1]
        for index, crop in enumerate(crops):
            piece, item = divmod(index, 2)  # neighbours are of different songs
            assert torch.equal(crop, x[item, :, piece * length : (piece + 1) * length])


def test_items_of_next_spectrogram_prediction_give_crops_of_the_asked_length():
    asked = config("crop_frames=24", "next.weight=0.1", "next.token=4")
    example = make_example(waves(), asked, asked.mask, 0, seeded())
    assert example.target.shape[-1] == 24
    assert len(example.target) == 2 * (16000 // ((48 + 3 - 1) * 128))


def test_the_separator_is_seen_and_counts_nowhere():
    asked = config("next.weight=0.1", "next.token=4", "unmasked_weight=0.5", "mask.share=0.5")
    example = make_example(waves(), asked, asked.mask, 0, seeded())
    frames = example.target.shape[-1]
    joint = slice(frames // 2 - 2, frames // 2 + 2)
    pattern = torch.tensor([1.0, 0.0]).repeat(65)[:129, None]
    for seen in (example.target, example.corrupted.spectrogram):
        assert torch.equal(seen[..., joint], pattern.expand(2, 2, -1, 4))
    restored = torch.rand(example.target.shape, generator=seeded(1))
    changed = restored.clone()
    changed[..., joint] = 7
    first, second = (
        masked_error(x, example.target, example.corrupted, 1.0, 0.5) for x in (restored, changed)
    )
    torch.testing.assert_close(first, second, rtol=0, atol=0, equal_nan=True)


def test_crops_with_next_are_as_long_as_asked_and_items_twice():
    asked = config("next.weight=0.1", "next.token=4", "data.batch=1")
    plain = config()
    assert plain.crops.data() == plain.data
    assert asked.crops.data().batch == 2  # another song beside the one
    assert (
        config("next.weight=0.1", "next.token=4", "data.batch=1", "next.same=1").crops.data().batch
        == 1
    )
    assert (
        asked.crops.data().augment.remix == 0 < asked.data.augment.remix
    )  # songs stay where they are
    x = waves(2, asked.crops.data().segment_seconds)
    example = make_example(x, asked, asked.mask, 0, seeded(), songs=torch.tensor([5, 8]), cropped=1)
    whole = make_example(waves(), plain, plain.mask, 0, seeded())
    assert len(example.target) == 1
    assert example.target.shape[-1] == whole.target.shape[-1] == 126


@pytest.mark.parametrize("seconds", [0.6, 1.0, 2.0])
def test_no_crop_of_two_halves_is_without_a_masked_group(seconds: float):
    asked = config("next.weight=0.1", "next.token=8", f"data.segment_seconds={seconds}")
    x = waves(32, asked.crops.data().segment_seconds)
    counts = []
    for seed in range(8):
        corrupted = make_example(x, asked, asked.mask, 0, seeded(seed)).corrupted
        grid, chosen = corrupted.grid, corrupted.chosen[:, 0, 0, ::4]
        counts.append(chosen.sum(1).float())
    counts = torch.cat(counts)
    assert counts.min() >= 1
    free = int(allowed_groups(grid, asked.next).sum())
    assert counts.mean().item() == pytest.approx(max(1, 0.15 * free), rel=0.06)


class Recorder(nn.Module):
    """Stands for the trained model: notes what it is shown and answers with a fixed mask."""

    def forward(self, x: Tensor, hidden: Tensor) -> Outputs:
        self.seen = x, hidden
        self.mask = torch.linspace(0, 1, x.numel(), requires_grad=True).view_as(x)
        return Outputs(self.mask, x, x, x)


def test_the_corrupted_spectrogram_goes_in_and_is_multiplied_with_the_mask(corpus: Path):
    """The loss by hand: mask times what was shown, against the original, on the chosen cells."""
    words = [f"data.roots=[{corpus}]", "mask.share=0.4", "mask.mask=0.5", "mask.noise=0.3"]
    task = PretrainTask(config(*words))
    batch, model = next(task.batches(0)), Recorder()
    scalars = task.step(model, batch, 0, seeded())
    example = task.example(batch, 0, seeded())
    shown, hidden = model.seen
    assert torch.equal(shown, example.corrupted.spectrogram)
    assert torch.equal(hidden, example.corrupted.kinds == 0)
    assert hidden.any() and (shown[hidden.expand_as(shown)] == 1).all()
    assert not torch.equal(shown, example.target)
    magnitude = stft(batch.mixture, task.config.stft).abs()
    scale = magnitude.amax((1, 2, 3), keepdim=True)
    torch.testing.assert_close(example.target, (magnitude / scale).sqrt(), rtol=1e-4, atol=1e-5)
    error, chosen = (model.mask * shown - example.target).abs(), example.corrupted.chosen
    crops = [error[i][chosen[i].expand_as(error[i])].mean() for i in range(len(error))]
    assert scalars["loss"].item() == pytest.approx(sum(crops).item() / len(crops), rel=1e-5)


def test_what_is_behind_a_songs_end_counts_nowhere():
    asked = config("crop_frames=32", "mask.share=0.5", "unmasked_weight=1", "mask.clean_share=0")
    x = waves()
    x[1, :, 6000:] = 0
    valid = torch.tensor([16000, 6000])
    padded, whole = (
        make_example(x, asked, asked.mask, 0, seeded(), music)
        for music in (valid, torch.tensor([16000, 16000]))
    )
    kinds, plain = padded.corrupted.kinds[:, 0, 0], whole.corrupted.kinds[:, 0, 0]
    pieces = 4  # crops (k b): of the second song crop 1 is music, 3 ends in it, 5 and 7 are padding
    for crop in range(2 * pieces):
        start = (crop // 2) * 31 * 128
        for frame in range(32):
            sample = start + frame * 128
            music = crop % 2 == 0 or sample < 6000
            cell_ends = start + (frame // 4 * 4 + 3) * 128
            if not music:
                assert kinds[crop, frame] == -2, (crop, frame)
            elif crop % 2 and cell_ends >= 6000 and plain[crop, frame] >= 0:
                assert kinds[crop, frame] == -1  # a cell that reaches beyond the end is given up
            else:
                assert kinds[crop, frame] == plain[crop, frame]
    same = padded.corrupted.kinds < 0
    where = same.expand_as(padded.target)
    assert torch.equal(padded.corrupted.spectrogram[where], padded.target[where])


@pytest.mark.parametrize("architecture", ["frame_transformer", "patch_transformer"])
def test_every_head_pulls_as_hard_as_its_weight_says(architecture: str):
    """In the real models, at the tensor in which each objective and the masked error meet."""
    asked = config(
        *(f"architecture={architecture}", "patch.patch=8", "patch.width=16", "patch.depth=1"),
        *("patch.heads=2", "patch.ffn_dim=32", "patch.decoder_width=16", "patch.decoder_depth=1"),
        *("patch.decoder_heads=2", "next.weight=0.3", "next.token=4", "labels.weight=0.2"),
        *(
            "labels.group=4",
            "labels.clusters=4",
            "labels.crops=8",
            "contrast.weight=0.1",
            "mask.strategy=hard",
        ),
        *("hard.weight=0.4", "mask.share=0.5", "mask.mask=1", "mask.noise=0"),
    )
    torch.manual_seed(0)
    objectives = asked.objectives
    for objective in objectives:
        objective.prepare(torch.device("cpu"))
    net = Pretrainer(create(asked.sizes, asked.stft.bins), objectives)
    for objective in objectives:
        objective.start(net.head(objective), [waves(8, 1.0)])
    predict = functools.partial(predict_errors, net, objectives)
    example = make_example(waves(4), asked, asked.mask, 0, seeded(), predict=predict)
    outputs = net(example.corrupted.spectrogram, example.corrupted.masked)
    restored = example.corrupted.spectrogram * outputs.mask
    main = masked_error(restored, example.target, example.corrupted, 1.0, 0.0)["loss"]
    prediction = Prediction(outputs, restored, 0, seeded())
    losses, _ = auxiliary_losses(objectives, net, example, prediction)
    assert set(losses) == {"next", "labels", "contrast", "hard"}
    for name, objective in losses.items():
        loss = total(main, {name: objective})
        pull, alone, both = (
            torch.autograd.grad(x, objective.point, retain_graph=True)[0]
            for x in (objective.loss, main, loss)
        )
        assert alone.norm() > 0
        weight = getattr(asked, name).weight
        torch.testing.assert_close(
            both - alone, weight * alone.norm() * pull / pull.norm(), rtol=1e-3, atol=1e-9
        )
    total(main, losses).backward()
    for name, weights in net.heads.named_parameters():
        if name != "hard.linear.bias":  # of one band: a ranking has no offset
            assert weights.grad.abs().max() > 0, name


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_corpus(tmp_path_factory.mktemp("corpus"), songs=3, seconds=3.0)


def row(corpus: Path, run: Path, *more: str) -> dict:
    """The logged numbers of one step."""
    words = [*MICRO, f"data.roots=[{corpus}]", f"run={run}", "steps=1", "log_every=1", *more]
    assert main(["pretrain", *words]) == 0
    return json.loads((run / "metrics.jsonl").read_text().splitlines()[0])


def test_the_averaged_model_is_the_teacher_and_both_sides_slow_down(corpus: Path, tmp_path: Path):
    """Of the last of three steps: half of the learning rate's way down, by hand."""
    asked = config(
        *(f"data.roots=[{corpus}]", f"run={tmp_path}", "steps=3", "optim.warmup_steps=0"),
        *("optim.schedule=polynomial", "optim.final_lr=0.5", "checkpoint_every=0"),
        *("mask.strategy=hard", "hard.weight=0.1", "adversary.weight=0.1", "adversary.start=0"),
    )
    task = PretrainTask(asked)
    fit(task, asked)
    saved = checkpoint.load(tmp_path / "last.pt")
    taught = task.teacher.state_dict()
    torch.testing.assert_close(dict(taught), dict(saved["ema"]), rtol=0, atol=0)
    assert not torch.equal(
        taught["heads.hard.linear.weight"], saved["model"]["heads.hard.linear.weight"]
    )
    rate = saved["discriminator"]["optimizer"]["param_groups"][0]["lr"]
    assert rate == pytest.approx(0.5 * asked.adversary.lr)


def test_validation_crops_do_not_depend_on_training_settings(corpus: Path, tmp_path: Path):
    """Nor do the hidden cells depend on the objectives there are."""
    few = (f"data.roots=[{corpus}]", "valid_crops=6", "data.segment_seconds=1")
    changed = ["data.batch=3", "data.augment.speed=0.5", "seed=9", "contrast.weight=0.1"]
    one, two = (PretrainTask(config(*few, *more)) for more in ((), changed))
    for left, right in zip(one.validation.waves, two.validation.waves, strict=True):
        assert torch.equal(left, right)
    two.model.backbone.load_state_dict(one.model.backbone.state_dict())
    with torch.no_grad():
        first, second = (task.validate(task.model.eval(), 0) for task in (one, two))
    assert first.score == second.score


@pytest.mark.parametrize("unmasked", [0.0, 0.1, 1.0])
def test_the_two_weights_of_the_error(unmasked: float, corpus: Path, tmp_path: Path):
    got = row(corpus, tmp_path, f"unmasked_weight={unmasked}")
    assert got["loss"] == pytest.approx(got["loss/masked"] + unmasked * got["loss/unmasked"])


def test_ssasts_sum_is_ten_to_one(corpus: Path, tmp_path: Path):
    got = row(
        corpus,
        tmp_path,
        *("pretrain/ssast.yaml", "model.cross_frame_bands=2", "balance=false"),
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
        (["next.weight=0.1", "next.token=122"], "next.token"),
        (["next.weight=0.1", "next.token=200"], "next.token"),
        (["next.weight=0.1", "data.segment_seconds=500"], "data.segment_seconds: 500 "),
        (["labels.weight=0.1", "labels.group=200"], "labels.group"),
        (["crop_frames=500"], "crop_frames"),
        (["crop_frames=16", "next.weight=0.1", "next.token=10"], "next.token"),
        (["crop_frames=6"], "mask.group"),
        (["contrast.weight=0.1", "mask.mask=0"], "mask.mask"),
        (["next.weight=0.1", "next.token=4", "compile=true"], "compile"),
        (["masked_weight=[[0,0],[9,1]]"], "masked_weight, unmasked_weight"),
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


def test_other_songs_are_needed_for_negatives(corpus: Path, tmp_path: Path):
    one = write_corpus(tmp_path / "one", songs=2, seconds=4.0)  # one of two is for validation
    words = [f"data.roots=[{one}]", "next.weight=0.1", "next.token=4", "data.valid_share=0.5"]
    with pytest.raises(SeparatorError, match=r"^next\.same: .*give next\.same=1"):
        PretrainTask(config(*words))
    assert PretrainTask(config(*words, "next.same=1")).train


def test_a_batch_of_one_goes_on_with_other_songs(corpus: Path, tmp_path: Path):
    """In the trainer: two items are read, one crop is trained on, its negatives are the other's."""
    words = ["next.weight=0.1", "next.token=4", "data.batch=1", "data.segment_seconds=1"]
    task = prepared(corpus, tmp_path, *words)
    read = task.batches(0)
    continues = []
    for step in range(20):
        batch = next(read)
        example = task.example(batch, step, seeded(step))
        assert len(batch.songs) == 2 and len(example.target) == 1
        continues.append(example.continues.item())
        assert task.seconds(batch) == 1.0
    assert 4 <= sum(continues) <= 16


def prepared(corpus: Path, folder: Path, *words: str) -> PretrainTask:
    return PretrainTask(config(f"data.roots=[{corpus}]", f"run={folder}", *words))


def test_the_masked_patches_are_those_that_the_teacher_finds_hard(corpus: Path, tmp_path: Path):
    words = ["mask.strategy=hard", "hard.weight=0.1", "mask.band=16", "mask.weighted_steps=1"]
    task = prepared(corpus, tmp_path, *words, "mask.share=0.5", "mask.mask=1", "mask.noise=0")
    told = []

    def predict(target: Tensor, grid: PatchGrid) -> Tensor:
        told.append(torch.rand(len(target), grid.bands, grid.groups, generator=seeded(1)))
        return told[0]

    task.predict_errors = predict
    hidden = task.example(next(task.batches(0)), 5, seeded()).corrupted.masked_patches.flatten(1)
    hardest = told[0].flatten(1).topk(hidden.shape[1] // 4, dim=1).indices
    assert hidden.gather(1, hardest).all()
    assert hidden.float().mean().item() == pytest.approx(0.5, abs=0.01)


def test_the_teacher_predicts_with_its_head(corpus: Path, tmp_path: Path):
    words = ["mask.strategy=hard", "hard.weight=0.1", "mask.band=16"]
    task = prepared(corpus, tmp_path, *words)
    model = task.model.eval()
    example = make_example(waves(), config(*words), config(*words).mask, 0, seeded())
    grid, level = example.corrupted.grid, torch.arange(8.0)
    with torch.no_grad():
        model.heads["hard"].linear.weight.zero_()
        model.heads["hard"].linear.bias.copy_(level)  # a band's number, whatever is heard
    predicted = task.predict_errors(example.target, grid)
    torch.testing.assert_close(predicted, level[None, :, None].expand(2, -1, grid.groups))


def test_labels_are_of_what_was_played(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    words = ["labels.weight=0.1", "labels.clusters=4", "labels.group=8", "labels.crops=8"]
    task = prepared(corpus, tmp_path, *words)
    named = []

    def loss(deep: Tensor, labels: Tensor, hidden: Tensor) -> tuple[Tensor, dict]:
        named.append(labels)
        return deep.sum(), {}

    monkeypatch.setattr(task.model.heads["labels"], "loss", loss)
    batch = next(task.batches(0))
    task.step(task.model, batch, 0, seeded())
    extract = task.objectives[0].extract
    played = task.model.heads["labels"].labeller(extract(stft(batch.mixture, task.config.stft)))
    assert torch.equal(named[0], played)
    assert len(played.unique()) > 1


def test_the_adversary_is_shown_both_sides_and_pulls(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    words = ["adversary.weight=0.1", "adversary.start=0", "mask.share=0.5", "mask.mask=1"]
    task = prepared(corpus, tmp_path, *words, "mask.noise=0", "balance=false")
    seen = {}

    def discriminate(real: Tensor, fake: Tensor, *rest: object) -> dict[str, Tensor]:
        seen.update(real=real, fake=fake)
        return {}

    def fool(restored: Tensor, *rest: object) -> Tensor:
        seen["fooling"] = restored
        return restored.sum()

    monkeypatch.setattr(task.discriminator, "discriminate", discriminate)
    monkeypatch.setattr(task.discriminator, "generator_loss", fool)
    batch = next(task.batches(0))
    scalars = task.step(task.model, batch, 0, seeded())
    example = task.example(batch, 0, seeded())
    hidden = example.corrupted.masked.expand_as(example.target)
    assert torch.equal(seen["real"], example.target)
    assert seen["fake"] is seen["fooling"]
    assert (seen["fake"][~hidden] <= example.target[~hidden]).all()
    assert not torch.equal(seen["fake"][hidden], example.target[hidden])
    expected = scalars["loss/masked"] + 0.1 * seen["fake"].sum()
    torch.testing.assert_close(scalars["loss"], expected)


@pytest.mark.parametrize("preset", ["bert15", "dwm", "hpm", "mixcorrupt"])
def test_pictures_show_what_a_strategy_does(
    preset: str, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """In values instead of colours: what is shown, what came back, and where they differ."""
    monkeypatch.setattr(
        "separator.pretrain.crop_media.colour", lambda values: values[None].expand(3, -1, -1)
    )
    monkeypatch.setattr("separator.pretrain.crop_media.with_axes", lambda picture, *size: picture)
    words = [f"pretrain/{preset}.yaml", "mask.weighted_steps=1", "model.cross_frame_bands=0"]
    words += ["mask.uniform_steps=0"]
    sizes = ["mask.band=16", "mask.group=4"] if preset in ("dwm", "hpm") else ["mask.span=4"]
    task = prepared(corpus, tmp_path, *words, *sizes)
    shown = []
    monkeypatch.setattr(
        "separator.pretrain.validate.make_example",
        lambda *given, **more: (
            shown.append((given[2:4], make_example(*given, **more))) or shown[-1][1]
        ),
    )
    with torch.no_grad():
        images = task.validate(task.model.eval(), 9).images
    (mask, step), example = shown[-1]
    assert (mask.strategy, mask.noise, mask.mix) == (
        task.config.mask.strategy, task.config.mask.noise, task.config.mask.mix,
    )  # fmt: skip
    assert step == 9
    for index in range(2):
        pictures = {name: images[f"crop{index}/{name}"][0] for name in
                    ("original", "masked", "reconstructed", "mask", "error")}  # fmt: skip
        original, masked = pictures["original"], pictures["masked"]
        torch.testing.assert_close(original, example.target[index].mean(0))
        torch.testing.assert_close(masked, example.corrupted.spectrogram[index].mean(0))
        filled, kept = masked == 1, ~example.corrupted.chosen[index, 0].expand_as(masked)
        assert filled.any()
        assert (masked >= original).all()
        assert torch.equal(masked[kept], original[kept])
        assert torch.equal(pictures["reconstructed"][kept], original[kept])
        torch.testing.assert_close(pictures["reconstructed"][filled], pictures["mask"][filled])
        off = (pictures["reconstructed"] - original).abs()
        assert (pictures["error"] >= off - 1e-6).all()  # of each channel, then their mean
        assert not pictures["error"][kept].any()


@pytest.mark.parametrize("group", ["mask.band=0", "mask.band=16"])
@pytest.mark.parametrize("kind", ["noise", "mix", "keep", "clean_share"])
def test_every_picture_has_a_masked_group(
    kind: str, group: str, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Also where training fills no cell at all; in values instead of colours."""
    monkeypatch.setattr(
        "separator.pretrain.crop_media.colour", lambda values: values[None].expand(3, -1, -1)
    )
    monkeypatch.setattr("separator.pretrain.crop_media.with_axes", lambda picture, *size: picture)
    words = [] if kind == "keep" else [f"mask.{kind}=1"]
    if kind != "noise":
        words.append("mask.noise=0")
    task = prepared(corpus, tmp_path, "mask.mask=0", group, *words)
    model = task.model.eval()
    with torch.no_grad():
        found = [task.validate(model, 9), task.preview(model, next(task.batches(0)), seeded())]
    pictures = [shown.images[name][0] for shown in found for name in shown.images
                if name.endswith("masked")]  # fmt: skip
    assert len(pictures) == 4
    for picture in pictures:
        assert (picture == 1).all(0).any()  # a whole frame
        assert not (picture == 1).all()


@pytest.mark.parametrize("short", [False, True])
def test_validation_logs_the_error_of_the_whole_spectrogram(
    short: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """By hand, besides that of masked cells; what is behind a song's end does not count."""
    corpus = write_corpus(tmp_path / "songs", songs=2, seconds=1.5 if short else 3.0)
    task, seen = prepared(corpus, tmp_path / "run"), []
    monkeypatch.setattr(
        "separator.pretrain.validate.make_example",
        lambda *given, **more: seen.append(make_example(*given, **more)) or seen[-1],
    )
    model = task.model.eval()
    with torch.no_grad():
        scalars = task.validate(model, 0).scalars
        corrupted, target = seen[0].corrupted, seen[0].target
        restored = corrupted.spectrogram * model(corrupted.spectrogram, corrupted.masked).mask
    errors = (restored - target).abs().mean(1, keepdim=True)
    counted = (corrupted.kinds >= -1).expand_as(errors)
    assert counted.all() != short
    assert scalars["valid/l1_whole"] == pytest.approx(errors[counted].mean().item(), rel=1e-4)
    masked = errors[corrupted.chosen.expand_as(errors)].mean().item()
    assert scalars["valid/l1_model"] == pytest.approx(masked, rel=1e-4)
    assert masked != pytest.approx(scalars["valid/l1_whole"], rel=0.01)
