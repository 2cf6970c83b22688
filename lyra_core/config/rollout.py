"""The configuration of a rollout: a user's options, and what the network was trained with and nobody chooses.

The defaults are the released model's (`REFERENCE`); `CORRECTED` is the same network under conditions whose known faults
are corrected (docs/decisions/0002-reference-and-corrected.md).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields, is_dataclass
from typing import Annotated

from lyra_core.config.bounds import Bounds, require_bounds
from lyra_core.config.video import (
    CORRECTED_VIDEO,
    ConditioningOptions,
    CorrespondenceOptions,
    MemoryOptions,
    RolloutOptions,
    WarpOptions,
)
from lyra_core.configure import configured
from lyra_core.errors import RecipeError

COORDINATE_CHANNELS = 4
"""Of a block of a coordinate map: column, row, slot, depth."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WarpConfig(WarpOptions):
    """How source pixels are trusted and weighed.

    Attributes:
        num_targets_at_once: bounds the memory of the torch path; changes no number.
    """

    num_targets_at_once: Annotated[int, Bounds(ge=1)] = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class CorrespondenceConfig(CorrespondenceOptions):
    """Resolution and range of the coordinate maps.

    Attributes:
        warp: reliability and grouping of the splat.
        num_blocks: most retrieved frames a generated slot can refer to.
        latent_stride: pixels a latent pixel spans.
        downsample: pixels a map entry stands for, a divisor of latent_stride.
    """

    warp: WarpConfig = WarpConfig()
    num_blocks: int = 5
    latent_stride: int = 8
    downsample: int = 1

    def __post_init__(self) -> None:
        require_bounds(self)
        if self.downsample < 1 or self.latent_stride % self.downsample:
            raise RecipeError(f"downsample must divide latent_stride={self.latent_stride}, found {self.downsample}")

    @property
    def cell(self) -> int:
        """Map entries along each axis of a latent pixel."""
        return self.latent_stride // self.downsample

    @property
    def block_channels(self) -> int:
        """Channels of one block: 4 * 8 * 8 = 256 for the released weights."""
        return COORDINATE_CHANNELS * self.cell**2


@dataclass(frozen=True, slots=True, kw_only=True)
class ConditioningConfig(ConditioningOptions):
    """How conditions are made.

    Attributes:
        warp: reliability and grouping for the last frame's warp.
        correspondence: of the coordinate maps.
        ray_downsample: pixels a ray stands for.
    """

    warp: WarpConfig = WarpConfig()
    correspondence: CorrespondenceConfig = CorrespondenceConfig()
    ray_downsample: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryConfig(MemoryOptions):
    """What is remembered and how it is found again.

    Attributes:
        downsample: every how many pixels one is remembered, along both axes.
        num_retrieved: context frames sought.
    """

    downsample: Annotated[int, Bounds(ge=1)] = 4
    num_retrieved: Annotated[int, Bounds(ge=1)] = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class RolloutConfig(RolloutOptions):
    """How a world is generated chunk by chunk, complete.

    Attributes:
        conditioning: warps, masks, rays and correspondences.
        memory: what is remembered and how it is found.
    """

    conditioning: ConditioningConfig = ConditioningConfig()
    memory: MemoryConfig = MemoryConfig()


def with_options(base: RolloutConfig, options: RolloutOptions) -> RolloutConfig:
    """A configuration with all of a user's options, and what the network fixes as in `base`."""
    chosen = asdict(options)
    return configured(base, {field.name: chosen[field.name] for field in fields(RolloutOptions)})


REFERENCE = RolloutConfig()
CORRECTED = with_options(REFERENCE, CORRECTED_VIDEO)

REFERENCE_WARP, CORRECTED_WARP = REFERENCE.conditioning.warp, CORRECTED.conditioning.warp
REFERENCE_CONDITIONING, CORRECTED_CONDITIONING = REFERENCE.conditioning, CORRECTED.conditioning
REFERENCE_MEMORY, CORRECTED_MEMORY = REFERENCE.memory, CORRECTED.memory
REFERENCE_DEPTH, CORRECTED_DEPTH = REFERENCE.depth, CORRECTED.depth


# Texts of configurations are part of ids, and of the lists of stored chunks. These classes had their fields in another
# order when the first of these texts were written.
_FIRST_FIELDS = {
    CorrespondenceConfig: ("num_blocks", "latent_stride", "downsample"),
    MemoryConfig: ("stride_frames", "downsample", "num_retrieved"),
}


# Fields that came later: they change nothing while they hold this value, and are then left out.
_NEUTRAL: dict[type, dict[str, object]] = {
    RolloutConfig: {"guidance_first_noise": 1.0, "guidance_last_noise": 0.0, "batched_guidance": False},
}


def identity_text(config: object) -> str:
    """A configuration as part of an id: class names and fields, in an order that never changes."""
    if not is_dataclass(config):
        return repr(config)
    neutral = _NEUTRAL.get(type(config), {})
    names = [f.name for f in fields(config) if f.name not in neutral or getattr(config, f.name) != neutral[f.name]]
    first = _FIRST_FIELDS.get(type(config), ())
    ordered = [*first, *(name for name in names if name not in first)]
    return f"{type(config).__name__}({', '.join(f'{name}={identity_text(getattr(config, name))}' for name in ordered)})"
