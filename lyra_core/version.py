"""The version of the distribution; a file of its own, so that no module imports the package itself for it."""

from __future__ import annotations

VERSION = "0.1.0"
