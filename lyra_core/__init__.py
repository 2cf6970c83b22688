"""Explorable 3D worlds from photographs: a front door for notebooks and programs, with no Prefect and no Ray.

    model = lyra_core.load_model()  # the embedded one, "mini"
    clip = model.generate("photo.jpg", "dolly-in")
    gaussians = model.reconstruct(clip)
    gaussians.save_ply("world.ply")
    rendered = lyra_core.render(gaussians, clip.cameras)

Names are imported when first used, so that `import lyra_core` stays light and does not load torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from lyra_core.version import VERSION

if TYPE_CHECKING:
    from lyra_core.gaussians.render import render
    from lyra_core.values import CameraPath, Gaussians, Seed, VideoClip
    from lyra_core.world_models.load import load_model

__version__ = VERSION

_HOMES = {
    "load_model": "lyra_core.world_models.load",
    "render": "lyra_core.gaussians.render",
    "CameraPath": "lyra_core.values",
    "Gaussians": "lyra_core.values",
    "Seed": "lyra_core.values",
    "VideoClip": "lyra_core.values",
}

__all__ = ["CameraPath", "Gaussians", "Seed", "VideoClip", "load_model", "render"]


def __getattr__(name: str) -> object:
    """Import a public name from its home on first use (PEP 562)."""
    if name not in _HOMES:
        raise AttributeError(f"module 'lyra_core' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    """The public names."""
    return sorted([*__all__, "__version__"])
