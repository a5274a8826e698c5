"""Files of models from anywhere: what is ours comes back, and anything else is one quick line."""

import json
import random
import resource
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from separator import Separator
from separator.engine import checkpoint, model_file
from separator.engine.model_file import export, load_model
from separator.errors import SeparatorError
from separator.models.build import create, describe
from separator.models.config import PatchConfig
from separator.models.frame_transformer import FrameTransformer
from tests.toys import STFT, TINY, read_model_file

ABOUT = {
    "stage": "train",
    **describe(TINY, STFT, 44100),
    "trained": {"step": 3, "score": 1.5, "git": None},
}


@pytest.fixture(scope="module")
def model() -> FrameTransformer:
    torch.manual_seed(0)
    return create(TINY, STFT.bins).eval()


@pytest.fixture(scope="module")
def whole(model, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("whole") / "model.safetensors"
    export(path, model.state_dict(), ABOUT)
    return path


def write(path: Path, state: dict[str, Tensor], about: object) -> Path:
    """Write a file of the kind that had no digest; `about` is text, or made JSON."""
    text = about if isinstance(about, str) else json.dumps(about)
    save_file(state, path, {"format": "pt", "separator": text})
    return path


def refused(path: Path, read: Callable[[Path], Any] = load_model) -> str:
    with pytest.raises(SeparatorError) as caught:
        read(path)
    message = str(caught.value)
    assert message.startswith(str(path))
    assert message.isprintable()
    assert len(message) < 600
    return message


def changed(about: dict, key: str, value: object) -> dict:
    """Return a copy with a value put at a dotted key, or taken away when it is `...`."""
    copy = json.loads(json.dumps(about))
    *parents, last = key.split(".")
    inner = copy
    for parent in parents:
        inner = inner[parent]
    if value is ...:
        del inner[last]
    else:
        inner[last] = value
    return copy


def test_a_model_comes_back_from_its_file(whole: Path, model: FrameTransformer):
    again, stft, about = load_model(whole)
    assert stft == STFT
    assert about["digest"] == read_model_file(whole)[1]["digest"]
    assert {key: about[key] for key in ABOUT} == ABOUT
    pairs = list(zip(again.named_parameters(), model.named_parameters(), strict=True))
    for (name, new), (_, old) in pairs:
        assert torch.equal(new, old), name
        assert new.stride() == old.stride()  # convolutions are fast in one order only
    x = torch.rand(1, 2, STFT.bins, 9, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.equal(again.eval()(x), model(x))


def test_files_from_before_there_was_a_digest_load(tmp_path: Path, whole: Path, model):
    old = write(tmp_path / "old.safetensors", load_file(whole), ABOUT)
    again, _, about = load_model(old)
    assert torch.equal(again.head.weight, model.head.weight)
    assert about["digest"] == load_model(whole)[2]["digest"]  # the same model


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float64])
def test_weights_stored_in_other_floats_are_brought_to_32_bits(tmp_path: Path, whole, kind):
    short = {name: value.to(kind) for name, value in load_file(whole).items()}
    again, _, _ = load_model(write(tmp_path / "short.safetensors", short, ABOUT))
    for name, value in again.state_dict().items():
        assert value.dtype == torch.float32
        assert torch.equal(value, short[name].float())


def test_every_flipped_bit_is_seen(tmp_path: Path, whole: Path):
    data, path = bytearray(whole.read_bytes()), tmp_path / "model.safetensors"
    header = 8 + int.from_bytes(data[:8], "little")
    draw = random.Random(0)
    places = [*range(16), *draw.sample(range(16, header), 100)]
    places += draw.sample(range(header, len(data)), 40)
    for place in places:
        flipped = bytearray(data)
        flipped[place] ^= 1 << draw.randrange(8)
        path.write_bytes(flipped)
        refused(path)


