"""Break the code in small ways, one at a time, and say which test notices each.

    python -m tests.mutants [NAME …]

Each break is made in a copy of the project; what is not noticed makes the exit status 1. Not a part
of `make test`: it takes a minute for each break.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
PARTS = {  # where packages lie in the project, and in an installed one
    "separator": "separator",
    **{part: f"separator/{part}" for part in ("pretrain", "train", "inference", "configs")},
}


@dataclass(frozen=True)
class Mutant:
    """A change of the code that a test is to notice.

    Attributes:
        name: what is broken.
        file: path in the project.
        old: text that occurs once in it.
        new: what stands there instead.
        tests: pytest's words for the tests nearest to it.
    """

    name: str
    file: str
    old: str
    new: str
    tests: str


BLOCKS = "tests/test_models.py -k formulas"
UNET = "tests/test_models.py -k wired"
SEED = "tests/test_models.py -k seed_preset"
EXAMPLE = "tests/test_example.py -k corrupted_spectrogram"
NUMBERS = "tests/test_configs.py -k sources_numbers"
PULL = "tests/test_configs.py -k pull"
MIXED = "tests/test_mixcorrupt.py"
MUTANTS = [
    Mutant("the model is shown the clean spectrogram", "pretrain/task.py",
           "model(corrupted.spectrogram, corrupted.masked",
           "model(example.target, corrupted.masked", EXAMPLE),
    Mutant("the mask is multiplied with the clean target", "pretrain/task.py",
           "restored = corrupted.spectrogram * outputs.mask",
           "restored = example.target * outputs.mask", EXAMPLE),
    Mutant("what is masked does not reach the network", "pretrain/task.py",
           "model(corrupted.spectrogram, corrupted.masked)",
           "model(corrupted.spectrogram, None)", EXAMPLE),
    Mutant("untold, the network sees no white frames", "separator/models/frame_transformer.py",
           "if not self.config.mask_known:", "if False:", "tests/test_models.py -k untold"),
    Mutant("skips without the level's transformers", "separator/models/frame_transformer.py",
           "            x = tokens(encoder(x))\n            skips.append(x)",
           "            y = encoder(x)\n            x = tokens(y)\n"
           "            skips.append(torch.cat([y, 0 * x[..., y.shape[-1] :]], dim=-1))", UNET),
    Mutant("no dense connection", "separator/models/blocks.py",
           "            seen = [self.squeeze[i](x).squeeze(-1)]",
           "            new = torch.arange(x.shape[-1]) >= x.shape[-1] - i\n"
           "            seen = [self.squeeze[i](x.masked_fill(new, 0)).squeeze(-1)]", UNET),
    Mutant("skips are added where they are to be concatenated",
           "separator/models/frame_transformer.py",
           "decoder(torch.cat([x, skips[-1]], dim=-1))",
           "decoder(torch.cat([x + skips[-1]] * 2, dim=-1))", UNET),
    Mutant("the evolved encoder's attention has no residual", "separator/models/blocks.py",
           "        x = x + self.dropout(self.attention(self.norm3(x)))\n"
           "        return x + self.dropout(self.feed_forward(self.norm4(x)))",
           "        x = self.dropout(self.attention(self.norm3(x)))\n"
           "        return x + self.dropout(self.feed_forward(self.norm4(x)))", BLOCKS),
    Mutant("the evolved decoder has no ReLU", "separator/models/blocks.py",
           "nn.Linear(d, ffn_dim // 2), nn.ReLU())", "nn.Linear(d, ffn_dim // 2))", BLOCKS),
    Mutant("its second memory attention looks at itself", "separator/models/blocks.py",
           "self.memory_attention2(self.norm4(x), memory)",
           "self.memory_attention2(self.norm4(x), self.norm4(x))", BLOCKS),
    Mutant("Primer's decoder exchanges query and memory", "separator/models/blocks.py",
           "self.memory_attention(self.norm2(x), self.memory_norm(memory))",
           "self.memory_attention(self.memory_norm(memory), self.norm2(x))", BLOCKS),
    Mutant("untold, masks start from nine tenths", "separator/models/frame_transformer.py",
           "VISIBLE_LOGIT if visible else HALFWAY_LOGIT", "VISIBLE_LOGIT",
           "tests/test_models.py -k untold"),
    Mutant("large has rotary positions", "configs/large.yaml",
           "position: relative", "position: rotary", SEED),
    Mutant("large has Primer's blocks", "configs/large.yaml",
           "block: evolved", "block: primer", SEED),
    Mutant("large has fewer blocks", "configs/large.yaml",
           "encoder_blocks: [2, 2, 2, 2, 2]", "encoder_blocks: [2, 2, 2, 2, 1]", SEED),
    Mutant("large knows the masked frames", "configs/large.yaml",
           "mask_known: false", "mask_known: true", SEED),
    Mutant("bert15 has clean crops", "configs/pretrain/bert15.yaml",
           "noise: 0.1, clean_share: 0.0}", "noise: 0.1, clean_share: 0.25}", NUMBERS),
    Mutant("next has no weight", "configs/pretrain/next.yaml",
           "next: {weight: 0.1,", "next: {weight: 0.0,", PULL),
    Mutant("adversary has no weight", "configs/pretrain/adversary.yaml",
           "[4000, 0.1]]", "[4000, 0.0]]", PULL),
    Mutant("15 % are always rounded down", "pretrain/masking/grid.py",
           "(share * patches + draw).long()", "(share * patches + 0 * draw).long()",
           "tests/test_masking.py -k fifteen"),
    Mutant("clean crops count as kept", "pretrain/masking/corruption.py",
           'torch.where(clean, KINDS.index("clean"), kinds)',
           'torch.where(clean, KINDS.index("keep"), kinds)', "tests/test_masking.py -k clean"),
    Mutant("noise is below the original", "pretrain/masking/corruption.py",
           "torch.where(noisy_bins, torch.maximum(before, noise), before)",
           "torch.where(noisy_bins, noise, before)",
           "tests/test_masking.py -k 'noise or untouched'"),
    Mutant("local noise is full noise", "pretrain/masking/corruption.py",
           "limit = 2 * target.mean(dim=-1)", "level = torch.ones(1)",
           "tests/test_masking.py -k noise"),
    Mutant("negatives are of the same song", "pretrain/objectives/segment_pairs.py",
           "songs[cropped][:, None] != songs", "cropped[:, None] != torch.arange(len(songs))",
           "tests/test_next.py -k negatives"),
    Mutant("the separator takes masked groups away", "pretrain/batch.py",
           "predicted_error, allowed)", "predicted_error, None)",
           "tests/test_example.py -k masked_group"),
    Mutant("each song has voices of its own", "pretrain/task.py",
           "self.config.seed ^ VOICES", "self.config.seed",
           f"{MIXED} -k any_song"),
    Mutant("the wave's error is of the whole wave", "pretrain/objectives/auxiliary/waveform.py",
           "istft(x * chosen,", "istft(x,", f"{MIXED} -k numpys"),
    Mutant("waves have the phases of the songs", "pretrain/objectives/auxiliary/waveform.py",
           "batch.mixture.sgn()", "batch.spectrogram.sgn()", f"{MIXED} -k numpys"),
    Mutant("voices keep the level of the items", "pretrain/batch.py",
           "+ gain * voice", "+ voice", f"{MIXED} -k two_halves"),
    Mutant("crops of two halves are half as long", "pretrain/objectives/segment_pairs.py",
           "frames = 2 * run.segment_frames", "frames = run.segment_frames",
           "tests/test_example.py -k as_long_as"),
    Mutant("the head hears the bare input", "pretrain/objectives/next_head.py",
           "answer + probe if self.together else answer", "answer + probe",
           "tests/test_next.py -k both"),
    Mutant("dwm weighs at once", "configs/pretrain/dwm.yaml",
           "uniform_steps: 1667", "uniform_steps: 0", "tests/test_configs.py -k dwm"),
    Mutant("labels are told by products, not by angles", "pretrain/objectives/label_head.py",
           "F.normalize(groups, dim=-1) @", "groups @", "tests/test_labels.py -k by_hand"),
    Mutant("training with the mixture as target", "separator/supervised/task.py",
           "return stems[:, [names", "return stems.sum(1, keepdim=True) + 0 * stems[:, [names",
           "tests/test_train_step.py"),
    Mutant("vocals twice in the training mixture", "separator/supervised/task.py",
           "stft(stems.sum(dim=1), self.config.stft)",
           "stft(stems.sum(dim=1) + stems[:, 1], self.config.stft)",
           "tests/test_train_step.py"),
    Mutant("vocals twice in the mixtures that are pretrained on", "separator/data/dataset.py",
           "        return self.stems.sum(1)",
           "        return self.stems.sum(1) + self.stems[:, -1]", "tests/test_dataset.py"),
    Mutant("accompaniments are dropped, not vocals", "separator/data/augment.py",
           "config.drop_vocals, voice] = 0", "config.drop_vocals, voice - 1] = 0",
           "tests/test_augment.py"),
    Mutant("doubtful crops of a teacher are learned from", "pretrain/teacher_task.py",
           "estimates.mean(dim=0)[selected(estimates, config)]", "estimates.mean(dim=0)",
           "tests/test_teacher.py"),
    Mutant("the best crops of a batch are dropped", "pretrain/teacher_task.py",
           "error[:guessed].argsort()", "error[:guessed].argsort(descending=True)",
           "tests/test_teacher.py"),
    Mutant("crops with true stems are dropped too", "pretrain/teacher_task.py",
           "guessed = len(error) - labelled", "guessed, labelled = len(error), 0",
           "tests/test_teacher.py"),
    Mutant("the worst assignment of parts counts", "pretrain/mixit_task.py",
           "return ((first + second) / 2).amin(dim=1)", "return ((first + second) / 2).amax(dim=1)",
           "tests/test_mixit.py -k best_of_all"),
    Mutant("the part of the voice is kept, not what it leaves", "pretrain/mixit_task.py",
           "backbone.head.weight.copy_(-self.head.weight[rows])",
           "backbone.head.weight.copy_(self.head.weight[rows])", "tests/test_mixit.py -k leaves"),
    Mutant("voices held out are remixed in training", "separator/data/splits.py",
           'tracks = [t for t in songs + voices if t.split == "train"]',
           'tracks = [t for t in songs if t.split == "train"] + voices', "tests/test_remix.py"),
    Mutant("a pair is written without its shift", "separator/data/pairs.py",
           "first, second = overlapping(first, second, alignment.shift)",
           "first, second = overlapping(first, second, 0)", "tests/test_pairs.py -k scan"),
    Mutant("songs share hashes at any shift", "separator/data/library/fingerprints.py",
           "entries[near] >> 16 << 16 & (1 << 36) - 1 | shifts[near]",
           "entries[near] >> 16 << 16 & (1 << 36) - 1", "tests/test_fingerprints.py"),
    Mutant("any two songs are similar", "separator/data/library/fingerprints.py",
           "MIN_VOTES = 20", "MIN_VOTES = 2", "tests/test_fingerprints.py"),
    Mutant("the first of two songs is always the original", "separator/data/pairs.py",
           "if not pair.turned or first_sings(first, second, rate, voice):",
           "if not pair.turned or first_sings(first, second, rate, voice) is not None:",
           "tests/test_pairs.py -k sound"),
    Mutant("augmentation is never applied", "separator/data/dataset.py",
           "stems = augment.apply(stems.to(device, non_blocking=True), changes, samples)",
           "stems = stems.to(device, non_blocking=True)[..., :samples]",
           "tests/test_train_step.py"),
    Mutant("cached stems are exchanged", "separator/data/stem_cache.py",
           "audio.read_array(song, stream=stream)",
           "audio.read_array(song, stream=5 - stream if stream in (1, 4) else stream)",
           "tests/test_tracks.py -k stempeg"),
    Mutant("untold, white frames count in what is recalled",
           "separator/models/frame_transformer.py",
           "None if detected is None else F.logsigmoid(-detected)", "None",
           "tests/test_models.py -k untold"),
    Mutant("untold, found frames start as all others do",
           "separator/models/frame_transformer.py",
           "start = start + detected.sigmoid()", "start = start + 0 * detected.sigmoid()",
           "tests/test_models.py -k untold"),
    Mutant("the frozen start does not freeze", "separator/engine/optim.py",
           'if step >= group["from_step"] else 0.0', "if True else 0.0",
           "tests/test_transfer.py -k frozen"),
    Mutant("a head that is kept starts anew", "train/transfer.py",
           "    if fresh:\n        model.reset_head()",
           "    model.reset_head()", "tests/test_transfer.py"),
    Mutant("the average of the weights stays at its start", "separator/engine/ema.py",
           "1 - decay_at(int(average.n_averaged), decay)",
           "0 * decay_at(int(average.n_averaged), decay)",
           "tests/test_optim.py tests/test_loop.py"),
    Mutant("the error of visible cells counts instead of that of masked ones",
           "pretrain/objectives/restoration.py",
           "masked_weight * masked + unmasked_weight * unmasked",
           "masked_weight * unmasked + unmasked_weight * masked", "tests/test_objectives.py"),
    Mutant("the discriminator's classes are exchanged", "pretrain/objectives/adversary.py",
           "for candidate in (real, fake)]", "for candidate in (fake, real)]",
           "tests/test_adversary.py"),
    Mutant("peas takes the easiest windows", "train/specaugment.py",
           "F.avg_pool1d(error[None, None]", "F.avg_pool1d(-error[None, None]",
           "tests/test_specaugment.py"),
    Mutant("micro-batches are added, not averaged", "separator/engine/loop.py",
           '(scalars["loss"] / self.accumulate).backward()', 'scalars["loss"].backward()',
           "tests/test_loop.py tests/test_trainers.py"),
    Mutant("relative positions count backwards", "separator/models/layers.py",
           "self.table[:, rows].transpose", "self.table[:, rows.flip(0)].transpose",
           "tests/test_models.py -k relative"),
    Mutant("the stereo filter takes the other stem's part", "separator/dsp/wiener.py",
           "part = _power(masks, powers) /", "part = _power([1 - m for m in masks], powers) /",
           "tests/test_wiener.py"),
    Mutant("powers between frames are those of the frame before", "separator/dsp/wiener.py",
           "values[..., 1:, None, :], steps)", "values[..., 1:, None, :], 0 * steps)",
           "tests/test_wiener.py"),
    Mutant("the last chunk keeps its beginning", "separator/dsp/overlap_add.py",
           "wave = wave[:, lead:]", "wave = wave[:, : wave.shape[-1] - lead]",
           "tests/test_overlap_add.py"),
    Mutant("weights of models are not used", "separator/ensemble.py",
           "weights=self.weights or None", "weights=None", "tests/test_ensemble.py"),
    Mutant("loudness of the song is told of its stems", "inference/tags.py",
           "if values and not is_of_the_sound(key)}", "if values}", "tests/test_tags.py"),
    Mutant("names from tags may leave the folder", "inference/naming.py",
           "map(_safe, parts)", "parts", "tests/test_run.py"),
    Mutant("MUSDB18's test songs are trained on", "separator/data/splits.py",
           "if held_out(Path(song.name), {})}", "if False}",
           "tests/test_musdb_holdout.py tests/test_layouts.py"),
]  # fmt: skip


def main(names: list[str]) -> int:
    """Try the breaks whose names hold one of `names`, or all."""
    unnoticed = 0
    for mutant in MUTANTS:
        if names and not any(name in mutant.name for name in names):
            continue
        with tempfile.TemporaryDirectory() as folder:
            test = _first_failure(mutant, Path(folder))
        unnoticed += test is None
        sys.stdout.write(f"{mutant.name}: {test or 'NOT NOTICED'}\n")
        sys.stdout.flush()
    return 1 if unnoticed else 0


def _first_failure(mutant: Mutant, folder: Path) -> str | None:
    """Name the test that fails in a broken copy, if one does."""
    for part, place in PARTS.items():
        shutil.copytree(ROOT / part, folder / place, ignore=shutil.ignore_patterns("__pycache__"))
        if not (folder / part).exists():  # tests look for some of them at the project's places
            (folder / part).symlink_to(folder / place)
    shutil.copytree(ROOT / "tests", folder / "tests")
    for name in ("docs", "README.md", "pyproject.toml"):
        (folder / name).symlink_to(ROOT / name)
    path = folder / mutant.file
    text = path.read_text(encoding="utf-8")
    if text.count(mutant.old) != 1:
        raise SystemExit(f"{mutant.file}: {mutant.old!r} occurs {text.count(mutant.old)} times")
    path.write_text(text.replace(mutant.old, mutant.new), encoding="utf-8")
    words = [word.strip("'") for word in re.findall(r"'[^']*'|\S+", mutant.tests)]
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *words],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
    )
    found = re.search(r"^(?:FAILED|ERROR) (\S+)", run.stdout, flags=re.MULTILINE)
    return found[1] if found else None


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
