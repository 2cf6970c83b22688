"""The console script: puts the factory (flows, tasks, catalogs) first on sys.path and hands over to its CLI.

The factory's folder names are too generic for site-packages, so a wheel carries them as source under lyra_core/_app; a
checkout has them beside lyra_core. The folder the user stands in never wins, whatever tasks.py it holds.
"""

from __future__ import annotations

import sys

from lyra_core.errors import MissingExtraError
from lyra_core.factory import factory_root


def main() -> None:
    """Run the lyra command; without the extra that brings it, say so and leave with 2, as after wrong usage."""
    root = str(factory_root())
    sys.path[:] = [root, *(entry for entry in sys.path if entry not in {root, ""})]
    try:
        from flows.cli import app  # the package flows asks for what the extra brings before anything is imported
    except MissingExtraError as error:
        sys.stderr.write(f"error: {error}\n")
        sys.exit(2)
    app()
