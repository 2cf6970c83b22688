"""Clips with a generated video's faults, and the truth beside them: what refinement and camera gates are judged on.

A generated frame is not quite where its camera was asked to be, nor as bright as its neighbours, and its depth is a
little off. Here all three are known: the scene is drawn from perturbed cameras, frames get an exposure of their own and
depths a scale of their own. Frame 0 is the seed and has no faults.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from lyra_core.errors import ConfigError
from lyra_core.geometry.rotation import rotation_vector_to_matrix
from lyra_core.procedural.atlas import default_atlas
from lyra_core.procedural.scene_batch import SceneBatch
from lyra_core.procedural.views import sample_path
from lyra_core.procedural.worlds import render_scene, sample_scene
from lyra_core.values import CameraPath, VideoClip

SMOOTHING = (1.0, 2.0, 3.0, 2.0, 1.0)
RAMP_FRAMES = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Faults:
    """Standard deviations of what is wrong with a frame.

    Attributes:
        turn_px: turn of the camera, as a shift of the picture in pixels.
        shift_px: shift of the camera, in pixels at the scene's median depth.
        gain: brightness, relative.
        tint: of each channel beside it, relative.
        depth: scale of a frame's depth, relative.
        seed: of all draws.
    """

    turn_px: float = 0.8
    shift_px: float = 0.8
    gain: float = 0.05
    tint: float = 0.015
    depth: float = 0.01
    seed: int = 0

    def __post_init__(self) -> None:
        if min(self.turn_px, self.shift_px, self.gain, self.tint, self.depth) < 0 or self.gain > 0.2:
            raise ConfigError(f"faults are standard deviations of at least 0, gain of at most 0.2, found {self}")


@dataclass(frozen=True, slots=True, kw_only=True)
class PerturbedClip:
    """A faulty video and what was asked for.

    Attributes:
        perturbed: frames and depth with faults, under the requested cameras.
        truth: frames and depth without faults, from the requested cameras.
        world_to_cam: where the faulty frames were really taken. [t 4 4] float64
        gains: what each channel was multiplied by. [t 3]
    """

    perturbed: VideoClip
    truth: VideoClip
    world_to_cam: Float[Tensor, "t 4 4"]
    gains: Float[Tensor, "t 3"]


@torch.no_grad()
def perturbed_clip(
    seed: int,
    path_name: str,
    num_frames: int,
    height: int,
    width: int,
    *,
    faults: Faults = Faults(),
    device: str | torch.device = "cpu",
) -> PerturbedClip:
    """A procedural room filmed twice: as asked, and as a generator might.

    Args:
        seed: of scene and path.
        path_name: one of views.PATHS.
        num_frames: frames.
        height: rows.
        width: columns.
        faults: how much is wrong.
        device: where it is rendered; clips lie on the CPU.

    Raises:
        CameraPathError: an unknown path, or a scene without a place for it.
    """
    scene = sample_scene(seed, "train", kind="room")
    path = sample_path(scene, path_name, num_frames, height, width)
    batch = SceneBatch.of([scene], default_atlas("train")).to(device)
    asked = _film(batch, path)
    solid = asked.depth_m[asked.depth_m > 0] if asked.depth_m is not None else torch.ones(1)
    generator = torch.Generator().manual_seed(faults.seed)
    focal = float(path.intrinsics[0, 0, 0])
    turns = smooth_noise(num_frames, 3, generator) * faults.turn_px / focal
    shifts = smooth_noise(num_frames, 3, generator) * faults.shift_px * float(solid.median()) / focal
    brightness = faults.gain * smooth_noise(num_frames, 1, generator)
    gains = (1.0 + brightness + faults.tint * smooth_noise(num_frames, 3, generator)).float()
    stretch = 1.0 + faults.depth * smooth_noise(num_frames, 1, generator).float()
    wrong = torch.eye(4, dtype=torch.float64).repeat(num_frames, 1, 1)
    wrong[:, :3, :3], wrong[:, :3, 3] = rotation_vector_to_matrix(turns), shifts
    real = _film(batch, replace(path, world_to_cam=wrong @ path.world_to_cam))
    frames = (real.frames.float() * gains[:, None, None]).round().clamp(0, 255).to(torch.uint8)
    depth = None if real.depth_m is None else real.depth_m * stretch[:, :, None]
    return PerturbedClip(
        perturbed=replace(real, frames=frames, cameras=asked.cameras, depth_m=depth),
        truth=asked,
        world_to_cam=wrong @ asked.cameras.world_to_cam,
        gains=gains,
    )


def smooth_noise(num_frames: int, channels: int, generator: torch.Generator) -> Float[Tensor, "t c"]:
    """Noise of unit variance that wanders over a few frames and starts from nothing. [t c] float64"""
    kernel = torch.tensor(SMOOTHING, dtype=torch.float64)
    kernel = kernel / kernel.norm()
    white = torch.randn(channels, 1, num_frames + len(kernel) - 1, generator=generator, dtype=torch.float64)
    ramp = (torch.arange(num_frames, dtype=torch.float64) / RAMP_FRAMES).clamp(max=1.0)
    return functional.conv1d(white, kernel[None, None])[:, 0].mT * ramp[:, None]


def _film(batch: SceneBatch, path: CameraPath) -> VideoClip:
    """A clip whose first camera is the world's origin."""
    shown = render_scene(batch, [path], path.image_height, path.image_width)
    return VideoClip(
        frames=(shown.rgb[0] * 255).round().clamp(0, 255).to(torch.uint8).cpu(),
        cameras=replace(path, world_to_cam=path.world_to_cam @ path.cam_to_world[:1]),
        depth_m=shown.depth_m[0].cpu(),
        sky=shown.sky[0].cpu(),
    )
