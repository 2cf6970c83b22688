"""How good generated videos are where the truth is known: by what the seed saw, by sharpness and by colour.

Images are in [0, 1]. Legend: b videos, t frames, h w pixels.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional

from lyra_core.config.rollout import CORRECTED_WARP
from lyra_core.geometry.warp import EPSILON, WarpSource, forward_warp
from lyra_core.image_metrics import decibels
from lyra_core.procedural.clips import Clips
from lyra_core.quality import mean_lab

SAME_SURFACE = 0.03
MIN_PIXELS = 64
PATCH = 7
QUANTILES = 256


def seen_by_seed(clips: Clips, frames: list[int]) -> Bool[Tensor, "b k h w"]:
    """Pixels of some frames whose surface the first frame shows, by true depth.

    Each pixel's point is looked up in the first frame, so a surface that the first frame shows small counts as seen.
    """
    size = (int(clips.depth_m.shape[-2]), int(clips.depth_m.shape[-1]))
    first, K = clips.depth_m[:, 0].float(), clips.intrinsics.float()
    masks = []
    for frame in frames:
        depth = clips.depth_m[:, frame].float()
        relative = clips.world_to_cam[:, 0].float() @ torch.linalg.inv(clips.world_to_cam[:, frame].float())
        points = _lifted(depth, K[:, frame]) @ relative[:, :3, :3].mT + relative[:, None, :3, 3]
        z = points[..., 2]
        image = points @ K[:, 0].mT / z.clamp(min=EPSILON)[..., None]
        u, v = image[..., 0] - 0.5, image[..., 1] - 0.5  # indices of pixels, whose centres are at +0.5
        inside = (z > EPSILON) & (u >= -0.5) & (v >= -0.5) & (u <= size[1] - 0.5) & (v <= size[0] - 0.5)
        close = _agrees(first, u, v, z)
        masks.append((inside & close).unflatten(1, size) & (depth > 0))
    return torch.stack(masks, 1)


def _lifted(depth_m: Float[Tensor, "b h w"], intrinsics: Float[Tensor, "b 3 3"]) -> Float[Tensor, "b p 3"]:
    """Points of pixels in their camera's frame."""
    h, w = depth_m.shape[-2:]
    v, u = torch.meshgrid(
        torch.arange(h, device=depth_m.device) + 0.5, torch.arange(w, device=depth_m.device) + 0.5, indexing="ij"
    )
    pixels = torch.stack([u, v, torch.ones_like(u)], -1).flatten(0, 1)
    return (pixels @ torch.linalg.inv(intrinsics).mT) * depth_m.flatten(1)[..., None]


def _agrees(
    depth_m: Float[Tensor, "b h w"], u: Float[Tensor, "b p"], v: Float[Tensor, "b p"], z: Float[Tensor, "b p"]
) -> Bool[Tensor, "b p"]:
    """Whether a depth map has depth z at fractional indices: one of the four pixels around, or what lies between."""
    h, w = depth_m.shape[-2:]
    left, top = u.floor().long(), v.floor().long()
    du, dv = u - left, v - top
    close, between = torch.zeros_like(z, dtype=torch.bool), torch.zeros_like(z)
    for x, y, weight in (
        (left, top, (1 - du) * (1 - dv)),
        (left + 1, top, du * (1 - dv)),
        (left, top + 1, (1 - du) * dv),
        (left + 1, top + 1, du * dv),
    ):
        seen_depth = depth_m.flatten(1).gather(1, y.clamp(0, h - 1) * w + x.clamp(0, w - 1))
        close |= (seen_depth - z).abs() <= SAME_SURFACE * z
        between = between + weight / seen_depth.clamp(min=EPSILON)  # planes are linear in inverse depth
    return close | ((1 / between.clamp(min=EPSILON) - z).abs() <= SAME_SURFACE * z)


def warped_seed(clips: Clips, frames: list[int]) -> tuple[Float[Tensor, "b k 3 h w"], Bool[Tensor, "b k h w"]]:
    """The first frame warped to some frames by its true depth, in [0, 1], and where anything landed."""
    b, k = len(clips.frames), len(frames)
    source = WarpSource(
        values=clips.frames[:, :1].float(),
        depth_m=clips.depth_m[:, :1],
        world_to_cam=clips.world_to_cam[:, :1],
        intrinsics=clips.intrinsics[:, :1],
    )
    w2c, K = clips.world_to_cam[:, frames].flatten(0, 1), clips.intrinsics[:, frames].flatten(0, 1)
    warp = forward_warp(source, w2c, K, CORRECTED_WARP)
    return (warp.values.unflatten(0, (b, k)) + 1) / 2, warp.mask.unflatten(0, (b, k))


def masked_psnr_db(
    images: Float[Tensor, "b 3 h w"], truth: Float[Tensor, "b 3 h w"], mask: Bool[Tensor, "b h w"]
) -> Float[Tensor, " b"]:
    """Decibels over the pixels of a mask; NaN where it has hardly any."""
    count = mask.flatten(1).sum(1)
    error = (images - truth).square().mean(1) * mask
    mean = error.flatten(1).sum(1) / count.clamp(min=1)
    return torch.where(count >= MIN_PIXELS, decibels(mean), torch.nan)


