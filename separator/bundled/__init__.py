"""The models that come with the package, by name: NAME.safetensors, NAME.onnx and a card, NAME.md.

A name stands for its file wherever a model file is asked for.
"""

import os
from pathlib import Path

DEFAULT = "tiny-vocals"  # what separates where nothing else is asked for
FOLDER = Path(__file__).parent


def names() -> list[str]:
    """Return the names of the bundled models, the default first."""
    models = sorted(path.stem for path in FOLDER.glob("*.safetensors"))
    return sorted(models, key=lambda name: name != DEFAULT)


def model_path(path: str | os.PathLike[str], suffix: str = ".safetensors") -> Path:
    """Return the file of a bundled model where `path` is its name, else `path` itself.

    Args:
        path: what a user gave as a model.
        suffix: of the file that is wanted, ".safetensors" or ".onnx".
    """
    return FOLDER / f"{path}{suffix}" if str(path) in names() else Path(path)


def card(name: str) -> str:
    """Return the card of a bundled model, in Markdown: its purpose, training data and scores.

    Args:
        name: one of `names()`.
    """
    return (FOLDER / f"{name}.md").read_text("utf-8")