def test_the_digest_does_not_depend_on_the_order_of_tensors(model):
    state = model.state_dict()
    assert model_file.digest(state, "x") == model_file.digest(dict(reversed(state.items())), "x")
    assert model_file.digest(state, "x") != model_file.digest(state, "y")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *[("rate", value) for value in (0, -1, 44100.5, "44100", None, 10**30, True, [44100])],
        *[("format", value) for value in (None, "3", [3], 10**30)],
        *[("architecture", value) for value in ("other", ["frame_transformer"], {}, None, 7)],
        *[("stage", value) for value in ([], 3, "x" * 1000)],
        *[("trained", value) for value in ([], "x", {"step": "a"}, {"score": []}, {"git": 5})],
        *[("stft", value) for value in (None, [], "", 5, ...)],
        *[("model", value) for value in (None, [], "", 5, ...)],
        *[("stft.n_fft", value) for value in (0, -512, 3, 1 << 40, 512.0, ...)],
        *[("stft.hop", value) for value in (0, -1, 1, 10**9, ...)],
        *[("stft.power", value) for value in (0, -1, 1e-300, 1e300, "0.5", ...)],
        *[("model.channels", value) for value in ([], [2], [10**9] * 2, [2] * 64, "[2,4]", ...)],
        *[("model.encoder_blocks", value) for value in ([0, 10**9], [0, -1], [0, [1]], [0, 64])],
        *[("model.ffn_dim", value) for value in ([0, 10**9], [0, 65536], [0, 33], {"0": 0})],
        *[("model.heads", value) for value in (0, -2, 3, 10**9, 2.0, ...)],
        *[("model.convs", value) for value in (0, 10**9, 16)],
        *[("model.max_distance", value) for value in (0, 10**9)],
        *[("model.dropout", value) for value in (1, -0.1, "0")],
        *[("model.cross_frame_bands", value) for value in (3, -1, 10**9, ...)],
        *[("model.block", value) for value in ("swin", 0, ["primer"], "evolved")],
        ("model.config", "/etc/hostname"),
        ("model.cfg.channels", [2, 4]),
        ("model.depth", 3),
    ],
)
def test_a_description_that_is_not_ours_is_one_line(tmp_path, whole, monkeypatch, key, value):
    if key == "model.cfg.channels":
        about = changed(ABOUT, "model.cfg", {"channels": value})
    else:
        about = changed(ABOUT, key, value)
    path = write(tmp_path / "m.safetensors", load_file(whole), about)
    monkeypatch.setattr(model_file, "_read_tensors", lambda header: pytest.fail("tensors read"))
    refused(path)


@pytest.mark.parametrize(
    "text",
    [
        *("", "{", "[]", "null", '"x"', "NaN", "5", "[" * 100_000, '{"a":' * 50_000 + "1" + "}"),
        *(
            '{"rate": NaN}',
            '{"rate": 1e999}',
            '{"rate": -Infinity}',
            '{"rate": ' + "1" * 9999 + "}",
        ),
        *(json.dumps(ABOUT)[:-1], json.dumps({**ABOUT, "more": "x" * 10**6})),
    ],
)
def test_text_that_is_no_description_is_one_line(tmp_path: Path, whole: Path, text: str):
    path = write(tmp_path / "m.safetensors", load_file(whole), text)
    refused(path)


def mutated(draw: random.Random) -> dict:
    """Return the description with one to three of its values replaced, removed or nested."""
    nasty = [
        *(
            None,
            True,
            0,
            -1,
            1,
            3,
            10**9,
            -(10**18),
            1e300,
            0.0,
            -0.5,
            "",
            "x",
            "\n\x1b[31m",
            [],
            {},
        ),
        *([[]], [0], [1, 2], [10**12] * 3, ["a"], {"a": {"b": []}}, "9" * 5000, [0] * 5000, ...),
    ]
    about = ABOUT
    for _ in range(draw.randint(1, 3)):
        keys = [key for key in about if draw.random() < 0.5] or ["rate"]
        inside = [f"{key}.{name}" for key in keys if isinstance(about[key], dict)
                  for name in about[key]]  # fmt: skip
        about = changed(about, draw.choice(keys + inside), draw.choice(nasty))
    return about


