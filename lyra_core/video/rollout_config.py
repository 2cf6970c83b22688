"""Every choice by which a rollout follows the released model or mends it, as one value with two presets.

docs/decisions/0002-faithful-and-mended.md says for each choice what the released model does and what is mended.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from lyra_core.errors import RecipeError
from lyra_core.video.conditioning import (
    FAITHFUL_CONDITIONING,
    MENDED_CONDITIONING,
    ConditioningConfig,
)
from lyra_core.video.depth_cache import FAITHFUL_DEPTH, MENDED_DEPTH, DepthConfig
from lyra_core.video.memory import FAITHFUL_MEMORY, MENDED_MEMORY, MemoryConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class RolloutConfig:
    """How a world is generated chunk by chunk; the defaults are the released model's.

    Attributes:
        conditioning: warps, masks, rays and correspondences.
        memory: what is remembered and how it is found.
        depth: which frames get depth and in what scale.
        sampler: "unipc" (many steps), "euler" (the plain ODE) or "distilled" (a few-step student, without guidance).
        num_steps: of unipc and euler; the released student's four levels are fixed.
        shift: of the noise levels towards noise.
        guidance_scale: away from the negative prompt; 1 turns it off.
        negative_prompt: of classifier-free guidance.
        exact_timesteps: tell the network 1000 sigma instead of its integer part.
        noise: "reference" draws as the reference implementation does (its generator takes 32 bits of a seed),
            "generator" from a torch.Generator of the whole seed.
        encoded_prefix: latents of the repeated seed frame that are encoded before the last of them is repeated; None
            encodes as many as there are history slots (97 frames for the released layout).
        clamp_frames: cut decoded frames to [-1, 1] before they are encoded, warped and shown to the image encoder.
        photographs_replace_seed: photographs known from the start take the seed's place in the memory, and the first
            one supplies the depth of the first warp.
        latents_per_window: of the autoencoder; more is faster and takes more memory.
        speed: how the network computes (lyra_core.video.speed): "exact", or in 8 bits for part of its products ("fast")
            and of its attention too ("fastest").
    """

    conditioning: ConditioningConfig = FAITHFUL_CONDITIONING
    memory: MemoryConfig = FAITHFUL_MEMORY
    depth: DepthConfig = FAITHFUL_DEPTH
    sampler: Literal["unipc", "euler", "distilled"] = "unipc"
    num_steps: int = 35
    shift: float = 5.0
    guidance_scale: float = 5.0
    negative_prompt: str = ""
    exact_timesteps: bool = False
    noise: Literal["reference", "generator"] = "reference"
    encoded_prefix: int | None = None
    clamp_frames: bool = False
    photographs_replace_seed: bool = True
    latents_per_window: int = 1
    speed: Literal["exact", "fast", "fastest"] = "exact"

    def __post_init__(self) -> None:
        if self.num_steps < 1 or self.latents_per_window < 1 or (self.encoded_prefix or 1) < 1:
            raise RecipeError(
                f"num_steps, latents_per_window and encoded_prefix must be at least 1, found {self.num_steps}, "
                f"{self.latents_per_window} and {self.encoded_prefix}"
            )
        if self.shift <= 0 or self.guidance_scale < 0:
            raise RecipeError(
                f"shift must be positive and guidance_scale not negative, found {self.shift} and {self.guidance_scale}"
            )


FAITHFUL = RolloutConfig()
MENDED = RolloutConfig(
    conditioning=MENDED_CONDITIONING,
    memory=MENDED_MEMORY,
    depth=MENDED_DEPTH,
    exact_timesteps=True,
    noise="generator",
    encoded_prefix=4,
    clamp_frames=True,
    photographs_replace_seed=False,
)
