"""Draw Gaussians along a camera path: one function, gsplat on a GPU and the compiled tile rasteriser on a CPU."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from lyra_core.errors import GaussiansError, RecipeError
from lyra_core.extras import is_installed, require
from lyra_core.values import CameraPath, Gaussians

ENGINES = ("auto", "gsplat", "numba", "reference")
PIXELS_A_BATCH = 16_000_000  # 40 cameras of 480x832: intersections and outputs of one batch stay below 4 GB


@dataclass(frozen=True, slots=True, kw_only=True)
class Rendering:
    """Pictures of Gaussians from some cameras, on the device of the Gaussians.

    Attributes:
        color: sRGB over the background, clamped to 0..1. [t h w 3] float32
        depth_m: expected z-depth in metres, 0 where nothing was drawn. [t h w] float32
        alpha: share of the pixel covered, 0 to 1. [t h w] float32
    """

    color: Float[Tensor, "t h w 3"]
    depth_m: Float[Tensor, "t h w"]
    alpha: Float[Tensor, "t h w"]


def render(
    gaussians: Gaussians,
    cameras: CameraPath,
    *,
    background: tuple[float, float, float] = (0.0, 0.0, 0.0),
    engine: str = "auto",
) -> Rendering:
    """Draw the Gaussians from every camera of a path.

    Args:
        gaussians: world frame, metres.
        cameras: one picture each, of the path's image size.
        background: sRGB behind everything, 0 to 1.
        engine: "gsplat" (CUDA), "numba" (CPU), "reference" (float64, slow), or "auto": gsplat where the
            Gaussians lie on a GPU and gsplat is installed, else numba.

    Raises:
        GaussiansError: there are none, or a value is not finite.
        MissingExtraError: gsplat was asked for and is not installed.
        RecipeError: unknown engine, or gsplat was asked for without a CUDA device.
    """
    require_drawable(gaussians)
    return _engine(engine, gaussians.means.device)(gaussians, cameras, background)


def require_drawable(gaussians: Gaussians) -> None:
    """Refuse what no picture can be made of.

    Raises:
        GaussiansError: there are none, or a value is not finite.
    """
    if len(gaussians) == 0:
        raise GaussiansError("rendering needs at least one Gaussian, found none")
    for name in ("means", "quats", "scales", "opacities", "sh"):
        finite = torch.isfinite(getattr(gaussians, name))
        if not bool(finite.all()):
            rows = int((~finite.flatten(1).all(1) if finite.ndim > 1 else ~finite).sum())
            raise GaussiansError(
                f"{name} must be finite to be drawn; {rows} of {len(gaussians)} are not; drop them first"
            )


def _engine(
    name: str, device: torch.device
) -> Callable[[Gaussians, CameraPath, tuple[float, float, float]], Rendering]:
    if name not in ENGINES:
        raise RecipeError(f"unknown render engine {name!r}; choose one of {', '.join(ENGINES)}")
    if name == "auto":
        name = "gsplat" if device.type == "cuda" and is_installed("gsplat") else "numba"
    if name == "gsplat":
        require("gsplat", "rendering on a GPU")
        if not torch.cuda.is_available():
            raise RecipeError('engine "gsplat" needs a CUDA device and none is visible; use engine="numba"')
        return _render_gsplat
    return _render_numba if name == "numba" else _render_reference


def _render_gsplat(gaussians: Gaussians, cameras: CameraPath, background: tuple[float, float, float]) -> Rendering:
    from gsplat import rasterization

    device = gaussians.means.device if gaussians.means.is_cuda else torch.device("cuda")
    on_gpu = gaussians.to(device)
    height, width = cameras.image_height, cameras.image_width
    views = cameras.world_to_cam.to(device, torch.float32)
    Ks = cameras.intrinsics.to(device, torch.float32)
    behind = torch.tensor(background, device=device)
    step = max(1, PIXELS_A_BATCH // (height * width))
    colors, depths, alphas = [], [], []
    for start in range(0, len(cameras), step):
        drawn, alpha, _ = rasterization(
            on_gpu.means.float(),
            on_gpu.quats.float(),
            on_gpu.scales.float(),
            on_gpu.opacities.float(),
            on_gpu.sh.float(),
            views[start : start + step],
            Ks[start : start + step],
            width,
            height,
            sh_degree=on_gpu.sh_degree,
            render_mode="RGB+ED",
            packed=True,
        )
        # gsplat's own `backgrounds` would need a depth channel too; adding it here keeps depth untouched.
        colors.append((drawn[..., :3] + (1.0 - alpha) * behind).clamp(0.0, 1.0).to(gaussians.means.device))
        depths.append(drawn[..., 3].to(gaussians.means.device))
        alphas.append(alpha[..., 0].to(gaussians.means.device))
    return Rendering(color=torch.cat(colors), depth_m=torch.cat(depths), alpha=torch.cat(alphas))


def _render_numba(gaussians: Gaussians, cameras: CameraPath, background: tuple[float, float, float]) -> Rendering:
    from lyra_core.gaussians.rasterize import Rasterizer

    rasterizer = Rasterizer(gaussians)
    shape = (len(cameras), cameras.image_height, cameras.image_width)
    color, depth, alpha = torch.empty(*shape, 3), torch.empty(shape), torch.empty(shape)
    for t in range(len(cameras)):
        raster = rasterizer.draw(cameras.world_to_cam[t], cameras.intrinsics[t], *shape[1:], background)
        color[t], depth[t], alpha[t] = raster.color.clamp_(0.0, 1.0), raster.depth_m, raster.alpha
    device = gaussians.means.device
    return Rendering(color=color.to(device), depth_m=depth.to(device), alpha=alpha.to(device))


def _render_reference(gaussians: Gaussians, cameras: CameraPath, background: tuple[float, float, float]) -> Rendering:
    from lyra_core.gaussians.rasterize_reference import rasterize_reference

    size = (cameras.image_height, cameras.image_width)
    rasters = [
        rasterize_reference(gaussians.to("cpu"), w2c, K, *size, background)
        for w2c, K in zip(cameras.world_to_cam, cameras.intrinsics, strict=True)
    ]
    device = gaussians.means.device
    return Rendering(
        color=torch.stack([r.color for r in rasters]).clamp(0.0, 1.0).to(device),
        depth_m=torch.stack([r.depth_m for r in rasters]).to(device),
        alpha=torch.stack([r.alpha for r in rasters]).to(device),
    )
