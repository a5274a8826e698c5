"""`separator` and `python -m separator`."""

import sys

INTERRUPTED = 130  # as `separator.cli` returns


def main() -> int:
    """Run the command line; Ctrl-C ends it quietly, while modules are imported too."""
    try:
        from separator.cli import main as run
    except KeyboardInterrupt:
        return INTERRUPTED
    return run()


if __name__ == "__main__":
    sys.exit(main())
