"""Cast rays into Gaussians: colour, surface distance and cover of each ray, by the same rule for every sensor.

Along a ray a Gaussian responds most at one point (Moenne-Loccoz et al. 2024, 3D Gaussian Ray Tracing, section 4.1);
Gaussians are composited in the order of these points along each single ray, not of their centres. Before, each is
blurred across the ray by the pitch of the rays, as the low-pass of the rasterisers does (Zwicker et al. 2001).

The surface of a ray lies where transmittance first falls to a half, at the responding point of the Gaussian that does
it: the median depth of 2D Gaussian Splatting (Huang et al. 2024, section 4.2). No mean is taken, so nothing floats
between an object and what is behind it. Where the ray ends in the dome (sky), or is never half covered, it has no
surface.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from lyra_core.gaussians.rasterize import EPS2D_PX2, ONE_LAUNCH_AT_A_TIME
from lyra_core.gaussians.rasterize_reference import sh_basis
from lyra_core.gaussians.render import require_drawable
from lyra_core.geometry.rotation import invert_rigid, quat_to_matrix
from lyra_core.sensors import cast_kernels as kernels
from lyra_core.sensors.rays import Rays
from lyra_core.values import CameraPath, Gaussians, Part

NO_PART = 255
EDGE_RATIO = 0.1  # neighbours whose distances differ more lie on two surfaces
_RAYS_A_CELL = 16  # along each side


@dataclass(frozen=True, slots=True, kw_only=True)
class Cast:
    """One capture: what the rays of a sensor meet.

    Attributes:
        color: sRGB over black. [h w 3] float32
        range: distance to the surface along the ray, world units; 0 where there is none. [h w] float32
        alpha: share of the ray that is covered, 0 to 1. [h w] float32
        part: the `Part` of the Gaussian at the surface, also of the dome; 255 where no half is covered. [h w] uint8
        rays: of the sensor.
        world_to_cam: its pose. [4 4] float64
    """

    color: Float[Tensor, "h w 3"]
    range: Float[Tensor, "h w"]
    alpha: Float[Tensor, "h w"]
    part: UInt8[Tensor, "h w"]
    rays: Rays
    world_to_cam: Float[Tensor, "4 4"]

    @property
    def depth(self) -> Float[Tensor, "h w"]:
        """z-depth, the distance along the forward axis, 0 where unknown; negative behind the sensor."""
        return (self.range.double() * self.rays.directions[..., 2]).float()

    def points(self) -> Float[Tensor, "h w 3"]:
        """Surface points in the sensor's frame, zeros where there is none."""
        return self.range.double()[..., None] * self.rays.directions

    def world_points(self) -> Float[Tensor, "h w 3"]:
        """Surface points in the world frame; of no meaning where `range` is 0."""
        pose = invert_rigid(self.world_to_cam)
        return self.points() @ pose[:3, :3].mT + pose[:3, 3]

    def normals(self) -> Float[Tensor, "h w 3"]:
        """Unit normals in the sensor's frame, towards the sensor, from the points of the four neighbouring rays.

        Zeros where one of them has no surface or lies on another one. Of the surface that the depth shows, not of
        single Gaussians, whose axes are no surface.
        """
        points, away = self.points(), self.range.double()
        right, down = points[1:-1, 2:] - points[1:-1, :-2], points[2:, 1:-1] - points[:-2, 1:-1]
        here = away[1:-1, 1:-1]
        whole = here > 0
        for neighbour in (away[1:-1, 2:], away[1:-1, :-2], away[2:, 1:-1], away[:-2, 1:-1]):
            whole = whole & (neighbour > 0) & ((neighbour - here).abs() < EDGE_RATIO * here)
        normal = torch.nn.functional.normalize(torch.linalg.cross(down, right), dim=-1)
        facing = (normal * points[1:-1, 1:-1]).sum(-1, keepdim=True)
        normal = torch.where(facing > 0, -normal, normal)
        found = torch.zeros_like(points)
        found[1:-1, 1:-1] = normal * whole[..., None]
        return found.float()


