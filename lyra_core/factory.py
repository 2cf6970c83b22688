"""Where the factory (flows, tasks, catalogs) and what travels with it (sample photographs) lie."""

from __future__ import annotations

from pathlib import Path


def factory_root() -> Path:
    """The folder that holds flows/, tasks/ and catalogs/: bundled in a wheel, or the checkout."""
    package = Path(__file__).resolve().parent
    bundled = package / "_app"
    return bundled if (bundled / "flows").is_dir() else package.parent
