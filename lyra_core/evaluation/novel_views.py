"""Gaussians of one picture at true views of its place, over pixels whose surface the picture shows.

    clip = scene_clip(3, "orbit-right", 81, 128, 224, SceneLook(split="heldout"), drawn=judged_frames(81))
    ours = true_views(world_splats(load_mini_model(), clip), clip)      # what a user gets
    base = true_views(parallax_splats(clip), clip)                      # the baseline
    print(ours.db - base.db)

No model knows its scale: the depth of each is brought to the truth's by one factor, the ratio of medians.

Shape legend: v views, h w pixels.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from lyra_core.errors import CameraPathError, ReconstructionError
from lyra_core.gaussians.render import render
from lyra_core.geometry.camera import project, unproject
from lyra_core.image_metrics import psnr_db
from lyra_core.mini.camera_gaussians import world_gaussians
from lyra_core.mini.depth import MiniDepth
from lyra_core.mini.depth_estimator import see_single
from lyra_core.values import Gaussians, Seed, VideoClip
from lyra_core.world_models.generative import GenerativeModel
from lyra_core.world_models.parallax import ParallaxModel

NOVEL_QUARTERS = (1, 2, 3, 4)  # of the path: where views are judged
SEEN_TOLERANCE = 0.03


def judged_frames(num_frames: int) -> list[int]:
    """The first frame and those at which views are judged: no other has to be drawn."""
    return [(num_frames - 1) * quarter // 4 for quarter in (0, *NOVEL_QUARTERS)]


def seen_by_first(clip: VideoClip, frame: int) -> Bool[Tensor, "h w"]:
    """Pixels of a frame whose surface the first frame saw, by the clip's exact depth.

    Raises:
        CameraPathError: a clip without depth.
    """
    if clip.depth_m is None:
        raise CameraPathError("which pixels the first frame saw follows from exact depth, found none")
    depth = clip.depth_m[frame]
    points = unproject(depth, clip.cameras.world_to_cam[frame], clip.cameras.intrinsics[frame])
    pixels, z = project(points, clip.cameras.world_to_cam[0], clip.cameras.intrinsics[0])
    height, width = depth.shape
    u, v = pixels.floor().long().unbind(-1)
    inside = (z > 0) & (u >= 0) & (u < width) & (v >= 0) & (v < height)
    first = clip.depth_m[0][v.clamp(0, height - 1), u.clamp(0, width - 1)].double()
    return inside & (depth > 0) & ((first - z).abs() < SEEN_TOLERANCE * z)


@dataclass(frozen=True, slots=True, kw_only=True)
class TrueViews:
    """Gaussians at the quarters of a path whose true pictures are known.

    Attributes:
        frames: of the path.
        drawn: pictures of the Gaussians, sRGB in 0..1. [v h w 3]
        seen: pixels that count, those that the first frame saw. [v h w]
        db: PSNR over them, the mean over views; NaN where no view shows what the first frame saw.
    """

    frames: list[int]
    drawn: Float[Tensor, "v h w 3"]
    seen: Bool[Tensor, "v h w"]
    db: float


def true_views(gaussians: Gaussians, clip: VideoClip) -> TrueViews:
    """Draw Gaussians at the quarters of a clip's path and compare; without any Gaussian the pictures are black.

    Raises:
        CameraPathError: a clip without depth.
    """
    frames = judged_frames(len(clip))[1:]
    truth = clip.frames[frames].float() / 255
    drawn = render(gaussians, clip.cameras[frames]).color.cpu() if len(gaussians) else torch.zeros_like(truth)
    seen = torch.stack([seen_by_first(clip, frame) for frame in frames])
    decibels = [psnr_db(d[m], t[m]) for d, t, m in zip(drawn, truth, seen, strict=True) if bool(m.any())]
    return TrueViews(
        frames=frames, drawn=drawn, seen=seen, db=sum(decibels) / len(decibels) if decibels else float("nan")
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class SingleImageViews:
    """Gaussians of a single image at other views, PSNR in dB over pixels that the image saw.

    Attributes:
        layered_db: the baseline's layers on the network's depth.
        head_db: the Gaussian head's.
        parallax_db: the baseline's own.
    """

    layered_db: float
    head_db: float
    parallax_db: float


def single_image_views(model: MiniDepth, clip: VideoClip) -> SingleImageViews:
    """What a clip's first frame alone says of its other frames; nothing is generated.

    Raises:
        CameraPathError: a clip without depth.
        ReconstructionError: a network without a Gaussian head.
    """
    device = next(model.parameters()).device
    image = clip.frames[:1].to(device).permute(0, 3, 1, 2).float() / 255
    K = clip.cameras.intrinsics[:1].float().to(device)
    sight = see_single(model, image, K, with_gaussians=True)
    if sight.raw is None:
        raise ReconstructionError("novel views need the Gaussian head, and the network gave no raw numbers")
    depth_map, sky = sight.depth_m[0].cpu(), sight.sky[0].cpu()
    w2c = clip.cameras.world_to_cam[:1].float().to(device)
    depth = sight.depth_m * _scale(clip, depth_map, sky)
    head = world_gaussians(sight.raw, depth, image, K, w2c, ~sight.sky).to("cpu")
    return SingleImageViews(
        layered_db=true_views(_layered(clip, depth_map, sky), clip).db,
        head_db=true_views(head, clip).db,
        parallax_db=true_views(parallax_splats(clip), clip).db,
    )


def parallax_splats(clip: VideoClip) -> Gaussians:
    """Gaussians of a clip's first frame by the baseline, on its own depth in the truth's scale.

    Raises:
        CameraPathError: a clip without depth.
    """
    guess = ParallaxModel().estimate(clip.frames[:1], clip.cameras[:1])
    return _layered(clip, guess.depth_m[0], guess.sky[0])


def world_splats(model: GenerativeModel, clip: VideoClip) -> Gaussians:
    """Gaussians of a whole generated world, in the frame and metres of a clip.

    The world is what a user gets: a video generated from the first frame along the path, lifted. The path is laid out
    in the seed's own estimated depth, so one factor relates it to the truth.

    Raises:
        CameraPathError: a clip without depth.
        FrameError: a clip whose frames are not 1 + whole chunks.
    """
    photo = clip.frames[0]
    seed = Seed(
        image=photo,
        intrinsics=clip.cameras.intrinsics[0],
        sha256=hashlib.sha256(photo.contiguous().numpy().tobytes()).hexdigest(),
        focal_source="manifest",
    )
    guess = model.parts.models.depth.estimate(clip.frames[:1], None)
    factor = _scale(clip, guess.depth_m[0], guess.sky[0])
    poses = clip.cameras.world_to_cam.clone()
    poses[:, :3, 3] /= factor
    path = replace(clip.cameras, world_to_cam=poses)
    video = model.generate(seed, path, num_frames=len(clip), prompts=["a place"])
    gaussians = model.reconstruct(VideoClip(frames=video.frames, cameras=video.cameras)).to("cpu")
    return replace(gaussians, means=gaussians.means * factor, scales=gaussians.scales * factor)


def _layered(clip: VideoClip, depth_m: Float[Tensor, "h w"], sky: Bool[Tensor, "h w"]) -> Gaussians:
    """The baseline's layers of the first frame on some depth, in the truth's scale."""
    scaled = depth_m[None] * _scale(clip, depth_m, sky)
    first = VideoClip(frames=clip.frames[:1], cameras=clip.cameras[:1], depth_m=scaled, sky=sky[None])
    return ParallaxModel().reconstruct(first)


def _scale(clip: VideoClip, depth_m: Float[Tensor, "h w"], sky: Bool[Tensor, "h w"]) -> float:
    """Ratio of the first frame's median depth to an estimate's, where neither is sky."""
    if clip.depth_m is None or clip.sky is None:
        raise CameraPathError("novel views are judged with exact depth and sky, found none")
    truth, where = clip.depth_m[0], ~clip.sky[0] & ~sky
    return float(truth[where].median() / depth_m[where].median()) if bool(where.any()) else 1.0
