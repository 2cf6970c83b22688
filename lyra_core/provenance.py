"""How a model computes, for the record: what the catalog says of a world beyond its recipe, as far as it is known."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True, kw_only=True)
class Provenance:
    """None where a thing is unknown or there is none.

    Attributes:
        precision: arithmetic of the video network, as torch names dtypes: float32, bfloat16.
        speed: the profile that the video network really computes by, less what this machine cannot do; see
            lyra_core.video.dit.speed.real_speed.
        num_steps: of denoising, a chunk.
        guidance: classifier-free guidance scale; 1 where it is off.
        negative_prompt: of guidance, where it is known as words.
        metric_scale_source: "depth_model" where the scale of the world comes from a network that measures metres in
            photographs, "relative" where nothing tells metres.
    """

    precision: str | None = None
    speed: str | None = None
    num_steps: int | None = None
    guidance: float | None = None
    negative_prompt: str | None = None
    metric_scale_source: Literal["depth_model", "relative"] = "relative"
