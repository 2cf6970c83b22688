"""Groups of recipe fields for models with learned networks: every choice of the video and of the reconstruction.

Field names and defaults are those of the library's own settings (lyra_core.video.rollout_config.FAITHFUL,
lyra_core.gaussians.reconstruct.ReconstructionConfig, which say what each means), written down here so that a recipe is
complete, and planning, which reads recipes, imports no torch. A test compares them.
"""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator


class Group(BaseModel):
    """Fields that are changed by `--set group.field=value`."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class WarpGroup(Group):
    """How pixels are trusted and weighed when they are carried to other cameras."""

    reliability: Literal["range", "curvature"] = "range"
    reliability_threshold: float = Field(0.05, gt=0)
    group_size: int | None = Field(16, ge=1)


class CorrespondenceGroup(Group):
    """Coordinate maps of retrieved frames."""

    depth_range: Literal["chunk", "used"] = "chunk"
    warp: WarpGroup = WarpGroup()


class ConditioningGroup(Group):
    """What the network is shown of a chunk before it is generated."""

    warp: WarpGroup = WarpGroup()
    union_warp: bool = False
    density: int = 1
    gap_px: int = 0
    mask_channels: Literal["ones", "coverage"] = "ones"
    correspondence: CorrespondenceGroup = CorrespondenceGroup()


class MemoryGroup(Group):
    """Which earlier frames are found again."""

    stride_frames: int = Field(8, ge=1)
    num_query_cameras: int = Field(1, ge=1, le=80)
    occlusion_tolerance_m: float = Field(0.1, ge=0)
    occlusion_tolerance_relative: float = Field(0.0, ge=0)
    invalid_at_origin: bool = True


class DepthGroup(Group):
    """Depth of generated frames, and its scale."""

    interval_frames: int = Field(8, ge=1)
    max_frames: int = Field(10, ge=1)
    chunk_boundaries: bool = False
    align: Literal["none", "overlap"] = "none"
    min_overlap: float = Field(0.01, ge=0, le=1)
    min_confidence: float = Field(0.0, ge=0, le=1)
    sky: Literal["estimated", "drop", "far"] = "estimated"


class VideoGroup(Group):
    """How a video is generated; the defaults are the released model's."""

    sampler: Literal["unipc", "euler", "distilled"] = "unipc"
    num_steps: int = Field(35, ge=1, le=1000)
    shift: float = Field(5.0, gt=0)
    guidance_scale: float = Field(5.0, ge=0)
    negative_prompt: str = ""
    loras: tuple[str, ...] = Field((), description="converted sets with strengths: lora-dmd:1.0")
    captioner: str = Field("manifest", description="'manifest', or the folder of a vision-language model")
    exact_timesteps: bool = False
    noise: Literal["reference", "generator"] = "reference"
    encoded_prefix: int | None = Field(None, ge=1)
    clamp_frames: bool = False
    photographs_replace_seed: bool = True
    latents_per_window: int = Field(1, ge=1, description="speed against memory; changes no world")
    speed: Literal["exact", "fast", "fastest"] = Field("exact", description="products in 8 bits change worlds a little")
    conditioning: ConditioningGroup = ConditioningGroup()
    memory: MemoryGroup = MemoryGroup()
    depth: DepthGroup = DepthGroup()


TIER_NAMES = ("100k", "500k", "2m")


class RefineGroup(Group):
    """A fit of finished Gaussians to the frames."""

    steps: int = Field(500, ge=1)
    hold_out_every: int = Field(8, ge=2)
    min_gain_db: float = 0.2


class ReconstructionGroup(Group):
    """How a video becomes Gaussians."""

    lifter: Literal["head", "depth"] = Field("head", description="the Gaussian head, or splats from depth pixels")
    tier: str | int = Field("500k", description="splats of the output: 100k, 500k, 2m or a number")
    chunk_frames: int = Field(64, ge=2, description="keyframes lifted together, halved while memory does not suffice")
    sky: Literal["shell", "drop"] = "shell"
    sky_ratio: float = Field(3.0, gt=1)
    cameras: Literal["auto", "requested", "recovered"] = "auto"
    gate: tuple[float, float] = Field((2.0, 3.0), description="beyond these degrees and percent, recovered cameras")
    deviation: tuple[float, float] = Field((8.0, 15.0), description="beyond these the world is not accepted")
    color_passes: int = Field(3, ge=0)
    anchor_views: int = Field(0, ge=0, description="keyframes whose holes are closed and backed; 0 leaves holes")
    is_refined: bool = Field(False, description="fit the Gaussians to the frames; needs CUDA")
    refine: RefineGroup = RefineGroup()

    @field_validator("tier", mode="before")
    @classmethod
    def _number_or_name(cls, tier: object) -> object:
        size = int(tier) if isinstance(tier, str) and tier.isascii() and tier.isdecimal() and len(tier) < 12 else tier
        if size not in TIER_NAMES and not (isinstance(size, int) and size > 0):
            raise ValueError(f"a tier is one of {', '.join(TIER_NAMES)} or a positive number")
        return size


MENDED_WARP = WarpGroup(reliability="curvature", reliability_threshold=0.04, group_size=None)
MENDED_VIDEO = VideoGroup(
    exact_timesteps=True,
    noise="generator",
    encoded_prefix=4,
    clamp_frames=True,
    photographs_replace_seed=False,
    conditioning=ConditioningGroup(
        warp=MENDED_WARP,
        union_warp=True,
        density=2,
        gap_px=8,
        mask_channels="coverage",
        correspondence=CorrespondenceGroup(depth_range="used", warp=MENDED_WARP),
    ),
    memory=MemoryGroup(
        num_query_cameras=4, occlusion_tolerance_m=0.0, occlusion_tolerance_relative=0.03, invalid_at_origin=False
    ),
    depth=DepthGroup(align="overlap", min_confidence=0.05, sky="drop"),
)
# lyra_core.mini.config.MINI
MINI_VIDEO = MENDED_VIDEO.model_copy(
    update={
        "sampler": "distilled",
        "num_steps": 4,
        "shift": 3.0,
        "guidance_scale": 1.0,
        "latents_per_window": 20,
        "depth": MENDED_VIDEO.depth.model_copy(update={"sky": "far"}),
    }
)