def test_no_mutation_of_a_description_does_more_than_a_line(tmp_path: Path, whole: Path):
    draw, state, path = random.Random(1), load_file(whole), tmp_path / "m.safetensors"
    memory, loaded, slowest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, 0, 0.0
    for _ in range(220):
        write(path, state, mutated(draw))
        start = time.monotonic()
        try:
            _, _, about = load_model(path)
            assert about["rate"] == 44100 or 1000 <= about["rate"] <= 768000
            loaded += 1
        except SeparatorError as error:
            assert str(error).isprintable(), repr(str(error))
        slowest = max(slowest, time.monotonic() - start)
    assert loaded < 100  # where what was changed is not of the model: its score, dropout
    assert slowest < 1
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory < 100_000  # kB


def header_of(path: Path) -> tuple[dict, bytes]:
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    return json.loads(data[8 : 8 + length]), data[8 + length :]


def test_no_mutation_of_the_header_does_more_than_a_line(tmp_path: Path, whole: Path):
    header, data = header_of(whole)
    draw, path, names = random.Random(2), tmp_path / "m.safetensors", [*header]
    nasty = [
        *(None, "F32", "I32", "F8_E4M3", "X", [], [0], [-1], [10**30], [2**62, 4], [1, "a"], {}, 5),
        *([0, 10**15], [0, 0], [4, 0], [[1]], 1e300, "9" * 5000, True, [2**64], "BOOL", ...),
    ]
    for _ in range(220):
        entry = draw.choice([name for name in names if name != "__metadata__"])
        key = draw.choice(["", "dtype", "shape", "data_offsets"])
        changed_header = json.loads(json.dumps(header))
        value = draw.choice(nasty)
        target, last = (changed_header[entry], key) if key else (changed_header, entry)
        if value is ...:
            del target[last]
        else:
            target[last] = value
        if header == changed_header:
            continue
        text = json.dumps(changed_header).encode()
        if draw.random() < 0.3:
            cut = draw.randrange(len(text))
            text = text[:cut] + bytes(draw.randrange(256) for _ in range(9)) + text[cut + 9 :]
        path.write_bytes(len(text).to_bytes(8, "little") + text + data)
        refused(path)


@pytest.mark.parametrize("length", [0, 7, 10**6, 10**9, 2**40, 2**63, 2**64 - 1])
@pytest.mark.parametrize("size", [8, 1_100_000_000])
def test_a_header_of_any_length_is_one_quick_line(tmp_path: Path, length: int, size: int):
    path = tmp_path / "m.safetensors"
    with path.open("wb") as file:
        file.write(length.to_bytes(8, "little"))
        file.truncate(size)  # a hole: nothing is on the disk
    start = time.monotonic()
    refused(path)
    assert time.monotonic() - start < 1


def test_a_long_header_is_not_parsed_whatever_it_holds(tmp_path: Path, whole: Path):
    header, data = header_of(whole)
    path = tmp_path / "m.safetensors"
    for length, fits in ((100_000, True), (model_file.MAX_HEADER + 8, False)):
        text = json.dumps(header).encode().ljust(length)  # spaces are allowed behind it
        path.write_bytes(len(text).to_bytes(8, "little") + text + data)
        if fits:
            load_model(path)
        else:
            assert "a header of 4 MB" in refused(path)


def test_weights_of_other_names_shapes_and_types_are_not_read(tmp_path, whole, monkeypatch):
    monkeypatch.setattr(model_file, "_read_tensors", lambda header: pytest.fail("tensors read"))
    state, path = load_file(whole), tmp_path / "m.safetensors"
    for name, value, reason in [
        ("head.weight", torch.zeros(3, 3), "there and"),
        ("head.weight", state["head.weight"].to(torch.int32), "I32 there and float32 here"),
        ("head.weight", state["head.weight"].to(torch.int64), "int64 there"),
        ("head.weight", state["head.weight"].to(torch.float8_e4m3fn), "F8_E4M3 there"),
        ("head.weight", None, "it has no 'head.weight'"),
        ("more\n", torch.zeros(3), "this model does not"),
    ]:
        values = {
            key: tensor for key, tensor in (state | {name: value}).items() if tensor is not None
        }
        assert reason in refused(write(path, values, ABOUT))


