"""Copies what a step leaves to another folder, so that it outlives the machine: large files in parts, no checkpoints.

cat weights.safetensors.part* > weights.safetensors    puts parts together again
"""

from __future__ import annotations

import shutil
from pathlib import Path

from lyra_core.replacing import replacing
from lyra_core.training.checkpoint import FULL_CHECKPOINT

LEFT_OUT = (FULL_CHECKPOINT, ".partial", ".tmp")


def sync_artifacts(source: Path, target: Path, part_bytes: int) -> list[Path]:
    """Copy a file or all files of a folder; whatever the target had under their names is replaced.

    Args:
        source: a file or folder; full checkpoints in it are left out.
        target: its name at the new place.
        part_bytes: larger files become NAME.part00, NAME.part01, ... of this size.

    Returns:
        The files written.

    Raises:
        OSError: a file cannot be read or written.
    """
    if source.is_file():
        return _copy(source, target, part_bytes)
    written: list[Path] = []
    for path in sorted(source.rglob("*")):
        if path.is_file() and not path.name.endswith(LEFT_OUT) and not path.name.startswith("."):
            written += _copy(path, target / path.relative_to(source), part_bytes)
    return written


def _copy(source: Path, target: Path, part_bytes: int) -> list[Path]:
    target.parent.mkdir(parents=True, exist_ok=True)
    size = source.stat().st_size
    count = -(-size // part_bytes)
    names = [f"{target.name}.part{number:02d}" for number in range(count)] if count > 1 else [target.name]
    paths = [target.with_name(name) for name in names]
    with source.open("rb") as file:
        for path in paths:
            # each appears whole: the machine may go in the middle of a copy
            with replacing(path) as partial, partial.open("wb") as copy:
                if count > 1:
                    copy.write(file.read(part_bytes))
                else:
                    shutil.copyfileobj(file, copy)
    for old in {target, *target.parent.glob(f"{target.name}.part*")} - set(paths):
        old.unlink(missing_ok=True)
    return paths
