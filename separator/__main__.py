"""`python -m separator`."""

import sys

from separator.cli import main

sys.exit(main())
