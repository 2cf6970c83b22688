"""How good the small depth network is on places it never saw, in numbers and in pictures.

Shape legend: b windows, t frames of each, h w pixels.
"""

from __future__ import annotations

import math
from pathlib import Path

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional

from lyra_core.errors import ReconstructionError
from lyra_core.gaussians.render import Rendering, render
from lyra_core.image_metrics import psnr_db
from lyra_core.mini.camera_gaussians import world_gaussians
from lyra_core.mini.depth import MiniDepth
from lyra_core.mini.depth_estimator import Sight, see_single, see_window
from lyra_core.procedural.depth_windows import Windows
from lyra_core.procedural.photographs import SUFFIXES
from lyra_core.values import CameraPath, Gaussians

MAX_DEPTH_M = 80.0
PHOTO_HFOV_DEG = 55.0


def abs_rel(
    depth: Float[Tensor, "*s"], truth: Float[Tensor, "*s"], solid: Bool[Tensor, "*s"], *, align: bool = False
) -> float:
    """Mean of |found - truth| / truth over solid pixels nearer than 80 m; `align` scales by the ratio of medians."""
    solid = solid & (truth > 0) & (truth < MAX_DEPTH_M)
    f, t = depth[solid].double(), truth[solid].double()
    if not len(t):
        return 0.0
    if align:
        f = f * (t.median() / f.median())
    return float(((f - t).abs() / t).mean())


def spread_frames(num_frames: int, shown: int) -> list[int]:
    """Frames of a window that the network is shown when it is measured; the first and the last are among them."""
    return torch.linspace(0, num_frames - 1, shown).round().long().tolist()


@torch.no_grad()
def standard_measures(model: MiniDepth, windows: Windows, *, shown: int) -> dict[str, float | int]:
    """Depth of held-out scenes with known cameras and of single images, and Gaussians at frames not shown.

    The unit of a window comes from the network's own look at the first image, as in use; nothing is fitted to the truth
    except in `single_aligned`.

    Args:
        model: in eval mode or not, left as it is.
        windows: of different scenes.
        shown: frames given to the network.
    """
    rows: dict[str, list[float]] = {}

    def note(name: str, value: float) -> None:
        rows.setdefault(name, []).append(value)

    seen = spread_frames(windows.rgb.shape[1], shown)
    hidden = [i for i in range(windows.rgb.shape[1]) if i not in seen]
    some = windows.frames(seen)
    for i in range(len(windows)):
        with torch.autocast(windows.rgb.device.type, torch.bfloat16, enabled=windows.rgb.is_cuda):
            posed = see_window(model, some.rgb[i], some.intrinsics[i], some.world_to_cam[i], with_gaussians=True)
            single = see_single(model, some.rgb[i, :1], some.intrinsics[i, :1])
        truth, solid = some.depth_m[i], ~some.sky[i]
        note("absrel_cameras", abs_rel(posed.depth_m, truth, solid))
        note("absrel_single", abs_rel(single.depth_m, truth[:1], solid[:1]))
        note("absrel_single_aligned", abs_rel(single.depth_m, truth[:1], solid[:1], align=True))
        note("sky_wrong", float((posed.sky != ~solid).float().mean()))
        if i % 4 == 0:
            note("splat_db", splat_quality(posed, some, windows, i, hidden))
    return {name: sum(values) / len(values) for name, values in rows.items()} | {"scenes": len(windows)}


def window_gaussians(sight: Sight, shown: Windows, row: int) -> Gaussians:
    """The head's Gaussians of one window in the frame of its first camera.

    Raises:
        ReconstructionError: the sight was made without Gaussians.
    """
    if sight.raw is None:
        raise ReconstructionError(
            "the Gaussians of a window need a sight with raw numbers, found none; set with_gaussians"
        )
    return world_gaussians(
        sight.raw, sight.depth_m, shown.rgb[row], shown.intrinsics[row], shown.world_to_cam[row], ~sight.sky
    )


def splat_quality(sight: Sight, shown: Windows, windows: Windows, row: int, hidden: list[int]) -> float:
    """PSNR of the window's Gaussians at frames it was not shown, over pixels that they cover and that are not sky."""
    drawn = _drawn(window_gaussians(sight, shown, row), windows, row, hidden)
    truth = windows.rgb[row, hidden].permute(0, 2, 3, 1)
    solid = (drawn.alpha > 0.5) & ~windows.sky[row, hidden]
    return psnr_db(drawn.color[solid], truth[solid]) if bool(solid.any()) else 0.0


def _drawn(gaussians: Gaussians, windows: Windows, row: int, frames: list[int]) -> Rendering:
    """Pictures of the Gaussians; empty ones where everything was taken for sky."""
    height, width = (int(x) for x in windows.rgb.shape[3:])
    if len(gaussians) == 0:
        blank = windows.rgb.new_zeros(len(frames), height, width)
        return Rendering(color=blank[..., None].expand(-1, -1, -1, 3), depth_m=blank, alpha=blank)
    cameras = CameraPath(
        world_to_cam=_orthonormal(windows.world_to_cam[row, frames]),
        intrinsics=windows.intrinsics[row, frames].double(),
        image_height=height,
        image_width=width,
    )
    return render(gaussians, cameras)


