"""What the embedded weights of the mini model are, from their manifest alone: planning reads no weight file."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

from lyra_core.errors import WeightsError

MINI_FOLDER = Path(__file__).parent / "weights"
MANIFEST = "mini.json"
SUPER_RESOLUTION = "super_resolution"
"""The component that enlarges frames; its digest is its own, so that worlds without it keep their ids."""

Width = int | float | str | None | tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Training:
    """What a network cost.

    Attributes:
        steps: of all runs together.
        samples: seen in them.
        gpu_seconds: seconds of training times GPUs, start-up not counted.
        seed: of the last run's weights and data.
        scenes: procedural scenes learnt from.
        runs: one after the other.
    """

    steps: int
    samples: int
    gpu_seconds: float
    seed: int = 0
    scenes: int = 0
    runs: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Component:
    """One network of the folder.

    Attributes:
        widths: fields of its configuration.
        files: SHA-256 of each file.
        training: what it cost; None where nobody said.
    """

    widths: dict[str, Width]
    files: dict[str, str]
    training: Training | None = None


def read_components(folder: Path = MINI_FOLDER) -> dict[str, Component]:
    """What a folder holds, from its manifest alone.

    Raises:
        WeightsError: no manifest, or one that cannot be read.
    """
    path = folder / MANIFEST
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))["components"]
        return {
            name: Component(
                widths={k: tuple(v) if isinstance(v, list) else v for k, v in row["widths"].items()},
                files=dict(row["files"]),
                training=Training(**row["training"]) if row.get("training") else None,
            )
            for name, row in rows.items()
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise WeightsError(
            f"the mini weights are described by {path}, which cannot be read ({error}); reinstall the package, "
            "or pack a training run into the folder"
        ) from error


def mini_digest(folder: Path = MINI_FOLDER) -> str:
    """SHA-256 over the digests of all files but those of super-resolution: part of the id of every world."""
    return _digest({name: part for name, part in read_components(folder).items() if name != SUPER_RESOLUTION})


def super_resolution_digest(folder: Path = MINI_FOLDER) -> str:
    """The same of super-resolution: part of the id of worlds that are enlarged by it.

    Raises:
        WeightsError: the folder has none.
    """
    components = read_components(folder)
    if SUPER_RESOLUTION not in components:
        raise WeightsError(
            f"{folder} holds {sorted(components)}, wanted {SUPER_RESOLUTION!r}; pack a training run of it there, or "
            "add --set video.super_resolution=none"
        )
    return _digest({SUPER_RESOLUTION: components[SUPER_RESOLUTION]})


def _digest(components: dict[str, Component]) -> str:
    lines = [f"{name} {file} {digest}" for name, part in components.items() for file, digest in part.files.items()]
    return hashlib.sha256("\n".join(sorted(lines)).encode()).hexdigest()
