"""What has been seen so far, seen again from other cameras: a depth video that steers, or pixels that are put in.

Frames are remembered with the cameras that were found in them, not with those that were asked for.

Legend: k remembered frames, t target cameras, h w pixels, n y x latents.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor
from torch.nn import functional

from lyra_core.config.cosmos import LATENT_FRAMES
from lyra_core.config.rollout import CORRECTED_MEMORY, CORRECTED_WARP
from lyra_core.cosmos.pipeline import Known
from lyra_core.geometry.warp import Warp, WarpSource, forward_warp
from lyra_core.layered_depth.inpaint import push_pull
from lyra_core.values import CameraPath
from lyra_core.video.memory import SpatialMemory

CELL_PX = 16


class SceneMemory:
    """Frames of one world with depth and cameras."""

    def __init__(self, height: int, width: int) -> None:
        self._views = SpatialMemory(height, width, CORRECTED_MEMORY)
        self._frames: dict[int, Tensor] = {}

    def add(
        self,
        ids: list[int],
        frames: UInt8[Tensor, "k h w 3"],
        depth_m: Float[Tensor, "k h w"],
        cameras: CameraPath,
    ) -> None:
        """Remember frames; depth is 0 where unknown."""
        self._views.add(ids, depth_m, cameras.world_to_cam.float(), cameras.intrinsics.float())
        self._frames |= dict(zip(ids, frames, strict=True))

    def depth_along(self, cameras: CameraPath) -> Float[Tensor, "t h w"]:
        """Remembered depth seen from cameras, metres, 0 in holes."""
        return self._warp(cameras, has_color=False).depth_m

    def known_along(self, cameras: CameraPath, erosion: int) -> Known:
        """Remembered pixels seen from the cameras of a window, and the latent cells that they cover throughout.

        Args:
            cameras: 1 + 4 k of them, as a window has frames.
            erosion: cells next to uncovered ones that are left out too.
        """
        warp = self._warp(cameras, has_color=True)
        color = torch.stack([push_pull(c, mask) for c, mask in zip(warp.values, warp.mask, strict=True)])
        frames = ((color + 1.0) * 127.5).round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).contiguous()
        return Known(frames=frames, cells=covered_cells(warp.mask, erosion))

    def _warp(self, cameras: CameraPath, *, has_color: bool) -> Warp:
        views = [self._views.view(i) for i in self._ids_for(cameras)]
        depth = torch.stack([view.depth_m for view in views])[None]
        if has_color:
            shown = torch.stack([self._frames[view.frame_id] for view in views])
            values = shown.permute(0, 3, 1, 2)[None].float() / 127.5 - 1.0
        else:
            values = depth.new_zeros(1, len(views), 0, *depth.shape[2:])
        source = WarpSource(
            values=values,
            depth_m=depth,
            world_to_cam=torch.stack([view.world_to_cam for view in views])[None],
            intrinsics=torch.stack([view.intrinsics for view in views])[None],
        )
        return forward_warp(source, cameras.world_to_cam.float(), cameras.intrinsics.float(), CORRECTED_WARP)

    def _ids_for(self, cameras: CameraPath) -> list[int]:
        """Frames that show most of what the cameras will see, and the newest."""
        asking = cameras[[0, len(cameras) // 2, len(cameras) - 1]]
        found = set(self._views.retrieve(asking.world_to_cam.float(), asking.intrinsics.float()))
        return sorted(found | {max(self._views.frame_ids)})


def covered_cells(mask: Bool[Tensor, "t h w"], erosion: int) -> Bool[Tensor, "n y x"]:
    """Latent cells (4 frames of 16x16 pixels; the first latent holds one frame) that are covered throughout."""
    open_cells = functional.max_pool2d((~mask)[:, None].float(), CELL_PX)[:, 0]
    first, rest = open_cells[:1], open_cells[1:]
    rest = rest.reshape(-1, LATENT_FRAMES, *rest.shape[1:]).amax(1)
    holes = torch.cat([first, rest])
    if erosion:
        holes = functional.max_pool2d(holes[:, None], 1 + 2 * erosion, stride=1, padding=erosion)[:, 0]
    return holes == 0


def depth_range(depth_m: Float[Tensor, "h w"]) -> tuple[float, float]:
    """Least and largest inverse depth of a photograph, 1/m: what is black and what is white in a depth video.

    Of the photograph and not of the path: a longer path must not change the chunks it begins with.
    """
    inverse = 1.0 / depth_m[depth_m > 0]
    return (float(inverse.min()), float(inverse.max())) if len(inverse) else (0.0, 1.0)


def depth_video(depth_m: Float[Tensor, "t h w"], limits: tuple[float, float]) -> UInt8[Tensor, "t h w"]:
    """Inverse depth in grey, near bright, holes filled smoothly; the same grey means the same depth in all chunks."""
    known = depth_m > 0
    inverse = torch.where(known, 1.0 / depth_m.clamp(min=1e-6), torch.zeros_like(depth_m))
    filled = torch.stack([push_pull(i[None], mask)[0] for i, mask in zip(inverse, known, strict=True)])
    least, largest = limits
    grey = (filled - least) / max(largest - least, 1e-9)
    return (grey * 255).round().clamp(0, 255).to(torch.uint8)
