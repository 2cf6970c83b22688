"""How good a world is, without learned weights: do its Gaussians show its video, without holes, floaters or drift."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from lyra_core.clip_quality import flicker_levels, motion_frac, motion_px, revisit_db, texture_frac
from lyra_core.errors import GaussiansError, RecipeError
from lyra_core.gates import GATES, Gate, require_gates
from lyra_core.gaussians.render import render
from lyra_core.gaussians.shape_quality import isolated_frac, needle_frac
from lyra_core.image_metrics import psnr_db, ssim
from lyra_core.values import CameraPath, Gaussians, VideoClip

# 2: texture, motion, flicker, revisit, isolated and needles were added; those of version 1 are as they were.
QUALITY_VERSION = "2"
HOLE_ALPHA = 0.5
# A Gaussian is a floater where this many views see through it to something 5 % farther.
FLOATER_VIEWS = 2
FLOATER_RATIO = 0.95
FLOATER_MIN_OPACITY = 0.1
FLOATER_SAMPLES = 20_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Quality:
    """Measurements of one world; NaN where something could not be measured.

    Attributes:
        psnr_db: of the drawn Gaussians against the video, over the measured frames, at most 99.
        ssim: structural similarity of the same, -1 to 1.
        coverage_frac: share of pixels with alpha of at least 0.5.
        hole_frac: the rest.
        opacity_mean: mean opacity of the Gaussians.
        floater_frac: share of visible Gaussians that hang in front of what several views see; NaN without depth.
        sharpness_ratio: Laplacian variance of the last measured frame over that of frame 0.
        color_drift_lab: distance of its mean CIELAB colour from frame 0's.
        num_nonfinite: values of the Gaussians that are NaN or infinite.
        num_splats: how many Gaussians.
        texture_frac: share of cells of 8x8 pixels that are not of one tone, 0 to 1.
        motion_px: median displacement that the cameras ask for until the measured frame that moves most, px.
        motion_frac: share of textured pixels that this frame shows otherwise than frame 0; NaN where none is asked.
        flicker_levels: how much brightness alternates from frame to frame, levels of 255.
        revisit_db: PSNR between two frames of one place, dB; NaN where the path never comes back.
        isolated_frac: share of visible Gaussians of key frames that hang alone.
        needle_frac: share of visible Gaussians more than 10 times as long as wide.
    """

    psnr_db: float
    ssim: float
    coverage_frac: float
    hole_frac: float
    opacity_mean: float
    floater_frac: float
    sharpness_ratio: float
    color_drift_lab: float
    num_nonfinite: int
    num_splats: int
    texture_frac: float
    motion_px: float
    motion_frac: float
    flicker_levels: float
    revisit_db: float
    isolated_frac: float
    needle_frac: float


def measure(clip: VideoClip, gaussians: Gaussians, *, max_views: int = 4) -> Quality:
    """Measure a world on a few frames spread over the clip, the last included, frame 0 left out.

    Args:
        clip: with the cameras of its frames.
        gaussians: in the world frame of those cameras.
        max_views: how many frames are drawn and compared.

    Raises:
        RecipeError: max_views is not positive.
        GaussiansError: there are none.
    """
    if max_views < 1:
        raise RecipeError(f"measuring needs at least one view, found max_views={max_views}")
    if len(gaussians) == 0:
        raise GaussiansError("measuring a world needs at least one Gaussian, found none")
    chosen = _views(len(clip), max_views)
    finite, num_nonfinite = _finite(gaussians)
    frames = clip.frames[chosen].float() / 255.0
    last, first = frames[-1], clip.frames[0].float() / 255.0
    empty = Quality(
        psnr_db=math.nan,
        ssim=math.nan,
        coverage_frac=0.0,
        hole_frac=1.0,
        opacity_mean=float(gaussians.opacities[torch.isfinite(gaussians.opacities)].double().mean()),
        floater_frac=math.nan,
        sharpness_ratio=sharpness(last) / max(sharpness(first), 1e-12),
        color_drift_lab=float((mean_lab(last) - mean_lab(first)).norm()),
        num_nonfinite=num_nonfinite,
        num_splats=len(gaussians),
        texture_frac=texture_frac(clip.frames[[0, *chosen]]),
        motion_px=math.nan,
        motion_frac=math.nan,
        flicker_levels=flicker_levels(clip.frames),
        revisit_db=revisit_db(clip.frames, clip.cameras),
        isolated_frac=isolated_frac(gaussians),
        needle_frac=needle_frac(gaussians),
    )
    if not bool(finite.any()):
        return empty
    drawable = gaussians if bool(finite.all()) else gaussians[finite]
    drawn = render(drawable, clip.cameras[chosen])
    color, alpha = drawn.color.cpu(), drawn.alpha.cpu()
    covered = float((alpha >= HOLE_ALPHA).double().mean())
    depth = _first_depth(drawable, clip)
    asked = {t: motion_px(depth, clip.cameras, t) for t in chosen}
    farthest = max(asked, key=lambda t: -1.0 if math.isnan(asked[t]) else asked[t])
    return replace(
        empty,
        psnr_db=psnr_db(color, frames),
        ssim=ssim(color, frames),
        coverage_frac=covered,
        hole_frac=1.0 - covered,
        floater_frac=_floater_frac(drawable, clip, chosen),
        motion_px=asked[farthest],
        motion_frac=motion_frac(clip.frames, farthest, asked[farthest]),
    )


def accept(quality: Quality, gates: Mapping[str, Gate]) -> tuple[bool, list[str]]:
    """Whether every gate is passed, and a reason for each that is not.

    Args:
        quality: measured.
        gates: by field name of `Quality`. A NaN passes no gate.

    Raises:
        RecipeError: a gate for something that is not measured.
    """
    known = {field.name for field in fields(Quality)}
    unknown = sorted(set(gates) - known)
    if unknown:
        raise RecipeError(f"no such quality measurement: {', '.join(unknown)}; measured are {', '.join(sorted(known))}")
    reasons = []
    for name, gate in gates.items():
        value = float(getattr(quality, name))
        if math.isnan(value):
            reasons.append(f"{name} could not be measured")
        elif gate.min is not None and value < gate.min:
            reasons.append(f"{name} {value:.4g} < {gate.min:.4g}")
        elif gate.max is not None and value > gate.max:
            reasons.append(f"{name} {value:.4g} > {gate.max:.4g}")
    return not reasons, reasons


def failed_gates(quality: Quality, names: Sequence[str]) -> list[str]:
    """A reason for each gate that a world fails, in the order of the names.

    Raises:
        RecipeError: no gate has such a name.
    """
    require_gates(names)
    reasons = []
    for name in dict.fromkeys(names):
        gate = GATES[name]
        value = float(getattr(quality, gate.column))
        if math.isnan(value):
            continue
        if gate.limit.min is not None and value < gate.limit.min:
            reasons.append(f"{name}: {gate.meaning} ({gate.column} {value:.4g} < {gate.limit.min:.4g})")
        if gate.limit.max is not None and value > gate.limit.max:
            reasons.append(f"{name}: {gate.meaning} ({gate.column} {value:.4g} > {gate.limit.max:.4g})")
    return reasons


def sharpness(frame: Float[Tensor, "h w 3"]) -> float:
    """Variance of the Laplacian of the grey picture (Pech-Pacheco et al. 2000)."""
    grey = (frame @ frame.new_tensor([0.299, 0.587, 0.114]))[None, None]
    kernel = grey.new_tensor([[0.0, 1.0, 0.0], [1.0, -4.0, 1.0], [0.0, 1.0, 0.0]])[None, None]
    return float(F.conv2d(grey, kernel).double().var())


def mean_lab(frame: Float[Tensor, "h w 3"]) -> Float[Tensor, " 3"]:
    """Mean CIELAB colour under D65 of an sRGB picture (IEC 61966-2-1; CIE 15)."""
    rgb = frame.double()
    linear = torch.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    to_xyz = linear.new_tensor(
        [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
    )
    xyz = linear @ to_xyz.T / linear.new_tensor([0.95047, 1.0, 1.08883])
    f = torch.where(xyz > (6 / 29) ** 3, xyz.clamp(min=1e-12) ** (1 / 3), xyz / (3 * (6 / 29) ** 2) + 4 / 29)
    lab = torch.stack([116 * f[..., 1] - 16, 500 * (f[..., 0] - f[..., 1]), 200 * (f[..., 1] - f[..., 2])], -1)
    return lab.reshape(-1, 3).mean(0)


def _views(num_frames: int, max_views: int) -> list[int]:
    if num_frames == 1:
        return [0]
    count = min(max_views, num_frames - 1)
    return sorted({round((k + 1) * (num_frames - 1) / count) for k in range(count)})


def _finite(gaussians: Gaussians) -> tuple[Bool[Tensor, " n"], int]:
    """Which Gaussians have only finite values, and how many values have not."""
    rows = torch.ones(len(gaussians), dtype=torch.bool, device=gaussians.means.device)
    bad_values = 0
    for tensor in (gaussians.means, gaussians.quats, gaussians.scales, gaussians.opacities, gaussians.sh):
        bad = ~torch.isfinite(tensor).flatten(1) if tensor.ndim > 1 else ~torch.isfinite(tensor)[:, None]
        bad_values += int(bad.sum())
        rows &= ~bad.any(1)
    return rows, bad_values


def _first_depth(gaussians: Gaussians, clip: VideoClip) -> Float[Tensor, "h w"]:
    """Depth of frame 0: the clip's, or of the Gaussians where it has none."""
    if clip.depth_m is not None:
        return clip.depth_m[0].float()
    drawn = render(gaussians, clip.cameras[0:1])
    return torch.where(drawn.alpha[0] >= HOLE_ALPHA, drawn.depth_m[0], 0.0).cpu()


