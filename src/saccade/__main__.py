"""Run the command `saccade` by `python -m saccade`."""

import sys

from saccade.cli import main

if __name__ == "__main__":
    sys.exit(main())
