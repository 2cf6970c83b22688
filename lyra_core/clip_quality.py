"""What a video shows by itself, without learned weights: texture, motion, flicker, and whether a return looks the same.

Shape legend: t frames, h w pixels, n Gaussians.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor

from lyra_core.geometry.camera import project, unproject
from lyra_core.image_metrics import psnr_db
from lyra_core.values import CameraPath

CELL = 8  # pixels
# Sensor noise and the rounding of JPEG stay below 1.5 levels of 255 within a cell; leaves, bricks and clouds above.
TEXTURE_LEVELS = 2.0
# A pixel counts as changed from here on; dithering and compression stay below.
CHANGE_LEVELS = 6.0
# Under this displacement nobody sees a motion, and none is looked for.
LEAST_MOTION_PX = 2.0
FLICKER_GRID = 8
# A camera has come back where it stands this near to an earlier one, after having been away this far.
BACK_DEG, BACK_FRAC = 0.5, 0.01
AWAY_DEG, AWAY_FRAC = 3.0, 0.1
_LUMA = (0.2126, 0.7152, 0.0722)  # ITU-R BT.709


def texture_frac(frames: UInt8[Tensor, "t h w 3"]) -> float:
    """Share of cells of 8x8 pixels that are not of one tone, median over the frames: 0 of a blank photograph.

    Frames smaller than a cell are one cell.
    """
    luma = _luma(frames)
    return float(torch.stack([_is_textured(frame).double().mean() for frame in luma]).median())


def motion_px(depth_m: Float[Tensor, "h w"], cameras: CameraPath, frame: int) -> float:
    """Median displacement of frame 0's pixels that the cameras ask for until a frame, px; NaN without known depth.

    Args:
        depth_m: z-depth of frame 0, 0 where unknown.
        cameras: of the video.
        frame: which.
    """
    known = depth_m > 0
    if not bool(known.any()):
        return math.nan
    points = unproject(depth_m, cameras.world_to_cam[0], cameras.intrinsics[0])[known]
    before, _ = project(points, cameras.world_to_cam[0], cameras.intrinsics[0])
    after, depth = project(points, cameras.world_to_cam[frame], cameras.intrinsics[frame])
    return float((after - before).norm(dim=-1)[depth > 0].median()) if bool((depth > 0).any()) else math.nan


def motion_frac(frames: UInt8[Tensor, "t h w 3"], frame: int, asked_px: float) -> float:
    """Share of frame 0's textured pixels that another frame shows otherwise: near 0 where the video stood still.

    NaN where the cameras ask for less than 2 px, or where nothing in frame 0 could show a motion.

    Args:
        frames: sRGB.
        frame: which to compare with frame 0.
        asked_px: what `motion_px` says of it.
    """
    if math.isnan(asked_px) or asked_px < LEAST_MOTION_PX:
        return math.nan
    first, other = _luma(frames[:1])[0], _luma(frames[frame : frame + 1])[0]
    cells = _is_textured(first)
    if not bool(cells.any()):
        return math.nan
    textured = F.interpolate(cells[None, None].float(), size=first.shape, mode="nearest")[0, 0] > 0.5
    return float(((other - first).abs() > CHANGE_LEVELS)[textured].double().mean())


def flicker_levels(frames: UInt8[Tensor, "t h w 3"]) -> float:
    """How much brightness alternates from frame to frame, levels of 255; NaN of fewer than three frames.

    A quarter of the mean absolute second difference in time of an 8x8 mosaic: frames that are alternately 5 levels
    brighter and darker give 5, a steady motion or a fade gives almost nothing.
    """
    if len(frames) < 3:
        return math.nan
    mosaic = F.adaptive_avg_pool2d(_luma(frames)[:, None], FLICKER_GRID)
    second = mosaic[:-2] - 2.0 * mosaic[1:-1] + mosaic[2:]
    return float(second.abs().double().mean()) / 4.0


def revisit_db(frames: UInt8[Tensor, "t h w 3"], cameras: CameraPath) -> float:
    """PSNR between the first and the last frame seen from one place, dB; NaN where the path never comes back.

    Of all pairs of frames whose cameras stand within 0.5 degrees and 1 % of the path's extent, while the path was 3
    degrees or 10 % away in between, the pair that is farthest apart in time.
    """
    pair = returning_pair(cameras)
    if pair is None:
        return math.nan
    first, last = (frames[number].float() / 255.0 for number in pair)
    return psnr_db(last, first)


def returning_pair(cameras: CameraPath) -> tuple[int, int] | None:
    """Two frames of one place, as `revisit_db` takes them; None where there are none."""
    angles, lengths = _apart(cameras)
    extent = float(lengths[0].max())
    near = (angles <= BACK_DEG) & (lengths <= BACK_FRAC * extent + 1e-9)
    away = (angles >= AWAY_DEG) | ((lengths >= AWAY_FRAC * extent) & (lengths > 1e-9))
    count = len(cameras)
    for gap in range(count - 1, 1, -1):
        for i in range(count - gap):
            if bool(near[i, i + gap]) and bool(away[i, i + 1 : i + gap].any()):
                return i, i + gap
    return None


def _apart(cameras: CameraPath) -> tuple[Tensor, Tensor]:
    """Angles in degrees and distances between all pairs of cameras. [t t] each"""
    R, centers = cameras.world_to_cam[:, :3, :3].double(), cameras.centers_m.double()
    trace = torch.einsum("aij,bij->ab", R, R)
    angles = ((trace - 1.0) / 2.0).clamp(-1.0, 1.0).acos().rad2deg()
    return angles, torch.cdist(centers, centers, compute_mode="donot_use_mm_for_euclid_dist")


def _luma(frames: UInt8[Tensor, "t h w 3"]) -> Float[Tensor, "t h w"]:
    return frames.float() @ torch.tensor(_LUMA)


def _is_textured(luma: Float[Tensor, "h w"]) -> Tensor:
    """Which cells vary by more than TEXTURE_LEVELS. [h/8 w/8] bool"""
    height, width = luma.shape
    cell = min(CELL, height, width)
    cut = luma[: height // cell * cell, : width // cell * cell]
    cells = cut.reshape(height // cell, cell, width // cell, cell).permute(0, 2, 1, 3).flatten(2)
    return cells.double().std(dim=-1, unbiased=False) > TEXTURE_LEVELS
