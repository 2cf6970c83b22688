"""The rows of mini's table that the depth and Gaussian network answers for, on scenes it never saw.

    rows = depth_table(model, num_scenes=4)

Videos are rendered ones, so that what is measured is the network and not the video model; `splats_of_video` takes any.
"""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass, replace

import torch
from jaxtyping import Bool
from torch import Tensor

from lyra_core.errors import CameraPathError, ReconstructionError
from lyra_core.gaussians.clip_source import MemoryClip
from lyra_core.gaussians.depth_anything.mini import MiniDepth
from lyra_core.gaussians.depth_anything.mini_estimator import MiniDepthEstimator, MiniHead, see_lone
from lyra_core.gaussians.depth_anything.mini_gaussians import world_gaussians
from lyra_core.gaussians.keyframes import KeyframeConfig
from lyra_core.gaussians.lifters import EstimatedDepth, Lifter
from lyra_core.gaussians.photometric import psnr_db
from lyra_core.gaussians.reconstruct import ReconstructionConfig, reconstruct
from lyra_core.gaussians.render import render
from lyra_core.generative.model import GenerativeModel
from lyra_core.geometry.camera import project, unproject
from lyra_core.parallax.model import ParallaxModel
from lyra_core.training.atlas import Atlas
from lyra_core.training.depth_measure import abs_rel
from lyra_core.training.worlds import scene_clip
from lyra_core.values import Gaussians, Seed, VideoClip

PATHS = ("truck-left", "orbit-right", "dolly-in", "wander", "arc-left")
HELD_OUT_EVERY = 8
NOVEL_QUARTERS = (1, 2, 3, 4)  # of the path: where views are judged
SEEN_TOLERANCE = 0.03


@dataclass(frozen=True, slots=True, kw_only=True)
class DepthTable:
    """Means over scenes.

    Attributes:
        num_scenes: measured.
        absrel_cameras: depth of the video's frames with known cameras, in metres, nothing fitted.
        absrel_single: depth of the first frame alone, in metres, nothing fitted.
        absrel_single_aligned: the same after the ratio of medians is taken out.
        head_video_db: the head's Gaussians of a video at frames left out, all pixels.
        footprint_video_db: likewise with one splat a pixel from the network's depth.
        layered_novel_db: Gaussians of the first frame alone at other views, over pixels the first frame saw: layers
            on the network's depth.
        head_novel_db: likewise by the Gaussian head.
        parallax_novel_db: likewise by the baseline; all depths are scaled by the ratio of medians to the truth.
    """

    num_scenes: int
    absrel_cameras: float
    absrel_single: float
    absrel_single_aligned: float
    head_video_db: float
    footprint_video_db: float
    layered_novel_db: float
    head_novel_db: float
    parallax_novel_db: float


