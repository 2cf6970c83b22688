"""Remembers what every generated frame saw, as points in space, and finds the frames that saw what comes next.

Retrieval is greedy maximum coverage (Nemhauser, Wolsey and Fisher 1978) of the target view's cells by z-buffered
projections of the stored points; the retrieved frames enter the video model as extra context. Points are kept on a grid
of every fourth pixel. Pixel coordinates are integers at pixel centres here, as the released weights were trained (see
lyra_core.geometry.warp).

Legend: n stored frames, v query views, h w pixels of the stored images, r c rows and columns of the memory's grid.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from lyra_core.config.rollout import REFERENCE_MEMORY, MemoryConfig
from lyra_core.errors import FrameError
from lyra_core.geometry.warp import EPSILON, project_integer, unproject_integer
from lyra_core.native import CHUNK_FRAMES

INITIAL_CAPACITY = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredView:
    """One remembered frame at full resolution.

    Attributes:
        frame_id: number of the video frame, or negative for a photograph that is no frame of the video.
        depth_m: z-depth, 0 where unknown. [h w] float32
        world_to_cam: [4 4] float32
        intrinsics: pixels, integer centres. [3 3] float32
        image: sRGB of a photograph; None for frames of the video, whose pixels the video holds. [h w 3]
    """

    frame_id: int
    depth_m: Float[Tensor, "h w"]
    world_to_cam: Float[Tensor, "4 4"]
    intrinsics: Float[Tensor, "3 3"]
    image: UInt8[Tensor, "h w 3"] | None = None


def query_offsets(num_cameras: int, chunk_frames: int = CHUNK_FRAMES) -> list[int]:
    """Positions in a chunk of the cameras that ask: the last one, or several spread over the chunk up to the last."""
    return [int(x) for x in torch.linspace(0, chunk_frames - 1, num_cameras + 1, dtype=torch.float64)[1:]]


class SpatialMemory:
    """Frames of one world, added as they are generated.

    Points live in one array that doubles when full, so adding a frame costs the frame alone.
    """

    def __init__(
        self,
        image_height: int,
        image_width: int,
        config: MemoryConfig = REFERENCE_MEMORY,
        device: torch.device | str = "cpu",
    ) -> None:
        self.config = config
        self.image_size = (image_height, image_width)
        self.grid_size = (
            math.ceil(image_height / config.downsample),
            math.ceil(image_width / config.downsample),
        )
        self._points = torch.empty(INITIAL_CAPACITY, 3, *self.grid_size, device=device)
        self._valid = torch.empty(INITIAL_CAPACITY, *self.grid_size, dtype=torch.bool, device=device)
        self._views: dict[int, StoredView] = {}

    def __len__(self) -> int:
        return len(self._views)

    def __contains__(self, frame_id: int) -> bool:
        return frame_id in self._views

    @property
    def frame_ids(self) -> tuple[int, ...]:
        """Ids in the order in which frames were added."""
        return tuple(self._views)

    @property
    def points(self) -> Float[Tensor, "n r c 3"]:
        """World points of all frames; those without depth are at the origin."""
        return self._points[: len(self)].movedim(1, -1)

    def view(self, frame_id: int) -> StoredView:
        """One remembered frame.

        Raises:
            FrameError: it is not remembered.
        """
        if frame_id not in self._views:
            raise FrameError(f"frame {frame_id} is not in the memory, which holds {list(self._views)}")
        return self._views[frame_id]

    def add(
        self,
        frame_ids: Sequence[int],
        depth_m: Float[Tensor, "k h w"],
        world_to_cam: Float[Tensor, "k 4 4"],
        intrinsics: Float[Tensor, "k 3 3"],
        images: UInt8[Tensor, "k h w 3"] | None = None,
    ) -> None:
        """Remember frames.

        Args:
            frame_ids: numbers of video frames; negative for photographs that are not frames of the video.
            depth_m: z-depth, 0 where unknown, metres.
            world_to_cam: rigid transforms.
            intrinsics: pixels, integer centres.
            images: needed for photographs.

        Raises:
            FrameError: a frame is already remembered, sizes differ, or a photograph comes without its image.
        """
        self._require_addable(frame_ids, depth_m, images)
        step = self.config.downsample
        device = self._points.device
        scale = torch.tensor([1.0 / step, 1.0 / step, 1.0], device=device)[:, None]
        depth, w2c, K = (t.to(device, torch.float32) for t in (depth_m, world_to_cam, intrinsics))
        grid_depth = depth[:, ::step, ::step]
        start, stop = len(self), len(self) + len(frame_ids)
        self._grow(stop)
        self._points[start:stop] = unproject_integer(grid_depth, w2c, K * scale).movedim(-1, 1)
        self._valid[start:stop] = grid_depth > 0
        for i, frame_id in enumerate(frame_ids):
            self._views[frame_id] = StoredView(
                frame_id=frame_id,
                depth_m=depth[i].clone(),
                world_to_cam=w2c[i].clone(),
                intrinsics=K[i].clone(),
                image=None if images is None else images[i].clone(),
            )

    def retrieve(
        self,
        world_to_cam: Float[Tensor, "v 4 4"],
        intrinsics: Float[Tensor, "v 3 3"],
        backend: Literal["auto", "numba", "torch"] = "auto",
    ) -> tuple[int, ...]:
        """Frames that together cover most of what the query cameras will see, the best one last.

        The most recent frame of a video that has begun is never returned: it reaches the model by the warp of the last
        frame, so what it covers counts as covered from the start.

        Args:
            world_to_cam: query cameras.
            intrinsics: theirs, of the stored images' size.
            backend: "numba" (CPU), "torch" (any device), or chosen by the memory's device.
        """
        if not len(self):
            return ()
        seen = self._coverage(world_to_cam, intrinsics, backend).flatten(1)
        ids = list(self._views)
        closed = torch.zeros(len(ids), dtype=torch.bool)
        covered = torch.zeros(seen.shape[1], dtype=torch.uint8, device=seen.device)
        if max(ids) > 0:
            newest = ids.index(max(ids))
            closed[newest] = True
            covered |= seen[newest]
        chosen: list[int] = []
        for _ in range(self.config.num_retrieved):
            gains = _new_cells(seen, covered, backend)
            gains[closed] = -1
            best = int(gains.argmax())  # the first of equals, on every device: gains are on the CPU
            if gains[best] <= 0:
                break
            chosen.append(best)
            closed[best] = True
            covered |= seen[best]
        return tuple(ids[i] for i in reversed(chosen))

    def _require_addable(self, frame_ids: Sequence[int], depth_m: Tensor, images: Tensor | None) -> None:
        if tuple(depth_m.shape) != (len(frame_ids), *self.image_size):
            raise FrameError(
                f"the memory keeps {self.image_size[1]}x{self.image_size[0]} images: wanted depth "
                f"{(len(frame_ids), *self.image_size)} for {len(frame_ids)} frames, found {tuple(depth_m.shape)}"
            )
        known = sorted({i for i in frame_ids if i in self._views or list(frame_ids).count(i) > 1})
        if known:
            raise FrameError(f"frames {known} are in the memory already; each frame is added once")
        if images is None and min(frame_ids, default=0) < 0:
            raise FrameError(f"photographs (negative ids) need their images, found none for {list(frame_ids)}")

    def _grow(self, wanted: int) -> None:
        capacity = self._points.shape[0]
        if wanted <= capacity:
            return
        more = max(wanted, 2 * capacity) - capacity
        self._points = torch.cat([self._points, self._points.new_empty(more, 3, *self.grid_size)])
        self._valid = torch.cat([self._valid, self._valid.new_empty(more, *self.grid_size)])

    def _queries(self, world_to_cam: Tensor, intrinsics: Tensor) -> tuple[Tensor, Tensor]:
        device = self._points.device
        scale = torch.tensor([1.0 / self.config.downsample] * 2 + [1.0], device=device)[:, None]
        return world_to_cam.to(device, torch.float32), intrinsics.to(device, torch.float32) * scale

    def _projectable(self) -> Bool[Tensor, "n r c"]:
        valid = self._valid[: len(self)]
        return torch.ones_like(valid) if self.config.invalid_at_origin else valid

    def _limit(self, nearest: Tensor) -> Tensor:
        """The largest depth that still counts as the visible surface."""
        relative, absolute = (
            self.config.occlusion_tolerance_relative,
            self.config.occlusion_tolerance_m,
        )
        return nearest * (1.0 + relative) + absolute if relative else nearest + absolute

    def _project(self, world_to_cam: Tensor, intrinsics: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Plain path: z-buffers [v q+1], cells [v n p] (q where outside) and depths [v n p]."""
        w2c, K = self._queries(world_to_cam, intrinsics)
        rows, columns = self.grid_size
        views, frames = w2c.shape[0], len(self)
        image = project_integer(self.points[None], w2c[:, None], K[:, None])
        depth = image[..., 2]
        column = torch.round(image[..., 0] / (depth + EPSILON))
        row = torch.round(image[..., 1] / (depth + EPSILON))
        inside = (depth > 0) & (column >= 0) & (row >= 0) & (column < columns) & (row < rows) & self._projectable()
        outside = torch.full_like(depth, rows * columns)
        cells = torch.where(inside, row * columns + column, outside).to(torch.int64).view(views, frames, -1)
        depth = depth.reshape(views, frames, -1)
        nearest = depth.new_full((views, rows * columns + 1), float("inf"))
        nearest = nearest.scatter_reduce(1, cells.flatten(1), depth.flatten(1), "amin")
        return nearest, cells, depth

    def _coverage(self, world_to_cam: Tensor, intrinsics: Tensor, backend: str) -> Tensor:
        """Cells of each view that each frame shows on the visible surface. [n v q] uint8"""
        if backend == "torch" or (backend == "auto" and self._points.device.type != "cpu"):
            nearest, cells, depth = self._project(world_to_cam, intrinsics)
            visible = (depth <= _at(self._limit(nearest), cells)).to(torch.uint8)
            seen = visible.new_zeros(*cells.shape[:2], nearest.shape[1])
            return seen.scatter_reduce(2, cells, visible, "amax")[..., :-1].transpose(0, 1).contiguous()
        return self._coverage_numba(world_to_cam, intrinsics)

    def _coverage_numba(self, world_to_cam: Tensor, intrinsics: Tensor) -> Tensor:
        from lyra_core.jit import kernel_threads
        from lyra_core.video.memory_kernels import coverage, nearest_depth

        w2c, K = (t.contiguous().numpy() for t in self._queries(world_to_cam, intrinsics))
        rows, columns = self.grid_size
        points = self._points[: len(self)].flatten(2).numpy()
        valid = self._projectable().view(len(self), -1).numpy()
        seen = torch.zeros(len(self), w2c.shape[0], rows * columns, dtype=torch.uint8)
        with kernel_threads() as threads:
            blocks = torch.full((threads, w2c.shape[0], rows * columns), float("inf"))
            nearest_depth(points, valid, w2c, K, rows, columns, blocks.numpy())
            limit = self._limit(blocks.amin(0))
            coverage(points, valid, w2c, K, rows, columns, limit.numpy(), seen.numpy())
        return seen


def _at(per_cell: Tensor, cells: Tensor) -> Tensor:
    """Values of a [v q+1] map at cells [v n p]."""
    return per_cell.gather(1, cells.flatten(1)).view(cells.shape)


def _new_cells(seen: Tensor, covered: Tensor, backend: str) -> Tensor:
    """Cells each frame would newly cover, on the CPU. [n] int64"""
    if backend == "torch" or (backend == "auto" and seen.device.type != "cpu"):
        return (seen & (1 - covered)).sum(1, dtype=torch.int64).cpu()
    from lyra_core.jit import kernel_threads
    from lyra_core.video.memory_kernels import new_cells

    gains = torch.zeros(seen.shape[0], dtype=torch.int64)
    with kernel_threads():
        new_cells(seen.numpy(), covered.numpy(), gains.numpy())
    return gains
