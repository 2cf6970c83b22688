"""Fused depth gives back the surface it was drawn from."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from lyra_core.config.geometry import GeometryOptions
from lyra_core.formats.mesh import Mesh
from lyra_core.scene_geometry.floor import Floor
from lyra_core.scene_geometry.fusion import (
    TRUNCATION_SHARE,
    TRUNCATION_VOXELS,
    color_mesh,
    extract_mesh,
    fuse_views,
    simplify,
)
from lyra_core.scene_geometry.fusion_kernels import LEAST_FACING
from lyra_core.scene_geometry.ground_frame import GroundFrame
from lyra_core.scene_geometry.views import DepthViews, facing, surface_points, without_edges

BOX = np.array([-0.6, 0.4, 3.5]), np.array([0.5, 2.0, 4.5])


@pytest.fixture(scope="module")
def fused(scenes):
    """A floor 1.5 below the camera with a box on it, in a ground frame whose unit is half as long."""
    views = scenes.views([scenes.plane(scenes.up(0.0, 0.0), 1.5), scenes.box(*BOX)], scenes.path, most=8.0)
    views = replace(views, depth=without_edges(views.depth))
    floor = Floor(up=(0.0, -1.0, 0.0), camera_height=1.5, inliers=0.5, tilt_deg=0.0, spread_deg=0.0, rmse=0.0)
    frame = GroundFrame.on(floor, 2.0)
    return views, frame, fuse_views(views, frame, frame.to_ground(surface_points(views).xyz), 60_000)


def distance_to_scene(vertices: np.ndarray) -> np.ndarray:
    """From the floor z = 0 or the box, whichever is nearer; ground frame of `fused`."""
    low, high = (2.0 * np.array([BOX[k][0], BOX[k][2], 1.5 - BOX[1 - k][1]]) for k in (0, 1))
    center, half = (low + high) / 2, (high - low) / 2
    off = np.abs(vertices - center) - half
    outside = np.linalg.norm(np.maximum(off, 0.0), axis=1)
    return np.minimum(np.abs(vertices[:, 2]), outside + np.abs(np.minimum(off.max(1), 0.0)))


def test_the_volume_is_a_weighted_mean_of_truncated_distances(fused):
    """Against the same rule in plain numpy, at some voxels."""
    views, frame, volume = fused
    rng = np.random.default_rng(0)
    at = np.argwhere(volume.weights > 0)
    at = at[rng.permutation(len(at))[:300]]
    place = volume.origin + volume.voxel * at
    total, weight = np.zeros(len(at)), np.zeros(len(at))
    reach_least = TRUNCATION_VOXELS * volume.voxel
    squarely = facing(views).numpy()
    for depth, cosines, pose, K in zip(
        views.depth.numpy(), squarely, views.cameras.world_to_cam.numpy(), views.cameras.intrinsics.numpy(), strict=True
    ):
        camera = frame.camera(pose)
        local = place @ camera[:3, :3].T + camera[:3, 3]
        local = np.where(local[:, 2:] > 0, local, -1.0)  # behind the camera: outside the picture
        u, v = (local[:, :2] / local[:, 2:] * K[[0, 1], [0, 1]] + K[:2, 2]).T
        inside = (local[:, 2] > 0) & (u >= 0) & (v >= 0) & (u < depth.shape[1]) & (v < depth.shape[0])
        seen, cosine = np.zeros(len(at)), np.ones(len(at))
        seen[inside] = 2.0 * depth[v[inside].astype(int), u[inside].astype(int)]
        cosine[inside] = np.maximum(cosines[v[inside].astype(int), u[inside].astype(int)], LEAST_FACING)
        known = seen > 0
        along = (seen - local[:, 2]) * np.linalg.norm(local, axis=1) / local[:, 2]
        distance = np.where(known, cosine * along, 0.0)
        reach = np.maximum(reach_least, TRUNCATION_SHARE * cosine * seen)
        used = known & (distance >= -reach)
        trust = np.where(used, cosine / np.maximum(seen, 1e-9) ** 2, 0.0)
        total += trust * np.minimum(1.0, distance / reach)
        weight += trust
    found, wanted = volume.values[tuple(at.T)], total / np.maximum(weight, 1e-12)
    # The kernel interpolates depth within a surface: nearly all voxels agree closely, those at outlines less.
    assert np.quantile(np.abs(found - wanted), 0.8) < 0.12
    np.testing.assert_allclose(np.median(volume.weights[tuple(at.T)] / np.maximum(weight, 1e-12)), 1.0, atol=0.02)


def test_the_mesh_lies_on_the_scene_and_faces_the_cameras(fused):
    _, _, volume = fused
    mesh = extract_mesh(volume)
    error = distance_to_scene(mesh.vertices)
    assert np.quantile(error, 0.95) < 0.5 * volume.voxel
    corners = mesh.vertices[mesh.faces]
    normal = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    on_floor = np.abs(corners[:, :, 2]).max(1) < 0.2 * volume.voxel
    assert on_floor.sum() > 500
    assert (normal[on_floor, 2] > 0).mean() > 0.97
    assert mesh.faces.max() + 1 == len(mesh.vertices)


def test_a_floor_seen_from_low_above_has_no_cracks(scenes):
    """Rays meet it at 10 degrees and more; nothing is missing between its left and its right."""
    views = scenes.views([scenes.plane(scenes.up(0.0, 0.0), 0.8)], scenes.path, most=5.0)
    frame = GroundFrame.on(None, 1.0)
    points = frame.to_ground(surface_points(views).xyz)
    mesh = extract_mesh(fuse_views(views, frame, points, 100_000))
    assert np.quantile(np.abs(mesh.vertices[:, 2] + 0.8), 0.9) < 0.01
    cells = np.histogram2d(
        mesh.vertices[:, 1], mesh.vertices[:, 0], bins=[np.arange(1.8, 4.9, 0.2), np.arange(-4, 4, 0.2)]
    )
    for row in cells[0] > 0:
        across = np.nonzero(row)[0]
        assert len(across) >= 8
        assert row[across[0] : across[-1] + 1].all()


def test_a_simpler_mesh_is_the_same_surface(fused):
    _, _, volume = fused
    pytest.importorskip("fast_simplification")
    flat = extract_mesh(volume)
    rough = np.random.default_rng(0).normal(0, 0.1 * volume.voxel, flat.vertices.shape)
    mesh = replace(flat, vertices=flat.vertices + rough)
    small = simplify(mesh, 300)
    assert 100 < len(small) <= 320
    assert np.quantile(distance_to_scene(small.vertices), 0.9) < 2 * volume.voxel
    assert simplify(small, 1_000) == small


def test_vertices_have_the_colours_that_frames_show(fused, scenes):
    views, frame, volume = fused
    left = torch.zeros_like(views.color)
    left[:, :, :32, 0] = 1.0
    left[:, :, 32:, 2] = 1.0
    painted = DepthViews(depth=views.depth[:1], color=left[:1], cameras=views.cameras[:1])
    mesh = color_mesh(extract_mesh(volume), painted, frame)
    far_left, far_right = mesh.vertices[:, 0] < -0.5, mesh.vertices[:, 0] > 0.5
    known = np.abs(mesh.colors - 0.5).max(1) > 0.1
    assert known.mean() > 0.5
    assert mesh.colors[far_left & known].mean(0) == pytest.approx([1.0, 0.0, 0.0], abs=0.05)
    assert mesh.colors[far_right & known].mean(0) == pytest.approx([0.0, 0.0, 1.0], abs=0.05)


def test_crumbs_go_and_nothing_gives_nothing(scenes):
    crumb = scenes.box(np.array([1.0, -0.5, 3.0]), np.array([1.15, -0.4, 3.1]))
    views = scenes.views([scenes.plane(scenes.up(0.0, 0.0), 1.5), crumb], scenes.path, most=8.0)
    frame = GroundFrame.on(None, 1.0)
    points = frame.to_ground(surface_points(views).xyz)
    mesh = extract_mesh(fuse_views(views, frame, points, 60_000))
    assert mesh.vertices[:, 2].max() < -1.0
    empty = DepthViews(depth=torch.zeros_like(views.depth), color=views.color, cameras=views.cameras)
    assert extract_mesh(fuse_views(empty, frame, points, 10_000)) is None


def test_options_are_bounded():
    from lyra_core.errors import RecipeError

    for name, value in (("views", 0), ("cells", 1), ("radius", 0.5), ("max_floor_rmse_m", 0.0), ("mesh_voxels", 1)):
        with pytest.raises(RecipeError, match=name):
            GeometryOptions(**{name: value})
    assert len(Mesh(vertices=np.zeros((3, 3)), faces=np.array([[0, 1, 2]]))) == 1
