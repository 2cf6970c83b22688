"""Stage 3: the video is lifted to 3D Gaussians."""

from __future__ import annotations

from lyra_core.errors import ReconstructionError
from lyra_core.model import WorldModel
from lyra_core.values import Gaussians, VideoClip


def lift_to_gaussians(model: WorldModel, clip: VideoClip) -> Gaussians:
    """Reconstruct, and never let an empty set through silently.

    Raises:
        ReconstructionError: no Gaussians came out.
    """
    gaussians = model.reconstruct(clip)
    if len(gaussians) == 0:
        raise ReconstructionError("wanted Gaussians from the clip, found none; look at its depth and sky mask")
    return gaussians
