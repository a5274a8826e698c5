"""The rules of the house, read off the syntax trees: who may import whom, and what stays light."""

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
STAGES = ("pretrain", "train", "inference")
LAYERS = (  # of the library, from the ground up
    {"errors"},
    {
        "allocator",
        "arguments",
        "atomic",
        "bundled",
        "commands",
        "config",
        "config_errors",
        "devices",
    }
    | {"help_format", "model_sources"}
    | {"logs", "loss_config", "machine", "processes", "ranges", "signals", "stems", "streams"}
    | {"torchaudio_import"},
    {"audio", "dsp"},
    {"data", "losses", "metrics", "models"},
    {"engine"},
    {"api", "ensemble", "onnx_separator", "separation", "streaming"},
    {"supervised"},
    {"", "__main__", "cli"},
)
HEAVY = {
    *("tensorboard", "musdb", "museval", "stempeg", "matplotlib", "auraloss", "jsonargparse"),
    *("sklearn", "scipy", "wandb"),
}


def modules() -> list[tuple[Path, str]]:
    """Every source file with its import name."""
    rows = []
    for folder in ("separator", *STAGES):
        for path in sorted((ROOT / folder).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            name = ".".join(parts if folder == "separator" else ("separator", *parts))
            rows.append((path, name.removesuffix(".__init__")))
    return rows


def imported(path: Path, top_only: bool = False) -> set[str]:
    """Full names that a file imports; only those at its top level if asked."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    nodes = tree.body if top_only else ast.walk(tree)
    names = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names


@pytest.mark.parametrize(("path", "name"), modules(), ids=lambda value: str(value)[-40:])
def test_imports_go_down_only(path: Path, name: str):
    stage = name.split(".")[1] if "." in name else ""
    for other in imported(path):
        target = other.split(".")[1] if other.startswith("separator.") else ""
        if target in STAGES:
            assert stage in (target, "cli"), f"{name} imports {other}"
        if target == "cli":
            assert stage in ("cli", "__main__"), f"{name} imports {other}"
        assert other.split(".")[0] not in STAGES, f"{name} imports {other} by its folder's name"


def layer(name: str) -> int:
    """Place of a module of the library in LAYERS, by the first part of its name."""
    first = [*name.split("."), ""][1]
    return next(place for place, parts in enumerate(LAYERS) if first in parts)


def test_layers_of_the_library_are_kept():
    library = {name: path for path, name in modules() if not set(name.split(".")) & set(STAGES)}
    for name, path in library.items():
        for other in imported(path) & set(library) - {"separator"}:
            assert layer(other) <= layer(name), f"{name} imports {other}"


@pytest.mark.parametrize(("path", "name"), modules(), ids=lambda value: str(value)[-40:])
def test_heavy_packages_are_imported_where_they_are_used(path: Path, name: str):
    assert not {other.split(".")[0] for other in imported(path, top_only=True)} & HEAVY


def test_every_package_is_in_the_wheel():
    import tomllib

    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    there = {
        name if path.stem == "__init__" else name.rpartition(".")[0] for path, name in modules()
    }
    presets = {path.parent.relative_to(ROOT) for path in (ROOT / "configs").rglob("*.yaml")}
    there |= {".".join(("separator", *folder.parts)) for folder in presets}
    assert there == set(settings["packages"])


def test_importing_separator_is_light():
    code = "import separator, sys; print('torch' in sys.modules, len(sys.modules) < 150)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "True"]


HELP_AND_MISTAKES = [
    (["scan", "--help"], 0),
    (["separate", "--help"], 0),
    (["train", "--help"], 0),
    (["pretrain", "--help"], 0),
    (["evaluate", "--help"], 0),
    (["compare", "--help"], 0),
    (["demo", "--help"], 0),
    (["evaluate", "model.safetensors", "--data", "music", "--split", "all"], 2),
    (["compare", "compare/masks.yaml", "jobs=0"], 2),
    (["demo", "steps=1"], 2),
    (["help", "train"], 0),
    (["train", "data.rots=[music]"], 2),
    (["train", "data.roots=[music]", "layer_decay=2"], 2),
    (["pretrain", "data.rots=[music]"], 2),
    (["pretrain", "data.roots=[music]", "next.token=3"], 2),
]


def test_help_and_usage_errors_do_not_import_torch():
    code = (
        "import contextlib, io, json, sys; from separator.cli import main\n"
        "for words in json.loads(sys.argv[1]):\n"
        "    try:\n"
        "        with contextlib.redirect_stdout(io.StringIO()): status = main(words)\n"
        "    except SystemExit as end: status = end.code\n"
        "    print(json.dumps([words, status, 'torch' in sys.modules]))"
    )
    given = json.dumps([words for words, _ in HELP_AND_MISTAKES])
    done = subprocess.run([sys.executable, "-c", code, given], capture_output=True, text=True)
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert found == [[words, status, False] for words, status in HELP_AND_MISTAKES], done.stderr


def test_files_and_functions_are_short():
    for path, name in modules():
        text = path.read_text(encoding="utf-8")
        assert text.count("\n") <= (350 if "models" in name else 300), path
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef):
                assert node.end_lineno - node.lineno < 70, f"{path}: {node.name}"
