"""The pages: links lead somewhere, settings exist, log entries and bibliography are complete."""

import re
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from separator.cli.compare.config import CompareConfig
from separator.config import _parser, parse
from separator.losses import LOSSES
from separator.models.build import create
from separator.pretrain.config import PretrainConfig
from separator.train.config import TrainConfig

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
ENTRIES = [page for page in PAGES if page.parent.name == "log" and page.name != "README.md"]


def name(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def anchors(text: str) -> set[str]:
    """Return the anchors that GitHub gives the headings of a page."""
    headings = re.findall(r"^#+ (.+)$", re.sub(r"```.*?```", "", text, flags=re.S), re.M)
    plain = (re.sub(r"[^\w\- ]", "", heading.lower()) for heading in headings)
    return {heading.strip().replace(" ", "-") for heading in plain}


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_lead_somewhere(page: Path):
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        if "://" in target:
            continue
        path, _, anchor = target.partition("#")
        there = (page.parent / path).resolve() if path else page
        assert there.exists(), target
        if anchor:
            assert anchor in anchors(there.read_text(encoding="utf-8")), target


@pytest.mark.parametrize("page", [page for page in PAGES if page not in ENTRIES], ids=name)
def test_files_of_code_exist(page: Path):
    paths = re.findall(
        r"`((?:separator|pretrain|train|inference)/[\w/]+(?:\.py|/))`", page.read_text()
    )
    assert [path for path in paths if not (ROOT / path).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_settings_exist_under_their_present_names(page: Path):
    configs = {"pretrain": PretrainConfig, "train": TrainConfig, "compare": CompareConfig}
    keys = {
        action.dest for kind, cls in configs.items() for action in _parser(cls, kind, None)._actions
    }
    if page.name == "extending.md":  # its examples define their own; they are run
        return
    for key in re.findall(r"(?<![\w/.])([a-z_]+\.[a-z_.0-9]+)=", page.read_text(encoding="utf-8")):
        if key.startswith("loss."):
            assert key.removeprefix("loss.") in LOSSES
        else:
            assert any(known == key or known.startswith(f"{key}.") for known in keys), key


@pytest.mark.parametrize("page", ENTRIES, ids=name)
def test_log_entries_have_four_parts_and_a_row(page: Path):
    text = page.read_text(encoding="utf-8")
    parts = re.findall(r"^\*\*(\w+)\.\*\*", text, re.M)
    assert parts == ["Hypothesis", "Change", "Result", "Verdict"]
    assert f"*{page.name[:10]}*" in text.splitlines()
    assert f"]({page.name})" in (page.parent / "README.md").read_text(encoding="utf-8")


def test_the_table_of_shapes_is_that_of_tiny():
    config = parse(TrainConfig, ["tiny.yaml", "data.roots=[x]", "run=x"], "train")
    network, shapes = create(config.sizes, config.stft.bins), {}

    def note(name: str, number: int) -> None:
        def hook(module: nn.Module, inputs: tuple, output: Tensor) -> None:
            shapes[name, number] = output.shape[2:]

        getattr(network, name)[number].register_forward_hook(hook)

    depths = len(config.model.channels)
    for name in ("encoders", "encoder_tokens", "decoders", "decoder_tokens"):
        for number in range(len(getattr(network, name))):
            note(name, number)
    with torch.no_grad():
        network(torch.rand(1, 2, config.stft.bins, 3))
    rows = []
    for depth in range(depths):
        up = depths - 1 - depth  # decoders count from the bottleneck
        bins, channels = shapes["encoders", depth]
        middle = shapes["decoders", up - 1][1] if up else ""
        ends = shapes["encoder_tokens", depth][1], middle, shapes["decoder_tokens", up][1]
        rows.append("| " + " | ".join(str(n) for n in (depth, bins, channels, *ends)) + " |")
    page = (ROOT / "docs" / "model.md").read_text(encoding="utf-8")
    assert [row for row in page.splitlines() if re.match(r"\| \d \|", row)] == [
        row.replace("|  |", "| |") for row in rows
    ]
