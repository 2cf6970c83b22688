"""A plausible depth map of one photograph from pictorial cues alone: sky, horizon, ground, standing things, focus.

Nothing here is measured: the scale comes from assuming a camera held at eye level over a level ground (for
closed scenes, a room-sized distance). It is what the learned estimators must beat.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from lyra_core.depth import DepthEstimate
from lyra_core.errors import DepthError
from lyra_core.layered_depth.filters import (
    box_mean,
    components,
    flood,
    gradient,
    guided_filter,
    local_max,
    local_min,
    regions,
    snap_edges,
)
from lyra_core.values import CameraPath

EYE_HEIGHT_M = 1.5
FAR_M = 100.0
SKY_DEPTH_M = 300.0
BACKDROP_FOOT_M = 25.0
NEAREST_M = 0.8
# Without sky the picture is taken to be of a room or of something close, seen from slightly above.
CLOSED_HORIZON = -0.1
CLOSED_DEPTH_RATIO = 3.5
CLOSED_NEAR_M = 2.0
CLOSED_UPRIGHT = 0.35
MIN_SKY_SHARE = 0.03
MIN_PATCH_SHARE = 0.004
MIN_SKY_TOP_SHARE = 0.2
DEFAULT_FOV_RAD = math.radians(55.0)


class ParallaxDepth:
    """Depth without learning, as a `DepthEstimator`; frames are estimated one by one."""

    def estimate(
        self,
        frames: UInt8[Tensor, "t h w 3"],
        cameras: CameraPath | None,
        reference_depth_m: Float[Tensor, "t h w"] | None = None,
    ) -> DepthEstimate:
        """Depth of each frame, scaled to the reference by the median ratio where one is given.

        Args:
            frames: sRGB. [t h w 3]
            cameras: their intrinsics set the field of view; 55 degrees across where None.
            reference_depth_m: what is already known, metres, 0 = unknown. [t h w]

        Raises:
            DepthError: no frame, or a frame smaller than 16x16.
        """
        if frames.shape[0] == 0 or min(frames.shape[1:3]) < 16:
            raise DepthError(f"depth needs at least one frame of 16x16 pixels, found {tuple(frames.shape)}")
        width = frames.shape[2]
        depths, skies = [], []
        for t in range(frames.shape[0]):
            focal = width / 2 / math.tan(DEFAULT_FOV_RAD / 2)
            if cameras is not None:
                focal = float(cameras.intrinsics[t, 1, 1])
            depth, sky = photo_depth(frames[t], focal)
            if reference_depth_m is not None:
                known = (reference_depth_m[t] > 0) & ~sky
                if known.any():
                    ratio = float((reference_depth_m[t][known] / depth[known]).median())
                    depth = torch.where(sky, depth, depth * ratio)
            depths.append(depth)
            skies.append(sky)
        depth_m, sky = torch.stack(depths), torch.stack(skies)
        # Cues, not measurements: half of full confidence wherever something solid is seen.
        confidence = torch.where(sky, 0.0, 0.5)
        return DepthEstimate(depth_m=depth_m, confidence=confidence, sky=sky)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Ground:
    """Inverse depth by row: constant beyond the skyline, a backdrop down to its foot, then level ground.

    Rows in pixels from the top, inverse depths in 1/m.
    """

    skyline_row: float
    foot_row: float
    far_disparity: float
    foot_disparity: float
    slope: float

    def disparity(self, rows: Tensor) -> Tensor:
        """Inverse depth (1/m) at these rows."""
        share = (rows - self.skyline_row) / max(self.foot_row - self.skyline_row, 1.0)
        backdrop = share.clamp(0.0, 1.0) * (self.foot_disparity - self.far_disparity)
        return self.far_disparity + backdrop + self.slope * (rows - self.foot_row).clamp(min=0.0)


def photo_depth(image: UInt8[Tensor, "h w 3"], focal_px: float) -> tuple[Float[Tensor, "h w"], Bool[Tensor, "h w"]]:
    """z-depth in metres (the sky at SKY_DEPTH_M) and the sky mask of one photograph.

    Args:
        image: sRGB. [h w 3]
        focal_px: vertical focal length in pixels of this image.
    """
    color = image.permute(2, 0, 1).float() / 255.0
    height, width = image.shape[:2]
    sky = sky_mask(color)
    ground = _ground(color, sky, focal_px)
    rows = torch.arange(height).float()[:, None].expand(height, width) + 0.5
    log_disparity = _standing(color, sky, ground, rows).log()
    log_disparity = log_disparity + _focus(color, sky)
    log_disparity = _smooth_along_edges(color, sky, log_disparity)
    depth = torch.exp(-log_disparity).clamp(NEAREST_M, FAR_M)
    return torch.where(sky, SKY_DEPTH_M, depth), sky


def sky_mask(color: Float[Tensor, "3 h w"]) -> Bool[Tensor, "h w"]:
    """Smooth, blue or bright, connected to the upper edge; empty where that is too small to be a sky."""
    red, green, blue = color
    luma = 0.299 * red + 0.587 * green + 0.114 * blue
    height, width = luma.shape
    # Dusk has less contrast everywhere, and a gradient a pixel is less in larger pictures.
    steepest = 0.045 * min(1.0, 0.15 + 2.0 * float(luma.mean())) * min(1.0, max(0.5, 416 / width))
    smooth = gradient(box_mean(color, 1)) < steepest
    bluish = (blue > 0.92 * red) & (blue > 0.95 * green) & (luma > 0.08)
    start = bluish & (luma > 0.12) | ((luma > 0.85) & (blue > 0.75 * red))
    allowed = smooth & (bluish | (luma > 0.62))
    top = torch.zeros_like(start)
    top[: max(2, height // 60)] = True
    sky = flood(allowed, start & top)
    # Clouds and the sun break the smoothness: take in what is bright and nearly enclosed by sky.
    near_sky = box_mean(sky[None].float(), max(3, width // 60))[0]
    bright = (luma > 0.78) & (blue > 0.5 * red) & (near_sky > 0.2)
    sky = flood(sky | bright | (near_sky > 0.8) & bluish, sky)
    sky = _behind_bars(color, allowed, sky)
    # Lattices, twigs and pairs of cables move as one thing, with the sky seen through them.
    reach = max(1, width // 100)
    sky = local_max(local_min(sky.float(), reach), reach) > 0.5
    enough = sky.float().mean() >= MIN_SKY_SHARE
    enough &= sky[: max(2, height // 60)].float().mean() >= MIN_SKY_TOP_SHARE
    return sky if bool(enough) else torch.zeros_like(sky)


def _behind_bars(color: Tensor, allowed: Tensor, sky: Tensor) -> Tensor:
    """Go on behind cables and branches: into pixels of the colour of the sky near them."""
    width = sky.shape[1]
    for _ in range(2):
        reach = box_mean(sky[None].float(), width // 25)[0]
        near_color = box_mean(color * sky, width // 25) / reach.clamp(min=1e-3)
        like = allowed & ((color - near_color).square().sum(0) < 0.1**2) & (reach > 0.02)
        reached = flood(allowed & (like | sky | (reach < 0.05)), sky | like) & ~sky
        labels = components(reached)
        area = torch.bincount(labels.flatten())[labels]
        sky = sky | reached & (area > MIN_PATCH_SHARE * sky.numel())
    return sky


def _ground(color: Tensor, sky: Tensor, focal_px: float) -> _Ground:
    height = sky.shape[0]
    if not bool(sky.any()):
        near = 1.0 / CLOSED_NEAR_M
        far = near / CLOSED_DEPTH_RATIO
        top = CLOSED_HORIZON * height
        return _Ground(
            skyline_row=top,
            foot_row=top,
            far_disparity=far,
            foot_disparity=far,
            slope=(near - far) / (height - top),
        )
    rows = torch.arange(height)[:, None].expand_as(sky)
    lowest = torch.where(sky, rows, -1).amax(0).float()
    skyline = float(lowest[lowest >= 0].quantile(0.7).clamp(0.1 * height, 0.9 * height))
    # A level plane EYE_HEIGHT_M below the camera: 1/z = (row - horizon) / (focal * height).
    foot = _foot_row(color, sky, skyline)
    # A camera that shows little ground looks up: what it shows lies far, not under its feet.
    level = min(1.0, (height - foot) / (0.3 * height))
    return _Ground(
        skyline_row=skyline,
        foot_row=foot,
        far_disparity=1.0 / FAR_M,
        foot_disparity=1.0 / BACKDROP_FOOT_M,
        slope=level / (focal_px * EYE_HEIGHT_M),
    )


def _foot_row(color: Tensor, sky: Tensor, skyline: float) -> float:
    """The row under the skyline where colour changes most: mountains above, meadow below."""
    height = sky.shape[0]
    first, last = int(skyline) + 1, int(0.8 * height)
    band = max(3, height // 16)
    if last - first < 2 * band:
        return min(skyline + band, height - 1.0)
    solid = (~sky).float()
    weight = solid.sum(1).clamp(min=1.0)
    by_row = (color * solid).sum(2) / weight
    total = torch.cat([by_row.new_zeros(3, 1), by_row.cumsum(1)], 1)
    rows = torch.arange(first + band, last)
    above = (total[:, rows] - total[:, rows - band]) / band
    below = (total[:, rows + band] - total[:, rows]) / band
    return float(rows[(above - below).square().sum(0).argmax()])


def _standing(color: Tensor, sky: Tensor, ground: _Ground, rows: Tensor) -> Tensor:
    """Ground disparity, except that upright regions stand where their lowest part meets the ground."""
    height, width = sky.shape
    small = F.avg_pool2d(box_mean(color, 1)[None], 2)[0]
    labels = regions(small, scale=1.2, min_size=max(20, height * width // 4000))
    labels = labels.repeat_interleave(2, 0).repeat_interleave(2, 1)
    labels = F.pad(
        labels[None].float(),
        (0, width - labels.shape[1], 0, height - labels.shape[0]),
        mode="replicate",
    )[0].long()
    count = int(labels.max()) + 1
    flat, flat_rows = labels.flatten(), rows.flatten()
    columns = torch.arange(width).float().expand(height, width).flatten()
    bottom = torch.zeros(count).scatter_reduce(0, flat, flat_rows, "amax")
    top = torch.full((count,), 1e9).scatter_reduce(0, flat, flat_rows, "amin")
    right = torch.zeros(count).scatter_reduce(0, flat, columns, "amax")
    left = torch.full((count,), 1e9).scatter_reduce(0, flat, columns, "amin")
    tall = (bottom - top + 1) / (right - left + 1)
    upright = ((tall - 0.5) / 0.5).clamp(0.0, 1.0)
    # What spans most of the picture is ground or backdrop, however tall.
    upright = torch.where(right - left > 0.6 * width, 0.0, upright)[flat].view(height, width)
    if not bool(sky.any()):
        # Close up, regions are parts of things: standing them all up would tear the things apart.
        upright = CLOSED_UPRIGHT * upright
    own = ground.disparity(rows)
    base = ground.disparity(bottom[flat].view(height, width))
    return _against_the_sky(own + upright * (base - own), sky, ground, rows)


def _against_the_sky(disparity: Tensor, sky: Tensor, ground: _Ground, rows: Tensor) -> Tensor:
    """Narrow things before the sky (masts, poles, cables) stand at one distance, that of their foot."""
    width = sky.shape[1]
    foot = max(ground.skyline_row, 0.0)
    risen = ~sky & (rows < foot)
    if not bool(risen.any()):
        return disparity
    labels = components(risen).flatten()
    count = int(labels.max()) + 1
    columns = torch.arange(width).float().expand(sky.shape).flatten()
    right = torch.zeros(count).scatter_reduce(0, labels, columns, "amax")
    left = torch.full((count,), 1e9).scatter_reduce(0, labels, columns, "amin")
    area = torch.zeros(count).index_add(0, labels, torch.ones_like(columns))
    bottom = torch.zeros(count).scatter_reduce(0, labels, rows.flatten(), "amax")
    top = torch.full((count,), 1e9).scatter_reduce(0, labels, rows.flatten(), "amin")
    sparse = area < 0.35 * (right - left + 1) * (bottom - top + 1)
    slender = (right - left < 0.12 * width) | (bottom - top > 1.5 * (right - left))
    narrow = (slender | sparse)[labels].view(sky.shape) & risen
    return torch.where(narrow, ground.foot_disparity, disparity)


def _focus(color: Tensor, sky: Tensor) -> Tensor:
    """Log factor that brings sharp things forward where the photograph has a shallow depth of field."""
    width = sky.shape[1]
    fine = local_max(gradient(color), max(2, width // 80))
    coarse = local_max(gradient(box_mean(color, 2)), max(2, width // 80))
    contrast = box_mean((coarse * ~sky)[None], width // 60)[0]
    sharp = box_mean(((fine - coarse).clamp(min=0) / (coarse + 0.03))[None], width // 60)[0]
    # Close the even inside of a sharply outlined thing.
    sharp = local_min(local_max(sharp, width // 16), width // 16)
    sharp = box_mean(sharp[None], width // 30)[0]
    solid = sharp[~sky]
    if solid.numel() == 0:
        return torch.zeros_like(sharp)
    low, high = float(solid.quantile(0.2)), float(solid.quantile(0.95))
    # Only a picture with both clearly blurred and clearly sharp parts says anything about distance.
    strength = min(1.0, max(0.0, (high - 3.0 * low) / (high + 1e-6)))
    level = ((sharp - low) / (high - low + 1e-6)).clamp(0.0, 1.0)
    return strength * math.log(3.0) * (level - 0.25) * (contrast > 0.01)


def _smooth_along_edges(color: Tensor, sky: Tensor, log_disparity: Tensor) -> Tensor:
    """Outlines of the picture become outlines of depth; the sky does not bleed into what stands before it."""
    width = sky.shape[1]
    luma = (color * color.new_tensor([0.299, 0.587, 0.114])[:, None, None]).sum(0)
    radius = max(3, width // 50)
    solid = (~sky).float()
    weight = box_mean(solid[None], radius)[0].clamp(min=1e-3)
    filled = torch.where(sky, box_mean((log_disparity * solid)[None], radius)[0] / weight, log_disparity)
    filled = torch.where(sky & (weight < 0.01), log_disparity, filled)
    smooth = guided_filter(luma, filled, radius=radius, epsilon=2e-3)
    smooth = guided_filter(luma, smooth, radius=max(2, radius // 3), epsilon=1e-3)
    return snap_edges(smooth, radius=2, min_jump=0.12)
