"""Fits what the depth network says of its own errors, once its depth is finished.

The last layer's confidence row is solved in closed form: the logarithm of (0.1 / relative error) is regressed on the
features that layer sees. A confidence of one half then means an expected error of a tenth of the depth.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lyra_core.errors import DepthError
from lyra_core.mini.depth import MiniDepth
from lyra_core.mini.depth_estimator import see_single, see_window
from lyra_core.procedural.depth_windows import Windows

EXPECTED_ERROR = 0.1
ERROR_LIMITS = (0.005, 2.0)
CONFIDENCE_ROW = 1
RIDGE = 1e-3
EVERY_PIXEL = 7  # neighbours say much the same


@torch.no_grad()
def fit_confidence(model: MiniDepth, windows: Windows) -> float:
    """Set the confidence row of the model's last layer; returns the correlation of predicted and true log errors.

    Args:
        model: with finished depth; changed in place.
        windows: of the training split, a dozen or more.

    Raises:
        DepthError: windows in which nothing is solid.
    """
    features: list[Tensor] = []
    targets: list[Tensor] = []
    kept: list[Tensor] = []
    hook = model.dense[1].register_forward_hook(lambda _module, _inputs, output: kept.append(output))
    try:
        for i in range(len(windows)):
            posed = see_window(model, windows.rgb[i], windows.intrinsics[i], windows.world_to_cam[i])
            first = kept[-1]
            single = see_single(model, windows.rgb[i, :1], windows.intrinsics[i, :1], is_mirrored=False)
            for sight, layer, truth in ((posed, first, windows.depth_m[i]), (single, kept[-1], windows.depth_m[i, :1])):
                solid = (truth > 0).flatten().nonzero()[::EVERY_PIXEL, 0]
                error = ((sight.depth_m / truth.clamp_min(1e-3)).log().abs()).flatten()[solid]
                features.append(layer.permute(0, 2, 3, 1).flatten(0, 2)[solid].double())
                targets.append((EXPECTED_ERROR / error.clamp(*ERROR_LIMITS)).log().double())
            kept.clear()
    finally:
        hook.remove()
    x, y = torch.cat(features), torch.cat(targets)
    if len(x) < 2 * x.shape[1]:
        raise DepthError(f"fitting confidence needs windows with something solid in them, found {len(x)} pixels")
    x = torch.cat([x, torch.ones_like(x[:, :1])], 1)
    gram = x.mT @ x
    weights = torch.linalg.solve(gram + RIDGE * gram.diagonal().mean() * torch.eye(len(gram)).to(gram), x.mT @ y)
    last = model.dense[-1]
    assert isinstance(last, nn.Conv2d)  # noqa: S101
    assert last.bias is not None  # noqa: S101
    last.weight[CONFIDENCE_ROW] = weights[:-1].reshape(-1, 1, 1).to(last.weight)
    last.bias[CONFIDENCE_ROW] = weights[-1].to(last.bias)
    return float(torch.corrcoef(torch.stack([x @ weights, y]))[0, 1])
