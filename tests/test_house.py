"""The rules that `tests/house.py` lists: no kind of finding becomes more frequent."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests import house

CODE = '''
"""A module about vocals, which sentences may name."""

TOP = 1


def load(path: str, rate: int) -> str:
    """Do the work on a path."""
    if not path:
        raise ValueError("no vocals here")
    found = "valid/vocals_sdr"
    return found


def half(wave: float) -> float:
    """Return a wave of half the amplitude."""
    return wave / 2


class _Hidden:
    def load(self, path: str) -> str:
        return path


class Layer:
    def forward(self, x: float) -> float:
        """Return x, doubled."""


class Norm(Layer[int]):
    def forward(self, x: float) -> float:
        """Divide by the mean."""


@register(1)
def comb(grid: int) -> int:
    """Choose every third group."""
'''
LONG = "TOP = 2\n\n\ndef much() -> None:\n" + 60 * "    pass\n"


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    files = {
        "separator/layers.py": CODE,
        "separator/stems.py": "NAMES = ['vocals', 'drums']\n",
        "train/layers.py": LONG,
        "pretrain/config.py": "other = 'other voices'\n",
        "train/config.py": "other = 'other'\n",
        "README.md": "The trunk of the network.\n",
        "configs/pretrain/small.yaml": "model: {recall: 2}\nsteps: 1\n",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(house, "ROOT", tmp_path)
    house.sources.cache_clear()
    yield
    house.sources.cache_clear()


@pytest.mark.parametrize(
    ("check", "expected"),
    [
        (
            house.stem_names,
            [
                "separator/layers.py:11: spells vocals (lines 11)",
                "train/config.py:1: spells other (lines 1)",
            ],
        ),
        (
            house.repeated_constants,
            ["separator/layers.py:4: TOP is defined in train/layers.py too"],
        ),
        (house.repeated_files, ["separator/layers.py:1: there is train/layers.py too"]),
        (house.long_functions, ["train/layers.py:4: much has 61 lines"]),
        (
            house.docstring_sections,
            [
                "separator/layers.py:7: load: no Args, Returns, Raises",
            ],
        ),
        (
            house.words,
            [
                "separator/layers.py:11: found -> a noun: songs, remaining, …",
                "configs/pretrain/small.yaml:1: recall -> CrossFrameAttention, cross_frame_bands",
                "configs/pretrain/small.yaml:1: 'recall' -> cross-frame attention",
                "README.md:1: 'trunk' -> backbone",
            ],
        ),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_check_finds_what_breaks_its_rule(tree: None, check: Callable, expected: list[str]):
    assert [str(finding) for finding in check()] == expected


@pytest.mark.parametrize("check", house.CHECKS, ids=lambda check: check.__name__)
def test_no_rule_is_broken_more_often(check: Callable):
    name = check.__name__
    count = len(list(check()))
    assert count <= house.LIMITS[name], f"{count}: `python -m tests.house {name}` lists them"
