"""The pages: links lead somewhere, settings exist, log entries and bibliography are complete."""

import re
from pathlib import Path

import pytest

from separator.cli.compare.config import CompareConfig
from separator.config import _parser
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


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_settings_exist_under_their_present_names(page: Path):
    configs = {"pretrain": PretrainConfig, "train": TrainConfig, "compare": CompareConfig}
    keys = {
        action.dest for kind, cls in configs.items() for action in _parser(cls, kind, None)._actions
    }
    for key in re.findall(r"(?<![\w/.])([a-z_]+\.[a-z_.0-9]+)=", page.read_text(encoding="utf-8")):
        assert any(known == key or known.startswith(f"{key}.") for known in keys), key


@pytest.mark.parametrize("page", ENTRIES, ids=name)
def test_log_entries_have_four_parts_and_a_row(page: Path):
    text = page.read_text(encoding="utf-8")
    parts = re.findall(r"^\*\*(\w+)\.\*\*", text, re.M)
    assert parts == ["Hypothesis", "Change", "Result", "Verdict"]
    assert f"*{page.name[:10]}*" in text.splitlines()
    assert f"]({page.name})" in (page.parent / "README.md").read_text(encoding="utf-8")