def detail(images: Float[Tensor, "b 3 h w"], mask: Bool[Tensor, "b h w"]) -> Float[Tensor, " b"]:
    """Mean strength of the Laplacian of the luminance over a mask."""
    grey = images.mean(1, keepdim=True)
    kernel = grey.new_tensor([[0.0, -1, 0], [-1, 4, -1], [0, -1, 0]])[None, None] / 4
    strength = functional.conv2d(functional.pad(grey, (1, 1, 1, 1), mode="replicate"), kernel)[:, 0].abs()
    return (strength * mask).flatten(1).sum(1) / mask.flatten(1).sum(1).clamp(min=1)


def sharpness_ratio(
    images: Float[Tensor, "b 3 h w"], truth: Float[Tensor, "b 3 h w"], mask: Bool[Tensor, "b h w"]
) -> Float[Tensor, " b"]:
    """Detail against the truth's over a mask; NaN where it has hardly any pixels."""
    ratio = detail(images, mask) / detail(truth, mask).clamp(min=1e-4)
    return torch.where(mask.flatten(1).sum(1) >= MIN_PIXELS, ratio, torch.nan)


def blur_filled(images: Float[Tensor, "b 3 h w"], mask: Bool[Tensor, "b h w"]) -> Float[Tensor, "b 3 h w"]:
    """Images whose pixels outside a mask are filled from their surroundings, coarser and coarser: a plain guess."""
    weight = mask[:, None].float()
    pyramid = [(images * weight, weight)]
    while min(pyramid[-1][0].shape[-2:]) > 2:
        pyramid.append(tuple(functional.avg_pool2d(level, 2, ceil_mode=True) for level in pyramid[-1]))  # type: ignore[arg-type]
    color, amount = pyramid.pop()
    filled = color.sum((2, 3), keepdim=True) / amount.sum((2, 3), keepdim=True).clamp(min=1e-6)
    filled = torch.where(amount > 0, color / amount.clamp(min=1e-6), filled)
    for color, amount in reversed(pyramid):
        coarse = functional.interpolate(filled, size=color.shape[-2:], mode="bilinear", align_corners=False)
        filled = torch.where(amount > 0, color / amount.clamp(min=1e-6), coarse)
    return filled


def mean_of(values: Float[Tensor, " b"]) -> float:
    """Mean of those that are numbers."""
    return float(values[torch.isfinite(values)].mean()) if bool(torch.isfinite(values).any()) else float("nan")


def color_shift(images: Float[Tensor, "b 3 h w"], truth: Float[Tensor, "b 3 h w"]) -> Float[Tensor, " b"]:
    """Distance in CIELAB (CIE 1976) of the mean colour of images from the truth's."""
    pairs = zip(images.float().cpu(), truth.float().cpu(), strict=True)
    shifts = [mean_lab(f.permute(1, 2, 0).clamp(0, 1)) - mean_lab(t.permute(1, 2, 0)) for f, t in pairs]
    return torch.stack(shifts).norm(dim=1).float()


def patches(image: Float[Tensor, "3 h w"], mask: Bool[Tensor, "h w"], side: int = PATCH) -> Float[Tensor, "n c"]:
    """Square patches that lie in a mask altogether, less their mean colour; one row each."""
    rows = functional.unfold(image[None].float(), side)[0].T
    inside = functional.unfold(mask[None, None].float(), side)[0].amin(0) > 0
    chosen = rows[inside].unflatten(1, (3, side * side))
    return (chosen - chosen.mean(2, keepdim=True)).flatten(1)


def patch_distance(
    sample: Float[Tensor, "n c"], truth: Float[Tensor, "m c"], generator: torch.Generator, *, directions: int = 128
) -> float:
    """How differently two sets of patches are distributed, in grey levels of 255: the sliced Wasserstein distance.

    Mean over random directions of the mean distance of equal quantiles (Rabin et al. 2011, section 2; of 7x7 patches
    as in Karras et al. 2018, section 5). A blur has other patches than a texture even where its error is small.

    Args:
        sample: of images in [0, 1].
        truth: of images in [0, 1].
        generator: of the directions, on the CPU.
        directions: how many.

    Returns:
        NaN where either set has hardly any.
    """
    if min(len(sample), len(truth)) < MIN_PIXELS:
        return float("nan")
    axes = functional.normalize(torch.randn(sample.shape[1], directions, generator=generator), dim=0).to(sample)
    at = (torch.arange(QUANTILES, device=sample.device) + 0.5) / QUANTILES
    curves = [
        (rows @ axes).sort(0).values[(at * len(rows)).long()]  # quantiles of sets of unequal sizes
        for rows in (sample, truth)
    ]
    return 255 * float((curves[0] - curves[1]).abs().mean())