def splats_of_video(clip: VideoClip, lifter: Lifter, *, every: int = HELD_OUT_EVERY, tier: int = 400_000) -> float:
    """PSNR in dB at every so many-th frame of Gaussians made from the others, over all pixels."""
    held = list(range(every // 2, len(clip), every))
    kept = [i for i in range(len(clip)) if i not in held]
    source = MemoryClip(clip).window(torch.tensor(kept))
    bare = VideoClip(frames=source.frames, cameras=source.cameras)
    config = ReconstructionConfig(tier=tier, keyframes=KeyframeConfig(max_keyframes=16), sample_views=12)
    made = reconstruct(bare, lifter=lifter, config=config).gaussians
    return psnr_db(render(made, clip.cameras[held]).color, clip.frames[held].float() / 255)


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
class NovelViews:
    """Gaussians of a lone image at other views, PSNR in dB over pixels that the image saw, and its depth.

    Attributes:
        layered_db: the baseline's layers on the network's depth.
        head_db: the Gaussian head's.
        parallax_db: the baseline's own. All depths are scaled by the ratio of medians to the truth.
        absrel: of the lone image's depth, nothing fitted.
        absrel_aligned: after the ratio of medians is taken out.
    """

    layered_db: float
    head_db: float
    parallax_db: float
    absrel: float
    absrel_aligned: float


def novel_views(model: MiniDepth, clip: VideoClip) -> NovelViews:
    """What a clip's first frame alone says of its other frames.

    Raises:
        CameraPathError: a clip without depth.
    """
    if clip.depth_m is None or clip.sky is None:
        raise CameraPathError("novel views are judged with exact depth and sky, found none")
    truth, solid = clip.depth_m[0], ~clip.sky[0]
    device = next(model.parameters()).device
    image = clip.frames[:1].to(device).permute(0, 3, 1, 2).float() / 255
    K = clip.cameras.intrinsics[:1].float().to(device)
    sight = see_lone(model, image, K, with_gaussians=True)
    if sight.raw is None:
        raise ReconstructionError("novel views need the Gaussian head, and the network gave no raw numbers")
    found, sky = sight.depth_m[0].cpu(), sight.sky[0].cpu()
    baseline = ParallaxModel()
    guess = baseline.estimate(clip.frames[:1], clip.cameras[:1])
    factors = [
        _median_ratio(truth, solid & ~hidden, depth)
        for depth, hidden in ((found, sky), (guess.depth_m[0], guess.sky[0]))
    ]
    layered, other = (
        baseline.reconstruct(
            VideoClip(frames=clip.frames[:1], cameras=clip.cameras[:1], depth_m=depth[None] * factor, sky=hidden[None])
        )
        for depth, hidden, factor in ((found, sky, factors[0]), (guess.depth_m[0], guess.sky[0], factors[1]))
    )
    w2c = clip.cameras.world_to_cam[:1].float().to(device)
    head = world_gaussians(sight.raw, sight.depth_m * factors[0], image, K, w2c, ~sight.sky).to("cpu")
    return NovelViews(
        layered_db=at_views(layered, clip),
        head_db=at_views(head, clip),
        parallax_db=at_views(other, clip),
        absrel=abs_rel(found, truth, solid),
        absrel_aligned=abs_rel(found, truth, solid, align=True),
    )


def world_novel_db(model: GenerativeModel, clip: VideoClip) -> float:
    """PSNR in dB of a whole generated world at the true views of a path, over pixels that the first frame saw.

    The world is what a user gets: a video generated from the first frame along the path, lifted. The path is laid out
    in the seed's own estimated depth, so one factor, the ratio of medians, relates it to the truth.

    Raises:
        CameraPathError: a clip without depth.
    """
    if clip.depth_m is None or clip.sky is None:
        raise CameraPathError("novel views are judged with exact depth and sky, found none")
    photo = clip.frames[0]
    seed = Seed(
        image=photo,
        intrinsics=clip.cameras.intrinsics[0],
        sha256=hashlib.sha256(photo.contiguous().numpy().tobytes()).hexdigest(),
        focal_source="manifest",
    )
    guess = model.parts.models.depth.estimate(clip.frames[:1], None)
    factor = _median_ratio(clip.depth_m[0], ~clip.sky[0] & ~guess.sky[0], guess.depth_m[0])
    poses = clip.cameras.world_to_cam.clone()
    poses[:, :3, 3] /= factor
    path = replace(clip.cameras, world_to_cam=poses)
    video = model.generate(seed, path, num_frames=len(clip), prompts=["a place"])
    made = model.reconstruct(VideoClip(frames=video.frames, cameras=video.cameras))
    return at_views(replace(made, means=made.means * factor, scales=made.scales * factor), clip)


def _median_ratio(truth: Tensor, where: Tensor, depth: Tensor) -> float:
    return float(truth[where].median() / depth[where].median()) if bool(where.any()) else 1.0


def at_views(gaussians: Gaussians, clip: VideoClip) -> float:
    """PSNR in dB of Gaussians at the quarters of a clip's path, over pixels that its first frame saw."""
    frames = [(len(clip) - 1) * quarter // 4 for quarter in NOVEL_QUARTERS]
    if len(gaussians) == 0:
        return 0.0
    drawn = render(gaussians, clip.cameras[frames]).color
    values = []
    for k, frame in enumerate(frames):
        mask = seen_by_first(clip, frame)
        if bool(mask.any()):
            values.append(psnr_db(drawn[k][mask], clip.frames[frame][mask].float() / 255))
    return sum(values) / len(values) if values else 0.0


def measure_scene(model: MiniDepth, clip: VideoClip) -> dict[str, float]:
    """All rows for one video with exact depth.

    Raises:
        CameraPathError: a clip without depth.
    """
    if clip.depth_m is None or clip.sky is None:
        raise CameraPathError("the table is measured with exact depth and sky, found none")
    height, width = (int(x) for x in clip.frames.shape[1:3])
    estimator = MiniDepthEstimator(model, height=height, width=width)
    some = list(range(0, len(clip), max(1, len(clip) // 8)))
    posed = estimator.estimate(clip.frames[some], clip.cameras[some])
    novel = novel_views(model, clip)
    return {
        "absrel_cameras": abs_rel(posed.depth_m, clip.depth_m[some], ~clip.sky[some]),
        "absrel_single": novel.absrel,
        "absrel_single_aligned": novel.absrel_aligned,
        "head_video_db": splats_of_video(clip, MiniHead(estimator, name="table")),
        "footprint_video_db": splats_of_video(clip, EstimatedDepth(estimator, name="table", needs_baseline=False)),
        "layered_novel_db": novel.layered_db,
        "head_novel_db": novel.head_db,
        "parallax_novel_db": novel.parallax_db,
    }


@torch.no_grad()
def depth_table(
    model: MiniDepth,
    *,
    num_scenes: int,
    num_frames: int = 33,
    height: int = 128,
    width: int = 224,
    atlas: Atlas | None = None,
) -> DepthTable:
    """Measure on held-out procedural scenes.

    Args:
        model: in eval mode.
        num_scenes: different scenes; scenes without a place for their path are passed over.
        num_frames: of each video.
        height: rows of the videos and of the network's input.
        width: columns.
        atlas: held-out textures on the device that renders, or None for the small default.
    """
    rows: list[dict[str, float]] = []
    seed = 0
    while len(rows) < num_scenes:
        path = PATHS[seed % len(PATHS)]
        try:
            clip = scene_clip(seed, path, num_frames, height, width, split="heldout", atlas=atlas)
        except CameraPathError:
            seed += 1
            continue
        rows.append(measure_scene(model, clip))
        seed += 1
    means = {name: sum(row[name] for row in rows) / len(rows) for name in rows[0]}
    return DepthTable(num_scenes=len(rows), **means)


def as_dict(table: DepthTable) -> dict[str, float | int]:
    """For result files, rounded."""
    return {name: round(value, 4) for name, value in asdict(table).items()}
