"""Writes the model card of the mini weights: digests and costs from the manifest, numbers from a benchmark.

write_card(folder, result=Path("benchmarks/results/mini-2026-11-22.json"))
"""

from __future__ import annotations

from pathlib import Path

from lyra_core.errors import WeightsError
from lyra_core.evaluation.table import markdown, read_rows
from lyra_core.mini.manifest import MINI_FOLDER, Component, Training, mini_digest, read_components

CARD = "README.md"
CARD_COMMAND = "python -m lyra_core.training card --result benchmarks/results/mini-DATE.json"
INTRODUCTION = """The embedded model of lyra-worlds: the networks and the rollout of Lyra 2 in small, for frames of
128x224. From one photograph and a camera path it makes a video in chunks of 80 frames, estimates its depth, remembers
it, and lifts it to 3D Gaussians. `lyra run PHOTOGRAPHS --recipe mini`."""
DATA = """* Procedural rooms, streets, terrain and table tops drawn by this project (`lyra_core/procedural/worlds.py`):
  exact depth and cameras, no data set. Scenes of the held-out split only measure, with other textures.
* The photographs under `examples`, as textures and as slanted planes (sources and licenses: `ATTRIBUTION.md` in their
  folders); `coffee_table`, `launch_pad` and `wine_cellar` only measure.
* Critics of the last sharpening of the decoder saw with the features of EfficientNet-Lite0 (ImageNet weights,
  Apache-2.0); nothing of that network ships."""
MEASURES = """Held-out scenes, frames of 128x224, means over scenes, decibels of PSNR. "True depth" gives the model the
scene's own depth; "estimated" is what is shipped, with one factor a scene for the scale of the seed. Pixels are
co-visible with the seed where their surface is in it."""
LIMITS = """* It works at 128x224 and up to the path lengths measured above; nothing was tried beyond.
* What the photograph shows moves as it should. What lies beyond it has the right colours and little structure, the less
  the farther the camera goes or turns away. Surfaces that come much nearer stay as coarse as they were.
* It knows procedural places and a handful of photographs. People, animals, text, water, glass and anything that moves
  are unknown to it; captions steer hardly anything.
* Its metres are a guess: a single photograph does not tell its scale.
* It shows how the system works, and is no substitute for the released Lyra 2 weights."""
REPRODUCE = """    lyra train mini --out runs/mini

It trains every network from nothing over all GPUs of the machine, packs them into `runs/mini/weights` and measures
them; `--start-from lyra_core/mini/weights` goes on from these weights. Stages, times and pauses: docs/training.md.

What is shipped was trained in shorter runs on NVIDIA H100s and H200s, each going on from the last (docs/log.md). A GPU
does not add in the same order twice, so weights come out alike, not equal."""


def card(folder: Path = MINI_FOLDER, result: Path | None = None) -> str:
    """The card as Markdown.

    Args:
        folder: of the weights.
        result: numbers written by benchmarks/mini.py.

    Raises:
        WeightsError: weights or numbers that cannot be read, or numbers of other weights.
    """
    components = read_components(folder)
    parts = [
        ("Lyra mini", INTRODUCTION),
        ("License", "Apache-2.0. Independent of NVIDIA; trained from nothing by this project."),
        ("Data", DATA),
        ("Training", "\n".join(_costs(components))),
        ("Files", "\n".join(_files(components, mini_digest(folder)))),
        ("Measured", _measured(folder, result)),
        ("What it cannot do", LIMITS),
        ("Reproduce", REPRODUCE),
    ]
    heads = ("#", *["##"] * (len(parts) - 1))
    return "\n\n".join(f"{mark} {title}\n\n{text}" for mark, (title, text) in zip(heads, parts, strict=True)) + "\n"


def _costs(components: dict[str, Component]) -> list[str]:
    """One line a network, and what they cost together."""
    lines = ["| network | runs | steps | samples | scenes | seed | GPU hours |", "| --- " * 7 + "|"]
    for name, part in components.items():
        cost = part.training
        told = "| not recorded " * 6 if cost is None else _cost(cost)
        lines.append(f"| {name} {told}|")
    known = [part.training.gpu_seconds for part in components.values() if part.training is not None]
    if len(known) == len(components):
        lines += ["", f"Together {sum(known) / 3600:.2f} GPU hours, start-up not counted."]
    return lines


def _cost(cost: Training) -> str:
    cells = (cost.runs, f"{cost.steps:,}", f"{cost.samples:,}", cost.scenes or "", cost.seed)
    return "".join(f"| {cell} " for cell in (*cells, f"{cost.gpu_seconds / 3600:.2f}"))


def _files(components: dict[str, Component], digest: str) -> list[str]:
    lines = [f"All together: `{digest}` (part of the id of every world made with them)", ""]
    for name, part in components.items():
        widths = ", ".join(f"{key} {value}" for key, value in sorted(part.widths.items()))
        lines.append(f"* **{name}**: {widths}")
        lines += [f"  * `{file}` sha256 `{sha256}`" for file, sha256 in sorted(part.files.items())]
    return lines


def _measured(folder: Path, result: Path | None) -> str:
    if result is None:
        return f"Not yet: run `python benchmarks/mini.py --out pictures`, then `{CARD_COMMAND}`."
    rows, digest = read_rows(result)
    if digest != mini_digest(folder):
        raise WeightsError(
            f"{result} measures weights {digest[:12]}, {folder} holds {mini_digest(folder)[:12]}; measure again"
        )
    return "\n".join([MEASURES, "", *markdown(rows)])


def write_card(folder: Path = MINI_FOLDER, result: Path | None = None) -> Path:
    """Write the card beside the weights; arguments and errors as those of `card`."""
    path = folder / CARD
    path.write_text(card(folder, result), encoding="utf-8")
    return path
