"""`python -m qvft COMMAND ...`: the same as `qvft COMMAND ...`."""

from __future__ import annotations

import sys

from qvft.cli import main

if __name__ == "__main__":
    sys.exit(main())
