"""What a user chooses about a video: the group `video` of a recipe, with the presets of recipes.

The defaults are the released model's. What a trained network fixes (the resolution of its maps, say) is no choice, and
is added in lyra_core.config.rollout. docs/decisions/0002-reference-and-corrected.md says what each field that
departs from the released model corrects.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated, Literal

from lyra_core.config.bounds import Bounded, Bounds
from lyra_core.native import CHUNK_FRAMES


@dataclass(frozen=True, slots=True, kw_only=True)
class WarpOptions(Bounded):
    """How source pixels are trusted and weighed when they are carried to other cameras.

    Attributes:
        reliability: "range" refuses pixels whose 5x5 neighbourhood spans too much depth; "curvature" refuses those
            where inverse depth bends, which keeps slanted planes.
        reliability_threshold: relative; 0.05 for "range" and 0.04 for "curvature" are sound.
        group_size: targets that share one depth normaliser, as the released weights were run (16); None gives each
            target its own, over valid pixels only, so that a result does not depend on what is computed beside it.
    """

    reliability: Literal["range", "curvature"] = "range"
    reliability_threshold: Annotated[float, Bounds(gt=0)] = 0.05
    group_size: Annotated[int, Bounds(ge=1)] | None = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class CorrespondenceOptions(Bounded):
    """Coordinate maps of retrieved frames.

    Attributes:
        depth_range: the warped depths that fix the fourth channel's range: of all frames of the chunk, or of the frames
            whose maps are used (every fourth), which costs a quarter.
        warp: reliability and grouping of the splat.
    """

    depth_range: Literal["chunk", "used"] = "chunk"
    warp: WarpOptions = WarpOptions()


@dataclass(frozen=True, slots=True, kw_only=True)
class ConditioningOptions(Bounded):
    """What the network is shown of a chunk before it is generated.

    Attributes:
        warp: reliability and grouping for the last frame's warp.
        union_warp: fill the holes of the warped last frame with warps of the retrieved frames, best first.
        density: points along each side of a pixel that is warped; more than 1 puts points between pixels of a surface.
        gap_px: widest gap between warped pixels of one surface that is closed before the warp is encoded; 0: none.
        mask_channels: "ones" says nothing; "coverage" says where the warp of each of a slot's four frames is no hole.
        correspondence: of the coordinate maps.
    """

    warp: WarpOptions = WarpOptions()
    union_warp: bool = False
    density: int = 1
    gap_px: int = 0
    mask_channels: Literal["ones", "coverage"] = "ones"
    correspondence: CorrespondenceOptions = CorrespondenceOptions()


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryOptions(Bounded):
    """What is remembered and how it is found again.

    Attributes:
        stride_frames: every how many frames one is remembered.
        num_query_cameras: cameras of the next chunk that ask; 1 asks with the last one only.
        occlusion_tolerance_m: how far behind the nearest surface a point still counts as seen, metres.
        occlusion_tolerance_relative: the same, as a fraction of the nearest depth; both add up.
        invalid_at_origin: remember pixels without depth as points at the world origin, as the released model does.
    """

    stride_frames: Annotated[int, Bounds(ge=1)] = 8
    num_query_cameras: Annotated[int, Bounds(ge=1, le=CHUNK_FRAMES)] = 1
    occlusion_tolerance_m: Annotated[float, Bounds(ge=0)] = 0.1
    occlusion_tolerance_relative: Annotated[float, Bounds(ge=0)] = 0.0
    invalid_at_origin: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class DepthConfig(Bounded):
    """Which frames get depth, and how far it is trusted.

    Attributes:
        interval_frames: every how many frames, counted back from the last.
        max_frames: most frames of a window.
        chunk_boundaries: also show the estimator the last frame of every earlier chunk.
        align: "overlap" scales a window by what the memory believes of the same pixels; "none" leaves the scale to the
            estimator.
        min_overlap: share of a window's pixels needed for that; below it the estimator's scale stands.
        min_confidence: pixels below it are unknown.
        sky: "estimated" trusts the estimator's depth, "drop" makes it unknown, "far" puts it at 1,000 m, where only
            rotation moves it.
    """

    interval_frames: Annotated[int, Bounds(ge=1)] = 8
    max_frames: Annotated[int, Bounds(ge=1)] = 10
    chunk_boundaries: bool = False
    align: Literal["none", "overlap"] = "none"
    min_overlap: Annotated[float, Bounds(ge=0, le=1)] = 0.01
    min_confidence: Annotated[float, Bounds(ge=0, le=1)] = 0.0
    sky: Literal["estimated", "drop", "far"] = "estimated"


@dataclass(frozen=True, slots=True, kw_only=True)
class RolloutOptions(Bounded):
    """How a world is generated chunk by chunk.

    Attributes:
        conditioning: warps, masks, rays and correspondences.
        memory: what is remembered and how it is found.
        depth: which frames get depth and in what scale.
        sampler: "unipc" (many steps), "euler" (the plain ODE) or "distilled" (a few-step student, without guidance).
        num_steps: of unipc and euler; the released student's four levels are fixed.
        shift: of the noise levels towards noise.
        guidance_scale: away from the negative prompt; 1 turns it off.
        negative_prompt: of classifier-free guidance.
        guidance_first_noise: noise level at which guidance begins, 1 at the first step.
        guidance_last_noise: noise level below which it acts no more, 0 to guide to the end. A step outside both costs
            half (Kynkaanniemi et al. 2024, arXiv:2404.07724, section 3).
        batched_guidance: both branches in one pass of the network: the same but for rounding, for more memory.
        exact_timesteps: tell the network 1000 sigma instead of its integer part.
        noise: "reference" draws as the reference implementation does (its generator takes 32 bits of a seed),
            "generator" from a torch.Generator of the whole seed.
        encoded_prefix: latents of the repeated seed frame that are encoded before the last of them is repeated; None
            encodes as many as there are history slots (97 frames for the released layout).
        clamp_frames: cut decoded frames to [-1, 1] before they are encoded, warped and shown to the image encoder.
        photographs_replace_seed: photographs known from the start take the seed's place in the memory, and the first
            one supplies the depth of the first warp.
        latents_per_window: of the autoencoder; more is faster and takes more memory. Changes no world.
        speed: how the network computes (lyra_core.video.dit.speed): "exact", or in 8 bits for part of its products
            ("fast") and of its attention too ("fastest").
    """

    conditioning: ConditioningOptions = ConditioningOptions()
    memory: MemoryOptions = MemoryOptions()
    depth: DepthConfig = DepthConfig()
    sampler: Literal["unipc", "euler", "distilled"] = "unipc"
    num_steps: Annotated[int, Bounds(ge=1, le=1000)] = 35
    shift: Annotated[float, Bounds(gt=0)] = 5.0
    guidance_scale: Annotated[float, Bounds(ge=0)] = 5.0
    negative_prompt: str = ""
    guidance_first_noise: Annotated[float, Bounds(gt=0, le=1)] = 1.0
    guidance_last_noise: Annotated[float, Bounds(ge=0, le=1)] = 0.0
    batched_guidance: bool = False
    exact_timesteps: bool = False
    noise: Literal["reference", "generator"] = "reference"
    encoded_prefix: Annotated[int, Bounds(ge=1)] | None = None
    clamp_frames: bool = False
    photographs_replace_seed: bool = True
    latents_per_window: Annotated[int, Bounds(ge=1)] = 1
    speed: Literal["exact", "fast", "fastest"] = "exact"


@dataclass(frozen=True, slots=True, kw_only=True)
class VideoOptions(RolloutOptions):
    """The group `video` of a recipe: a rollout, and what is loaded for it.

    Attributes:
        loras: converted sets with strengths, as lora-dmd:1.0.
        captioner: "manifest" (captions come with the request), or the folder of a vision-language model.
        super_resolution: of finished frames, four times along each side: "none", "transfer" of the photograph's high
            frequencies, which nothing has learned, or the "network" guided by the photograph. Only the embedded model
            has one.
        placement: where weights wait on CUDA: "resident" keeps all on the GPU; "visiting" brings encoders and depth
            network when they are used; "streamed" brings the blocks of the video network one after another as well;
            "auto" decides by the GPU's memory. Changes no world.
    """

    loras: tuple[str, ...] = ()
    captioner: str = "manifest"
    super_resolution: Literal["none", "transfer", "network"] = "none"
    placement: Literal["auto", "resident", "visiting", "streamed"] = "auto"


CORRECTED_WARP_OPTIONS = WarpOptions(reliability="curvature", reliability_threshold=0.04, group_size=None)

REFERENCE_VIDEO = VideoOptions()
CORRECTED_VIDEO = VideoOptions(
    conditioning=ConditioningOptions(
        warp=CORRECTED_WARP_OPTIONS,
        union_warp=True,
        density=2,
        gap_px=8,
        mask_channels="coverage",
        correspondence=CorrespondenceOptions(depth_range="used", warp=CORRECTED_WARP_OPTIONS),
    ),
    memory=MemoryOptions(
        num_query_cameras=4, occlusion_tolerance_m=0.0, occlusion_tolerance_relative=0.03, invalid_at_origin=False
    ),
    depth=DepthConfig(align="overlap", min_confidence=0.05, sky="drop"),
    exact_timesteps=True,
    noise="generator",
    encoded_prefix=4,
    clamp_frames=True,
    photographs_replace_seed=False,
)
MINI_VIDEO = replace(
    CORRECTED_VIDEO,
    # a student by distribution matching (lyra_core.training.distill)
    sampler="distilled",
    num_steps=4,
    shift=3.0,
    guidance_scale=1.0,
    latents_per_window=20,
    # without depth the sky would be drawn anew in every chunk; far away, only rotation moves it
    depth=replace(CORRECTED_VIDEO.depth, sky="far"),
)
MINI_HD_VIDEO = replace(MINI_VIDEO, super_resolution="network")
