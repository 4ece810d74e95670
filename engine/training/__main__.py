"""`python -m engine.training`."""

from __future__ import annotations

import sys

from engine.training.commands import main

if __name__ == "__main__":
    sys.exit(main())