class Caster:
    """Gaussians made ready for rays from many places.

    Args:
        gaussians: world frame.
        parallel: use all threads of numba; False in processes that were forked, such as workers of a DataLoader.

    Raises:
        GaussiansError: there are none, or a value is not finite.
    """

    def __init__(self, gaussians: Gaussians, *, parallel: bool = True) -> None:
        require_drawable(gaussians)
        self._gaussians = gaussians.to("cpu")
        self._axes = quat_to_matrix(self._gaussians.quats.float())
        part = self._gaussians.part
        self._part = torch.zeros(len(gaussians), dtype=torch.uint8) if part is None else part
        self._parallel = parallel

    def capture(self, rays: Rays, world_to_cam: Float[Tensor, "4 4"]) -> Cast:
        """Cast the rays of a sensor that stands somewhere.

        Args:
            rays: of the sensor.
            world_to_cam: world to the sensor's frame, rigid. [4 4]
        """
        pose = world_to_cam.to(torch.float64)
        shape = rays.directions.shape[:2]
        flat = np.ascontiguousarray(rays.directions.reshape(-1, 3).float().numpy())
        cells = max(1, round(math.pi / 2 / (_RAYS_A_CELL * rays.pitch_rad)))
        cells = min(cells, 256)
        cell = kernels.cells_of_rays(flat, cells)
        ray_order = np.argsort(cell, kind="stable")[int((cell < 0).sum()) :]
        ray_starts = np.zeros(kernels.FACES * cells * cells + 1, np.int64)
        np.cumsum(np.bincount(cell[cell >= 0], minlength=len(ray_starts) - 1), out=ray_starts[1:])
        faces = ray_starts[:: cells * cells]
        splats, spans, order, kept = self._splats(rays.pitch_rad, pose, np.diff(faces) > 0, cells)
        starts, members = kernels.list_by_cell(spans, order, ray_starts, cells)
        color = np.zeros((len(flat), 3), np.float32)
        distance, cover = np.zeros((2, len(flat)), np.float32)
        hit = np.full(len(flat), -1, np.int32)
        run = kernels.cast_parallel if self._parallel else kernels.cast_serial
        with ONE_LAUNCH_AT_A_TIME:
            run(flat, ray_starts, ray_order, splats, starts, members, color, distance, cover, hit)
        index = torch.from_numpy(hit.astype(np.int64))
        part = torch.where(index >= 0, self._part[kept[index.clamp_min(0)]] if len(kept) else 0, NO_PART).byte()
        surface = torch.where(part == int(Part.DOME), 0.0, torch.from_numpy(distance))
        return Cast(
            color=torch.from_numpy(color).clamp_(0.0, 1.0).reshape(*shape, 3),
            range=surface.reshape(shape),
            alpha=torch.from_numpy(cover).reshape(shape),
            part=part.reshape(shape),
            rays=rays,
            world_to_cam=pose,
        )

    def sweep(self, rays: Rays, path: CameraPath) -> Iterator[Cast]:
        """One capture for each pose of a path, whatever the lenses of its cameras."""
        for pose in path.world_to_cam:
            yield self.capture(rays, pose)

    def _splats(
        self, pitch_rad: float, pose: Tensor, has_rays: np.ndarray, cells: int
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, Tensor]:
        """Rows for the kernels, their cells, their order, and which Gaussians they are."""
        source, rotation = self._gaussians, pose[:3, :3].float()
        means = (source.means.double() @ pose[:3, :3].mT + pose[:3, 3]).float()
        distance = means.norm(dim=1)
        turned = self._axes.mT @ rotation.mT  # sensor frame to own axes
        blurred = blurred_scales(source.scales, distance, pitch_rad)
        limit = 2.0 * torch.log(255.0 * source.opacities.clamp_min(1e-12))
        size = limit.clamp_min(0.0).sqrt() * blurred.amax(1)
        covariance = (turned.mT * (blurred * blurred)[:, None, :]) @ turned
        upper = torch.stack([covariance[:, i, j] for i, j in ((0, 0), (0, 1), (0, 2), (1, 1), (1, 2), (2, 2))], 1)
        visible = (limit > 0).nonzero()[:, 0]
        spans = kernels.bound_splats(
            means[visible].numpy(), upper[visible].numpy(), limit[visible].numpy(), size[visible].numpy(),
            has_rays, cells,
        )  # fmt: skip
        seen = torch.from_numpy((spans[:, :, 1] > spans[:, :, 0]).any(1))
        kept, spans = visible[seen], spans[seen.numpy()]
        near = (distance - size)[kept].clamp_min(0.0)
        order = torch.argsort(near, stable=True).numpy()
        basis = sh_basis(
            torch.nn.functional.normalize(source.means[kept].double() - invert_rigid(pose)[:3, 3], dim=1),
            source.sh_degree,
        )
        color = (0.5 + torch.einsum("nk,nkc->nc", basis, source.sh[kept].double())).clamp_min(0.0)
        axes = turned[kept]
        rows = torch.cat(
            [
                axes.flatten(1),
                -(axes @ means[kept, :, None])[..., 0],
                1.0 / blurred[kept],
                1.0 / source.scales[kept].clamp_min(1e-9),
                torch.stack([limit[kept], source.opacities[kept]], 1),
                color.float(),
                torch.stack([near, (distance + size)[kept], torch.zeros_like(near)], 1),
            ],
            1,
        )
        return np.ascontiguousarray(rows.numpy()), spans, order, kept


def blurred_scales(
    scales: Float[Tensor, "n 3"], distance: Float[Tensor, " n"], pitch_rad: float
) -> Float[Tensor, "n 3"]:
    """Standard deviations of Gaussians after the low-pass of rays that are `pitch_rad` apart, world units."""
    return torch.sqrt(scales * scales + EPS2D_PX2 * (pitch_rad * distance[:, None]) ** 2)