def _floater_frac(gaussians: Gaussians, clip: VideoClip, chosen: list[int]) -> float:
    if clip.depth_m is None:
        return math.nan
    step = max(1, len(gaussians) // FLOATER_SAMPLES)
    sample = gaussians[::step].to("cpu")
    means = sample.means[sample.opacities >= FLOATER_MIN_OPACITY].double()
    violations = torch.zeros(len(means), dtype=torch.int64)
    seen = torch.zeros(len(means), dtype=torch.int64)
    for t in chosen:
        inside, ratio = _depth_ratio(means, clip.cameras, t, clip.depth_m[t])
        seen += inside
        violations += inside & (ratio < FLOATER_RATIO)
    needed = min(FLOATER_VIEWS, len(chosen))
    judged = seen >= needed
    return float((violations[judged] >= needed).double().mean()) if bool(judged.any()) else math.nan


def _depth_ratio(means: Tensor, cameras: CameraPath, t: int, depth: Tensor) -> tuple[Tensor, Tensor]:
    """Which means fall on a pixel of known depth, and their own depth over the nearest one around that pixel.

    The nearest of 3x3 pixels, or every Gaussian at an outline would count.
    """
    height, width = depth.shape
    known = torch.where(depth > 0, depth, torch.inf).float()
    nearest = -F.max_pool2d(-known[None, None], 3, stride=1, padding=1)[0, 0]
    local = means @ cameras.world_to_cam[t, :3, :3].T + cameras.world_to_cam[t, :3, 3]
    z = local[:, 2]
    pixels = local @ cameras.intrinsics[t].T
    front = z > 1e-6
    u = (pixels[:, 0] / z.clamp(min=1e-6)).floor()
    v = (pixels[:, 1] / z.clamp(min=1e-6)).floor()
    inside = front & (u >= 0) & (u < width) & (v >= 0) & (v < height)
    reference = nearest[v.clamp(0, height - 1).long(), u.clamp(0, width - 1).long()]
    inside &= torch.isfinite(reference)
    return inside, torch.where(inside, z / reference, 1.0)
