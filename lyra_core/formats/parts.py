"""The Gaussians of a world by their parts, as formats with several objects name them."""

from __future__ import annotations

from lyra_core.values import Gaussians, Part

NAMES = {Part.KEYFRAME: "keyframes", Part.BACKING: "backing", Part.DOME: "dome"}


def by_part(gaussians: Gaussians) -> dict[str, Gaussians]:
    """Each part that there is, on the CPU, under its name."""
    found = {name: gaussians.of_parts(part).to("cpu") for part, name in NAMES.items()}
    return {name: part for name, part in found.items() if len(part)}
