"""Render the tables of README and docs in place.

Usage, in the folder of the checkout: python -m recipes.tables
"""

from pathlib import Path

from . import write

print("changed: " + (", ".join(write(Path.cwd())) or "nothing"))
