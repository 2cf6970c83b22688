"""The console script: puts the factory (flows, tasks, catalogs) first on sys.path and hands over to its CLI.

The factory's folder names are too generic for site-packages, so a wheel carries them as source under lyra_core/_app; a
checkout has them beside lyra_core. The folder the user stands in never wins, whatever tasks.py it holds.
"""

from __future__ import annotations

import sys

from lyra_core.factory import factory_root


def main() -> None:
    """Run the lyra command."""
    root = str(factory_root())
    sys.path[:] = [root, *(entry for entry in sys.path if entry not in {root, ""})]
    from flows.cli import app

    app()