def _orthonormal(world_to_cam: Tensor) -> Tensor:
    """float32 transforms as float64 ones with exact rotations."""
    out = world_to_cam.double().cpu().clone()
    u, _, vh = torch.linalg.svd(out[:, :3, :3])
    out[:, :3, :3] = u @ vh
    return out


def depth_colors(depth_m: Float[Tensor, "h w"], near_m: float, far_m: float) -> Float[Tensor, "3 h w"]:
    """Near is warm and bright, far dark and cold; logarithmic."""
    s = (depth_m.float().cpu().clamp_min(1e-3) / near_m).log() / math.log(far_m / near_m)
    s = s.clamp(0.0, 1.0)
    stops = torch.tensor(
        [[0.99, 0.91, 0.62], [0.98, 0.55, 0.37], [0.72, 0.21, 0.47], [0.32, 0.07, 0.48], [0.0, 0.0, 0.02]]
    )
    at = s * (len(stops) - 1)
    low = at.floor().long().clamp(max=len(stops) - 2)
    mixed = torch.lerp(stops[low], stops[low + 1], (at - low)[..., None])
    return mixed.permute(2, 0, 1)


def _range_m(depth_m: Tensor, solid: Tensor) -> tuple[float, float]:
    values = depth_m[solid].float()
    if not len(values):
        return 1.0, 10.0
    near, far = float(values.quantile(0.01)), float(values.quantile(0.97))
    return max(near, 1e-2), max(far, 1.2 * max(near, 1e-2))


def _save(rows: list[Tensor], path: Path) -> None:
    from PIL import Image

    sheet = torch.cat(rows, dim=1)
    pixels = (sheet.clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 0).cpu().numpy()
    Image.fromarray(pixels).save(path, quality=88)


@torch.no_grad()
def save_pictures(model: MiniDepth, windows: Windows, photographs: Path | None, out_dir: Path, *, shown: int) -> None:
    """Three sheets: depth of held-out scenes, depth of photographs, Gaussians at frames not shown.

    depth_worlds.jpg: picture, true depth, depth with cameras, depth of the single image, confidence; one row a scene.
    depth_photos.jpg: photograph, depth, sky. splats.jpg: truth, Gaussians; one row a scene.
    """
    seen = spread_frames(windows.rgb.shape[1], shown)
    hidden = [i for i in range(windows.rgb.shape[1]) if i not in seen]
    some = windows.frames(seen)
    worlds, splats = [], []
    for i in range(0, len(windows), max(1, len(windows) // 12)):
        posed = see_window(model, some.rgb[i], some.intrinsics[i], some.world_to_cam[i], with_gaussians=True)
        single = see_single(model, some.rgb[i, :1], some.intrinsics[i, :1])
        span = _range_m(some.depth_m[i, 0], ~some.sky[i, 0])
        black = [~some.sky[i, 0], ~posed.sky[0], ~single.sky[0]]
        maps = [
            depth_colors(d, *span) * s.cpu()
            for d, s in zip((some.depth_m[i, 0], posed.depth_m[0], single.depth_m[0]), black, strict=True)
        ]
        gray = posed.confidence[0].cpu().expand(3, -1, -1)
        worlds.append(torch.cat([some.rgb[i, 0].cpu(), *maps, gray], 2))
        drawn = _drawn(window_gaussians(posed, some, i), windows, i, hidden).color.permute(0, 3, 1, 2)
        pairs = [torch.cat([windows.rgb[i, j], drawn[n]], 2) for n, j in enumerate(hidden[:2])]
        splats.append(torch.cat(pairs, 2))
    _save(worlds, out_dir / "depth_worlds.jpg")
    _save(splats, out_dir / "splats.jpg")
    if photographs is not None:
        save_photos(model, photographs, windows.rgb.shape[3:], out_dir / "depth_photos.jpg")


def save_photos(model: MiniDepth, folder: Path, size: torch.Size | tuple[int, int], path: Path) -> None:
    """Photograph, depth and confidence, one row a picture."""
    _save(photo_rows(model, folder, size), path)


@torch.no_grad()
def photo_rows(model: MiniDepth, folder: Path, size: torch.Size | tuple[int, int]) -> list[Tensor]:
    """Photograph, depth (sky black) and confidence of every picture of a folder and those in it."""
    import numpy as np
    from PIL import Image, ImageOps

    from lyra_core.geometry.camera import intrinsics_from_hfov

    device = next(model.parameters()).device
    height, width = int(size[0]), int(size[1])
    rows = []
    for path in sorted(p for p in folder.rglob("*") if p.suffix.lower() in SUFFIXES):
        with Image.open(path) as opened:
            fitted = ImageOps.fit(ImageOps.exif_transpose(opened).convert("RGB"), (width, height))
        image = torch.from_numpy(np.asarray(fitted).copy()).permute(2, 0, 1)[None].float().to(device) / 255
        K = intrinsics_from_hfov(PHOTO_HFOV_DEG, height, width)[None].float().to(device)
        sight = see_single(model, image, K)
        colors = depth_colors(sight.depth_m[0], *_range_m(sight.depth_m[0], ~sight.sky[0])) * ~sight.sky[0].cpu()
        confidence = functional.relu(sight.confidence[0]).cpu().expand(3, -1, -1)
        rows.append(torch.cat([image[0].cpu(), colors, confidence], 2))
    return rows
