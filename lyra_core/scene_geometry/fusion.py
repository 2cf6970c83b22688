"""One surface from the depth of several frames: a volume of signed distances and its zero level as triangles.

    depth views --fuse--> volume of truncated signed distances --marching cubes--> visual mesh --simplify--> collider

Depth is fused in the ground frame. Only what was seen becomes surface: the mesh is open where nothing was looked at.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float, Int

from lyra_core.extras import require
from lyra_core.formats.mesh import Mesh
from lyra_core.jit import kernel_threads
from lyra_core.scene_geometry import fusion_kernels
from lyra_core.scene_geometry.ground_frame import GroundFrame
from lyra_core.scene_geometry.views import DepthViews, facing

TRUNCATION_VOXELS = 3.0
TRUNCATION_SHARE = 0.02  # of depth: what estimated depth is wrong by between frames
BORDER_VOXELS = 4
OUTLIER_SHARE = 0.005  # of points at either end of each axis, which do not widen the volume
KEPT_COMPONENT = 0.01  # of the triangles of the largest component: smaller ones are crumbs
VISIBLE_SHARE = 0.03  # of depth within which a vertex is what a frame shows


@dataclass(frozen=True, slots=True, kw_only=True)
class Volume:
    """Truncated signed distances on a regular grid, in the ground frame.

    Attributes:
        values: -1 (behind) to 1 (in front of) the surface; 1 where nothing was seen. [x y z] float32
        weights: 0 where nothing was seen. [x y z] float32
        origin: place of value (0, 0, 0). [3] float64
        voxel: distance between values.
    """

    values: Float[np.ndarray, "x y z"]
    weights: Float[np.ndarray, "x y z"]
    origin: Float[np.ndarray, " 3"]
    voxel: float


def fuse_views(views: DepthViews, frame: GroundFrame, points: Float[np.ndarray, "n 3"], max_voxels: int) -> Volume:
    """All views in one volume around some points.

    Args:
        views: drawn frames.
        frame: the ground frame, in whose unit the volume is.
        points: what the volume must hold, ground frame, at least one.
        max_voxels: how many values the volume has at most, about.
    """
    low, high = np.quantile(points, [OUTLIER_SHARE, 1.0 - OUTLIER_SHARE], axis=0)
    extent = np.maximum(high - low, 1e-3 * float((high - low).max()) + 1e-9)
    voxel = float((np.prod(extent + 0.05 * extent.max()) / max_voxels) ** (1.0 / 3.0))
    origin = low - BORDER_VOXELS * voxel
    shape = np.ceil((high - low) / voxel).astype(int) + 2 * BORDER_VOXELS + 1
    values, weights = np.ones(shape, np.float32), np.zeros(shape, np.float32)
    depth = np.ascontiguousarray(views.depth.double().numpy() * frame.scale)
    lenses = views.cameras.intrinsics[:, [0, 1, 0, 1], [0, 1, 2, 2]].numpy()
    poses = np.stack([frame.camera(pose) for pose in views.cameras.world_to_cam.numpy()])
    with kernel_threads():
        fusion_kernels.fuse(
            depth,
            np.ascontiguousarray(facing(views).double().numpy()),
            poses,
            np.ascontiguousarray(lenses),
            origin,
            voxel,
            TRUNCATION_VOXELS * voxel,
            TRUNCATION_SHARE,
            values,
            weights,
        )
    return Volume(values=values, weights=weights, origin=origin, voxel=voxel)


def extract_mesh(volume: Volume) -> Mesh | None:
    """The zero level of what was seen, without crumbs; None where there is none.

    Raises:
        MissingExtraError: scikit-image is not installed.
    """
    require("skimage", "making meshes", "geometry")
    from skimage.measure import marching_cubes

    if not (volume.values.min() < 0.0 < volume.values.max()):
        return None
    vertices, faces, _, _ = marching_cubes(volume.values, 0.0)
    # Between seen and unseen values the level is an artefact: triangles keep to edges whose both ends were seen.
    low, high = np.floor(vertices).astype(int), np.ceil(vertices).astype(int)
    seen = (volume.weights[tuple(low.T)] > 0) & (volume.weights[tuple(high.T)] > 0)
    faces = faces[seen[faces].all(1)].astype(np.int64)
    if len(faces) == 0:
        return None
    labels = fusion_kernels.components(faces, len(vertices))
    _, label, counts = np.unique(labels, return_inverse=True, return_counts=True)
    faces = faces[counts[label] >= KEPT_COMPONENT * counts.max()]
    return _compact(volume.origin + volume.voxel * vertices.astype(np.float64), faces)


def simplify(mesh: Mesh, max_faces: int) -> Mesh:
    """The same surface in about so many triangles at most, by quadric error (Garland and Heckbert 1997).

    Surfaces of worlds are rough; one that is flat to the last digit keeps more, for its slivers cannot be told apart.

    Raises:
        MissingExtraError: fast-simplification is not installed.
    """
    if len(mesh) <= max_faces:
        return replace(mesh, colors=None)
    require("fast_simplification", "simplifying meshes", "geometry")
    import fast_simplification

    vertices, faces = fast_simplification.simplify(
        mesh.vertices.astype(np.float32), mesh.faces.astype(np.int32), target_reduction=1.0 - max_faces / len(mesh)
    )
    return _compact(np.asarray(vertices, np.float64), np.asarray(faces, np.int64))


def color_mesh(mesh: Mesh, views: DepthViews, frame: GroundFrame) -> Mesh:
    """The mesh with the mean colour of the frames that show each vertex, near ones counting more; grey elsewhere."""
    total, weight = np.zeros((len(mesh.vertices), 3)), np.full(len(mesh.vertices), 1e-12)
    height, width = views.depth.shape[1:]
    for depth, color, pose, K in zip(
        views.depth.numpy(),
        views.color.numpy(),
        views.cameras.world_to_cam.numpy(),
        views.cameras.intrinsics.numpy(),
        strict=True,
    ):
        camera = frame.camera(pose)
        local = mesh.vertices @ camera[:3, :3].T + camera[:3, 3]
        z = local[:, 2]
        ahead = z > 0
        pixel = np.full((len(z), 2), -1.0)
        pixel[ahead] = local[ahead, :2] / z[ahead, None] * K[[0, 1], [0, 1]] + K[:2, 2]
        column, row = np.floor(pixel).astype(int).T
        inside = ahead & (column >= 0) & (column < width) & (row >= 0) & (row < height)
        at = np.nonzero(inside)[0]
        seen = depth[row[at], column[at]] * frame.scale
        at = at[np.abs(seen - z[at]) < VISIBLE_SHARE * seen]
        trust = 1.0 / z[at] ** 2
        total[at] += trust[:, None] * color[row[at], column[at]]
        weight[at] += trust
    colors = np.where(weight[:, None] > 1e-11, total / weight[:, None], 0.5)
    return replace(mesh, colors=colors)


def _compact(vertices: Float[np.ndarray, "v 3"], faces: Int[np.ndarray, "f 3"]) -> Mesh:
    """Without vertices that no face uses."""
    used, flat = np.unique(faces, return_inverse=True)
    return Mesh(vertices=vertices[used], faces=flat.reshape(-1, 3).astype(np.int64))
