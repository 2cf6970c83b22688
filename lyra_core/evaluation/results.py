"""Writes measured numbers with date and hardware, one file per day and name."""

from __future__ import annotations

import datetime as dt
import json
import os
import platform
from pathlib import Path
from typing import Any


def today_path(name: str, folder: Path) -> Path:
    """Where today's numbers of a benchmark are kept."""
    return folder / f"{name}-{dt.datetime.now(dt.UTC).date().isoformat()}.json"


def write_result(name: str, result: dict[str, Any], folder: Path) -> Path:
    """Store `found` as <name>-<date>.json and return the path."""
    path = today_path(name, folder)
    today = path.stem.removeprefix(f"{name}-")
    folder.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"date": today, "hardware": hardware(), **result}, indent=2) + "\n", encoding="utf-8")
    return path


def hardware() -> dict[str, object]:
    """What the numbers were measured on, and how busy it was."""
    import torch

    facts: dict[str, object] = {
        "cpu": cpu_name(),
        "cores": len(os.sched_getaffinity(0)),
        "load_average": [round(x, 2) for x in os.getloadavg()],
        "python": platform.python_version(),
        "torch": torch.__version__,
    }
    if torch.cuda.is_available():
        facts["gpu"] = torch.cuda.get_device_name()
    return facts


def cpu_name() -> str:
    """The processor's model, where the system tells it."""
    cpuinfo = Path("/proc/cpuinfo")
    for line in cpuinfo.read_text(encoding="utf-8").splitlines() if cpuinfo.exists() else ():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.processor()