def test_a_model_larger_than_the_memory_is_refused_before_it_is_made(monkeypatch):
    monkeypatch.setattr("separator.models.build.memory", lambda: 10_000)
    with pytest.raises(SeparatorError, match=r"^model: weights of .* lower the sizes in model"):
        create(TINY, STFT.bins)
    with pytest.raises(SeparatorError, match=r"^patch: weights of .* lower the sizes in patch"):
        create(PatchConfig(), STFT.bins)


def test_other_safetensors_files_are_not_ours(tmp_path: Path, whole: Path):
    state = load_file(whole)
    save_file(state, tmp_path / "a.safetensors", {"format": "pt"})
    assert "does not describe one" in refused(tmp_path / "a.safetensors")
    save_file(state, tmp_path / "b.safetensors")
    assert "does not describe one" in refused(tmp_path / "b.safetensors")
    about = {"separator": json.dumps(ABOUT), "digesu": "0" * 64}
    save_file(state, tmp_path / "c.safetensors", about)
    assert "damaged" in refused(tmp_path / "c.safetensors")


def test_a_full_disk_is_told_in_plain_words(tmp_path: Path, model, monkeypatch):
    def full(*_: object) -> None:
        text = "Error while serializing: I/O error: No space left on device (os error 28)"
        raise SafetensorError(text)

    monkeypatch.setattr("safetensors.torch.save_file", full)
    with pytest.raises(SeparatorError) as told:
        export(tmp_path / "m.safetensors", model.state_dict(), ABOUT)
    reason = "cannot be written (No space left on device); free some space on that disk"
    assert str(told.value) == f"{tmp_path / 'm.safetensors'}: {reason}"
    assert not [*tmp_path.iterdir()]


def test_what_cannot_be_read_says_so(tmp_path: Path, whole: Path, monkeypatch):
    def denied(self: Path, *arguments: object) -> None:
        raise PermissionError(13, "Permission denied")

    path = tmp_path / "m.safetensors"
    path.write_bytes(whole.read_bytes())
    monkeypatch.setattr(Path, "open", denied)
    assert refused(path).endswith("cannot be read (Permission denied)")


@pytest.mark.parametrize(
    "change",
    [
        {"description": [1]},
        {"description": "x"},
        {"description": {**ABOUT, "rate": 0}},
        {"description": {**ABOUT, "model": {**ABOUT["model"], "channels": [10**9] * 2}}},
        {"description": {**ABOUT, "part": 7}},
        {"description": {**ABOUT, "trained": {1, 2}}},
        {"ema": {"a": 1}},
        {"ema": {1: torch.zeros(1)}},
        {"ema": [torch.zeros(1)]},
        {"ema": {"head.weight": torch.zeros(1).expand(10**12)}},
        {"ema": {"head.weight": torch.zeros(2, 2).to_sparse()}},
    ],
)
def test_a_checkpoint_that_is_not_ours_is_one_line(tmp_path: Path, model, change: dict):
    payload = {key: kind() for key, kind in checkpoint.PAYLOAD_TYPES.items()}
    payload |= {"format": checkpoint.CHECKPOINT_FORMAT, "micro_batches": 1}
    payload |= {"songs": torch.tensor([1])}
    payload |= {"ema": model.state_dict(), "description": ABOUT}
    path = tmp_path / "last.pt"
    torch.save(payload, path)
    assert torch.equal(load_model(path)[0].head.weight, model.head.weight)
    torch.save(payload | change, path)
    refused(path)


def test_separating_with_a_rate_of_zero_is_one_line(tmp_path: Path, whole: Path):
    path = write(tmp_path / "m.safetensors", load_file(whole), {**ABOUT, "rate": 0})
    assert "rate" in refused(path, Separator.load)
    with safe_open(whole, "pt") as file:
        assert set(file.metadata()) == {"format", "separator", "digest"}
