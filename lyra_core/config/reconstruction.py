"""What a user chooses about Gaussians: the group `reconstruction` of a recipe."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from lyra_core.config.bounds import Bounded, Bounds, require_bounds
from lyra_core.errors import RecipeError

TIERS = {"100k": 100_000, "500k": 500_000, "2m": 2_000_000}


def tier_size(tier: str | int) -> int:
    """Most Gaussians of a tier, given by name or as a number.

    Raises:
        RecipeError: an unknown name, or no Gaussian at all.
    """
    size = TIERS.get(tier) if isinstance(tier, str) else tier
    if size is None or size < 1:
        raise RecipeError(f"a tier is one of {', '.join(TIERS)} or a positive number, found {tier!r}")
    return size


@dataclass(frozen=True, slots=True, kw_only=True)
class RefineOptions(Bounded):
    """A fit of finished Gaussians to the frames.

    Attributes:
        steps: one frame each; 300 to 1000.
        hold_out_every: every so many-th frame is never fitted.
        min_gain_db: held-out gain below which the input is returned.
    """

    steps: Annotated[int, Bounds(ge=1)] = 500
    hold_out_every: Annotated[int, Bounds(ge=2)] = 8
    min_gain_db: float = 0.2


@dataclass(frozen=True, slots=True, kw_only=True)
class FusionOptions(Bounded):
    """How lifted chunks become one set of Gaussians.

    Attributes:
        tier: size of the output: "100k", "500k", "2m" or a number, which may be given as text.
        chunk_frames: most keyframes lifted together; halved while memory does not suffice.
        sky: "shell" puts sky pixels on a far sphere, "drop" leaves them out.
        sky_ratio: radius of that sphere in far depths of the scene.
        cameras: "requested", "recovered", or "auto": requested unless the frames depart from them beyond the gate.
        gate: rotation (degrees, median) and translation (percent of the path's length, median) of that departure.
        deviation: beyond these the report marks the video as not following its cameras.
        color_passes: sweeps of colour fitting.
        anchor_views: keyframes whose holes are closed after pruning and behind which the scene is softly continued;
            0 leaves holes.
    """

    tier: str | int = "500k"
    chunk_frames: Annotated[int, Bounds(ge=2)] = 64
    sky: Literal["shell", "drop"] = "shell"
    sky_ratio: Annotated[float, Bounds(gt=1)] = 3.0
    cameras: Literal["auto", "requested", "recovered"] = "auto"
    gate: tuple[float, float] = (2.0, 3.0)
    deviation: tuple[float, float] = (8.0, 15.0)
    color_passes: Annotated[int, Bounds(ge=0)] = 3
    anchor_views: Annotated[int, Bounds(ge=0)] = 0

    def __post_init__(self) -> None:
        if isinstance(self.tier, str) and self.tier.isascii() and self.tier.isdecimal() and len(self.tier) < 12:
            object.__setattr__(self, "tier", int(self.tier))
        tier_size(self.tier)
        require_bounds(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class ReconstructionOptions(FusionOptions):
    """The group `reconstruction` of a recipe: how a video becomes Gaussians.

    Attributes:
        lifter: "head" takes the depth network's own Gaussians, "depth" makes splats of depth pixels.
        is_refined: fit the Gaussians to the frames; needs CUDA.
        refine: how.
    """

    lifter: Literal["head", "depth"] = "head"
    is_refined: bool = False
    refine: RefineOptions = RefineOptions()
