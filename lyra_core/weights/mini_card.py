"""Writes the model card of the mini weights from what is known: widths and digests from the files, numbers from a run.

write_card(folder, result=Path("benchmarks/results/mini-2026-11-22.json"))
"""

from __future__ import annotations

import json
from pathlib import Path

from lyra_core.errors import WeightsError
from lyra_core.weights.mini_manifest import MINI_FOLDER, Component, mini_digest, read_components

CARD = "README.md"
LIMITS = """It works at 128x224. What the photograph shows moves as it should; what lies beyond it has the right
colours and little structure, the less the farther the camera turns away. It was trained on procedural places and on six
photographs: people, animals, text and anything that moves are unknown to it. It is a small model that shows how the
system works, and no substitute for the released Lyra 2 weights."""
REPRODUCE = """    lyra train views --out .training/views.npz
    lyra train vae --minutes 7 --views .training/views.npz --out runs/vae
    lyra train pack --vae runs/vae/weights.safetensors
    lyra train video --minutes 7.3 --vae lyra_core/weights/mini/vae.safetensors --views .training/views.npz \\
        --out runs/video
    lyra train pack --video runs/video/weights.safetensors
    python benchmarks/mini.py --device cuda --out pictures"""


def _component(name: str, part: Component) -> list[str]:
    widths = ", ".join(f"{key} {value}" for key, value in sorted(part.widths.items()))
    return [
        f"* **{name}**: {widths}",
        *(f"  * `{file}` sha256 `{digest}`" for file, digest in sorted(part.files.items())),
    ]


def card(folder: Path = MINI_FOLDER, result: Path | None = None, runs: str = "") -> str:
    """The card as Markdown.

    Args:
        folder: of the weights.
        result: numbers written by benchmarks/mini.py.
        runs: what was run, at what cost; one paragraph.

    Raises:
        WeightsError: weights or numbers that cannot be read, or numbers of other weights.
    """
    lines = ["# Lyra mini", "", "Licence: Apache-2.0. Independent of NVIDIA; trained from nothing by this project.", ""]
    lines += [
        "## Data",
        "",
        "Procedural scenes with seeds 0 to 639 of the training split, and the photographs under `examples`",
    ]
    lines += [
        "except `coffee_table`, `launch_pad` and `wine_cellar`, which only measure (sources: `ATTRIBUTION.md` there).",
        "",
    ]
    lines += ["## Runs", "", runs or "See docs/log.md.", ""]
    lines += [
        "## Files",
        "",
        *(line for name, part in read_components(folder).items() for line in _component(name, part)),
        "",
    ]
    if result is not None:
        lines += ["## Measured", "", *_measured(folder, result), ""]
    lines += ["## What it cannot do", "", LIMITS, "", "## Reproduce", "", REPRODUCE, ""]
    return "\n".join(lines)


def _measured(folder: Path, result: Path) -> list[str]:
    try:
        found = json.loads(result.read_text(encoding="utf-8"))
        rows, digest = dict(found["rows"]), str(found["weights"])
        where = f"{found['scenes']} held-out scenes, {found['resolution']}, {found['hardware']}"
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise WeightsError(
            f"{result} holds no numbers of benchmarks/mini.py ({error}); run the benchmark again"
        ) from error
    if digest != mini_digest(folder):
        raise WeightsError(
            f"{result} measures weights {digest[:12]}, {folder} holds {mini_digest(folder)[:12]}; measure again"
        )
    return [where, "", "| what | value |", "| --- | --- |", *(f"| {name} | {value} |" for name, value in rows.items())]


def write_card(folder: Path = MINI_FOLDER, result: Path | None = None, runs: str = "") -> Path:
    """Write the card beside the weights; arguments and errors as those of `card`."""
    path = folder / CARD
    path.write_text(card(folder, result, runs), encoding="utf-8")
    return path
