"""What the depth network is asked for: depth up to a guessed unit, confidence, sky, and pictures from elsewhere.

Shape legend: b windows, t frames, v views of one window, h w pixels.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional

from lyra_core.gaussians.refine import Draw
from lyra_core.image_metrics import differentiable_ssim
from lyra_core.mini.camera_gaussians import world_gaussians
from lyra_core.mini.depth import MiniPrediction
from lyra_core.procedural.depth_windows import Windows
from lyra_core.training.depth_confidence import ERROR_LIMITS, EXPECTED_ERROR

CONFIDENCE_WEIGHT = 0.02
GRADIENT_WEIGHT, GRADIENT_SCALES = 1.0, 3
SKY_WEIGHT = 0.2
SHAPE_WEIGHT = 0.5
SSIM_WEIGHT = 0.2
# A huge error of a distant pixel says little; beyond this the loss grows slowly.
ROBUST_AT = 1.0
# Relative error is what depth is judged by: of a log error beyond this it grows no further.
RELATIVE_WEIGHT, RELATIVE_LIMIT = 0.5, 1.4
STAGE_WEIGHT = 1.0
STAGE_CELL = 4
# Farther than that parallax says nothing and nothing is measured.
FAR_M, FAR_WEIGHT = 80.0, 0.1
DRAWN = 0.7


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Mean over the mask, 0 if it is empty."""
    return (values * mask).sum() / mask.sum().clamp_min(1)


def log_error(predicted: Tensor, target: Tensor) -> Tensor:
    """Absolute difference, logarithmic beyond ROBUST_AT."""
    error = (predicted - target).abs()
    return torch.where(error < ROBUST_AT, error, ROBUST_AT * (1.0 + (error / ROBUST_AT).clamp_min(1.0).log()))


def depth_losses(
    prediction: MiniPrediction,
    depth_m: Float[Tensor, "b t h w"],
    unit_m: Float[Tensor, " b"],
    *,
    is_single: bool,
) -> dict[str, Tensor]:
    """Losses of depth, confidence and sky.

    Confidence is taught the logarithm of the network's own error directly: a weighting of the error by confidence (as
    in DUSt3R, Wang et al. 2024, section 3.2) fell to its floor in the first minutes, while errors were large, and
    stayed there.
    The gradient term is that of MegaDepth (Li and Snavely 2018, section 4).

    Args:
        prediction: the prediction.
        depth_m: exact, 0 where sky.
        unit_m: what the network's unit is.
        is_single: single images are also compared after their scale is taken out, because it can only be guessed.
    """
    solid = depth_m > 0
    target = (depth_m.clamp_min(1e-3) / unit_m[:, None, None, None]).log()
    error = log_error(prediction.log_depth, target)
    counted = solid * torch.where(depth_m < FAR_M, 1.0, FAR_WEIGHT)
    relative = (prediction.log_depth - target).clamp(max=RELATIVE_LIMIT).expm1().abs()
    expected = (EXPECTED_ERROR / error.detach().clamp(*ERROR_LIMITS)).log()
    sure = (prediction.log_confidence - expected).abs()
    losses = {
        "depth": masked_mean(error, counted),
        "relative": masked_mean(relative, counted),
        "confidence": masked_mean(sure, solid),
        "gradient": gradient_loss(prediction.log_depth, target, solid),
        "sky": functional.binary_cross_entropy_with_logits(prediction.sky_logit, (~solid).float()),
    }
    if prediction.stages is not None:
        losses["stages"] = stage_loss(prediction.stages, target, counted)
    if is_single:
        difference = torch.where(solid, prediction.log_depth - target, 0.0)
        count = solid.sum((2, 3), keepdim=True).clamp_min(1)
        offset = difference.sum((2, 3), keepdim=True) / count
        losses["shape"] = masked_mean(log_error(prediction.log_depth - offset, target), solid)
    weights = {
        "relative": RELATIVE_WEIGHT,
        "gradient": GRADIENT_WEIGHT,
        "sky": SKY_WEIGHT,
        "shape": SHAPE_WEIGHT,
        "confidence": CONFIDENCE_WEIGHT,
        "stages": STAGE_WEIGHT,
    }
    losses["loss"] = torch.stack([weights.get(name, 1.0) * value for name, value in losses.items()]).sum()
    return losses


def stage_loss(
    stages: Float[Tensor, "b t k h4 w4"], target: Float[Tensor, "b t h w"], counted: Float[Tensor, "b t h w"]
) -> Float[Tensor, ""]:
    """Log error of every sweep at a pixel in the middle of each cell: no mean of near and far, so edges stay sharp."""
    middle = slice(STAGE_CELL // 2, None, STAGE_CELL)
    target, counted = (maps[..., middle, middle][:, :, None] for maps in (target, counted))
    return masked_mean(log_error(stages, target), counted.expand_as(stages))


def gradient_loss(
    predicted: Float[Tensor, "b t h w"], target: Float[Tensor, "b t h w"], solid: Bool[Tensor, "b t h w"]
) -> Float[Tensor, ""]:
    """Differences of neighbours at several distances: sharp edges, flat walls."""
    error = predicted - target
    total = error.new_zeros(())
    for scale in range(GRADIENT_SCALES):
        step = 2**scale
        for dim in (2, 3):
            size = error.shape[dim] - step
            a, b = error.narrow(dim, 0, size), error.narrow(dim, step, size)
            both = solid.narrow(dim, 0, size) & solid.narrow(dim, step, size)
            total = total + masked_mean((a - b).abs().clamp(max=1.0), both)
    return total / (2 * GRADIENT_SCALES)


def picture_loss(
    prediction: MiniPrediction,
    shown: Windows,
    hidden: Windows,
    unit_m: Float[Tensor, " b"],
    draw: Draw,
) -> Float[Tensor, ""]:
    """The predicted Gaussians drawn from their own first view and from views that the network was not shown.

    Args:
        prediction: for the shown views.
        shown: what the network saw.
        hidden: other views of the same places.
        unit_m: what the network's unit is.
        draw: a rasteriser that can be differentiated.
    """
    losses = []
    height, width = shown.rgb.shape[3:]
    for i in range(len(shown)):
        depth = prediction.log_depth[i].exp() * unit_m[i]
        raw = prediction.gaussians
        if raw is None:
            continue
        gaussians = world_gaussians(raw[i], depth, shown.rgb[i], shown.intrinsics[i], shown.world_to_cam[i])
        # transparent in place of left out: how many they are must not have to be read from the device
        gaussians = replace(gaussians, opacities=gaussians.opacities * ~shown.sky[i].flatten())
        for is_own, views in ((True, shown.frames([0])), (False, hidden)):
            for j in range(views.rgb.shape[1]):
                raster = draw(gaussians, views.world_to_cam[i, j], views.intrinsics[i, j], int(height), int(width))
                solid = ~views.sky[i, j]
                if not is_own:
                    # What no shown view saw cannot be known. The own view must be covered: nothing hides there.
                    solid = solid & (raster.alpha.detach() > DRAWN)
                truth = views.rgb[i, j].permute(1, 2, 0)
                picture = torch.where(solid[..., None], raster.color, truth)
                loss = (1 - SSIM_WEIGHT) * (picture - truth).abs().mean() + SSIM_WEIGHT * (
                    1 - differentiable_ssim(picture, truth)
                )
                losses.append(loss)
    return torch.stack(losses).mean() if losses else prediction.log_depth.new_zeros(())
