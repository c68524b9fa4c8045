"""Run the command `saccade` by `python -m saccade.cli`."""

import sys

from saccade.cli import main

sys.exit(main())
