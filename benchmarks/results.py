"""Where benchmarks keep their numbers."""

from __future__ import annotations

from pathlib import Path

from lyra_core.evaluation import results
from lyra_core.evaluation.results import cpu_name, hardware

__all__ = ["RESULTS", "cpu_name", "hardware", "write_result"]

RESULTS = Path(__file__).resolve().parent / "results"


def write_result(name: str, found: dict, folder: Path = RESULTS) -> Path:
    """Store `found` with date and hardware as <name>-<date>.json and return the path."""
    return results.write_result(name, found, folder)
