"""The rows of mini's table that the depth and Gaussian network answers for, on scenes it never saw.

    rows = depth_table(model, num_scenes=32, num_splat_scenes=4)

Videos are rendered ones, so that what is measured is the network and not the video model; `splats_of_video` takes any.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import count, islice

import torch

from lyra_core.errors import CameraPathError
from lyra_core.evaluation.depth_measure import abs_rel
from lyra_core.evaluation.measures import mean_of
from lyra_core.evaluation.novel_views import single_image_views
from lyra_core.gaussians.clip_source import MemoryClip
from lyra_core.gaussians.keyframes import KeyframeConfig
from lyra_core.gaussians.lifters import DepthLifter, Lifter
from lyra_core.gaussians.reconstruct import ReconstructionConfig, reconstruct
from lyra_core.gaussians.render import render
from lyra_core.image_metrics import psnr_db
from lyra_core.mini.depth import MiniDepth
from lyra_core.mini.depth_estimator import MiniDepthEstimator, MiniHead, see_single
from lyra_core.procedural.atlas import Atlas
from lyra_core.procedural.worlds import SceneLook, scene_clip
from lyra_core.values import VideoClip

PATHS = ("truck-left", "orbit-right", "dolly-in", "wander", "arc-left")
HELD_OUT_EVERY = 8
DEPTH_VIEWS = 8
"""About as many frames of a video are looked at together."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DepthTable:
    """Means over scenes.

    Attributes:
        num_scenes: whose depth is measured.
        num_splat_scenes: whose Gaussians are: all others below are means over these.
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
    num_splat_scenes: int
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
    gaussians = reconstruct(bare, lifter=lifter, config=config).gaussians
    return psnr_db(render(gaussians, clip.cameras[held]).color, clip.frames[held].float() / 255)


def held_out_clips(
    num_frames: int,
    *,
    height: int = 128,
    width: int = 224,
    atlas: Atlas | None = None,
    drawn: Sequence[int] | None = None,
) -> Iterator[VideoClip]:
    """Clips of held-out scenes, one a scene, without end; scenes without a place for their path are passed over.

    Args:
        num_frames: of each.
        height: rows.
        width: columns.
        atlas: held-out textures on the device that renders, or None for the small default.
        drawn: frames with a picture, or None for all (see worlds.scene_clip).
    """
    for seed in count():
        path = PATHS[seed % len(PATHS)]
        try:
            clip = scene_clip(
                seed, path, num_frames, height, width, SceneLook(split="heldout", atlas=atlas), drawn=drawn
            )
        except CameraPathError:
            continue
        yield clip


def depth_frames(num_frames: int) -> list[int]:
    """Frames of a video whose depth is measured; the first is among them."""
    return list(range(0, num_frames, max(1, num_frames // DEPTH_VIEWS)))


def measure_depth(model: MiniDepth, clip: VideoClip) -> dict[str, float]:
    """Errors of depth, of one video with exact depth at `depth_frames`.

    Raises:
        CameraPathError: a clip without depth.
    """
    if clip.depth_m is None or clip.sky is None:
        raise CameraPathError("the table is measured with exact depth and sky, found none")
    some = depth_frames(len(clip))
    cameras = clip.cameras[some]
    posed = _estimator(model, clip).estimate(clip.frames[some], cameras)
    device = next(model.parameters()).device
    image = clip.frames[:1].to(device).permute(0, 3, 1, 2).float() / 255
    single = see_single(model, image, cameras.intrinsics[:1].float().to(device)).depth_m[0].cpu()
    truth, solid = clip.depth_m[0], ~clip.sky[0]
    return {
        "absrel_cameras": abs_rel(posed.depth_m, clip.depth_m[some], ~clip.sky[some]),
        "absrel_single": abs_rel(single, truth, solid),
        "absrel_single_aligned": abs_rel(single, truth, solid, align=True),
    }


def measure_splats(model: MiniDepth, clip: VideoClip) -> dict[str, float]:
    """What Gaussians of one video with exact depth, and of its first frame alone, look like from elsewhere.

    Raises:
        CameraPathError: a clip without depth.
    """
    estimator = _estimator(model, clip)
    single = single_image_views(model, clip)
    return {
        "head_video_db": splats_of_video(clip, MiniHead(estimator, name="table")),
        "footprint_video_db": splats_of_video(clip, DepthLifter(estimator, name="table", needs_baseline=False)),
        "layered_novel_db": single.layered_db,
        "head_novel_db": single.head_db,
        "parallax_novel_db": single.parallax_db,
    }


def _estimator(model: MiniDepth, clip: VideoClip) -> MiniDepthEstimator:
    height, width = (int(x) for x in clip.frames.shape[1:3])
    return MiniDepthEstimator(model, height=height, width=width)


@torch.no_grad()
def depth_table(
    model: MiniDepth,
    *,
    num_scenes: int,
    num_splat_scenes: int | None = None,
    num_frames: int = 33,
    height: int = 128,
    width: int = 224,
    atlas: Atlas | None = None,
) -> DepthTable:
    """Measure on held-out procedural scenes.

    Args:
        model: in eval mode.
        num_scenes: different scenes whose depth is measured; of their videos only some frames are drawn.
        num_splat_scenes: scenes that are also lifted, which takes ten times as long; None for all.
        num_frames: of each video.
        height: rows of the videos and of the network's input.
        width: columns.
        atlas: held-out textures on the device that renders, or None for the small default.
    """
    lifted = num_scenes if num_splat_scenes is None else num_splat_scenes
    some = held_out_clips(num_frames, height=height, width=width, atlas=atlas, drawn=depth_frames(num_frames))
    whole = held_out_clips(num_frames, height=height, width=width, atlas=atlas)
    means = _means([measure_depth(model, clip) for clip in islice(some, num_scenes)])
    means |= _means([measure_splats(model, clip) for clip in islice(whole, lifted)])
    return DepthTable(num_scenes=num_scenes, num_splat_scenes=lifted, **means)


def _means(rows: list[dict[str, float]]) -> dict[str, float]:
    """Of each name, over the rows where it could be measured."""
    return {name: mean_of(torch.tensor([row[name] for row in rows], dtype=torch.float64)) for name in rows[0]}


def as_dict(table: DepthTable) -> dict[str, float | int]:
    """For result files, rounded."""
    return {name: round(value, 4) for name, value in asdict(table).items()}
