"""torchaudio, whose compiled part must have been built for the torch that is installed."""

from importlib.metadata import version
from types import ModuleType

from separator.errors import SeparatorError, one_line


def functional() -> ModuleType:
    """Import torchaudio.functional, which fails unless torchaudio was built for this torch.

    torchaudio's packages do not declare which torch they need, so pip can install a pair that does
    not load.

    Returns:
        The module.

    Raises:
        SeparatorError: it cannot be loaded; names both versions and the fix.
    """
    try:
        from torchaudio import functional
    except (ImportError, OSError, RuntimeError) as error:
        pair = f"torchaudio {version('torchaudio')} does not load beside torch {version('torch')}"
        reason = one_line(error.__cause__ or error)
        raise SeparatorError(
            f"{pair} ({reason}); `make setup` installs one that does, and so does "
            f"`{fix(version('torch'))}`"
        ) from error
    return functional


def fix(torch: str) -> str:
    """Return the command that installs the torchaudio for a release of torch.

    PyPI's are built for CUDA: 2.11.0 loads beside torch 2.11 to 2.14, 2.11.1 from 2.13 on. Other
    builds, such as "2.13.0+cpu", have theirs at the index that they came from.
    """
    release, _, build = torch.partition("+")
    older = tuple(map(int, release.split(".")[:2])) < (2, 13)
    command = f"pip install torchaudio=={'2.11.0' if older else '2.11.1'}"
    if build:
        command += f" --index-url https://download.pytorch.org/whl/{build}"
    return command
