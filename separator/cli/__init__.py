"""The command line: `dispatch` runs a command, and the commands that use more than one stage.

Only this package may import pretraining, training and inference together.
"""

from separator.cli.dispatch import guarded, main

__all__ = ["guarded", "main"]
